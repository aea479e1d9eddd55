"""`headwater import meltano`: a Meltano project becomes source files and states. `--yes` applies the plan."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.errors import ConfigError
from connectors.specs import parse_source
from platform_assets.cli import output
from platform_assets.cli.context import read_settings, warehouse_session
from platform_assets.sources import COMPONENT, FOLDER

if TYPE_CHECKING:
    from connectors.singer.meltano import Imported

command = typer.Typer(no_args_is_help=True, help="Turn the project of another tool into source files.")


@command.callback()
def importing() -> None:
    """Turn the project of another tool into source files."""


@command.command()
def meltano(
    file: Annotated[Path, typer.Argument(help="The project's meltano.yml.")],
    environment: Annotated[str | None, typer.Option(help="The project's default one when not given.")] = None,
    catalog: Annotated[list[str] | None, typer.Option(help="EXTRACTOR=FILE of `tap --discover`; repeat it.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="EXTRACTOR=FILE of `meltano state get`; repeat it.")] = None,
    name: Annotated[list[str] | None, typer.Option(help="EXTRACTOR=SOURCE, another name; repeat it.")] = None,
    owner: str = typer.Option("team:data", help="Owner of the sources."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Write the files and states that are shown."),
) -> None:
    """One source file for every extractor: package, config, select, metadata, schedule, and the states."""
    from connectors.singer.meltano import Inputs, read_project

    root = read_settings().project_root
    names = _by_extractor(name, "--name", "my_source")
    inputs = Inputs(environment, _files(catalog, "--catalog"), _files(state, "--state"), names, owner)
    found = read_project(file, inputs)
    for item in found:
        _show(item, _path(root, item))
    ready = [item for item in found if item.attributes["streams"]]
    for item in ready:
        parse_source(item.attributes, str(_path(Path(), item)), _path(root, item).parent)
    taken = [item for item in ready if _path(root, item).exists()]
    if taken:
        hint = f"Nothing was written. Another name: --name {taken[0].extractor}={taken[0].source}_2"
        raise ConfigError(str(_path(Path(), taken[0])), "exists already", hint)
    _states(ready, yes=yes)
    if not yes:
        print("This was the plan; give --yes to apply it.")
        return
    for item in ready:
        path = _path(root, item)
        path.parent.mkdir(parents=True)
        path.write_text(_text(item), encoding="utf-8")
        print(f"wrote {path.relative_to(root)}; next: headwater check {item.source}")


def _files(options: Sequence[str] | None, name: str) -> dict[str, Path]:
    return {extractor: Path(path) for extractor, path in _by_extractor(options, name, "FILE").items()}


def _by_extractor(options: Sequence[str] | None, name: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options or ():
        extractor, _, value = option.partition("=")
        if not value:
            raise ConfigError(name, f"{option!r} gives no value", f"Write {name} tap-postgres={example}.")
        found[extractor] = value
    return found


def _path(root: Path, item: "Imported") -> Path:
    return root / FOLDER / item.source / "defs.yaml"


def _text(item: "Imported") -> str:
    import yaml

    document: dict[str, Any] = {"type": COMPONENT, "attributes": item.attributes}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _show(item: "Imported", path: Path) -> None:
    print(f"# {item.extractor}: {FOLDER / path.parent.name / path.name}")
    print(_text(item))
    for note in item.notes:
        output.note(f"{item.extractor}: {note}")


def _states(items: Sequence["Imported"], *, yes: bool) -> None:
    """Shown and, with --yes, set, all of them or none."""
    rows = [row for item in items for row in item.states]
    if not rows:
        return
    from connectors.sync import statebook

    entries = [{"source": row.source, "stream": row.stream, "engine": "singer", "state": row.state} for row in rows]
    with warehouse_session() as connection, connection.transaction():
        for move in statebook.plan_import(connection, json.dumps({"format": statebook.FORMAT, "states": entries})):
            print(f"state of {move.source}.{move.stream}:")
            for path, before, after in move.changes:
                print(f"  {path}: {before or '-'} -> {after or '-'}")
            if yes:
                statebook.apply(connection, move)
