"""What a connector is: open, check, discover, read.

A connector reads; it does not load, keep state, retype, deduplicate or judge. It yields payloads and seals them with
checkpoints; the sync engine does everything else, the same for every kind.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from connectors.specs import ColumnType, ConnectorSpec, SourceSpec, StreamSpec

Json = Mapping[str, Any]
CopyFormat = Literal["csv", "binary"]


@dataclass(frozen=True, slots=True)
class Window:
    """Half-open [start, end), aware UTC: the slice of a partitioned read."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream's saved position.

    cursor: greatest committed cursor value as it goes into a request, the lag already subtracted; None at first.
        A timestamp is an ISO 8601 string in UTC ending in Z, a number is its decimal text.
    connector: the connector's own position (files seen, a Singer bookmark, ...), opaque to the engine.
    """

    cursor: str | None = None
    connector: Json = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class JsonRecords:
    """Raw JSON objects, newline between them, never decoded by the connector.

    position: where they came from, for quarantine and messages, e.g. `page 3`.
    """

    body: bytes
    position: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Typed records: Table[n, columns]. Names are the source's own; timestamps are aware or declared UTC.

    numbers: the rows' places, counted from `position` on; None when they are 1, 2, 3, ...
    """

    table: "pa.Table"
    position: str
    numbers: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class CopyColumn:
    """One column of a COPY file. type: the house name. pg_type: PostgreSQL's exact one, e.g. `numeric(12,2)`.

    `connectors.copy_columns` makes them from Arrow's.
    """

    name: str
    type: "ColumnType"
    pg_type: str


@dataclass(frozen=True, slots=True)
class CopyFile:
    """A finished file that COPY understands: CSV without header, empty = NULL, "" = empty text, UTF-8.

    columns: in file order.
    format: binary only where `ReadContext.takes_binary` said yes to these columns: no value of it is looked at.
    The engine takes the file over and deletes it.
    """

    path: Path
    columns: tuple[CopyColumn, ...]
    rows: int
    position: str
    format: CopyFormat = "csv"

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the connector itself could not represent; it goes to quarantine."""

    payload: bytes
    reason: str
    position: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All payloads yielded before it are complete up to here: they may be published, and a rerun resumes here.

    connector: replaces StreamState.connector.
    is_ordered: rows so far arrived in cursor order, so the greatest cursor seen may be committed as the position.
        The end of read() is such a checkpoint always; a connector yields one itself only where it can resume.
    """

    connector: Json | None = None
    is_ordered: bool = True


@dataclass(frozen=True, slots=True)
class Attestation:
    """What the source itself says of this read, for reconciliation.

    rows: how many records the source claims the whole read has; None when it does not say.
    nothing_new: the source states that there is nothing newer than the cursor (an HTTP 304, an empty answer to a
        filtered request), so that an empty sync counts as fresh.
    measures: what else a `reconcile` check asked for, see connectors.measures: decimal texts by name.
    """

    rows: int | None = None
    nothing_new: bool = False
    measures: Mapping[str, str] = field(default_factory=dict[str, str])

    def said(self, measure: str) -> str | None:
        """The value of a measure; None when the source does not say."""
        if measure == "count":
            return None if self.rows is None else str(self.rows)
        return self.measures.get(measure)

    def then(self, later: "Attestation") -> "Attestation":
        """Both together; what was said later counts."""
        return Attestation(
            self.rows if later.rows is None else later.rows,
            self.nothing_new or later.nothing_new,
            {**self.measures, **later.measures},
        )


@dataclass(frozen=True, slots=True)
class Hints:
    """Column types that the source declares, for fields not known yet: the source file and the raw table win."""

    types: "Mapping[str, ColumnType]"


@dataclass(frozen=True, slots=True)
class Replaces:
    """Once the read has ended in order, rows whose `column` is not `value` are gone at the source."""

    column: str
    value: int


@dataclass(frozen=True, slots=True)
class Emptied:
    """All rows before it, those of earlier reads too, are gone at the source; for write: merge and scd2.

    by_snapshot: the source did not say so, but all of its rows follow: none at all needs `allow_empty`, and nothing is
        gone for sure while one of them is in quarantine.
    may_be_none: such a snapshot may have no row, whatever the stream allows.
    """

    by_snapshot: bool = False
    may_be_none: bool = False


Message = JsonRecords | Frame | CopyFile | Rejected | Checkpoint | Attestation | Hints | Replaces | Emptied


