"""`headwater slots <source>`: the replication slots that a source's database keeps its log for."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings


def command(
    source: Annotated[str, typer.Argument(help="A source of kind database.")],
    drop: Annotated[str | None, typer.Option("--drop", help="Drop this slot; its stream is then read anew.")] = None,
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
        if drop is not None:
            connector.drop_slot(drop)
            output.note(f"dropped slot {drop}")
        found = connector.slots()
    if as_json:
        print(json.dumps([asdict(slot) | {"stream": stream} for slot, stream in found]))
        return
    for slot, stream in found:
        print(f"{slot}; {f'stream {stream}' if stream else f'no stream: headwater slots {source} --drop {slot.name}'}")
    if not found:
        print(f"{source} has no replication slot")
