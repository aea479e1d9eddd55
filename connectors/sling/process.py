"""One run of the Sling binary: its own process group, an environment of its own, Arrow batches through the pipe."""

import io
import json
import os
import re
import selectors
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, cast

from connectors.errors import Cancelled, HeadwaterError, SourceError, TransientError
from connectors.secrets import mask
from connectors.sling.failures import failure

if TYPE_CHECKING:
    import pyarrow as pa

TICK_SECONDS = 0.1
TERM_SECONDS = 3.0
SIGNALLED = 128
CONNECTION = "HEADWATER"
_KEPT_LINES = 200
_KEPT_LINE = 2_000
_MAGIC = b"ARROW1\x00\x00"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"^\S{4,10} (?:\d{2}:\d{2}:\d{2} )?(?=INF|WRN|ERR|DBG)")
_WROTE = re.compile(r"\bwrote (\d+) rows\b")
_LEASH = """exec 3<&0
"$@" 3<&- </dev/null &
child=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
leash=$!
wait $child
code=$?
kill -KILL $leash
wait $leash 2>/dev/null
exit $code
"""
"""Runs the arguments until they end, or until our end of stdin closes, which a kill -9 of ours does too: then the whole
group dies. Without it 1.4.11 outlives its reader: it stays, asleep, with its connection to the source open.
"""
_INHERITED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LANG")
"""All that the child gets from our environment: where certificates are, and the language."""


@dataclass(frozen=True, slots=True)
class Home:
    """A private folder for Sling: its connection file (mode 0600), its scratch files. Removed by its owner."""

    folder: Path
    environment: Mapping[str, str]

    @classmethod
    def create(cls, folder: Path, connection: Mapping[str, str], extra: Mapping[str, str]) -> Self:
        """Writes the connection file; credentials are in no argument and no environment variable of the child."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # JSON is YAML
        write_private(folder / "env.yaml", json.dumps({"connections": {CONNECTION: dict(connection)}}))
        base = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        own = {
            "PATH": os.defpath,
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "TZ": "UTC",
            "SLING_HOME_DIR": str(folder),
            "SLING_TEMP_DIR": str(folder),
            "SLING_DISABLE_TELEMETRY": "true",
            # without it 1.4.11 writes nothing at all, successfully, for some column options
            "SLING_ALLOW_EMPTY": "true",
        }
        return cls(folder, base | own | dict(extra))


def write_private(path: Path, text: str) -> None:
    """A new file that only its owner reads, also while it is being written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


@dataclass(frozen=True, slots=True)
class Call:
    """What one run of the binary is about.

    doing: for messages, e.g. `reading public.airlines`. secrets: masked in every message and line.
    """

    binary: Path
    home: Home
    where: str
    doing: str
    secrets: Sequence[str]
    cancelled: threading.Event
    stall_seconds: float


