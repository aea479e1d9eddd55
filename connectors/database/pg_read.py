"""One read of one PostgreSQL table: position as conditions, COPY into part files, checkpoints where it can resume."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from connectors.contract import (
    Attestation,
    Checkpoint,
    CopyColumn,
    CopyFile,
    CopyFormat,
    Frame,
    Message,
    ReadContext,
    StreamState,
)
from connectors.database import failures, pg_query
from connectors.database.pg_catalog import read_table
from connectors.database.pg_query import Selection
from connectors.database.pg_rows import BinaryRows, CsvRows, in_memory
from connectors.database.shape import TableColumn, TableShape, utc_text
from connectors.errors import ConfigError, SourceError
from connectors.measures import COUNT, asked, number_text

if TYPE_CHECKING:
    from psycopg import Connection

    from connectors.kinds.database import DatabaseStreamSpec

Emit = Callable[[Message], None]
BUFFER_BYTES = 1 << 20
PREVIEW_ROWS = 1_000
PROTECTED_BYTES = 4 << 20
"""Of rows that are read into memory at a time."""
KEYSET = "keyset"


@dataclass(slots=True)
class TableRead:
    """Reads one table within the connection's snapshot.

    rows: how many were read so far. part_bytes: a part ends at the first row that reaches it.
    """

    connection: "Connection[Any]"
    where: str
    schema: str
    stream: "DatabaseStreamSpec"
    state: StreamState
    context: ReadContext
    part_bytes: int
    rows: int = 0
    _parts: int = field(default=0, init=False)

    def run(self, emit: Emit) -> None:
        """Emits the parts, the source's own count where a check asks for it, and the checkpoints."""
        stream = self.stream
        shape = read_table(self.connection, stream.table_schema or self.schema, stream.table_name, self.where)
        columns = shape.chosen(stream, self.where)
        selection = Selection(shape, columns, self._conditions(shape))
        if self.context.page_limit is not None:
            limit = self.context.page_limit * PREVIEW_ROWS
            self._copy(Selection(shape, columns, selection.conditions, limit=limit), emit)
        elif stream.keyset is not None:
            self._windows(selection, shape.key(stream, self.where), stream.keyset.rows, emit)
        else:
            self._attest(selection, emit)
            self._whole(selection, emit)
        if self.rows == 0:
            self._nothing(columns, shape, emit)

    def _nothing(self, columns: Sequence[TableColumn], shape: TableShape, emit: Emit) -> None:
        """A source with no row still tells its columns; after a position it has nothing new."""
        if self.state.cursor is not None and self.context.window is None:
            emit(Attestation(rows=0, nothing_new=True))
            return
        path = self.context.folder / "empty.csv"
        path.touch()
        emit(CopyFile(path, tuple(column.copied for column in columns), 0, f"{shape.label}: no rows"))

    def _conditions(self, shape: TableShape) -> tuple[Any, ...]:
        """The author's `where`, and the partition's slice or the position; half-open, the position itself included.

        Raises:
            ConfigError: no such cursor column, or a partition over one that is no time.
        """
        found = [pg_query.author_condition(self.stream.where)] if self.stream.where else []
        if self.stream.cursor is None:
            return tuple(found)
        cursor = shape.column(self.stream.cursor.field, self.where)
        if (window := self.context.window) is not None:
            if cursor.house_type not in ("timestamp", "date"):
                raise ConfigError(
                    self.where,
                    f"partitions need a time, but cursor {cursor.name!r} is {cursor.native_type}",
                    "Name a date or timestamp column as cursor.field, or drop partitions.",
                )
            found.append(pg_query.compare(cursor, ">=", utc_text(window.start)))
            found.append(pg_query.compare(cursor, "<", utc_text(window.end)))
        elif (low := self.state.cursor or self.stream.cursor.start) is not None:
            found.append(pg_query.compare(cursor, ">=", low))
        return tuple(found)

    def _whole(self, selection: Selection, emit: Emit) -> None:
        """One COPY. In cursor order every part is a checkpoint: a failed read goes on at its last value."""
        cursor = self.stream.cursor
        is_ordered = cursor is not None and self._is_ordered(selection.shape, cursor.field)
        order_by = (cursor.field,) if cursor is not None and is_ordered else ()
        ordered = Selection(selection.shape, selection.columns, selection.conditions, order_by)
        self._copy(ordered, emit, is_sealed=is_ordered)

    def _is_ordered(self, shape: TableShape, cursor: str) -> bool:
        if self.stream.order is not None:
            return self.stream.order
        # an append would load the rows that share the checkpoint's value twice
        return self.stream.write != "append" and cursor in shape.leads

    def _windows(self, selection: Selection, key: Sequence[TableColumn], rows: int, emit: Emit) -> None:
        """One COPY a window of `rows` keys, sealed each. A resumed read keeps to the cursor values of its beginning.

        Rows that changed after the first attempt began are left to the next sync, in sealed windows and open ones
        alike; else a position beyond them would be committed and the changes of sealed windows lost.
        """
        names = [column.name for column in key]
        if not set(names[:1]) <= selection.shape.leads:
            self.context.log(f"no index of {selection.shape.label} leads with {names[0]}: every window sorts the table")
        saved = self._resumable(names)
        until: str | None = saved.get("until")
        if self.stream.cursor is not None:
            cursor = selection.shape.column(self.stream.cursor.field, self.where)
            if not saved:
                until = self._one(pg_query.greatest(selection, cursor))
            elif until is not None:
                selection = selection.also(pg_query.not_above(cursor, until))
        after: list[str] | None = saved.get("after")
        if after is not None:
            self.context.log(f"resuming after {', '.join(names)} = {', '.join(after)}")
            selection = selection.also(pg_query.row_compare(key, ">", after))
        self._attest(selection, emit)
        while True:
            remaining = selection if after is None else selection.also(pg_query.row_compare(key, ">", after))
            self.context.usage.requests += 1
            end = self.connection.execute(pg_query.window_end(remaining, key, rows)).fetchone()
            if end is None:
                self._copy(remaining, emit)
                break
            after = [str(value) for value in end]
            self._copy(remaining.also(pg_query.row_compare(key, "<=", after)), emit)
            position = {"by": names, "after": after, "until": until, "since": self.state.cursor}
            emit(Checkpoint(connector={KEYSET: position}, is_ordered=False))
        emit(Checkpoint(connector={}))

    def _resumable(self, names: list[str]) -> Mapping[str, Any]:
        """The saved position of an unfinished read with the same key and the same beginning; else nothing."""
        saved = cast("Mapping[str, Any]", self.state.connector.get(KEYSET) or {})
        is_same = saved.get("by") == names and saved.get("since") == self.state.cursor
        return saved if is_same and self.context.window is None else {}

    def _attest(self, selection: Selection, emit: Emit) -> None:
        """What `reconcile` checks ask for, of the same snapshot; a column that is not there is not spoken of."""
        wanted = pg_query.answerable(selection.shape, asked(self.stream), self.stream.primary_key)
        if not wanted:
            return
        self.context.usage.requests += 1
        row = self.connection.execute(pg_query.measures(selection, wanted, self.stream.primary_key)).fetchone() or ()
        said = dict(zip(wanted, row, strict=True))
        count = said.pop(COUNT, None)
        texts = {name: text for name, value in said.items() if (text := number_text(value)) is not None}
        emit(Attestation(rows=count, measures=texts))

    def _one(self, query: Any) -> Any:
        self.context.usage.requests += 1
        row = self.connection.execute(query).fetchone()
        return row[0] if row else None

    @property
    def _is_protected(self) -> bool:
        """A rule of the contract rewrites a column: its values as they are must not reach a file."""
        return any(column.rewrites for column in self.stream.columns.values())

    def _format(self, columns: Sequence[CopyColumn]) -> CopyFormat:
        """Binary where both sides have the same types, and the source is PostgreSQL itself: others have other bytes."""
        if self._is_protected or not self.context.takes_binary(columns):
            return "csv"
        return "binary" if str(self._one("select version()")).startswith("PostgreSQL ") else "csv"

    def _copy(self, selection: Selection, emit: Emit, *, is_sealed: bool = False) -> None:
        """Pumps one COPY into part files. PostgreSQL sends a row a message, so a cut is always at a row's end.

        Raises:
            SourceError: the command tag counts other rows than came.
            Cancelled: asked to stop.
        """
        columns = tuple(column.copied for column in selection.columns)
        form = self._format(columns)
        usage, cancelled = self.context.usage, self.context.cancelled
        usage.requests += 1
        before = self.rows
        cursor = self.connection.cursor()
        with cursor.copy(pg_query.copy_out(selection, form)) as copy:
            rows_out = (BinaryRows if form == "binary" else CsvRows)(copy, self.connection.pgconn, cancelled)
            while self._is_protected and rows_out.has_more():
                table, size = in_memory(rows_out, selection.columns, PROTECTED_BYTES)
                if cancelled.is_set():
                    raise failures.cancelled(self.where, self.rows)
                self._parts += 1
                self.rows += table.num_rows
                usage.received_bytes += size
                emit(Frame(table, f"{selection.shape.label} part {self._parts}"))
                if is_sealed and rows_out.has_more():
                    emit(Checkpoint())
            while rows_out.has_more():
                path = self.context.folder / f"part-{self._parts:05d}.{form}"
                with path.open("wb", buffering=BUFFER_BYTES) as file:
                    rows, size = rows_out.fill(file.write, self.part_bytes)
                if cancelled.is_set():
                    raise failures.cancelled(self.where, self.rows)
                self._parts += 1
                self.rows += rows
                usage.received_bytes += size
                emit(CopyFile(path, columns, rows, f"{selection.shape.label} part {self._parts}", form))
                self.context.log(f"part {self._parts}: {rows:,} rows, {size >> 20} MB")
                if is_sealed and rows_out.has_more():
                    emit(Checkpoint())
        if cursor.rowcount != self.rows - before:
            raise SourceError(
                self.where,
                f"{self.rows - before:,} rows came, but the source counts {cursor.rowcount:,}",
                "Connect to PostgreSQL itself: something between does not pass its messages on as they are.",
            )
