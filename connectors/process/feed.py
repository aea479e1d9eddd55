"""The way of one stream's records from the process to its sync: bounded, in order, sealed by states.

A feed begins `held`: its records wait in a segment until the first state tells how they are sealed. A state of the
stream's own makes it `direct`: records go on at once and its checkpoints follow them. A state of all streams makes it
`shared`: records wait in segments until that state is committed with them (docs/decisions/0007-shared-states.md).
"""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, Full, Queue
from typing import IO, Any, Literal, cast

from connectors.contract import Checkpoint, JsonRecords, Message, Rejected
from connectors.specs import StreamSpec

Lane = Literal["held", "direct", "shared"]
CHUNK_BYTES = 512 << 10
_WAITING_CHUNKS = 3
_IN_MEMORY_BYTES = 1 << 20
_TICK_SECONDS = 0.2


class Segment:
    """Raw records that wait, on disk beyond 1 MB. What is sealed comes before what is not."""

    def __init__(self, folder: Path, *, in_memory: bool = False) -> None:
        """in_memory: plain values of the records must not reach the disk, however much memory they take."""
        self.rows = 0
        self.sealed_rows = 0
        self._size = 0
        self._sealed_size = 0
        # a limit of 0 is none
        limit = 0 if in_memory else _IN_MEMORY_BYTES
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(limit, dir=str(folder)))  # noqa: SIM115 see `close`

    def add(self, body: bytes) -> None:
        self._size += self._file.write(body + b"\n")
        self.rows += 1

    def seal(self) -> int:
        """How many records are sealed by this and were not before."""
        rows = self.rows - self.sealed_rows
        self.sealed_rows, self._sealed_size = self.rows, self._size
        return rows

    def chunks(self) -> Iterator[bytes]:
        """What is sealed, in pieces of whole lines. Nothing is added until all are read."""
        self._file.seek(0)
        left = self._sealed_size
        while left > 0:
            chunk = self._file.read(min(CHUNK_BYTES, left))
            chunk += self._file.readline() if len(chunk) < left else b""
            left -= len(chunk)
            yield chunk
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        self._file.close()


class Feed:
    """Written by the thread that reads the process, read by the stream's own."""

    def __init__(self, stream: StreamSpec, folder: Path, *, is_whole: bool) -> None:
        """is_whole: every read is the whole collection, so no state of the source concerns it."""
        self.stream = stream
        self.lane: Lane = "direct" if is_whole else "held"
        self.is_done = False
        self.is_complete = False
        self.closed = threading.Event()
        self.chunk_rows = sys.maxsize
        self.records = 0
        self._folder = folder
        self._open = self._segment()
        self._chunk: list[bytes] = []
        self._chunk_size = 0
        self._queue: Queue[Message | BaseException | None] = Queue(_WAITING_CHUNKS)
        self._last: Mapping[str, Any] | None = None

    def _segment(self) -> Segment:
        return Segment(self._folder, in_memory=self.stream.has_column_rules)

    # the process's side

    def add(self, body: bytes) -> None:
        if self.is_done:
            return
        self.records += 1
        if self.lane == "direct":
            self._chunk.append(body)
            self._chunk_size += len(body)
            if self._chunk_size >= CHUNK_BYTES or len(self._chunk) >= self.chunk_rows:
                self.flush()
        else:
            self._open.add(body)

    def put(self, message: Message | BaseException | None) -> None:
        """Waits while the reader is busy: the process is held back by its pipe."""
        while not self.closed.is_set():
            try:
                self._queue.put(message, timeout=_TICK_SECONDS)
            except Full:
                continue
            return

    def tell(self, message: Message) -> None:
        """A message that keeps its place among the records that are on their way."""
        self.flush()
        self.put(message)

    def refuse(self, payload: bytes, reason: str) -> None:
        """A record for quarantine. Among records that wait it stands as it is: the engine cannot read it either."""
        if self.is_done:
            return
        self.records += 1
        if self.lane == "direct":
            self.tell(Rejected(payload, reason, f"{self.stream.name}, record {self.records:,}"))
        else:
            self._open.add(payload.replace(b"\n", b" "))

    def flush(self) -> None:
        if self._chunk:
            body, self._chunk, self._chunk_size = b"\n".join(self._chunk), [], 0
            self._send(body)

    def _send(self, body: bytes) -> None:
        self.put(JsonRecords(body, f"{self.stream.name} up to record {self.records:,}"))

    def seal(self, data: Mapping[str, Any], *, is_resumable: bool) -> None:
        """A state of the stream's own."""
        if self.is_done:
            return
        self.go_direct()
        self._last = data
        if is_resumable:
            self.tell(Checkpoint(connector=data))

    def go_direct(self) -> None:
        if self.lane != "direct":
            self.lane = "direct"
            self._open.seal()
            self._hand_over()

    def seal_shared(self) -> int:
        """A state of all streams: how many records it covers."""
        if self.lane == "direct" or self.is_done:
            return 0
        self.lane = "shared"
        return self._open.seal()

    @property
    def has_sealed(self) -> bool:
        return self._open.sealed_rows > 0

    def pieces(self) -> Iterator[bytes]:
        """What is sealed with the others and not committed yet."""
        return self._open.chunks()

    def committed(self, number: int) -> None:
        """The sealed records are kept with their state, the last of them under `number`: they may be loaded."""
        if self.has_sealed:
            self._hand_over()
            self.put(Checkpoint(connector={"piece": number}))

    def _hand_over(self) -> None:
        for chunk in self._open.chunks():
            self._send(chunk)
        self._open.close()
        self._open = self._segment()

    def end(self) -> None:
        """Everything was sent, and the source says so."""
        if self.is_done:
            return
        self.is_done = True
        if self.lane == "held":
            self.go_direct()
        self.flush()
        if self._last is not None:
            self.put(Checkpoint(connector=self._last))
        self.put(None)

    def fail(self, error: BaseException) -> None:
        """What was not sealed is dropped; the reader gets the error."""
        if not self.is_done:
            self.is_done = True
            self._open.close()
            self.put(error)

    @property
    def unsealed(self) -> int:
        """Records that wait for a state."""
        return self._open.rows - self._open.sealed_rows

    # the stream's side

    def messages(self, cancelled: threading.Event) -> Iterator[Message]:
        """Until the end or the error; returns early when cancelled."""
        while not cancelled.is_set():
            try:
                message = self._queue.get(timeout=_TICK_SECONDS)
            except Empty:
                continue
            if message is None:
                return
            if isinstance(message, BaseException):
                raise message
            yield message