class SlingRun:
    """A running Sling, started at once; as a context manager it leaves no process behind, however it is left.

    warnings: lines not yet looked at. rows_said: how many rows Sling says it wrote. received_bytes: through the pipe.
    """

    def __init__(self, call: Call, arguments: Sequence[str]) -> None:
        self.call = call
        self.warnings: deque[str] = deque(maxlen=_KEPT_LINES)
        self.rows_said: int | None = None
        self.received_bytes = 0
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._process = subprocess.Popen(  # noqa: S603 the binary is ours, the arguments name files and options
            ["/bin/sh", "-c", _LEASH, "sling", str(call.binary), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(call.home.environment),
            cwd=call.home.folder,
            start_new_session=True,
            umask=0o077,
        )
        # all are pipes, as asked above
        self._leash = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._stderr = cast("IO[bytes]", self._process.stderr)
        self._reader = threading.Thread(target=self._read_lines, name="sling-stderr", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """The record batches as they arrive, one without rows when there are none.

        The pipe holds Sling back while nobody reads.

        Raises:
            the classified failure of the process; Cancelled; SourceError when the stream is cut or rows are missing.
        """
        import pyarrow as pa

        empty: pa.RecordBatch | None = None
        pipe = io.BufferedReader(_Pipe(self, self._stdout.fileno()), 1 << 20)
        rows = 0
        try:
            if (head := pipe.read(len(_MAGIC))) != _MAGIC:
                self._require_success()
                raise SourceError(
                    self.call.where, f"Sling delivered no data while {self.call.doing}: {head!r}", _report()
                )
            with pa.ipc.open_stream(pipe) as stream:
                empty = pa.RecordBatch.from_pylist([], schema=stream.schema)
                for batch in stream:
                    rows += batch.num_rows
                    yield batch
            while pipe.read(1 << 16):  # the index of the file format, of no use here
                pass
        except (pa.ArrowException, OSError) as error:
            self._require_success()
            raise SourceError(
                self.call.where, f"Sling's stream broke after {rows:,} rows while {self.call.doing}: {error}", _report()
            ) from error
        self._require_success()
        if self.rows_said is not None and self.rows_said != rows:
            raise SourceError(
                self.call.where,
                f"Sling read {self.rows_said:,} rows but delivered {rows:,} while {self.call.doing}",
                _report(),
            )
        if rows == 0 and empty is not None:
            yield empty

    def output(self) -> bytes:
        """All of stdout of a short command that succeeded."""
        text = io.BufferedReader(_Pipe(self, self._stdout.fileno())).read()
        self._require_success()
        return text

    def stop(self) -> None:
        """Ends the whole process group: politely, then by force. Twice is fine."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(TERM_SECONDS)
            # what is left in the group goes too
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._leash.close()
        self._reader.join()
        self._stdout.close()
        self._stderr.close()

    def _require_success(self) -> None:
        """Waits for the end. Raises the classified failure unless it was a success."""
        while True:
            try:
                code = self._process.wait(TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.check_cancelled()
        self._reader.join()
        if code != 0:
            # the shell's word for a signal
            code = SIGNALLED - code if code > SIGNALLED else code
            raise failure(self.call.where, self.call.doing, list(self._lines), code)

    def check_cancelled(self) -> None:
        if self.call.cancelled.is_set():
            raise Cancelled(
                self.call.where, f"stopped while {self.call.doing}", "What was sealed before stays; sync again."
            )

    def _read_lines(self) -> None:
        # readline with a limit: a line without end must not fill the memory
        for raw in iter(lambda: self._stderr.readline(_KEPT_LINE), b""):
            line = _STAMP.sub("", _COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip())
            if not line.strip():
                continue
            line = mask(line, self.call.secrets)
            self._lines.append(line)
            if match := _WROTE.search(line):
                self.rows_said = int(match[1])
            if line.startswith("WRN"):
                self.warnings.append(line.removeprefix("WRN").strip())


class _Pipe(io.RawIOBase):
    """stdout of the child; a read waits for data, but not for ever and not against a cancellation."""

    def __init__(self, run: SlingRun, descriptor: int) -> None:
        super().__init__()
        self._run = run
        self._descriptor = descriptor
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._descriptor, selectors.EVENT_READ)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        deadline = time.monotonic() + self._run.call.stall_seconds
        while True:
            self._run.check_cancelled()
            if self._selector.select(TICK_SECONDS):
                break
            if time.monotonic() > deadline:
                raise _stalled(self._run)
        data = os.read(self._descriptor, len(buffer))
        buffer[: len(data)] = data
        self._run.received_bytes += len(data)
        return len(data)

    def close(self) -> None:
        self._selector.close()
        super().close()


def _stalled(run: SlingRun) -> HeadwaterError:
    return TransientError(
        run.call.where,
        f"Sling delivered nothing for {run.call.stall_seconds:.0f} s while {run.call.doing}",
        "Look for a lock or a long sort at the source; raise connector.stall_timeout for queries that start slowly.",
    )


def _report() -> str:
    return "Sync again; if it comes back, read the stream with another kind."
