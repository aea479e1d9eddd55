"""One process for several streams: started when all of them are ready, read by one thread, ended with the last."""

import copy
import gzip
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from connectors import contract
from connectors.contract import (
    Common,
    Hints,
    Json,
)
from connectors.errors import ContractError, HeadwaterError, SourceError, TransientError
from connectors.process import messages
from connectors.process.child import Child, Command, Ending, Limits, Oversized, Workplace
from connectors.process.feed import Feed
from connectors.specs import StreamSpec

log = logging.getLogger(__name__)

LINE_ROOM = 64 << 10
_PREVIEW_ROWS = 100


@dataclass(frozen=True, slots=True)
class Joined:
    """A stream of the run. name: the source's own of it. position: the connector state it resumes from."""

    stream: StreamSpec
    name: str
    position: Json


class Dialect(Protocol):
    """One protocol over one program, for one run.

    where: for messages, e.g. `shop`. secrets: masked in logs and messages.
    """

    where: str
    limits: Limits
    secrets: Sequence[str]

    def source_name(self, stream: StreamSpec) -> str:
        """The name that the program knows the stream by."""
        ...

    def prepare(self, joined: Sequence[Joined], common: Common, place: Workplace) -> Command:
        """Writes the program's files into the place; the command that reads the joined streams.

        common.positions() has the states of the streams that are not joined, common.position() what was last given
        with a State of no stream.

        Raises:
            HeadwaterError: a stream is not in the catalog, a setting is wrong, ...
        """
        ...

    def decode(self, line: bytes) -> messages.Message | Sequence[messages.Message] | None:
        """What the line says. It must be fast for records.

        Raises:
            HeadwaterError: the run cannot go on.
        """
        ...

    def failure(self, ending: Ending) -> HeadwaterError | None:
        """The process has ended: its error, None when it ended well."""
        ...


def is_whole(stream: StreamSpec) -> bool:
    """Every read of the stream is the whole collection: it starts from no position."""
    return stream.write == "replace" or stream.snapshot


