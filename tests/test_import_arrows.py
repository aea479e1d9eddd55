"""Imports run one way: down. Read from the source text, so imports inside functions and for types count too.

platform_assets:  locations, command line -> components, sensors -> assets -> sources -> checks -> warehouse -> settings
below all of them connectors.sync and connectors.kinds, custom -> http, sling, files, database -> errors, contract...
Of the engine: a publication's rooms, see PUBLICATION.
A reader package (http, ...) may name the specs of the one kind that it serves, for types only: `if TYPE_CHECKING`.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("connectors", "platform_assets", "demo")

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"ingest", "transform", "cli"}),
    frozenset({"components", "defs", "sensors", "backfills", "alerts"}),
    frozenset({"assets", "freshness"}),
    # instance: what dagster.yaml names; dbt: its environment, manifest and invocation
    frozenset({"contracts", "instance", "dbt", "webhooks", "sources"}),
    # a source file is read with its checks
    frozenset({"checks"}),
    frozenset({"warehouse"}),
    frozenset({"settings"}),
)
"""Parts of platform_assets from top to bottom: a part may import its own layer and those below it."""


PUBLICATION: tuple[frozenset[str], ...] = (
    frozenset({"lifecycle"}),
    frozenset({"publisher"}),
    frozenset({"publish"}),
    frozenset({"load_record", "stage", "generation"}),
    frozenset({"deletes", "dispositions"}),
    frozenset({"sifting", "relations"}),
    frozenset({"tables"}),
)
"""Rooms of a publication from top to bottom, modules of connectors.sync: each imports only rooms below its own."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """Modules below `who` never import anything below `whom`."""

    who: str
    whom: tuple[str, ...]
    why: str


FOUNDATION = ("errors", "secrets", "contract", "copy_columns", "column_spec", "contradictions", "specs", "spec_errors",
              "registry", "texts")  # fmt: skip
READERS = {"http": "rest", "sling": "sling", "files": "files", "database": "database", "webhook": "webhook",
           "singer": "singer", "airbyte": "airbyte",
           "dlt_source": "dlt_source"}  # fmt: skip
"""Each reader package and the one kind that it serves."""
ARROWS: tuple[Arrow, ...] = (
    Arrow("connectors", ("dagster", "dbt", "platform_assets", "demo"), "connectors know no orchestrator"),
    Arrow("demo", ("connectors", "platform_assets", "dagster", "dlt", "dbt"), "stand-ins know none of their readers"),
    Arrow("platform_assets", ("dbt",), "dbt is known only through its manifest and its command line"),
    *(
        Arrow(
            f"connectors.{name}",
            ("connectors.kinds", "connectors.custom", "connectors.sync"),
            "foundation knows no user",
        )
        for name in (*FOUNDATION, *READERS)
    ),
    *(
        Arrow(f"connectors.{name}", tuple(f"connectors.{reader}" for reader in READERS), "foundation knows no reader")
        for name in FOUNDATION
    ),
    Arrow(
        "connectors.process",
        ("connectors.kinds", "connectors.custom", "connectors.sync", "connectors.singer", "connectors.airbyte"),
        "programs of any protocol",
    ),
    Arrow(
        "connectors.installing",
        ("connectors.kinds", "connectors.custom", "connectors.sync", "connectors.process", "connectors.airbyte"),
        "programs of any kind",
    ),
    Arrow("connectors.export", ("connectors.kinds", "connectors.custom"), "an open connector is given to it"),
    Arrow("connectors.kinds", ("connectors.sync", "connectors.custom"), "a kind reads, it never loads"),
    Arrow("connectors.custom", ("connectors.sync",), "a connector reads, it never loads"),
    Arrow("connectors.sync", ("connectors.kinds", "connectors.custom"), "the engine is the same for every kind"),
)


@dataclass(frozen=True, slots=True)
class Import:
    """is_type_only: it stands under `if TYPE_CHECKING`."""

    module: str
    imported: str
    place: str
    is_type_only: bool


def imports_of(root: Path) -> Iterator[Import]:
    """Every import of every module below the packages; `from a import b` counts as a and as a.b."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            base = parts if path.stem == "__init__" else parts[:-1]
            place = path.relative_to(root).as_posix()
            tree = ast.parse(path.read_text(encoding="utf-8"))
            typed = {id(node) for block in ast.walk(tree) if _is_typing_block(block) for node in ast.walk(block)}
            for node in ast.walk(tree):
                for name in _names(node, tuple(part for part in base if part != "__init__")):
                    yield Import(module, name, f"{place}:{getattr(node, 'lineno', 0)}", id(node) in typed)


