"""A sync in a process of its own, for streams that declare `limits.memory_mb`: only that process runs out of memory.

Beside `run_isolated` this module is the child: `python -m connectors.sync.isolated`. It gets an `_Order` on its
standard input, one JSON line, and answers on its standard output, one JSON line a message. A further line `cancel`
asks it to stop; the end of the input, because the parent is gone, does too.
"""

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from pydantic import TypeAdapter

from connectors.contract import Window
from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    ContractError,
    HeadwaterError,
    LoaderError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.specs import parse_source
from connectors.sync.audit import AuditFailedError
from connectors.sync.failures import classify
from connectors.sync.lease import Stop, connect
from connectors.sync.result import Progress, SyncRequest, SyncResult, Trigger, Verdict
from connectors.sync.settle import settle_if_free

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_ORPHAN_SECONDS = 50.0
"""How long a child without a parent may take to publish what is sealed."""
_SETTLE_SECONDS = 10.0
_NEAR = 0.8
"""A process that was killed with so much of its limit in use is taken to have died of it."""
_MB = 2**20


@dataclass(frozen=True, slots=True)
class _Order:
    """What the child is told. source: the source file's attributes, with this stream alone."""

    source: dict[str, Any]
    trigger: Trigger
    run_id: str | None
    window: Window | None
    dsn: str
    memory_mb: int


@dataclass(frozen=True, slots=True)
class _Failure:
    """A classified error on its way to the parent. trace: what lies behind it."""

    failure_class: str
    where: str
    what: str
    hint: str
    retry_after: float | None
    sync_id: str | None
    verdicts: tuple[Verdict, ...] | None
    trace: str


_MENDED_BY_A_PAUSE = {kind.failure_class: kind for kind in (RateLimited, TransientError)}
_OTHERS: dict[str, type[HeadwaterError]] = {
    kind.failure_class: kind
    for kind in (ConfigError, AuthError, SourceError, ContractError, ResourceError, LoaderError, Cancelled)
}
_ORDER, _FAILURE, _RESULT = TypeAdapter(_Order), TypeAdapter(_Failure), TypeAdapter(SyncResult)


class ChildError(Exception):
    """What Python said in the child."""


def run_isolated(request: SyncRequest, dsn: str, progress: Progress) -> SyncResult:
    """See `connectors.sync.sync`; a child that dies is settled here, as `resource` when it was near its limit.

    `limits.memory_mb` is the resident memory of the child, its libraries (about 180 MB) included. The child's watchdog
    ends the sync in order beyond it; far beyond it, see `_room`, an allocation fails and the child is killed.
    """
    limit = (request.stream.limits.memory_mb or 0) * _MB
    order = _Order(attributes_of(request), request.trigger, request.run_id, request.window, dsn, limit // _MB)
    with _child() as process:
        _tell(process, _ORDER.dump_json(order) + b"\n")
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
        [sys.executable, "-m", "connectors.sync.isolated"],
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
) -> tuple[SyncResult | _Failure | None, int]:
    """Hand progress on and cancellation over until the child has answered or died; the answer and its peak memory."""
    assert process.stdout is not None
    outcome: SyncResult | _Failure | None = None
    peak, rest, is_told = 0, b"", False
    while True:
        if progress.cancelled.is_set() and not is_told:
            is_told = True
            _tell(process, b"cancel\n")
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        if peak > _room(limit):
            process.kill()
        if not select.select([process.stdout], [], [], _POLL_SECONDS)[0]:
            continue
        chunk = os.read(process.stdout.fileno(), 1 << 16)
        if not chunk:
            return outcome, peak
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            outcome = _heard(json.loads(line), progress) or outcome


def _heard(message: dict[str, Any], progress: Progress) -> SyncResult | _Failure | None:
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
            return _RESULT.validate_python(result)
        case {"failure": failure}:
            return _FAILURE.validate_python(failure)
        case _:
            pass
    return None


