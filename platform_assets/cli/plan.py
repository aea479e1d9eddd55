"""`headwater plan`: what a change would break, before anything loads."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectors.errors import HeadwaterError
from platform_assets.cli import output
from platform_assets.cli.context import opened, reachable, read_settings, running_warehouse, wants_demo

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connectors.contract import DiscoveredStream
    from connectors.specs import SourceSpec
    from platform_assets.contracts.standing import Standing
    from platform_assets.settings import Settings

BREAKING = 2


def command(
    target: Annotated[str | None, typer.Argument(help="SOURCE or SOURCE.STREAM; all by default.")] = None,
    state: Annotated[Path | None, typer.Option("--state", help="Folder of production's manifest.json.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask neither the sources nor the warehouse.")] = False,
    form: Annotated[Literal["text", "json", "markdown"], typer.Option("--format", help="How it is shown.")] = "text",
) -> None:
    """Compare source, contract, raw table and dbt; name each model, column, check, exposure and owner that would break.

    Nothing is loaded or changed. Exit status 2 when something breaks.
    """
    from platform_assets.contracts import report
    from platform_assets.contracts.gather import Evidence, plan_of
    from platform_assets.contracts.state import modified_contracts, production_manifest
    from platform_assets.dbt.manifest import prepared_manifest, read_manifest
    from platform_assets.sources import find_streams, load_sources

    settings = read_settings()
    root = settings.project_root
    project = root / "dbt_project"
    sources = load_sources(root)
    source, streams = find_streams(target, root) if target else (None, ())
    chosen = {stream.name for stream in streams}
    production = production_manifest(state) if state else None
    manifest = read_manifest(prepared_manifest(project, settings))
    modified = ()
    if state is not None:
        database = next(iter(manifest["nodes"].values()), {}).get("database") or "warehouse"
        modified = modified_contracts(project, state, database, manifest)
    notes: list[str] = []
    asked = [one for one in sources if source is None or one.source == source.source]
    evidence = Evidence(
        sources,
        manifest,
        production,
        None if offline else _tables(settings, notes),
        {} if offline else _offers(asked, settings, notes),
        modified,
        notes,
    )
    plan = plan_of(
        evidence, project, lambda one, stream: source is None or (one.source == source.source and stream.name in chosen)
    )
    show = {"text": report.as_text, "json": report.as_json, "markdown": report.as_markdown}[form]
    print(show(plan))
    if plan.is_breaking:
        raise typer.Exit(BREAKING)


def _tables(settings: "Settings", notes: list[str]) -> "Mapping[tuple[str, str], Standing] | None":
    """What stands of every stream; None, with a note, when the warehouse does not answer."""
    import psycopg

    from platform_assets.contracts.standing import standing

    try:
        with (
            running_warehouse(settings) as warehouse,
            psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection,
        ):
            return standing(connection)
    except (HeadwaterError, psycopg.OperationalError) as error:
        notes.append(f"the warehouse was not asked: {str(error).strip().splitlines()[0]}")
        return None


def _offers(
    sources: "Sequence[SourceSpec]", settings: "Settings", notes: list[str]
) -> "dict[str, Sequence[DiscoveredStream]]":
    """What each source offers; one that cannot be asked is noted and left out."""
    found: dict[str, Sequence[DiscoveredStream]] = {}
    with ExitStack() as ends:
        demo = next((spec for spec in sources if wants_demo(spec)), None)
        if demo is not None:
            # once for all of them
            ends.enter_context(reachable(demo, settings))
        for spec in sources:
            try:
                with opened(spec, settings) as connector:
                    found[spec.source] = connector.discover()
            except HeadwaterError as error:
                output.note(f"{spec.source} was not asked: {error}")
                notes.append(f"{spec.source} was not asked: {error.what}")
    return found