def _is_typing_block(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _names(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    match node:
        case ast.Import():
            return [alias.name for alias in node.names]
        case ast.ImportFrom():
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join(filter(None, (*above, node.module)))
            return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
        case ast.Call(args=[ast.Constant(value=str(name)), *_]) if ast.unparse(node.func).endswith("import_module"):
            return [name]
        case _:
            return []


def is_below(name: str, parent: str) -> bool:
    """`a.b` is below `a`; the families dagster_* and dbt_* are below dagster and dbt."""
    return name == parent or name.startswith((f"{parent}.", f"{parent}_") if "." not in parent else f"{parent}.")


def wrong_arrows(root: Path) -> list[str]:
    """One line a wrong import, empty when all run down."""
    found = list(imports_of(root))
    return sorted({*_forbidden(found), *_between_kinds(found), *_upward(found), *_publication(found)})


def _forbidden(found: Iterable[Import]) -> Iterator[str]:
    for item in found:
        if item.is_type_only and _is_own_kind(item):
            continue
        for arrow in ARROWS:
            if item.module == DBT_PROCESS and is_below(item.imported, "dbt"):
                continue
            if is_below(item.module, arrow.who) and any(is_below(item.imported, whom) for whom in arrow.whom):
                yield f"{item.place}: {item.module} imports {item.imported}: {arrow.why}"


DBT_PROCESS = "platform_assets.dbt.audited"
"""A command line of dbt with more before and after: a process of its own, which nothing imports."""


def _is_own_kind(item: Import) -> bool:
    served = READERS.get(_part(item.module, "connectors") or "")
    return served is not None and is_below(item.imported, f"connectors.kinds.{served}")


def _between_kinds(found: Iterable[Import]) -> Iterator[str]:
    for item in found:
        own, other = _part(item.module, "connectors.kinds"), _part(item.imported, "connectors.kinds")
        if own and other and own != other:
            yield f"{item.place}: {item.module} imports {item.imported}: two kinds never import each other"


def _upward(found: Iterable[Import]) -> Iterator[str]:
    for item in found:
        own, other = _part(item.module, "platform_assets"), _part(item.imported, "platform_assets")
        if own and other and _layer(own) > _layer(other):
            yield f"{item.place}: {item.module} imports {item.imported}: {other} is above {own}"


def _publication(found: Iterable[Import]) -> Iterator[str]:
    floors = {room: floor for floor, rooms in enumerate(PUBLICATION) for room in rooms}
    for item in found:
        own, other = _part(item.module, "connectors.sync"), _part(item.imported, "connectors.sync")
        if own in floors and other in floors and own != other and floors[own] >= floors[other]:
            yield f"{item.place}: {item.module} imports {item.imported}: {other} is not below {own}"


def _part(name: str, package: str) -> str | None:
    return name.removeprefix(f"{package}.").partition(".")[0] if name.startswith(f"{package}.") else None


def _layer(part: str) -> int:
    for index, layer in enumerate(LAYERS):
        if part in layer:
            return index
    # not a module of ours, e.g. a name that __init__ defines
    return len(LAYERS)


def test_every_import_runs_down() -> None:
    assert wrong_arrows(ROOT) == []


def test_every_part_of_platform_assets_has_a_layer() -> None:
    parts = {
        path.stem
        for path in (ROOT / "platform_assets").iterdir()
        if (path.suffix == ".py" or (path.is_dir() and any(path.rglob("*.py")))) and not path.stem.startswith("_")
    }
    assert parts - frozenset[str]().union(*LAYERS) == set()


def test_no_two_modules_of_the_engine_import_each_other_however_far_around() -> None:
    found = [item for item in imports_of(ROOT) if is_below(item.module, "connectors.sync") and not item.is_type_only]
    modules = {item.module for item in found} - {"connectors.sync"}
    below: dict[str, set[str]] = {module: set() for module in modules}
    for item in found:
        if {item.module, item.imported} <= modules and item.module != item.imported:
            below[item.module].add(item.imported)
    assert len(modules) > 50
    TopologicalSorter(below).prepare()


def test_every_room_of_a_publication_is_there() -> None:
    rooms = frozenset[str]().union(*PUBLICATION)
    assert {room for room in rooms if not (ROOT / "connectors" / "sync" / f"{room}.py").is_file()} == set()


@pytest.mark.parametrize(
    ("path", "line", "why"),
    [
        ("connectors/errors.py", "import dagster as dg", "connectors know no orchestrator"),
        ("connectors/kinds/rest.py", "from dagster_dlt import DagsterDltResource", "connectors know no orchestrator"),
        ("connectors/sync/load.py", "from platform_assets.settings import Settings", "connectors know no orchestrator"),
        ("connectors/kinds/rest.py", "from connectors.sync import sync", "a kind reads, it never loads"),
        ("connectors/kinds/rest.py", "from connectors.kinds import files", "two kinds never import each other"),
        ("connectors/kinds/rest.py", "def late():\n    from .files import KIND", "two kinds never import each other"),
        ("connectors/sync/load.py", "import connectors.kinds.rest", "the engine is the same for every kind"),
        ("connectors/http/client.py", "from connectors.kinds.rest import KIND", "foundation knows no user"),
        (
            "connectors/http/client.py",
            "if TYPE_CHECKING:\n    from connectors.kinds.files import F",
            "foundation knows no user",
        ),
        ("connectors/specs.py", "from connectors.http import client", "foundation knows no reader"),
        (
            "platform_assets/warehouse/ensure.py",
            "from platform_assets import components",
            "components is above warehouse",
        ),
        ("platform_assets/assets/streams.py", "from platform_assets.cli import main", "cli is above assets"),
        ("platform_assets/checks/drift.py", "from ..components import Source", "components is above checks"),
        ("platform_assets/settings.py", "import_module('platform_assets.warehouse')", "warehouse is above settings"),
        ("connectors/sync/tables.py", "from connectors.sync.dispositions import merge", "is not below tables"),
        ("connectors/sync/stage.py", "from connectors.sync.generation import Generation", "is not below stage"),
        ("platform_assets/transform.py", "from dbt.cli.main import dbtRunner", "only through its manifest"),
        ("demo/api.py", "from connectors.errors import ConfigError", "stand-ins know none of their readers"),
    ],
)
def test_a_wrong_arrow_is_seen(tmp_path: Path, path: str, line: str, why: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\n", encoding="utf-8")
    assert [why in wrong for wrong in wrong_arrows(tmp_path)][:1] == [True], wrong_arrows(tmp_path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("connectors/kinds/rest.py", "from connectors.http.client import Client\nfrom connectors.contract import Kind"),
        ("connectors/http/client.py", "if TYPE_CHECKING:\n    from connectors.kinds.rest import RestSpec"),
        ("connectors/sync/load.py", "from connectors.registry import kind\nimport dlt"),
        ("platform_assets/components/source.py", "from platform_assets.assets.streams import stream_asset"),
        ("platform_assets/assets/streams.py", "from platform_assets.checks.registry import CHECKS\nimport dagster_dlt"),
        ("platform_assets/cli/demo.py", "from demo.stack import DemoStack"),
    ],
)
def test_a_right_arrow_is_let_pass(tmp_path: Path, path: str, line: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(f"{line}\n", encoding="utf-8")
    assert wrong_arrows(tmp_path) == []
