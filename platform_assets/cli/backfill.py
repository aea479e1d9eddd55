"""`headwater backfill`: fill windows of the past. It writes what is wanted; the sensor run_backfills does it."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from platform_assets.cli import output
from platform_assets.cli.context import protect_secrets, read_settings, stream_label, warehouse_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from connectors.contract import Window
    from connectors.specs import SourceSpec, StreamSpec
    from platform_assets.backfills.plan import Plan
    from platform_assets.backfills.store import Backfill, Budget

SHOWN = 10
PRIORITIES: dict[str, Any] = {"min": -1000, "max": 1000}

command = typer.Typer(no_args_is_help=True, help="Fill windows of the past, newest first; the daemon does it.")

Stream = Annotated[str, typer.Argument(help="SOURCE.STREAM")]
Id = Annotated[str, typer.Argument(help="An id that `status` shows.")]
From = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day; the first partition by default.")
]
To = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included; the last whole partition.")
]
Missing = Annotated[bool, typer.Option("--missing", help="Only windows that no sync has read yet.")]
WindowsADay = Annotated[int | None, typer.Option(min=1, help="Stop for the day (UTC) after so many windows.")]
RowsADay = Annotated[int | None, typer.Option(min=1, help="... rows.")]
RequestsADay = Annotated[int | None, typer.Option(min=1, help="... requests.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


@command.command("plan")
def show_plan(
    stream: Stream,
    first: From = None,
    last: To = None,
    missing: Missing = False,
    windows_per_day: WindowsADay = None,
    rows_per_day: RowsADay = None,
    requests_per_day: RequestsADay = None,
    as_json: AsJson = False,
) -> None:
    """Which windows would be read, and what that will cost; nothing is changed."""
    from platform_assets.backfills.store import Budget

    budget = Budget(windows_per_day, rows_per_day, requests_per_day)
    with warehouse_session() as connection:
        source, spec, windows = _chosen(connection, stream, first, last, missing=missing)
        made = _planned(connection, source, spec, windows, budget)
    if as_json:
        print(json.dumps(_as_json(made), indent=2))
    else:
        show(stream, made)


@command.command()
def run(
    stream: Stream,
    first: From = None,
    last: To = None,
    missing: Missing = False,
    windows_per_day: WindowsADay = None,
    rows_per_day: RowsADay = None,
    requests_per_day: RequestsADay = None,
    priority: Annotated[int, typer.Option(help="Of its runs in the queue; live syncs have 0.", **PRIORITIES)] = -10,
    title: Annotated[str, typer.Option(help="Shown in the Dagster UI.")] = "",
) -> None:
    """Ask for a backfill. Windows that another open backfill holds are left to it."""
    from platform_assets.backfills import store

    budget = store.Budget(windows_per_day, rows_per_day, requests_per_day)
    with warehouse_session() as connection:
        source, spec, windows = _chosen(connection, stream, first, last, missing=missing)
        made = _planned(connection, source, spec, windows, budget)
        if not windows:
            show(stream, made)
            return
        keys = list(windows)
        said = title or f"{stream}: {output.count(len(made.windows), 'window')}, {keys[-1]} to {keys[0]}"
        wanted = store.Wanted(source.source, spec.name, windows, said, priority=priority, budget=budget)
        backfill = store.create(connection, wanted)
    show(stream, made)
    print(f"backfill {backfill.backfill_id} is asked for; the daemon begins within half a minute")


@command.command()
def pause(backfill: Id) -> None:
    """Let no further run begin; those that read finish their windows."""
    _move(backfill, "paused", ("requested", "running"), "paused by hand")


@command.command()
def resume(backfill: Id) -> None:
    """Go on. One that failed or was cancelled goes on as a new backfill of the windows that are left."""
    from platform_assets.backfills import store

    with warehouse_session() as connection:
        found = store.one(connection, backfill)
        if found.state == "paused":
            store.move(connection, found, "running", since=["paused"])
            print(f"backfill {backfill} goes on")
            return
        left = store.rest(connection, found)
        if found.ended_at is None or not left:
            print(f"backfill {backfill} is {found.state}: nothing to resume")
            return
        again = store.create(connection, store.again(found, left))
        print(f"backfill {again.backfill_id} is asked for: {output.count(len(left), 'window')} that {backfill} left")


@command.command()
def cancel(backfill: Id) -> None:
    """Give it up; runs under way publish what is sealed and end."""
    _move(backfill, "cancelling", ("requested", "running", "paused"), "cancelled by hand")


@command.command(context_settings={"ignore_unknown_options": True})  # -20 is a priority, not an option
def prioritize(
    backfill: Id, priority: Annotated[int, typer.Argument(help="Live syncs have 0, backfills -10.", **PRIORITIES)]
) -> None:
    """Change its place in the queue; above 0 it goes before live syncs."""
    from platform_assets.backfills import store

    with warehouse_session() as connection:
        store.prioritize(connection, store.one(connection, backfill), priority)
    print(f"backfill {backfill} has priority {priority}")


@command.command()
def status(
    backfill: Annotated[str | None, typer.Argument(help="An id; without it the last ones.")] = None,
    as_json: AsJson = False,
) -> None:
    """How far backfills are; with an id its windows, too."""
    from platform_assets.backfills import store

    with warehouse_session() as connection:
        found = [store.one(connection, backfill)] if backfill else store.several(connection, is_open=False)
        lines = [_status(connection, item) for item in found]
    if as_json:
        print(json.dumps(lines, indent=2, default=str))
        return
    if not lines:
        print("no backfill was asked for yet")
        return
    table = output.table(
        "", "id", "stream", "state", "done", "failed", "read", "loaded", "today", "priority", "title", "message"
    )
    for line in lines:
        table.add_row(
            line["id"], line["stream"], line["state"], f"{line['done']}/{line['windows']}", str(line["failed"]),
            f"{line['rows_read']:,}", f"{line['rows']:,}", f"{line['windows_today']} windows", str(line["priority"]),
            line["title"], line["message"] or "-",
        )  # fmt: skip
    output.console(is_data=True).print(table)


@command.command()
def suggest(
    source: Annotated[str | None, typer.Argument(help="A source; all by default.")] = None, as_json: AsJson = False
) -> None:
    """What the sensors' reasons find, also those that are off; nothing is launched."""
    from dataclasses import asdict

    from platform_assets.backfills.suggest import suggest as look
    from platform_assets.sources import find_source, load_sources

    root = read_settings().project_root
    sources = [find_source(source, root)] if source else load_sources(root)
    for spec in sources:
        protect_secrets(spec)
    with warehouse_session() as connection:
        found = look(connection, sources)
    if as_json:
        print(json.dumps([asdict(item) for item in found], indent=2))
        return
    if not found:
        print("no reason for a backfill")
        return
    table = output.table("", "stream", "reason", "windows", "why", "then", right=["windows"])
    for item in found:
        table.add_row(item.label, item.reason, str(len(item.partitions) or "-"), item.why, item.action)
    output.console(is_data=True).print(table)


