"""`headwater demo`: real data through every stream and every model, in real Dagster runs, then one table."""

import time
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.errors import ConfigError, exit_codes
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    from demo.release import Release
    from platform_assets.cli.demo_process import DagsterProcess
    from platform_assets.cli.demo_view import Board, Display
    from platform_assets.settings import Settings
    from platform_assets.warehouse import Warehouse


def command(
    days: Annotated[
        int | None, typer.Option(min=1, help="Release only the first N days, from 1 January 2013 (default: all).")
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Release all days up to this one.")
    ] = None,
    release_only: Annotated[
        bool, typer.Option("--release-only", help="Change what the demo sources show; run nothing.")
    ] = False,
) -> None:
    """Sync every demo stream and build every dbt model through real Dagster runs, then print one table.

    Run again it syncs only what is new: with --days 5, then --days 6, the second run finds one more day.
    Exit code 0 only when every stream and model succeeded and no check with severity error is red.
    """
    from demo.release import Release
    from demo.stack import DemoStack
    from platform_assets.cli.demo_services import interrupted_by_sigterm

    if days is not None and until is not None:
        raise ConfigError("headwater demo", "--days and --until say the same thing twice", "Give one of them.")
    release = Release(until.date() if until else None) if days is None else Release.first_days(days)
    settings = read_settings()
    if release_only:
        DemoStack(settings.home).release(release)
        print(f"the demo sources now show {release}")
        return
    with interrupted_by_sigterm():
        raise typer.Exit(run_demo(settings, release))


def run_demo(settings: "Settings", release: "Release") -> int:
    """The whole demo; the exit code. Nothing that it started is left running."""
    from platform_assets.cli.demo_process import DagsterProcess
    from platform_assets.cli.demo_services import demo_sources, running_warehouse, runs_environment
    from platform_assets.cli.demo_view import Board, open_display, print_report

    started = time.monotonic()
    board = Board()
    with ExitStack() as ends:
        display = open_display(board)
        ends.callback(display.close)
        # its imports (2 CPU s) run while the warehouse and the sources start
        dagster = ends.enter_context(
            DagsterProcess(settings.project_root / "workspace.yaml", settings.home / "demo" / "runs.log")
        )
        warehouse = ends.enter_context(running_warehouse(settings, display.say))
        stack = ends.enter_context(demo_sources(settings, warehouse, display.say))
        ends.callback(dagster.finish)  # before its sources and its warehouse go
        stack.release(release)
        display.say(f"the demo sources show {release}; loading the code locations")
        dagster.configure(runs_environment(settings, stack))
        _watch(dagster, board, display, warehouse)
        _count_marts(board, warehouse)
    print_report(board, _next_steps(board, settings, time.monotonic() - started))
    return _exit_code(board)


def _watch(dagster: "DagsterProcess", board: "Board", display: "Display", warehouse: "Warehouse") -> None:
    """Follow the worker to its end; the ledger tells meanwhile how far a running sync is."""
    import psycopg

    from platform_assets.cli import demo_events as told

    run_id = ""
    with psycopg.connect(warehouse.reader_dsn, autocommit=True) as ledger:
        for event in dagster.events():
            match event:
                case None:
                    _read_ledger(ledger, run_id, board, display)
                    display.idle(board)
                case told.Planned():
                    board.plan(event)
                case told.RunLaunched():
                    run_id = event.run_id
                    display.say(f"{event.location}: {len(event.names)} assets in run {run_id}")
                case told.AssetChanged():
                    display.changed(board.change(event))
                case told.CheckJudged():
                    board.checks[event.name, event.check] = event
                case told.LocationFailed():
                    last = event.message.strip().splitlines()[-1:]
                    board.problems.append(f"code location {event.location} did not load: {''.join(last)}")
                case told.RunEnded() if not event.succeeded and not board.of_state("failed"):
                    board.problems.append(f"run {event.run_id}: {event.message or 'failed'}\nRead {dagster.log_path}.")
                case _:
                    pass
    if status := dagster.finish():
        words = f"ended with status {status}: {dagster.last_words()}"
        board.problems.append(f"demo worker: {words}\nRead {dagster.log_path}, then run it again.")


def _read_ledger(ledger: Any, run_id: str, board: "Board", display: "Display") -> None:
    """Step and rows of the syncs that run now."""
    if not run_id:
        return
    running = ledger.execute(
        "select source || '.' || stream, step, rows_extracted from ops.syncs"
        " where run_id = %s and status = 'running' and step <> 'done'",
        [run_id],
    ).fetchall()
    for name, step, rows in running:
        line = board.lines.get(name)
        if line is not None and line.state == "running" and (line.status, line.rows) != (step, rows or None):
            line.status, line.rows = step, rows or None
            display.changed(line)


def _count_marts(board: "Board", warehouse: "Warehouse") -> None:
    """The marts' rows as a reader sees them."""
    import psycopg
    from psycopg import sql

    with psycopg.connect(warehouse.reader_dsn, autocommit=True) as reader:
        for line in board.of("mart"):
            if line.state == "succeeded" and line.table:
                name = sql.Identifier(*line.table.split("."))
                found = reader.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
                line.rows = found[0] if found else None


def _next_steps(board: "Board", settings: "Settings", seconds: float) -> list[str]:
    if not board.is_good:
        log_path = settings.home / "demo" / "runs.log"
        return [
            f"Not everything succeeded ({seconds:.0f} s). `headwater doctor` looks for the cause, `make ui` shows the",
            f"runs, and all that they printed is in {log_path}.",
        ]
    steps = {
        "make ui": "the asset graph, the runs of this demo, a Materialize button",
        "make demo": "once more: only what is new is synced",
        ".venv/bin/headwater preview nyc_flights.flights": "the first rows, as the source gives them",
        'README.md, "How do I add a ..."': "a source of your own in one file",
    }
    width = max(map(len, steps))
    lines = (f"  {step:{width}}   {why}" for step, why in steps.items())
    return [f"All is good, in {seconds:.0f} s. What to try next:", *lines]


def _exit_code(board: "Board") -> int:
    """0, else that of the first failure's class (connectors.errors), else 1."""
    if board.is_good:
        return 0
    codes = exit_codes()
    classes = [line.failure_class for line in board.of_state("failed") if line.failure_class in codes]
    if not board.of_state("failed") and not board.problems and board.red_checks:
        classes = ["contract"]
    return codes[classes[0]] if classes else 1