def error_of(failure: _Failure) -> HeadwaterError:
    where, what, hint = failure.where, failure.what, failure.hint
    error: HeadwaterError
    if failure.verdicts is not None:
        error = AuditFailedError(where, what, hint, failure.verdicts)
    elif (kind := _MENDED_BY_A_PAUSE.get(failure.failure_class)) is not None:
        error = kind(where, what, hint, retry_after=failure.retry_after)
    else:
        error = _OTHERS[failure.failure_class](where, what, hint)
    error.sync_id = failure.sync_id
    return error


def death(label: str, code: int, peak: int, limit: int) -> HeadwaterError:
    """What a child that ended without an answer died of. code: its return code. peak, limit: bytes."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    if code < 0 and peak >= _NEAR * limit:
        return ResourceError(
            label,
            f"its process {how} with {peak // _MB} MB of memory in use, limits.memory_mb is {limit // _MB}",
            "Raise the limit, lower window.rows, or read fewer columns. What was sealed is published.",
        )
    what = f"its process {how}, with {peak // _MB} MB of memory in use"
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


class _Speaker:
    """The child's side of the line; several threads may speak."""

    def __init__(self) -> None:
        # a copy of standard output that no child inherits; what others print joins standard error
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        with self._lock, suppress(BrokenPipeError):
            while line:
                line = line[self._out.write(line) or 0 :]


class _LogSpeaker(logging.Handler):
    def __init__(self, speaker: _Speaker) -> None:
        super().__init__(logging.INFO)
        self._speaker = speaker

    def emit(self, record: logging.LogRecord) -> None:
        self._speaker.say({"logged": [record.name, record.levelno, record.getMessage()]})


def main() -> None:
    """The child."""
    speaker = _Speaker()
    # unbuffered: a thread that waits inside a buffered reader aborts the interpreter's end
    told: BinaryIO = os.fdopen(os.dup(0), "rb", buffering=0)
    order = _ORDER.validate_json(told.readline())
    limit_allocations(order.memory_mb)
    ours = logging.getLogger("connectors")
    ours.setLevel(logging.INFO)
    ours.addHandler(_LogSpeaker(speaker))
    source = parse_source(order.source, order.source["source"])
    request = SyncRequest(source, source.streams[0], order.trigger, order.run_id, order.window)
    progress = Progress(
        on_step=lambda step: speaker.say({"step": step}),
        on_rows=lambda rows: speaker.say({"rows": rows}),
        on_log=lambda line: speaker.say({"log": line}),
    )
    threading.Thread(target=_listen, args=(told, progress.cancelled), daemon=True).start()
    try:
        from connectors.sync.lifecycle import run

        speaker.say({"result": _RESULT.dump_python(run(request, order.dsn, progress), mode="json")})
    except BaseException as error:  # noqa: BLE001  (the parent raises it)
        failure = failure_of(classify(error, request, Stop()))
        speaker.say({"failure": _FAILURE.dump_python(failure, mode="json")})


def failure_of(error: HeadwaterError) -> _Failure:
    """The error as it crosses; `error_of` is its inverse."""
    cause = error.__cause__ or error.__context__
    verdicts: Sequence[Verdict] | None = getattr(error, "verdicts", None)
    return _Failure(
        failure_class=error.failure_class,
        where=error.where,
        what=error.what,
        hint=error.hint,
        retry_after=getattr(error, "retry_after", None),
        sync_id=error.sync_id,
        verdicts=tuple(verdicts) if verdicts is not None else None,
        trace="".join(traceback.format_exception(cause)) if cause else "",
    )


def _room(limit: int) -> int:
    """Bytes that end a child which its own watchdog did not: address space that is only reserved counts here."""
    return 2 * limit + 512 * _MB


def limit_allocations(memory_mb: int) -> None:
    """An allocation far beyond the limit fails at once, before the watchdog has even looked; not on every system."""
    import resource

    room = _room(memory_mb * _MB)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (room, room))


def _listen(told: BinaryIO, cancelled: threading.Event) -> None:
    line = told.readline()
    cancelled.set()
    while line:
        line = told.readline()
    # nobody waits for an answer any more
    time.sleep(_ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