@dataclass(slots=True)
class Usage:
    """What a read costs so far; the connector adds to it.

    measures: what else is worth a plot, by name and unit. warnings: what an operator should see to, by the verdict's
    name; the sync succeeds with them.
    """

    requests: int = 0
    received_bytes: int = 0
    wait_seconds: float = 0.0
    retries: int = 0
    measures: dict[str, int] = field(default_factory=dict[str, int])
    warnings: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What one read gets from the engine.

    window: the partition slice to bound the extraction by, or None for a live sync.
    is_backfill: others are waited for less than this read; it lets them go first where a limit is shared.
    folder: a private, empty folder for files of this read; gone after the sync.
    log: one line for the sync's log, e.g. `page 14 of 200`.
    cancelled: set when the read should stop at the next record boundary.
    page_limit: stop after so many pages or parts (preview); None for all.
    connect_shared: a new session, autocommit, with what all processes share (`ops.rate_pools`); the caller closes it.
        None: nothing is shared, limits hold within this process.
    takes_binary: whether a CopyFile of these columns may be binary: each goes into the warehouse as it is.
    """

    window: Window | None
    folder: Path
    usage: Usage = field(default_factory=Usage)
    log: Callable[[str], None] = lambda line: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    page_limit: int | None = None
    connect_shared: "Callable[[], psycopg.Connection[Any]] | None" = None
    takes_binary: Callable[[Sequence[CopyColumn]], bool] = lambda columns: False
    is_backfill: bool = False


@dataclass(frozen=True, slots=True)
class DiscoveredColumn:
    """type is the house name: text, bigint, double, decimal, bool, timestamp, date, time, json, binary."""

    name: str
    type: str
    is_nullable: bool = True


@dataclass(frozen=True, slots=True)
class DiscoveredStream:
    """read_by: declared streams that read it under another name, e.g. by a pattern."""

    name: str
    columns: tuple[DiscoveredColumn, ...] = ()
    primary_key: tuple[str, ...] = ()
    estimated_rows: int | None = None
    read_by: tuple[str, ...] = ()


class Connector(Protocol):
    """One open source. Used as a context manager by one thread; errors are those of connectors.errors."""

    def check(self) -> str:
        """One cheap request that proves address and credentials; a line that says what answered."""
        ...

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """The streams that the source offers."""
        ...

    def read(self, stream: "Any", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """The records of one stream after `state`, or inside `context.window`.

        `stream` is the kind's own StreamSpec. Retries and rate limits are inside; a failure is raised classified.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


@runtime_checkable
class ReadsWarehouse(Protocol):
    """A connector whose source is the warehouse itself. Whoever opens one says where that is before `read`."""

    def use_warehouse(self, dsn: str) -> None:
        """dsn: libpq URL of the loader role; it holds a password."""
        ...


@runtime_checkable
class KeepsConfig(Protocol):
    """A connector whose source may change its own configuration, which is then kept."""

    def keep_config(self, connect: "Callable[[], psycopg.Connection[Any]]") -> None:
        """connect: as `ReadContext.connect_shared`."""
        ...


class Common(Protocol):
    """What the streams that are read together share; the engine's side.

    folder: private, for the whole run. log: lines that belong to no stream alone.
    connect_shared: as in ReadContext.
    """

    folder: Path
    log: Callable[[str], None]
    connect_shared: "Callable[[], psycopg.Connection[Any]] | None"

    def positions(self) -> Mapping[str, Json]:
        """`StreamState.connector` of every stream of the source that has one, also of those not read now."""
        ...

    def position(self) -> Json:
        """What `commit` was last given; empty at first."""
        ...

    def commit(self, segments: Mapping[str, Iterable[bytes]], position: Json) -> int:
        """Keep raw records of several streams and one position for all of them, in one transaction.

        segments: by stream, pieces of newline-separated JSON objects. Returns the number of the last piece kept.
        """
        ...

    def commit_afterwards(self, position: Json) -> None:
        """Keep the position once every stream of the run has succeeded."""
        ...

    def backlog(self, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
        """Pieces kept for the stream with a number above `after`, in order."""
        ...


MAX_STREAMS = 40
"""That are read in one run of one process: each holds up to five connections to the warehouse."""


@runtime_checkable
class ReadsTogether(Protocol):
    """A connector whose streams come out of one read of the source."""

    def together(self, streams: "Sequence[Any]", common: Common) -> Mapping[str, Connector]:
        """A connector for each stream, by name. The read starts once each of them reads or was left."""
        ...


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of connectors: its two spec classes and the function that opens one.

    open(source) resolves references, so it may raise ConfigError; it does not touch the network.
    storage_kind: the badge that the Dagster UI shows on the asset, e.g. `api`, `csv`, `sling`, `postgres`.
    """

    name: str
    connector: "type[ConnectorSpec]"
    stream: "type[StreamSpec]"
    open: "Callable[[SourceSpec], Connector]"
    storage_kind: str = "api"
    default_write: Literal["append", "merge", "replace"] = "append"
    reads_together: bool = False
    """Its connectors are `ReadsTogether`: a source is one op with a subset of its streams."""
    may_block: bool = False
    """Its readers are code that need not come back when it is asked to: `limits.time` gives them a process to end."""
