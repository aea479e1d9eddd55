"""`headwater slots <source>`: the replication slots that a source's database keeps its log for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings, warehouse_session
from platform_assets.settings import Settings

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

# every version of a state is kept, so slots of streams and of names that are gone are known too
_SAVED = """
select distinct state #>> '{connector,replication,slot}' from ops.stream_state
where source = %s and state #> '{connector,replication,slot}' is not null
"""


def command(
    source: Annotated[str, typer.Argument(help="A source of kind database.")],
    drop: Annotated[
        str | None, typer.Option("--drop", help="Drop this slot; a stream of it then needs `headwater state reset`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
) -> None:
    """List the replication slots of a source at its database, also those whose stream is gone; or drop one."""
    from platform_assets.sources import find_source

    settings = read_settings()
    spec = find_source(source, settings.project_root)
    with opened(spec, settings) as connector:
        from connectors.database.postgres import PostgresConnector  # the driver loads with the first question

        if not isinstance(connector, PostgresConnector):
            raise ConfigError(source, "is no PostgreSQL database", "Slots are PostgreSQL's; name another source.")
        saved = _saved(source, settings)
        others = _of_others(spec, settings.project_root)
        if drop is not None:
            connector.drop_slot(drop, saved, others)
            output.note(f"dropped slot {drop}")
        found = connector.slots(saved, others)
    if as_json:
        print(json.dumps([asdict(slot) | {"warning": slot.warning, "stream": stream} for slot, stream in found]))
        return
    for slot, stream in found:
        print(f"{slot}; {f'stream {stream}' if stream else f'no stream: headwater slots {source} --drop {slot.name}'}")
    if not found:
        print(f"{source} has no replication slot")


def _saved(source: str, settings: Settings) -> list[str]:
    """Slots that positions of the source's streams were ever saved for."""
    with warehouse_session() as connection:
        return [name for (name,) in connection.execute(_SAVED, [source]).fetchall()]


def _of_others(spec: "SourceSpec", root: Path) -> set[str]:
    """Slots of the other sources; shop_eu's begin like those of shop. A file that cannot be read has none."""
    from connectors.kinds.database import DatabaseStreamSpec, slot_name
    from platform_assets.sources import read_source_file, source_paths

    found: set[str] = set()
    for path in source_paths(root):
        try:
            others = [other for other in read_source_file(path, root) if other.source != spec.source]
        except ConfigError:
            continue
        for other in others:
            for stream in other.streams:
                if isinstance(stream, DatabaseStreamSpec) and stream.replication is not None:
                    found.add(slot_name(other.source, stream))
    return found
