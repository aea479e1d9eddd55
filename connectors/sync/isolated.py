"""A sync in a process of its own: only that process runs out of memory, and it can be ended when its reader blocks.

For streams with `limits.memory_mb`, and with `limits.time` where `Kind.may_block`. The child is
`connectors.sync.isolated_child`; it ends in order by itself as long as Python runs in it.
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

from connectors.errors import Cancelled, HeadwaterError, ResourceError, TransientError
from connectors.sync.isolated_messages import FAILURE, MB, ORDER, RESULT, Failure, Order, error_of, room
from connectors.sync.lease import connect
from connectors.sync.result import Progress, SyncRequest, SyncResult
from connectors.sync.settle import settle_if_free

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_REAP_SECONDS = 0.01
_SETTLE_SECONDS = 10.0
_SILENCE_SECONDS = 5.0
"""A child that has to end and says nothing for so long is ended: Python stands still in it."""
_END_SECONDS = 3.0
"""How long a child may take to end after its answer, or after SIGTERM."""
_NEAR = 0.8
"""A process that was killed with so much of its limit in use is taken to have died of it."""


class ChildError(Exception):
    """What Python said in the child."""


def run_isolated(request: SyncRequest, dsn: str, progress: Progress) -> SyncResult:
    """See `connectors.sync.sync`; a child that dies is settled here, as `resource` when it was near its memory limit.

    `limits.memory_mb` is the resident memory of the child, its libraries (about 180 MB) included. The child's watchdog
    ends the sync in order beyond it; far beyond it, see `room`, an allocation fails and the child is killed.
    """
    memory_mb = request.stream.limits.memory_mb
    limit = None if memory_mb is None else memory_mb * MB
    order = Order(
        attributes_of(request), request.trigger, request.run_id, request.window, dsn, memory_mb, tuple(sys.path)
    )
    with _child() as process:
        _tell(process, ORDER.dump_json(order) + b"\n")
        ending = Ending(request, process)
        outcome, peak = _follow(process, progress, limit, ending)
    if outcome is None:
        raise _settled(request, dsn, ending.reason or death(request.label, process.returncode, peak, limit))
    if isinstance(outcome, SyncResult):
        return outcome
    raise error_of(outcome) from (ChildError(outcome.trace) if outcome.trace else None)


class Ending:
    """When a child is ended from outside: it has answered, or has to end and is silent. Looked at a few times a second.

    reason: what a child that was ended so has died of.
    """

    def __init__(self, request: SyncRequest, process: "subprocess.Popen[bytes]") -> None:
        self._request = request
        self._process = process
        self._began: float | None = None
        self._heard = 0.0
        self._due: HeadwaterError | None = None
        self._due_at = 0.0
        self._has_answered = False
        self._terminated_at: float | None = None
        self.reason: HeadwaterError | None = None

    def heard(self) -> None:
        """The child has said something; its time begins with its first word."""
        self._heard = time.monotonic()
        self._began = self._began or self._heard

    def answered(self) -> None:
        """All that is left for it is to end, which threads of a library may keep it from."""
        self._has_answered, self._due_at = True, time.monotonic()

    def look(self, *, is_cancelled: bool) -> None:
        """End the child if it is time to; first with SIGTERM, for the sake of processes that its reader has started."""
        now = time.monotonic()
        if self._terminated_at is not None:
            if now - self._terminated_at > _END_SECONDS:
                self._process.kill()
            return
        if self._has_answered:
            is_over = now - self._due_at > _END_SECONDS
        else:
            self._judge(now, is_cancelled=is_cancelled)
            is_over = self._due is not None and now - max(self._heard, self._due_at) > _SILENCE_SECONDS
        if is_over:
            self.reason, self._terminated_at = self._due, now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _judge(self, now: float, *, is_cancelled: bool) -> None:
        if self._due is not None or self._began is None:
            return
        limit, label = self._request.stream.limits.time, self._request.label
        hint = "What was published before stays; run it again"
        if limit is not None and (elapsed := now - self._began) > limit.total_seconds():
            what = f"still running after {elapsed:.0f} s, limits.time is {limit.total_seconds():.0f} s"
            self._due = ResourceError(label, what, f"{hint}, or raise the limit.")
        elif is_cancelled:
            self._due = Cancelled(label, "asked to stop, and its process had to be ended", f"{hint}.")
        self._due_at = now


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
        deadline = time.monotonic() + _END_SECONDS
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(_REAP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tell(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.write(line)
        process.stdin.flush()


def _follow(
    process: "subprocess.Popen[bytes]", progress: Progress, limit: int | None, ending: Ending
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
        if limit is not None and peak > room(limit):
            process.kill()
        ending.look(is_cancelled=is_told)
        if not select.select([process.stdout], [], [], _POLL_SECONDS)[0]:
            continue
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            return outcome, peak
        ending.heard()
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if found := _heard(json.loads(line), progress):
                outcome = found
                ending.answered()


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


def death(label: str, code: int, peak: int, limit: int | None) -> HeadwaterError:
    """What a child that ended without an answer died of. code: its return code. peak, limit: bytes."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if limit is not None and code < 0 and peak >= _NEAR * limit:
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
