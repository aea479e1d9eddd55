"""`headwater quarantine`: records that broke their contract, and what becomes of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from platform_assets.cli import output
from platform_assets.cli.context import (
    read_settings,
    refuse_unknown,
    running_warehouse,
    stream_label,
    warehouse_session,
)

if TYPE_CHECKING:
    import psycopg
    from rich.table import Table

    from connectors.sync.replay import Example, Held

SHOWN_CHARACTERS = 80

command = typer.Typer(no_args_is_help=True, help="Records that broke their contract: list, show, replay, discard.")

Status = Literal["held", "superseded", "replayed", "discarded"]
Stream = Annotated[str, typer.Argument(help="SOURCE.STREAM")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Ids = Annotated[list[int] | None, typer.Option("--id", help="Only this record; may be given several times.")]


def _parts(label: str) -> tuple[str, str]:
    return stream_label(label, "quarantine")


@command.command("list")
def list_held(
    stream: Annotated[str | None, typer.Argument(help="SOURCE or SOURCE.STREAM; without it a summary.")] = None,
    status: Annotated[Status, typer.Option(help="What became of the records.")] = "held",
    limit: Annotated[int, typer.Option(min=1, help="At most so many records.")] = 50,
    as_json: AsJson = False,
) -> None:
    """What is held, by reason; with a source or a stream record by record, oldest first."""
    from connectors.sync import replay

    if stream is None:
        _summary(status, as_json=as_json)
        return
    source, _, name = stream.partition(".")
    with warehouse_session() as connection:
        found = replay.held(connection, source, name or None, status=status, limit=limit)
        examples = replay.examples(connection, source, name or None) if status == "held" else []
    if not found and not examples:
        refuse_unknown(stream)
    if as_json:
        shown = [{**asdict(item), "status": "example"} for item in examples]
        print(json.dumps([*map(_as_json, found), *shown], indent=2))
        return
    names = ("id", "stream", "status", "contract", "field", "reason", "position", "payload")
    table = output.table("", *names, right=["id", "contract"])
    for item in found:
        table.add_row(
            str(item.quarantine_id), f"{item.source}.{item.stream}", item.status, _version(item), item.field or "-",
            item.reason, item.position, _beginning(item.payload),
        )  # fmt: skip
    _print(table, status)
    _print_examples(examples)


def _version(item: "Held") -> str:
    """Of the contract that the record broke."""
    return str(item.schema_version or "-")


def _beginning(payload: str) -> str:
    return payload if len(payload) <= SHOWN_CHARACTERS else f"{payload[:SHOWN_CHARACTERS]}..."


def _print_examples(examples: "Sequence[Example]") -> None:
    if not examples:
        return
    print("\nexamples of what a failed sync refused; not held, for the next sync reads them again")
    table = output.table("", "sync", "stream", "field", "reason", "position", "payload")
    for item in examples:
        label = f"{item.source}.{item.stream}"
        payload = _beginning(item.payload)
        table.add_row(item.sync_id[:8], label, item.field or "-", item.reason, item.position, payload)
    output.console(is_data=True).print(table)


def _summary(status: Status, *, as_json: bool) -> None:
    from connectors.sync import replay

    with warehouse_session() as connection:
        found = replay.summary(connection, status)
        examples = replay.examples(connection) if status == "held" else []
        refused = {(item.source, item.stream) for item in examples}
    if as_json:
        keys = ("source", "stream", "reason", "records", "newest")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in found], indent=2, default=str))
        return
    table = output.table("", "stream", "reason", "records", "newest (UTC)", right=["records"])
    for source, name, reason, number, newest in found:
        table.add_row(f"{source}.{name}", reason, f"{number:,}", f"{newest.astimezone(UTC):%Y-%m-%d %H:%M}")
    _print(table, status)
    for source, name in sorted(refused):
        print(
            f"{source}.{name}: its last sync failed; `headwater quarantine list {source}.{name}` shows what it refused"
        )


def _print(table: "Table", status: Status) -> None:
    if table.row_count:
        output.console(is_data=True).print(table)
    else:
        print(f"nothing is {status}")


def _as_json(item: "Held") -> dict[str, object]:
    resolved = item.resolved_at and item.resolved_at.astimezone(UTC).isoformat()
    return {**asdict(item), "created_at": item.created_at.astimezone(UTC).isoformat(), "resolved_at": resolved}


@command.command()
def show(
    record: Annotated[int, typer.Argument(help="An id that `list` shows.")],
    as_json: AsJson = False,
) -> None:
    """One record, whole."""
    from connectors.sync import replay

    with warehouse_session() as connection:
        item = replay.one(connection, record)
    if as_json:
        print(json.dumps(_as_json(item), indent=2))
        return
    print(f"{item.source}.{item.stream} #{item.quarantine_id} {item.status}, {item.reason}")
    print(f"from {item.position} of sync {item.sync_id}, {_time(item.created_at)}, contract version {_version(item)}")
    if item.resolved_at is not None:
        by = f" by sync {item.resolved_by}" if item.resolved_by else ""
        print(f"{item.status}{by}, {_time(item.resolved_at)}")
    print(item.payload)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@command.command("replay")
def replay_held(
    stream: Stream, ids: Ids = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it.")] = False
) -> None:
    """Load held records through the stream's lifecycle: exactly once, however often it is said."""
    from connectors.sync import SyncRequest, replay
    from platform_assets.sources import find_source

    source, name = _parts(stream)
    settings = read_settings()
    spec = find_source(source, settings.project_root)
    request = SyncRequest(spec, spec.stream(name), trigger="replay")
    if not yes:
        _plan(stream, ids, replay.effect(request.stream))
        return
    with running_warehouse(settings) as warehouse:
        result = replay.replay(request, warehouse.loader_dsn, ids or None)
    if result is None:
        print("nothing is held")
        return
    rows = result.rows
    old = f", {rows.deduplicated} not newer than what is there" if rows.deduplicated else ""
    print(f"{stream}: {rows.extracted} replayed, {rows.loaded} loaded{old}, {rows.quarantined} back in quarantine")