def _move(backfill: str, to: str, since: tuple[str, ...], message: str) -> None:
    from platform_assets.backfills import store

    with warehouse_session() as connection:
        moved = store.move(connection, store.one(connection, backfill), to, message, since=since)  # pyright: ignore[reportArgumentType]  literals above
    print(f"backfill {backfill} is {moved.state}")


def _chosen(
    connection: "psycopg.Connection[Any]", label: str, first: datetime | None, last: datetime | None, *, missing: bool
) -> "tuple[SourceSpec, StreamSpec, Mapping[str, Window]]":
    from platform_assets.backfills import plan
    from platform_assets.sources import find_source

    name, stream = stream_label(label, "backfill")
    source = find_source(name, read_settings().project_root)
    spec = source.stream(stream)
    windows = plan.choose(spec, label, first and first.date(), last and last.date())
    if missing:
        read = plan.already_read(connection, name, stream)
        windows = {key: window for key, window in windows.items() if window.start not in read}
    return source, spec, windows


def _planned(
    connection: "psycopg.Connection[Any]",
    source: "SourceSpec",
    stream: "StreamSpec",
    windows: "Mapping[str, Window]",
    budget: "Budget",
) -> "Plan":
    from platform_assets.backfills.plan import plan

    return plan(connection, source, stream, windows, budget)


def show(label: str, made: "Plan") -> None:
    keys = list(made.windows)
    if made.held:
        others = ", ".join(sorted(set(made.held.values())))
        print(f"{output.count(len(made.held), 'window')} left to backfill {others}, which holds them already")
    if not keys:
        print(f"{label}: no window to read")
        return
    span = f"{output.count(len(keys), 'window')}, newest first, {keys[0]} to {keys[-1]}"
    print(f"{label}: {span}, in {output.count(made.runs, 'run')}")
    if not made.sample:
        print(f"no window of it was read yet: at least {len(keys):,} requests, cost unknown")
    else:
        print(
            f"about {made.rows:,} rows, {made.requests:,} requests, {_duration(made.seconds)}"
            f" (from its last {output.count(made.sample, 'window')})"
        )
    if made.quota_seconds and made.quota_seconds >= 1:
        print(f"its rate limit allows so many requests in {_duration(made.quota_seconds)} at best")
    if made.days > 1:
        print(f"within the budget of a day it takes {made.days} days")
    for key in keys[:SHOWN]:
        window = made.windows[key]
        print(f"  {key}  {window.start.astimezone(UTC):%Y-%m-%d %H:%M} to {window.end.astimezone(UTC):%Y-%m-%d %H:%M}")
    if len(keys) > SHOWN:
        print(f"  and {len(keys) - SHOWN:,} more; --json lists all")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _as_json(made: "Plan") -> dict[str, Any]:
    return {
        "windows": [
            {"partition": key, "start": window.start.isoformat(), "end": window.end.isoformat()}
            for key, window in made.windows.items()
        ],
        "held": dict(made.held), "runs": made.runs, "sample": made.sample, "rows": made.rows,
        "requests": made.requests, "seconds": made.seconds, "quota_seconds": made.quota_seconds, "days": made.days,
    }  # fmt: skip


def _status(connection: "psycopg.Connection[Any]", backfill: "Backfill") -> dict[str, Any]:
    from platform_assets.backfills import store

    windows = store.windows(connection, backfill)
    today = store.spent(connection, backfill)
    return {
        "id": backfill.backfill_id, "stream": backfill.label, "state": backfill.state, "reason": backfill.reason,
        "title": backfill.title, "message": backfill.message, "priority": backfill.priority,
        "windows": len(windows), "done": sum(window.is_done for window in windows),
        "failed": sum(window.status in ("failed", "cancelled") for window in windows),
        "rows_read": sum(window.rows_read for window in windows), "rows": sum(window.rows for window in windows),
        "windows_today": today.windows, "rows_today": today.rows, "requests_today": today.requests,
        "created_at": backfill.created_at, "ended_at": backfill.ended_at,
        "left": [window.partition for window in windows if not window.is_done],
    }  # fmt: skip
