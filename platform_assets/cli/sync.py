"""`headwater sync <source>[.<stream>]`: the engine that Dagster runs, without Dagster."""

import signal
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from connectors.errors import HeadwaterError, merged
from platform_assets.cli import UNEXPECTED, output
from platform_assets.cli.context import reachable, read_settings

if TYPE_CHECKING:
    from connectors.sync import Progress, SyncRequest, SyncResult

SAY_EVERY_SECONDS = 2.0
"""So often at most a running stream says how far it is; --verbose says everything."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one stream's sync ended: exactly one of result and error is set."""

    stream: str
    seconds: float
    result: "SyncResult | None" = None
    error: Exception | None = None


def command(
    target: str = typer.Argument(help="A source or one stream of it, e.g. nyc_flights or nyc_flights.flights."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Every line of the sync's log."),
) -> None:
    """Sync every stream of a source, or one stream, into the warehouse. A failing stream does not stop the others.

    Ctrl-C publishes what is sealed and ends; a second one ends at once.
    """
    from connectors.sync import SyncRequest
    from connectors.sync.settle import settle_lost
    from platform_assets.cli.demo_services import running_warehouse
    from platform_assets.sources import find_streams

    settings = read_settings()
    spec, streams = find_streams(target, settings.project_root)
    cancelled = threading.Event()
    outcomes: list[Outcome] = []
    with (
        running_warehouse(settings, output.note) as warehouse,
        reachable(spec, settings),
        _stops_in_order(cancelled),
    ):
        for lost in settle_lost(warehouse.loader_dsn):
            output.note(f"settled a sync whose process had died: {lost}")
        requests = [SyncRequest(spec, stream, trigger="cli") for stream in streams]
        if spec.connector.reads_together:
            outcomes += _sync_together(requests, warehouse.loader_dsn, cancelled, verbose=verbose)
            requests = []
        for request in requests:
            if cancelled.is_set():
                break
            outcomes.append(_sync_one(request, warehouse.loader_dsn, cancelled, verbose=verbose))
    _show(outcomes)
    if cancelled.is_set():
        raise KeyboardInterrupt
    raise typer.Exit(exit_code([outcome.error for outcome in outcomes if outcome.error is not None]))


def exit_code(errors: Sequence[Exception]) -> int:
    """The code of the worst error, 0 without any.

    Unexpected errors are worst, then those that a retry does not help, then those that may pass; the first of equals.
    """

    def badness(error: Exception) -> int:
        if not isinstance(error, HeadwaterError):
            return 2
        return 0 if error.is_retryable else 1

    if not errors:
        return 0
    worst = max(errors, key=badness)
    return worst.exit_code if isinstance(worst, HeadwaterError) else UNEXPECTED


def _sync_one(request: "SyncRequest", dsn: str, cancelled: threading.Event, *, verbose: bool) -> Outcome:
    from connectors.sync import sync
    from platform_assets.assets.turns import live_turn

    started = time.monotonic()
    output.note(f"{request.label}: syncing")
    try:
        # a backfill of the stream gives way between two of its windows
        with live_turn(dsn, request.label) if request.stream.partitions else nullcontext():
            result = sync(request, dsn, _progress(request.label, cancelled, verbose=verbose))
    except Exception as error:  # noqa: BLE001  one stream's failure never touches its siblings; it is shown and counted
        return Outcome(request.label, time.monotonic() - started, error=error)
    return Outcome(request.label, result.seconds, result=result)


def _sync_together(
    requests: "Sequence[SyncRequest]", dsn: str, cancelled: threading.Event, *, verbose: bool
) -> list[Outcome]:
    """Streams of one process, all at once."""
    from connectors.sync import SyncResult
    from connectors.sync.together import sync_together

    started = time.monotonic()
    source = requests[0].source.source
    output.note(f"{source}: syncing {output.count(len(requests), 'stream')} together")
    progresses = {item.stream.name: _progress(item.label, cancelled, verbose=verbose) for item in requests}
    log = _progress(source, cancelled, verbose=verbose).on_log
    outcomes: list[Outcome] = []
    for name, outcome in sorted(sync_together(requests, dsn, progresses, log).items()):
        if isinstance(outcome, SyncResult):
            outcomes.append(Outcome(f"{source}.{name}", outcome.seconds, result=outcome))
        else:
            outcomes.append(Outcome(f"{source}.{name}", time.monotonic() - started, error=outcome))
    return outcomes


def _progress(label: str, cancelled: threading.Event, *, verbose: bool) -> "Progress":
    from connectors.sync import Progress

    last_said = time.monotonic()

    def say(line: str) -> None:
        nonlocal last_said
        if verbose or time.monotonic() - last_said >= SAY_EVERY_SECONDS:
            last_said = time.monotonic()
            output.note(f"{label}: {line}")

    return Progress(
        on_step=say,
        on_rows=lambda rows: say(f"{rows:,} rows so far"),
        on_log=say,
        cancelled=cancelled,
    )


@contextmanager
def _stops_in_order(cancelled: threading.Event) -> Generator[None]:
    """The first Ctrl-C asks the sync to stop at the next record; the second raises KeyboardInterrupt."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        if cancelled.is_set():
            raise KeyboardInterrupt
        cancelled.set()
        output.note("stopping after what is sealed; Ctrl-C again ends at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(outcomes: Sequence[Outcome]) -> None:
    numbers = ("extracted", "loaded", "deduplicated", "quarantined", "seconds")
    table = output.table("", "stream", "status", *numbers, right=numbers)
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}"
        if outcome.result is not None:
            rows = outcome.result.rows
            counts = (f"{count:,}" for count in (rows.extracted, rows.loaded, rows.deduplicated, rows.quarantined))
            table.add_row(outcome.stream, outcome.result.status, *counts, seconds)
        else:
            failure = getattr(outcome.error, "failure_class", "unexpected")
            table.add_row(outcome.stream, f"failed ({failure})", "", "", "", "", seconds)
    output.console().print(table)
    for error in merged(outcome.error for outcome in outcomes if isinstance(outcome.error, HeadwaterError)):
        output.failure(error)
    for outcome in outcomes:
        if outcome.error is not None:
            output.debug_traceback(outcome.error)
            if not isinstance(outcome.error, HeadwaterError):
                output.unexpected(outcome.error, outcome.stream)
        elif outcome.result is not None:
            for verdict in outcome.result.verdicts:
                if not verdict.passed:
                    output.note(f"{outcome.stream}: {verdict.severity} {verdict.name}: {verdict.explanation}")