def _plan(stream: str, ids: Sequence[int] | None, effect: str) -> None:
    """What a replay would try to load, by reason, and what it does with keys that are there."""
    with warehouse_session() as connection:
        found = _held(connection, stream, ids)
    if not found:
        print("nothing is held")
        return
    table = output.table("", "reason", "records", "contract version", right=["records"])
    kinds = Counter((item.reason, item.schema_version) for item in found)
    for (reason, version), number in kinds.most_common():
        table.add_row(reason, f"{number:,}", str(version or "-"))
    print(f"{stream}: {output.count(len(found), 'record')} would be read again by the contract as it is now")
    output.console(is_data=True).print(table)
    print(effect)
    print("This was the plan; give --yes to apply it.")


def _held(connection: "psycopg.Connection[Any]", stream: str, ids: Sequence[int] | None) -> "list[Held]":
    from connectors.sync import replay

    source, name = _parts(stream)
    found = replay.held(connection, source, name, limit=1_000_000)
    return [item for item in found if not ids or item.quarantine_id in ids]


@command.command()
def discard(
    stream: Stream, ids: Ids = None, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it.")] = False
) -> None:
    """Give held records up; they stay on record as discarded."""
    from connectors.sync import replay

    source, name = _parts(stream)
    with warehouse_session() as connection:
        found = _held(connection, stream, ids)
        if not found:
            print("nothing is held")
        elif not yes:
            print(f"{output.count(len(found), 'record')} of {stream} would be discarded; give --yes to do it.")
        else:
            print(
                f"{output.count(replay.discard(connection, source, name, ids or None), 'record')} of {stream} discarded"
            )
