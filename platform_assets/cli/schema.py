"""`headwater schema`: every version of every stream's schema, and the decisions on them."""

import getpass
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from platform_assets.cli import output
from platform_assets.cli.context import read_settings, refuse_unknown, stream_label, warehouse_session

if TYPE_CHECKING:
    import psycopg

    from connectors.sync.schemabook import Recorded

command = typer.Typer(no_args_is_help=True, help="Schema versions: list, show, diff, accept, block a column.")

Stream = Annotated[str, typer.Argument(help="SOURCE.STREAM")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stays on record.")]
Who = Annotated[str | None, typer.Option("--who", help="Who decides; the user of the system by default.")]


def _parts(label: str) -> tuple[str, str]:
    return stream_label(label, "schema")


def _who(given: str | None) -> str:
    return given or getpass.getuser()


@command.command("list")
def list_versions(
    source: Annotated[str | None, typer.Argument(help="A source; all by default.")] = None, as_json: AsJson = False
) -> None:
    """The newest version of every stream, and whether one of its versions waits for a decision."""
    from connectors.sync import schemabook

    with warehouse_session() as connection:
        found = schemabook.newest(connection, source)
    if not found:
        refuse_unknown(source)
    if as_json:
        print(json.dumps([_as_json(item) for item in found], indent=2))
        return
    if not found:
        print("no schema is recorded yet")
        return
    table = output.table("", "stream", "version", "columns", "decision", "waits", "first seen (UTC)")
    for item in found:
        columns = str(len(item.schema.shape.columns))
        waits = "yes" if item.waits else ""
        table.add_row(item.label, str(item.version), columns, item.schema.decision, waits, _at(item.first_seen_at))
    output.console(is_data=True).print(table)


@command.command()
def show(
    stream: Stream,
    version: Annotated[int | None, typer.Option(help="Its columns; the newest by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every version of a stream: when and by which sync it was first seen, what changed, who decided, and why."""
    from connectors.sync import schemabook

    source, name = _parts(stream)
    with warehouse_session() as connection:
        found = _versions(connection, stream)
        rules = schemabook.rules(connection, source, name)
    if as_json:
        blocked = [{"column": rule.column, "reason": rule.reason, "who": rule.actor} for rule in rules]
        print(json.dumps({"versions": [_as_json(item) for item in found], "blocked": blocked}, indent=2))
        return
    table = output.table("", "version", "first seen (UTC)", "sync", "changes", "decision", "who", "reason")
    for item in found:
        decision = f"{item.schema.decision}, waits" if item.waits else item.schema.decision
        table.add_row(
            str(item.version), _at(item.first_seen_at), (item.sync_id or "-")[:8], _changes(item), decision,
            item.actor, item.reason or "-",
        )  # fmt: skip
    output.console(is_data=True).print(table)
    chosen = _version(found, version, stream)
    columns = output.table(f"version {chosen.version}", "column", "type", "NULL", "accepts", "of the source")
    by_source = {column.source_name: column.name for column in chosen.schema.columns}
    for source_name, field in chosen.schema.shape.columns.items():
        key = " (key)" if source_name in chosen.schema.shape.key else ""
        columns.add_row(
            by_source[source_name] + key, field.type, "yes" if field.nullable else "no",
            ", ".join(field.accepted_values), source_name,
        )  # fmt: skip
    output.console(is_data=True).print(columns)
    for rule in rules:
        print(f"{rule.column} is blocked by {rule.actor} since {_at(rule.decided_at)} UTC: {rule.reason}")


@command.command()
def diff(
    stream: Stream,
    before: Annotated[int | None, typer.Option("--from", help="A version; the one before the last by default.")] = None,
    after: Annotated[int | None, typer.Option("--to", help="A version; the last by default.")] = None,
) -> None:
    """What changed between two versions of a stream's schema."""
    from connectors.sync import schemabook

    with warehouse_session() as connection:
        found = _versions(connection, stream)
    new = _version(found, after, stream)
    old = _version(found, before if before is not None else max(new.version - 1, 1), stream)
    for change in schemabook.between(old.schema, new.schema):
        print(change)
    for item in found:
        if old.version < item.version <= new.version and item.schema.diff:
            print(f"seen by version {item.version}: {_changes(item)}")
    if old.version == new.version:
        print(f"{stream} has one version")


@command.command()
def accept(
    stream: Stream,
    reason: Reason,
    version: Annotated[int | None, typer.Option(help="The newest that waits by default.")] = None,
    who: Who = None,
) -> None:
    """Accept a version that waits, and all before it; the next sync turns `schema_drift` green."""
    from connectors.sync import schemabook

    with warehouse_session() as connection:
        _versions(connection, stream)
        accepted = schemabook.accept(connection, *_parts(stream), version, reason, _who(who))
    print(f"{stream}: schema version {accepted} is accepted by {_who(who)}")


@command.command()
def block(
    stream: Stream,
    column: Annotated[str, typer.Argument(help="A column, as the source calls it.")],
    reason: Reason,
    lift: Annotated[bool, typer.Option("--lift", help="Let it in again.")] = False,
    who: Who = None,
) -> None:
    """Keep a column out of the warehouse from the next sync on; what is in the table stays there.

    Deliveries of a webhook lose it at once, those that wait too, unless another stream of their event reads it.
    """
    from connectors.sync import schemabook
    from platform_assets.sources import find_source

    source, name = _parts(stream)
    declared = find_source(source, read_settings().project_root)
    spec = declared.stream(name)
    with warehouse_session() as connection:
        if lift:
            schemabook.lift(connection, source, name, column, _who(who))
            print(f"{stream}: column {column} is let in from the next sync on")
            return
        accepted = schemabook.block(connection, source, spec, column, reason, _who(who))
    print(f"{stream}: column {column} is blocked from the next sync on")
    if accepted is not None:
        print(f"schema version {accepted} waited for this column alone: it is accepted")
    if declared.connector.kind == "webhook":
        from platform_assets.cli.webhooks import scrub_inbox

        scrub_inbox([declared])


def _versions(connection: "psycopg.Connection[Any]", stream: str) -> "list[Recorded]":
    """Every version of the stream.

    Raises:
        ConfigError: it has none; with the nearest name when no source file declares it.
    """
    from connectors.errors import ConfigError
    from connectors.sync import schemabook

    try:
        return schemabook.versions(connection, *_parts(stream))
    except ConfigError:
        refuse_unknown(stream)
        raise


def _version(found: "list[Recorded]", version: int | None, stream: str) -> "Recorded":
    from connectors.errors import ConfigError

    if version is None:
        return found[-1]
    for item in found:
        if item.version == version:
            return item
    raise ConfigError(stream, f"has no schema version {version}", f"Its newest is {found[-1].version}.")


def _changes(item: "Recorded") -> str:
    said = [f"{change['change']} {change['column']} ({change['action']})" for change in item.schema.diff]
    return "; ".join(said) or "-"


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _as_json(item: "Recorded") -> dict[str, Any]:
    return {
        "source": item.source,
        "stream": item.stream,
        "version": item.version,
        "decision": item.schema.decision,
        "waits": item.waits,
        "reason": item.reason,
        "who": item.actor,
        "sync_id": item.sync_id,
        "first_seen_at": item.first_seen_at.astimezone(UTC).isoformat(),
        "decided_at": item.decided_at.astimezone(UTC).isoformat() if item.decided_at else None,
        "columns": [column.to_json() for column in item.schema.columns],
        "contract": dict(item.schema.contract),
        "diff": list(item.schema.diff),
    }
