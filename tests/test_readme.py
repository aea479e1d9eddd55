"""Every path, command and link in README.md and docs/ exists."""

import re
from pathlib import Path

import pytest
import yaml

from connectors.specs import parse_source
from platform_assets.cli.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
CODE = [
    path
    for folder in ("connectors", "platform_assets", "demo", "dbt_project")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".yml", ".yaml", ".sql", ".md") and "target" not in path.parts
]
TOPS = ("connectors", "platform_assets", "demo", "dbt_project", "tests")
MADE_LATER = re.compile(
    r"\.venv(/bin(/(headwater|activate|dg))?)?|\.env|\.headwater(/.*)?|(postgres|dagster)/.*|.*\bshop\b.*"
)
"""What set-up or a run makes, and the files of `shop`, the source that the pages take for an example."""


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def code_of(text: str) -> list[str]:
    """What stands in back quotes, and every line of a fenced shell block without its comment."""
    fenced = [
        line.split("#")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [word for word in [*fenced, *inline] if word]


def missing_in(text: str, folder: Path) -> list[str]:
    """Everything that the text names and that does not exist."""
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    return [
        *(words for words in code_of(text) if is_unknown(*words.split())),
        *(target for target in links if "://" not in target and not (folder / target).is_file()),
    ]


def is_unknown(first: str, *rest: str) -> bool:
    """A make target, a command of ours, or a path that does not exist; anything else is not ours to know."""
    if first == "make" and rest:
        return rest[0] not in make_targets()
    if first == "headwater" and rest and not rest[0].startswith(("-", "<")):
        return rest[0] not in {entry.name for entry in COMMANDS}
    return not rest and is_path(first) and not MADE_LATER.fullmatch(first.rstrip("/")) and not exists(first)


def is_path(word: str) -> bool:
    """`a/b`, or a file or folder of the root; names with a placeholder count up to it."""
    return bool(re.fullmatch(r"[\w.<>-]+(/[\w.<>*-]+)+/?|[\w-]+\.(md|toml|yaml|lock)|\.env\S*|uv\.lock", word))


def exists(word: str) -> bool:
    """A file, or a folder with a file in it: git keeps no other. From the root, or from the folder it stands in."""
    known, placeholder, _ = word.partition("<")
    path = (known.rpartition("/")[0] if placeholder else known).rstrip("/")
    if not path:
        return True
    found = [*ROOT.glob(path), *(inner for top in TOPS for inner in (ROOT / top).rglob(path))]
    return any(item.is_file() or any(inner.is_file() for inner in item.rglob("*")) for item in found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_everything_that_a_page_names_exists(page: Path) -> None:
    assert missing_in(page.read_text(encoding="utf-8"), page.parent) == []


def test_the_readme_opens_with_the_three_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test", "make ui"]


def test_the_sources_of_the_readme_are_valid() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert [parse_source(document["attributes"], "README.md").source for document in found] == ["shop"]


def test_ci_runs_the_test_command_of_the_readme_and_then_the_suites_of_others() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").strip().splitlines()
    assert lines[-4:] == ["make lint", "make types", "make test", "HEADWATER_REQUIRE_INDEX=1 make conformance"]


def test_the_files_of_the_conformance_suites_exist() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = re.findall(r"tests/\w+/\w+\.py", text[text.index("CONFORMANCE =") : text.index("conformance: setup")])
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_command_that_a_message_names_exists() -> None:
    known = {entry.name for entry in COMMANDS}
    named = {
        (command, path.relative_to(ROOT).as_posix())
        for path in CODE
        for command in re.findall(r"`headwater ([a-z]+)", path.read_text(encoding="utf-8"))
    }
    assert sorted(item for item in named if item[0] not in known) == []


def test_every_page_that_a_message_names_exists() -> None:
    named = {
        (page, path.relative_to(ROOT).as_posix())
        for path in CODE
        for page in re.findall(r"docs/[a-z_/-]+\.(?:md|svg|png)", path.read_text(encoding="utf-8"))
    }
    assert sorted(item for item in named if not (ROOT / item[0]).exists()) == []


@pytest.mark.parametrize(
    "text",
    [
        "`make nonsense`",
        "`headwater nonsense`",
        "```sh\nmake nonsense  # later\n```",
        "`connectors/nowhere.py`",
        "`connectors/nowhere/<kind>.py`",
        "[a page](docs/nowhere.md)",
        "`nowhere.yaml`",
    ],
)
def test_what_does_not_exist_is_seen(text: str) -> None:
    assert len(missing_in(text, ROOT)) == 1
