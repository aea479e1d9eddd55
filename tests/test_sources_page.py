"""docs/sources.md names every key of a source file with its default, docs/<kind>.md a kind's; every example parses."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from connectors import specs
from connectors.registry import KINDS, kind
from connectors.specs import SourceSpec, parse_source
from platform_assets.checks.registry import check_types, refuse_wrong_checks

DOCS = Path(__file__).parent.parent / "docs"
SECTIONS: dict[str, type[BaseModel]] = {
    "A source": specs.SourceSpec,
    "Policy": specs.Policy,
    "Freshness": specs.FreshnessSpec,
    "Drift": specs.DriftSpec,
    "Window": specs.WindowSpec,
    "max_quarantined": specs.QuarantineSpec,
    "Limits": specs.LimitSpec,
    "A stream": specs.StreamSpec,
    "Cursor": specs.CursorSpec,
    "Partitions": specs.PartitionSpec,
    "Backfill": specs.BackfillSpec,
    "Corrections": specs.CorrectionsSpec,
    "Webhook gaps": specs.WebhookGapsSpec,
    "Columns": specs.ColumnSpec,
}
"""Heading in docs/sources.md and the model that it documents."""
ELSEWHERE = {specs.Spec, specs.ConnectorSpec, specs.CheckSpec}
"""The base, and what the pages of the kinds and docs/checks.md document."""


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    """Text below a heading, up to the next heading of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def rows(text: str) -> dict[str, list[str]]:
    """Each table row that opens with one key in back quotes, by that key."""
    lines = [line for line in text.splitlines() if re.match(r"\| `\w+` \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {line[0].strip("`| "): line[1:] for line in cells}


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Without what a stream has from the policy, which has a table of its own."""
    inherited = specs.Policy.model_fields if model is specs.StreamSpec else {}
    return {name: field for name, field in model.model_fields.items() if name not in inherited}


def duration(value: timedelta) -> str:
    seconds = int(value.total_seconds())
    if seconds and seconds % 86_400 == 0:
        return f"P{seconds // 86_400}D"
    return f"PT{seconds // 3600}H" if seconds and seconds % 3600 == 0 else f"PT{seconds}S"


def shown(field: FieldInfo) -> set[str]:
    """The words that may stand for a default; an empty set is one that the page explains in words."""
    match default := field.default:
        case _ if field.is_required():
            return {"required"}
        case bool():
            return {str(default).lower()}
        case int() | float():
            return {str(default)}
        case timedelta():
            return {duration(default)}
        case str() if default:
            return {default, f"`{default}`"}
        case _:
            return set()


def test_every_model_of_a_source_file_has_its_section() -> None:
    models = {item for item in vars(specs).values() if isinstance(item, type) and issubclass(item, specs.Spec)}
    assert models - ELSEWHERE == set(SECTIONS.values())


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_named_once_and_no_other(heading: str) -> None:
    assert sorted(rows(section(page("sources.md"), heading))) == sorted(own_fields(SECTIONS[heading]))


@pytest.mark.parametrize("heading", [name for name in SECTIONS if name != "Drift"])
def test_every_default_is_the_models_own(heading: str) -> None:
    table = rows(section(page("sources.md"), heading))
    said = {name: re.split(r"[ (]", table[name][1])[0] for name in own_fields(SECTIONS[heading]) if name in table}
    wrong = {
        name: (said[name], expected)
        for name, field in own_fields(SECTIONS[heading]).items()
        if (expected := shown(field)) and said.get(name) not in expected
    }
    assert wrong == {}


def test_the_drift_defaults_are_marked() -> None:
    text = section(page("sources.md"), "Drift")
    marked: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if found := re.match(r"\| (?:`(\w+)`)? ?\| `(\w+)` \| (yes)? ?\|", line):
            key = found[1] or key
            if found[3]:
                marked[key] = found[2]
    assert marked == {name: field.default for name, field in specs.DriftSpec.model_fields.items()}


@pytest.mark.parametrize("name", KINDS)
def test_every_key_of_a_kind_is_named_on_its_page(name: str) -> None:
    entry = kind(name)
    words = set(re.findall(r"[\w]+", " ".join(re.findall(r"`([^`\n]+)`", page(f"{name}.md")))))
    own = [
        *(field.alias or key for key, field in entry.connector.model_fields.items() if key != "kind"),
        *(
            field.alias or key
            for key, field in entry.stream.model_fields.items()
            if key not in specs.StreamSpec.model_fields
        ),
    ]
    assert [key for key in own if key not in words] == []


def test_every_check_and_each_of_its_options_is_named() -> None:
    text = page("checks.md")
    for entry in check_types().values():
        part = section(text, entry.name)
        assert part, f"docs/checks.md has no section {entry.name}"
        assert sorted(rows(part)) == sorted(entry.options.model_fields), entry.name


def examples() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every whole source, connector or stream in a YAML block of a page, completed to a source."""
    for path in sorted(DOCS.glob("*.md")):
        for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)):
            document = yaml.safe_load(block)
            if isinstance(document, dict):
                attributes = document.get("attributes", document)
                yield f"{path.stem}-{number}", {"source": "example", "owner": "team:data", **attributes}


@pytest.mark.parametrize(
    ("name", "attributes"), list(examples()), ids=lambda item: item if isinstance(item, str) else ""
)
def test_every_example_is_a_valid_source(name: str, attributes: dict[str, Any]) -> None:
    spec = parse_source(attributes, name)
    assert isinstance(spec, SourceSpec)
    refuse_wrong_checks(spec, name)
    from platform_assets.components.source import source_definitions

    assert source_definitions(spec, name).assets
