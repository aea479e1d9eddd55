"""One sync of the engine inside a Dagster op: its progress in the run's log, its cancellation from the run's."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TypeVar

import dagster as dg

from connectors.sync import Progress, SyncRequest, SyncResult, sync

Lines = SimpleQueue[str | None]
_Outcome = TypeVar("_Outcome")

ROWS_EVERY_SECONDS = 10.0
GRACE_SECONDS = 50.0
"""How long a cancelled sync may take to publish what is sealed and settle its ledger row (the promise is 60 s)."""


def run_sync(request: SyncRequest, dsn: str, log: Callable[[str], None]) -> SyncResult:
    """The sync, in a thread of its own so that a termination reaches it between records and not inside a commit.

    Args:
        log: called from the calling thread only.

    Raises:
        HeadwaterError: as the engine classified it.
        DagsterExecutionInterruptedError: the run was terminated; the sync has ended, or had GRACE_SECONDS to.
    """
    lines: Lines = SimpleQueue()
    progress = _progress(request, lines)
    return _followed(lambda: sync(request, dsn, progress), request.label, lines, log, progress.cancelled)


def run_together(
    requests: Sequence[SyncRequest], dsn: str, log: Callable[[str], None]
) -> "Mapping[str, SyncResult | Exception]":
    """As `run_sync`, for streams of one process: how each ended, by name."""
    from connectors.sync.together import sync_together  # the engine loads with the first sync, not with definitions

    source = requests[0].source.source
    lines: Lines = SimpleQueue()
    cancelled = threading.Event()
    progresses = {request.stream.name: _progress(request, lines, cancelled) for request in requests}

    def work() -> "Mapping[str, SyncResult | Exception]":
        return sync_together(requests, dsn, progresses, lambda line: lines.put(f"{source}: {line}"))

    return _followed(work, source, lines, log, cancelled)


def _progress(request: SyncRequest, lines: Lines, cancelled: threading.Event | None = None) -> Progress:
    return Progress(
        on_step=lambda step: lines.put(f"{request.label}: {step}"),
        on_rows=_now_and_then(request.label, lines),
        on_log=lambda line: lines.put(f"{request.label}: {line}"),
        cancelled=cancelled or threading.Event(),
    )


def _followed(
    sync: Callable[[], _Outcome], name: str, lines: Lines, log: Callable[[str], None], cancelled: threading.Event
) -> _Outcome:
    outcome: list[_Outcome | BaseException] = []

    def work() -> None:
        try:
            outcome.append(sync())
        except BaseException as error:  # noqa: BLE001 (handed to the op's own thread, which raises it)
            outcome.append(error)
        finally:
            lines.put(None)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        while (line := lines.get()) is not None:
            log(line)
    except (dg.DagsterExecutionInterruptedError, KeyboardInterrupt):
        cancelled.set()
        thread.join(GRACE_SECONDS)
        raise
    thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _now_and_then(label: str, lines: Lines) -> Callable[[int], None]:
    """Rows so far, at most one line in ten seconds."""
    last = time.monotonic()

    def on_rows(rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= ROWS_EVERY_SECONDS:
            last = time.monotonic()
            lines.put(f"{label}: {rows} rows so far")

    return on_rows
