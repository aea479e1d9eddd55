"""One run of the Sling binary: a child process that delivers Arrow batches through its pipe."""

import io
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from connectors.errors import SourceError
from connectors.process.child import Child, Command, Limits, Workplace, write_private
from connectors.sling.failures import failure

if TYPE_CHECKING:
    import pyarrow as pa

CONNECTION = "HEADWATER"
_KEPT_WARNINGS = 200
_MAGIC = b"ARROW1\x00\x00"
_STAMP = re.compile(r"^\S{4,10} (?:\d{2}:\d{2}:\d{2} )?(?=INF|WRN|ERR|DBG)")
_WROTE = re.compile(r"\bwrote (\d+) rows\b")


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
        own = {
            "SLING_HOME_DIR": str(folder),
            "SLING_TEMP_DIR": str(folder),
            "SLING_DISABLE_TELEMETRY": "true",
            # without it 1.4.11 writes nothing at all, successfully, for some column options
            "SLING_ALLOW_EMPTY": "true",
        }
        return cls(folder, own | dict(extra))


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

    1.4.11 alone would outlive a killed reader: it stays, asleep, with its connection to the source open.

    warnings: lines not yet looked at. rows_said: how many rows Sling says it wrote.
    """

    def __init__(self, call: Call, arguments: Sequence[str]) -> None:
        self.call = call
        self.warnings: deque[str] = deque(maxlen=_KEPT_WARNINGS)
        self.rows_said: int | None = None
        place = Workplace(call.where, call.home.folder, call.secrets, self._hear, call.cancelled)
        command = Command([str(call.binary), *arguments], call.doing, call.home.environment)
        limits = Limits(timedelta(seconds=call.stall_seconds), log_lines=sys.maxsize)
        self._child = Child(place, command, limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.stop()

    @property
    def received_bytes(self) -> int:
        """Through the pipe, so far."""
        return self._child.received_bytes

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """The record batches as they arrive, one without rows when there are none.

        The pipe holds Sling back while nobody reads.

        Raises:
            the classified failure of the process; Cancelled; SourceError when the stream is cut or rows are missing.
        """
        import pyarrow as pa

        empty: pa.RecordBatch | None = None
        pipe = io.BufferedReader(_Pipe(self._child.reads()), 1 << 20)
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
        text = b"".join(self._child.reads())
        self._require_success()
        return text

    def _require_success(self) -> None:
        """Waits for the end. Raises the classified failure unless it was a success."""
        ending = self._child.finish()
        if ending.code != 0:
            lines = [_STAMP.sub("", line) for line in ending.lines]
            raise failure(self.call.where, self.call.doing, lines, ending.code)

    def _hear(self, line: str) -> None:
        line = _STAMP.sub("", line)
        if match := _WROTE.search(line):
            self.rows_said = int(match[1])
        if line.startswith("WRN"):
            self.warnings.append(line.removeprefix("WRN").strip())


class _Pipe(io.RawIOBase):
    """What comes out of the child, as a file."""

    def __init__(self, reads: Iterator[bytes]) -> None:
        super().__init__()
        self._reads = reads
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or next(self._reads, b"")
        size = min(len(data), len(buffer))
        buffer[:size], self._rest = data[:size], data[size:]
        return size


def _report() -> str:
    return "Sync again; if it comes back, read the stream with another kind."