class Session:
    """One run. Its members read in threads of their own, `_pump` in another."""

    def __init__(self, dialect: Dialect, source: str, streams: Sequence[StreamSpec], common: Common) -> None:
        self._dialect = dialect
        self._source = source
        self._common = common
        self._lock = threading.Lock()
        self._order = [stream.name for stream in streams]
        self._waiting = set(self._order)
        self._joined: dict[str, Joined] = {}
        self._feeds: dict[str, Feed] = {}
        self._by_name: dict[str, Feed] = {}
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: HeadwaterError | None = None
        self._strangers: set[str] = set()
        self._position: Json | None = None
        self._last_position: Json | None = None
        self._afterwards: Json | None = None
        self._has_own_states = False
        self._sealed_rows = 0
        self._committed_at = time.monotonic()

    # the members' side

    def join(self, stream: StreamSpec, position: Json, *, is_preview: bool) -> Feed:
        feed = Feed(stream, self._common.folder, is_whole=is_whole(stream))
        if is_preview:
            feed.chunk_rows = _PREVIEW_ROWS
            feed.lane = "direct"
        name = self._dialect.source_name(stream)
        with self._lock:
            self._feeds[stream.name] = self._by_name[name] = feed
            self._joined[stream.name] = Joined(stream, name, position)
            self._waiting.discard(stream.name)
            self._start_when_ready()
        return feed

    def backlog(self, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
        return self._common.backlog(stream, after)

    def leave(self, stream: str) -> None:
        """Nobody reads the stream any more; the last one out ends the process and waits for it."""
        with self._lock:
            if feed := self._feeds.get(stream):
                feed.closed.set()
            self._waiting.discard(stream)
            self._start_when_ready()
            thread = self._thread
            is_last = not self._waiting and all(feed.closed.is_set() for feed in self._feeds.values())
        if is_last:
            self._cancelled.set()
            if thread is not None:
                thread.join()

    def _start_when_ready(self) -> None:
        if self._thread is None and not self._waiting and any(not f.closed.is_set() for f in self._feeds.values()):
            self._thread = threading.Thread(target=self._pump, name=f"process of {self._source}", daemon=True)
            self._thread.start()

    # the process's side

    def _pump(self) -> None:
        error: BaseException | None = None
        try:
            error = self._run()
        except BaseException as caught:  # noqa: BLE001 (handed to every member, which raises it)
            error = caught
        try:
            self._conclude(error)
        except BaseException as caught:  # noqa: BLE001
            for feed in self._feeds.values():
                feed.fail(self._of_stream(caught, feed))

    def _run(self) -> HeadwaterError | None:
        dialect, common = self._dialect, self._common
        self._require_everybody()
        place = Workplace(dialect.where, common.folder, dialect.secrets, common.log, self._cancelled)
        # in the source file's order, not in that of our threads: some programs make other data of another order
        joined = [self._joined[name] for name in self._order if name in self._joined]
        command = dialect.prepare(joined, common, place)
        longest = LINE_ROOM + max(one.stream.max_record_bytes for one in joined)
        with Child(place, command, dialect.limits) as child:
            for line in child.lines(longest):
                if isinstance(line, Oversized):
                    self._refuse(line, longest)
                    continue
                self._take(dialect.decode(line))
            return self._error or dialect.failure(child.finish())

    def _require_everybody(self) -> None:
        """Streams with one position between them are read together or not at all."""
        together = set(self._common.position().get("streams", ()))
        if missing := sorted(together - set(self._joined)):
            raise TransientError(
                self._source,
                f"{', '.join(missing)} share one position with the streams of this run, and do not take part",
                "Sync the whole source: select all of its streams.",
            )

    def _take(self, said: messages.Message | Sequence[messages.Message] | None) -> None:
        if type(said) is messages.Record:
            feed = self._by_name.get(said.stream)
            if feed is not None:
                feed.add(said.body)
            else:
                self._note_stranger(said.stream)
        elif isinstance(said, Sequence):
            for one in said:
                self._take(one)
        elif said is not None:
            self._heed(said)

    def _heed(self, said: messages.Message) -> None:
        """What is about the whole run; the rest is for the stream that it names."""
        match said:
            case messages.State(stream=None):
                self._seal_shared(said.data)
            case messages.Note():
                self._common.log(said.text)
            case messages.Failed(stream=None):
                self._error = self._error or said.error
            case messages.Afterwards():
                self._afterwards = said.data
            case _:
                if isinstance(said, messages.State):
                    self._has_own_states = True
                    self._end_complete()
                feed = self._by_name.get(said.stream or "")
                if feed is not None:
                    self._tell(feed, said)

    def _tell(self, feed: Feed, said: messages.Message) -> None:
        match said:
            case messages.State():
                feed.seal(said.data, is_resumable=said.is_resumable)
            case messages.Types():
                feed.tell(Hints(said.types))
            case messages.Replaces():
                feed.tell(contract.Replaces(said.column, said.value))
            case messages.Broken():
                feed.refuse(said.payload, said.reason)
            case messages.Batch():
                self._read_batch(feed, said)
            case messages.Failed() if feed.lane == "shared":
                # its records would be missing behind the position of all
                self._error = self._error or said.error
            case messages.Failed():
                feed.flush()
                feed.fail(self._of_stream(said.error, feed))
            case messages.Complete():
                feed.is_complete = True
                if feed.lane == "direct" or self._has_own_states:
                    feed.end()
            case _:
                pass

    def _end_complete(self) -> None:
        """A state of one stream's own tells that this source has such: what is complete waits for no state."""
        for feed in self._feeds.values():
            if feed.is_complete and feed.lane == "held":
                feed.end()

    def _read_batch(self, feed: Feed, batch: messages.Batch) -> None:
        for path in batch.paths:
            try:
                with gzip.open(path) if batch.is_gzip else path.open("rb") as file:
                    for line in file:
                        if body := line.strip():
                            feed.add(batch.shape(body))
            except (OSError, EOFError, gzip.BadGzipFile, msgspec.DecodeError) as error:
                raise SourceError(
                    self._dialect.where,
                    f"batch file {path.name} of {batch.stream} cannot be read: {error}",
                    "Look at the program's batch settings; what was sealed before is published.",
                ) from error
            if path.is_relative_to(self._common.folder):
                path.unlink(missing_ok=True)

    def _note_stranger(self, stream: str) -> None:
        if stream not in self._strangers:
            self._strangers.add(stream)
            self._common.log(f"records of {stream}, which was not selected, are dropped")

    def _refuse(self, line: Oversized, longest: int) -> None:
        """A line that is too long: a record goes to quarantine when it tells its stream, anything else ends the run."""
        name = next((name for name in self._by_name if f'"{name}"'.encode() in line.head[:2048]), None)
        reason = f"a line of {line.size_bytes:,} bytes, limit {longest:,}"
        if b'"STATE"' in line.head:
            hint = "Select fewer streams; the last state stays as it was."
            raise ContractError(self._dialect.where, f"a state in {reason}", hint)
        if name is None or b'"RECORD"' not in line.head:
            raise SourceError(
                self._dialect.where, reason, "Raise max_record_bytes; the line was no record of a stream."
            )
        self._tell(self._by_name[name], messages.Broken(name, line.head, reason))

    # states of all streams

    def _seal_shared(self, data: Json) -> None:
        for feed in self._feeds.values():
            if feed.is_done and feed.lane == "held":
                raise SourceError(
                    self._dialect.where,
                    f"{feed.stream.name} has failed, and its siblings share one position with it",
                    "Mend that stream first; nothing of this run was sealed.",
                )
        self._sealed_rows += sum(feed.seal_shared() for feed in self._feeds.values())
        self._position = self._last_position = data
        window = next(iter(self._joined.values())).stream.window
        is_due = time.monotonic() - self._committed_at >= window.seconds.total_seconds()
        if self._sealed_rows >= window.rows or (is_due and self._sealed_rows):
            self._commit_shared()

    def _commit_shared(self) -> None:
        """Records of all streams and the state that covers them, in one transaction; then each goes its own way."""
        if self._position is None:
            return
        shared = {name: feed for name, feed in self._feeds.items() if feed.lane == "shared"}
        pieces: dict[str, Iterable[bytes]] = {name: feed.pieces() for name, feed in shared.items() if feed.has_sealed}
        number = self._common.commit(pieces, {"data": self._position, "streams": sorted(shared)})
        for feed in shared.values():
            feed.committed(number)
        self._position, self._sealed_rows, self._committed_at = None, 0, time.monotonic()

    def _conclude(self, error: BaseException | None) -> None:
        """On failure what is sealed stays good, and what is not sealed is dropped."""
        shared = [feed for feed in self._feeds.values() if feed.lane == "shared"]
        if error is None:
            for feed in shared:
                if feed.unsealed:
                    said = f"{feed.unsealed:,} records came after the last state; they may come again"
                    self._common.log(f"{feed.stream.name}: {said}")
                    self._position = self._position or self._last_position
                    feed.seal_shared()
        if shared:
            self._commit_shared()
        elif error is None and (rest := self._afterwards or self._position) is not None:
            self._common.commit_afterwards({"data": rest, "streams": []})
        for feed in self._feeds.values():
            if error is None:
                feed.end()
            else:
                feed.fail(self._of_stream(error, feed))

    def _of_stream(self, error: BaseException, feed: Feed) -> BaseException:
        """An error of the feed's own: its sync notes its own id on it."""
        if not isinstance(error, HeadwaterError):
            log.debug("process failed unexpectedly", exc_info=error)
            return error
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        if own.where == self._source:
            own.where = f"{self._source}.{feed.stream.name}"
        return own
