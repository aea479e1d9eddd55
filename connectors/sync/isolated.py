"""A sync in a process of its own, for streams that declare `limits.memory_mb`: only that process runs out of memory.

The child is `connectors.sync.isolated_child`.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from connectors.errors import HeadwaterError, ResourceError, TransientError
from connectors.sync.isolated_messages import FAILURE, MB, ORDER, RESULT, Failure, Order, error_of, room
from connectors.sync.lease import connect
from connectors.sync.result import Progress, SyncRequest, SyncResult
from connectors.sync.settle import settle_if_free

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 10.0
_NEAR = 0.8
"""A process that was killed with so much of its limit in use is taken to have died of it."""


class ChildError(Exception):
    """What Python said in the child."""


def run_isolated(request: SyncRequest, dsn: str, progress: Progress) -> SyncResult:
    """See `connectors.sync.sync`; a child that dies is settled here, as `resource` when it was near its limit.

    `limits.memory_mb` is the resident memory of the child, its libraries (about 180 MB) included. The child's watchdog
    ends the sync in order beyond it; far beyond it, see `room`, an allocation fails and the child is killed.
    """
    limit = (request.stream.limits.memory_mb or 0) * MB
    order = Order(attributes_of(request), request.trigger, request.run_id, request.window, dsn, limit // MB)
    with _child() as process:
        _tell(process, ORDER.dump_json(order) + b"\n")
        outcome, peak = _follow(process, progress, limit)
    if outcome is None:
        raise _settled(request, dsn, death(request.label, process.returncode, peak, limit))
    if isinstance(outcome, SyncResult):
        return outcome
    raise error_of(outcome) from (ChildError(outcome.trace) if outcome.trace else None)


def attributes_of(request: SyncRequest) -> dict[str, Any]:
    """The source file's attributes with the request's stream alone: what `parse_source` makes the same specs of."""
    source = request.source.model_copy(update={"streams": (request.stream,)})
    return source.model_dump(mode="json", by_alias=True, exclude_unset=True, serialize_as_any=True)


@contextmanager
def _child() -> "Generator[subprocess.Popen[bytes]]":
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, "-m", "connectors.sync.isolated_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        # Ctrl-C reaches the parent alone, which then asks this one to stop
        process_group=0,
    )
    try:
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        # not reaped yet, so that its number is nobody else's while what it left behind is ended
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tell(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(line)
        process.stdin.flush()


def _follow(
    process: "subprocess.Popen[bytes]", progress: Progress, limit: int
) -> tuple[SyncResult | Failure | None, int]:
    """Hand progress on and cancellation over until the child has answered or died; the answer and its peak memory."""
    assert process.stdout is not None
    outcome: SyncResult | Failure | None = None
    peak, rest, is_told = 0, b"", False
    while True:
        if progress.cancelled.is_set() and not is_told:
            is_told = True
            _tell(process, b"cancel\n")
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        if peak > room(limit):
            process.kill()
        if not select.select([process.stdout], [], [], _POLL_SECONDS)[0]:
            continue
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            return outcome, peak
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            outcome = _heard(json.loads(line), progress) or outcome


def _heard(message: dict[str, Any], progress: Progress) -> SyncResult | Failure | None:
    match message:
        case {"step": step}:
            progress.on_step(step)
        case {"rows": rows}:
            progress.on_rows(rows)
        case {"log": line}:
            progress.on_log(line)
        case {"logged": [name, level, text]}:
            logging.getLogger(name).log(level, "%s", text)
        case {"result": result}:
            return RESULT.validate_python(result)
        case {"failure": failure}:
            return FAILURE.validate_python(failure)
        case _:
            pass
    return None


def death(label: str, code: int, peak: int, limit: int) -> HeadwaterError:
    """What a child that ended without an answer died of. code: its return code. peak, limit: bytes."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if code < 0 and peak >= _NEAR * limit:
        return ResourceError(
            label,
            f"its process {how} with {peak // MB} MB of memory in use, limits.memory_mb is {limit // MB}",
            "Raise the limit, lower window.rows, or read fewer columns. What was sealed is published.",
        )
    what = f"its process {how}, with {peak // MB} MB of memory in use"
    return TransientError(label, what, "What was sealed is published; run it again.")


def _settled(request: SyncRequest, dsn: str, error: HeadwaterError) -> HeadwaterError:
    """Give the dead child's sync its final status; the server notices within moments that the lock is free."""
    source, stream = request.source.source, request.stream.name
    deadline = time.monotonic() + _SETTLE_SECONDS
    try:
        with connect(dsn, request.label, autocommit=True) as connection:
            while not (settled := settle_if_free(connection, source, stream, error)):
                if time.monotonic() > deadline:
                    log.warning("sync of a dead process not settled yet stream=%s", request.label)
                    return error
                time.sleep(_POLL_SECONDS)
    except HeadwaterError:
        log.warning("sync of a dead process not settled yet stream=%s", request.label)
        return error
    if settled[0].failure_class is None:
        what = "its process ended after the last publication"
        error = TransientError(request.label, what, "The data is committed; run it again to have it reported.")
    error.sync_id = settled[0].sync_id
    return error
