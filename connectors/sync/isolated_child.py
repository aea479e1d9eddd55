"""The child of an isolated sync: `python -m connectors.sync.isolated_child`.

It gets an `Order` on its standard input, one JSON line, and answers on its standard output, one JSON line a message. A
further line `cancel` asks it to stop; the end of the input, because the parent is gone, does too. Until it has ended it
says now and then that it lives: a reader in C that keeps Python to itself shows by silence.
"""

import json
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Any, BinaryIO

from connectors.registry import kind
from connectors.specs import parse_source
from connectors.sync.failures import classify
from connectors.sync.isolated_messages import BEAT_SECONDS, FAILURE, MB, ORDER, RESULT, failure_of, room
from connectors.sync.isolated_reader import LeavableReader
from connectors.sync.lease import Stop
from connectors.sync.result import Progress, SyncRequest

_ORPHAN_SECONDS = 50.0
"""How long a child without a parent may take to publish what is sealed."""


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
    order = ORDER.validate_json(told.readline())
    threading.Thread(target=_beat, args=(speaker,), daemon=True).start()
    sys.path[:] = order.path
    if order.memory_mb is not None:
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

        reader = LeavableReader(source) if kind(source.connector.kind).may_block else None
        speaker.say({"result": RESULT.dump_python(run(request, order.dsn, progress, reader), mode="json")})
    except BaseException as error:  # noqa: BLE001  (the parent raises it)
        failure = failure_of(classify(error, request, Stop()))
        speaker.say({"failure": FAILURE.dump_python(failure, mode="json")})


def limit_allocations(memory_mb: int) -> None:
    """An allocation far beyond the limit fails at once, before the watchdog has even looked; not on every system."""
    import resource

    most = room(memory_mb * MB)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _beat(speaker: _Speaker) -> None:
    while True:
        speaker.say({"beat": None})
        time.sleep(BEAT_SECONDS)


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
