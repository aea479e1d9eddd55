"""`headwater quarantine`: records that broke their contract, and what becomes of them."""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    import psycopg

command = typer.Typer(no_args_is_help=True, help="Records that broke their contract: list, show, replay, discard.")

Stream = Annotated[str, typer.Argument(help="SOURCE.STREAM")]
Ids = Annotated[list[int] | None, typer.Option("--id", help="Only this record; may be given several times.")]


@contextmanager
def _connection() -> "Generator[psycopg.Connection[Any]]":
    import psycopg

    from platform_assets.warehouse import ensure_warehouse

    with psycopg.connect(ensure_warehouse(read_settings()).loader_dsn, autocommit=True) as connection:
        yield connection


def _parts(label: str) -> tuple[str, str]:
    source, _, stream = label.partition(".")
    if not stream:
        raise ConfigError("quarantine", f"{label!r} names no stream", "Write SOURCE.STREAM, e.g. nyc_flights.flights.")
    return source, stream


@command.command("list")
def list_held(
    stream: Annotated[str | None, typer.Argument(help="SOURCE or SOURCE.STREAM; without it a summary.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many records.")] = 50,
) -> None:
    """What is held, by reason; with a source or a stream record by record."""
    from connectors.sync import replay

    with _connection() as connection:
        if stream is None:
            table = output.table("", "stream", "reason", "records", "newest (UTC)", right=["records"])
            for source, name, reason, number, newest in replay.summary(connection):
                table.add_row(f"{source}.{name}", reason, f"{number:,}", f"{newest.astimezone(UTC):%Y-%m-%d %H:%M}")
        else:
            source, _, name = stream.partition(".")
            table = output.table("", "id", "stream", "field", "reason", "position", "payload", right=["id"])
            for item in replay.held(connection, source, name or None, limit=limit):
                label = f"{item.source}.{item.stream}"
                row = (str(item.quarantine_id), label, item.field or "-", item.reason, item.position, item.payload[:80])
                table.add_row(*row)
    if table.row_count:
        output.console().print(table)
    else:
        print("nothing is held")


@command.command()
def show(record: Annotated[int, typer.Argument(help="An id that `list` shows.")]) -> None:
    """One record, whole."""
    from connectors.sync import replay

    with _connection() as connection:
        item = replay.one(connection, record)
    print(f"{item.source}.{item.stream} #{item.quarantine_id} {item.status}, {item.reason}")
    print(f"from {item.position} of sync {item.sync_id}, {item.created_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    print(item.payload)


@command.command("replay")
def replay_held(stream: Stream, ids: Ids = None) -> None:
    """Load held records through the stream's lifecycle: exactly once, however often it is said."""
    from connectors.sync import SyncRequest, replay
    from platform_assets.sources import find_source
    from platform_assets.warehouse import ensure_warehouse

    source, name = _parts(stream)
    spec = find_source(source)
    request = SyncRequest(spec, spec.stream(name), trigger="replay")
    result = replay.replay(request, ensure_warehouse(read_settings()).loader_dsn, ids)
    if result is None:
        print("nothing is held")
        return
    rows = result.rows
    print(f"{stream}: {rows.extracted} replayed, {rows.loaded} loaded, {rows.quarantined} back in quarantine")


@command.command()
def discard(
    stream: Stream, ids: Ids = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it.")] = False
) -> None:
    """Give held records up; they stay on record as discarded."""
    from connectors.sync import replay

    source, name = _parts(stream)
    with _connection() as connection:
        found = [
            item
            for item in replay.held(connection, source, name, limit=1_000_000)
            if not ids or item.quarantine_id in ids
        ]
        if not found:
            print("nothing is held")
        elif not yes:
            print(f"{output.count(len(found), 'record')} of {stream} would be discarded; give --yes to do it.")
        else:
            print(f"{output.count(replay.discard(connection, source, name, ids), 'record')} of {stream} discarded")
