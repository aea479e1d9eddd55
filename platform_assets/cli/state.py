"""`headwater state`: where every stream stands, and how to move it. A move shows its plan; `--yes` applies it."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import refuse_unknown, stream_label, warehouse_session

if TYPE_CHECKING:
    import psycopg

    from connectors.sync.statebook import Move

command = typer.Typer(
    no_args_is_help=True, help="Saved positions: list, show, diff, rewind, reset, undo, export, import."
)

Stream = typer.Argument(help="SOURCE.STREAM")
Yes = typer.Option(False, "--yes", "-y", help="Apply the plan that is shown.")


def _parts(label: str) -> tuple[str, str]:
    return stream_label(label, "state")


@command.command("list")
def list_states(source: str | None = typer.Argument(None), as_json: bool = typer.Option(False, "--json")) -> None:
    """Every stream's current position."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        found = statebook.newest(connection, source)
    if not found:
        refuse_unknown(source)
    if as_json:
        print(statebook.export(found))
        return
    if not found:
        print("no position is saved yet")
        return
    table = output.table(
        "", "stream", "engine", "version", "cursor", "bytes", "written by", "at (UTC)", right=["bytes"]
    )
    for item in found:
        at = f"{item.committed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(
            item.label, item.engine, str(item.version), item.cursor or "-", str(item.size_bytes), item.reason, at
        )
    output.console(is_data=True).print(table)


@command.command()
def show(stream: str = Stream, limit: int = typer.Option(10, help="How many versions.")) -> None:
    """One stream's state, and its last versions."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        now = statebook.current(connection, *_parts(stream))
        versions = statebook.history(connection, *_parts(stream), limit)
    print(json.dumps(now.state, indent=2))
    table = output.table("", "version", "cursor", "written by", "actor", "sync", "at (UTC)")
    for item in versions:
        at = f"{item.committed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(str(item.version), item.cursor or "-", item.reason, item.actor, item.sync_id or "-", at)
    output.console(is_data=True).print(table)


@command.command()
def diff(
    stream: str = Stream,
    before: Annotated[int | None, typer.Option("--from", help="A version; the one before the last by default.")] = None,
    after: Annotated[int | None, typer.Option("--to", help="A version; the last by default.")] = None,
) -> None:
    """What changed between two versions."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        newest = statebook.current(connection, *_parts(stream)).version
        left = statebook.version(connection, *_parts(stream), before or max(newest - 1, 1))
        right = statebook.version(connection, *_parts(stream), after or newest)
    changes = statebook.diff(left.state, right.state)
    _print_changes(changes, f"version {left.version}", f"version {right.version}")


@command.command()
def rewind(
    stream: str = Stream,
    time: Annotated[
        datetime | None, typer.Option("--to-time", help="The state as of this moment; UTC unless it says.")
    ] = None,
    sync: Annotated[UUID | None, typer.Option("--to-sync", help="The state that this sync left.")] = None,
    version: Annotated[int | None, typer.Option("--to-version")] = None,
    value: Annotated[str | None, typer.Option("--to-value", help="A cursor value of one's own.")] = None,
    yes: bool = Yes,
) -> None:
    """Move a stream back (or forth) to another position."""
    from connectors.sync import statebook

    if sum(choice is not None for choice in (time, sync, version, value)) != 1:
        raise ConfigError(
            f"state rewind {stream}", "needs one target", "Give --to-time, --to-sync, --to-version or --to-value."
        )
    with warehouse_session() as connection:
        move = statebook.plan_rewind(
            connection,
            *_parts(stream),
            to_time=_aware(time) if time else None,
            to_sync=str(sync) if sync else None,
            to_version=version,
            to_value=value,
        )
        _do(connection, [move], yes=yes)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@command.command()
def reset(stream: str = Stream, yes: bool = Yes) -> None:
    """Forget the position: the next sync reads from the start."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        _do(connection, [statebook.plan_reset(connection, *_parts(stream))], yes=yes)


@command.command()
def undo(stream: str = Stream, yes: bool = Yes) -> None:
    """Return to the state before the last change."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        _do(connection, [statebook.plan_undo(connection, *_parts(stream))], yes=yes)


@command.command("export")
def export_states(
    source: Annotated[str | None, typer.Argument()] = None, to: Annotated[Path | None, typer.Option("--to")] = None
) -> None:
    """Current states as JSON, on stdout or into a file."""
    from connectors.sync import statebook

    with warehouse_session() as connection:
        text = statebook.export(statebook.newest(connection, source))
    if to is None:
        print(text)
    else:
        to.write_text(text + "\n", encoding="utf-8")


@command.command("import")
def import_states(
    file: Annotated[Path, typer.Argument(help="Written by export; - for stdin.")], yes: bool = Yes
) -> None:
    """Set the states that an exported file holds."""
    from connectors.sync import statebook

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"state import {file}", str(error), "Write one with `headwater state export --to`."
        ) from error
    with warehouse_session() as connection:
        _do(connection, statebook.plan_import(connection, text), yes=yes)


def _do(connection: "psycopg.Connection[Any]", moves: "Sequence[Move]", *, yes: bool) -> None:
    """Show the plan; with --yes apply all of it or nothing."""
    from connectors.sync import statebook

    for move in moves:
        print(f"{move.source}.{move.stream}: {move.reason} from version {move.expected_version}")
        _print_changes(move.changes, "now", "then")
    changing = [move for move in moves if move.changes]
    if not changing:
        print("nothing to change")
    elif not yes:
        print("This was the plan; give --yes to apply it.")
    else:
        with connection.transaction():
            for move in changing:
                print(f"{move.source}.{move.stream}: now version {statebook.apply(connection, move)}")


def _print_changes(changes: Sequence[tuple[str, str | None, str | None]], left: str, right: str) -> None:
    table = output.table("", "field", left, right)
    for path, before, after in changes:
        table.add_row(path, before or "-", after or "-")
    if changes:
        output.console(is_data=True).print(table)
