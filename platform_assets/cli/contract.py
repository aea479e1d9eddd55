"""`headwater contract`: infer columns from a first sync, and keep dbt's files in step with the source files."""

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.errors import ConfigError, HeadwaterError
from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings, running_warehouse, stream_label

if TYPE_CHECKING:
    from connectors.contract import DiscoveredStream
    from connectors.specs import SourceSpec
    from platform_assets.contracts.dbt_files import GeneratedFile
    from platform_assets.settings import Settings

command = typer.Typer(no_args_is_help=True, help="Contracts: infer from a sync, write to dbt, show what they become.")

DRIFTED = 8


@command.command()
def infer(
    target: Annotated[str, typer.Argument(help="SOURCE or SOURCE.STREAM")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write what is shown.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the source.")] = False,
) -> None:
    """Columns of synced streams for the source file: type, nullability, key, likely values, likely personal data.

    Shows the difference; what is only likely is marked as a guess. Columns that the file declares stay as they are.
    """
    import psycopg

    from connectors.specs import parse_source
    from platform_assets.contracts.infer import infer as inferred
    from platform_assets.contracts.insertion import with_contract
    from platform_assets.sources import find_streams

    settings = read_settings()
    spec, streams = find_streams(target, settings.project_root)
    path = _file_of(spec, settings)
    place = str(path.relative_to(settings.project_root))
    before = after = path.read_text(encoding="utf-8")
    offered = {} if offline else _offered(spec, settings)
    with (
        running_warehouse(settings) as warehouse,
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection,
    ):
        for stream in streams:
            try:
                contract = inferred(connection, spec, stream, offered.get(stream.name))
            except ConfigError as error:
                if len(streams) == 1:
                    raise
                output.note(str(error).replace("\n", "; "))
                continue
            after = with_contract(after, place, spec.source, stream.name, contract)
    if after == before:
        print(f"{place} declares every column that was synced")
        return
    import yaml

    for document in yaml.safe_load_all(after):
        if (document or {}).get("attributes", {}).get("source") == spec.source:
            parse_source(document["attributes"], place, path.parent)
    changes = difflib.unified_diff(before.splitlines(), after.splitlines(), place, place, lineterm="", n=2)
    print("\n".join(changes))
    if yes:
        path.write_text(after, encoding="utf-8")
        print(f"{place} is written; `headwater contract write {spec.source}` tells dbt")
    else:
        print(f"Nothing is written: give --yes to write {place}.")


@command.command()
def write(
    source: Annotated[str | None, typer.Argument(help="A source; all by default.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit status 8 on a difference.")] = False,
) -> None:
    """Write dbt's source files from the source files, and skeletons of models: those missing or not edited."""
    from platform_assets.contracts.dbt_files import out_of_step
    from platform_assets.sources import find_source, load_sources

    settings = read_settings()
    root = settings.project_root
    found = out_of_step([find_source(source, root)] if source else load_sources(root), root / "dbt_project")
    for file in found:
        if not check:
            file.write(root / "dbt_project")
        print(f"{'differs' if check else 'wrote'} dbt_project/{file.path}")
    if not found:
        print("dbt's files are in step with the source files")
    elif check:
        output.note("Run `headwater contract write`.")
        raise typer.Exit(DRIFTED)


@command.command()
def show(stream: Annotated[str, typer.Argument(help="SOURCE.STREAM")]) -> None:
    """What the contract of a stream compiles to: engine, dlt, Sling, checks, dbt source, staging, mart; as JSON."""
    from platform_assets.contracts.targets import compiled
    from platform_assets.sources import find_source

    source, name = stream_label(stream, "contract")
    print(json.dumps(compiled(find_source(source, read_settings().project_root).stream(name)), indent=2, default=str))


@command.command()
def mart(
    stream: Annotated[str, typer.Argument(help="SOURCE.STREAM")],
    domain: Annotated[str, typer.Argument(help="The folder below models/marts.")],
) -> None:
    """Write a mart of one stream, its constraints from the contract; never over one that is there."""
    from platform_assets.contracts.dbt_files import mart_files
    from platform_assets.sources import find_source

    source, name = stream_label(stream, "contract")
    settings = read_settings()
    spec = find_source(source, settings.project_root)
    project = settings.project_root / "dbt_project"
    files: tuple[GeneratedFile, ...] = mart_files(spec, spec.stream(name), domain)
    if there := [file for file in files if (project / file.path).exists()]:
        raise ConfigError(f"dbt_project/{there[0].path}", "is there already", "Choose another domain, or edit it.")
    for file in files:
        file.write(project)
        print(f"wrote dbt_project/{file.path}")


def _file_of(spec: "SourceSpec", settings: "Settings") -> Path:
    from platform_assets.sources import read_source_file, source_paths

    for path in source_paths(settings.project_root):
        try:
            if any(found.source == spec.source for found in read_source_file(path, settings.project_root)):
                return path
        except ConfigError:
            continue
    raise ConfigError(spec.source, "its file is gone", "Run it again.")


def _offered(spec: "SourceSpec", settings: "Settings") -> "dict[str, DiscoveredStream]":
    """What discovery says, by stream; nothing where the source cannot be asked."""
    from platform_assets.contracts.observed import offered_to

    try:
        with opened(spec, settings) as connector:
            return offered_to(spec, connector.discover())
    except HeadwaterError as error:
        output.note(f"{spec.source} cannot be asked what it offers: {error.what}")
        return {}
