"""One read of one table through SQLAlchemy: position as conditions, batches, checkpoints where it can resume."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from connectors.contract import Attestation, Checkpoint, Frame, Message, ReadContext, StreamState
from connectors.database import failures
from connectors.database.alchemy_shape import read_shape
from connectors.database.batches import to_batch
from connectors.database.pg_read import KEYSET, PREVIEW_ROWS
from connectors.database.shape import TableColumn, TableShape
from connectors.errors import ConfigError
from connectors.measures import KEYS, asked, key_checksum, number_text, summed_column

if TYPE_CHECKING:
    from connectors.kinds.database import DatabaseStreamSpec

Emit = Callable[[Message], None]
Condition = sa.ColumnElement[bool]
FETCH_ROWS = 50_000
FETCH_VALUES = 1_000_000
MYSQL = ("mysql", "mariadb")
SQLITE_TIME = "%Y-%m-%d %H:%M:%f"


@dataclass(slots=True)
class AlchemyRead:
    """Reads one table over one connection. rows: how many were read so far."""

    connection: sa.Connection
    where: str
    schema: str | None
    stream: "DatabaseStreamSpec"
    state: StreamState
    context: ReadContext
    rows: int = 0

    def run(self, emit: Emit) -> None:
        """Emits the batches, the source's own count where a check asks for it, and the checkpoints."""
        stream = self.stream
        schema = stream.table_schema or self.schema
        shape = read_shape(sa.inspect(self.connection), schema, stream.table_name, self.where, stream)
        columns = shape.chosen(stream, self.where)
        if self._is_sqlite:
            # without it each select would be a snapshot of its own
            self.connection.exec_driver_sql("begin")
        conditions = self._conditions(shape)
        if self.context.page_limit is not None:
            limit = self.context.page_limit * PREVIEW_ROWS
            self._batches(self._select(shape, columns, conditions).limit(limit), columns, shape, emit)
        elif stream.keyset is not None:
            self._windows(shape, columns, conditions, stream.keyset.rows, emit)
        else:
            self._attest(shape, conditions, emit)
            self._whole(shape, columns, conditions, emit)
        if self.rows == 0 and self.state.cursor is not None and self.context.window is None:
            emit(Attestation(rows=0, nothing_new=True))
        elif self.rows == 0:
            # a source with no row still tells its columns
            emit(Frame(to_batch([], columns, shape.label).table, f"{shape.label}: no rows"))

    @property
    def _is_sqlite(self) -> bool:
        return self.connection.dialect.name == "sqlite"

    def _select(
        self, shape: TableShape, columns: Sequence[TableColumn], conditions: Sequence[Condition]
    ) -> sa.Select[Any]:
        # columns without a type: the driver's own values, which the batches judge
        table = sa.table(shape.table, schema=shape.schema)
        return sa.select(*(sa.column(c.name) for c in columns)).select_from(table).where(*conditions)

    def _conditions(self, shape: TableShape) -> list[Condition]:
        """The author's `where`, and the partition's slice or the position; half-open, the position itself included."""
        found: list[Condition] = []
        if self.stream.where:
            found.append(cast("Condition", sa.text(f"({self.stream.where})".replace(":", "\\:"))))
        if self.stream.cursor is None:
            return found
        cursor = shape.column(self.stream.cursor.field, self.where)
        place = self._comparable(cursor)
        if (window := self.context.window) is not None:
            if cursor.house_type not in ("timestamp", "date"):
                raise ConfigError(
                    self.where,
                    f"partitions need a time, but cursor {cursor.name!r} is {cursor.native_type}",
                    "Name a date or timestamp column as cursor.field, or drop partitions.",
                )
            found.append(place >= self._bound(window.start, cursor))
            found.append(place < self._bound(window.end, cursor))
        elif (low := self.state.cursor or self.stream.cursor.start) is not None:
            found.append(place >= self._bound(low, cursor))
        return found

    def _comparable(self, column: TableColumn) -> sa.ColumnElement[Any]:
        """The column as its values compare: a text by code points, as the engine does, whatever its collation.

        SQLite keeps times as texts of several spellings.
        """
        plain = sa.column(column.name)
        if self._is_sqlite and column.house_type in ("timestamp", "date"):
            return sa.func.strftime(SQLITE_TIME, plain)
        if self._is_sqlite and column.house_type == "text":
            return sa.collate(plain, "binary")
        if self._is_by_bytes(column):
            return sa.cast(sa.cast(plain, mysql.CHAR(charset="utf8mb4")), sa.BINARY)
        return plain

    def _is_by_bytes(self, column: TableColumn) -> bool:
        """MySQL's texts ignore case and trailing spaces; their bytes in UTF-8 do not, but no index serves them."""
        return self.connection.dialect.name in MYSQL and column.house_type == "text"

    def _bound(self, value: str | datetime, column: TableColumn) -> Any:
        """A position or a slice's edge as the driver compares it.

        Raises:
            ConfigError: the saved position is no value of the column's type.
        """
        try:
            if column.house_type in ("timestamp", "date"):
                moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
                moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
                if self._is_sqlite:
                    # milliseconds, as strftime gives them
                    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
                return moment.replace(tzinfo=None)
            if column.house_type in ("bigint", "decimal", "double"):
                number = Decimal(str(value))
                if number != number.to_integral_value():
                    return float(number) if column.house_type == "double" else number
                return int(number)
        except (ValueError, ArithmeticError) as error:
            raise ConfigError(
                self.where,
                f"position {value!r} is no {column.native_type} of cursor {column.name!r}",
                "Look at it with `headwater state show`, and reset it when the column was retyped.",
            ) from error
        return str(value).encode() if self._is_by_bytes(column) else value

    def _whole(
        self, shape: TableShape, columns: Sequence[TableColumn], conditions: Sequence[Condition], emit: Emit
    ) -> None:
        query = self._select(shape, columns, conditions)
        is_ordered = self._is_ordered(shape)
        if self.stream.cursor is not None and is_ordered:
            query = query.order_by(self._comparable(shape.column(self.stream.cursor.field, self.where)))
        self._batches(query, columns, shape, emit, is_sealed=is_ordered)

    def _is_ordered(self, shape: TableShape) -> bool:
        if self.stream.cursor is None:
            return False
        if self.stream.order is not None:
            return self.stream.order
        cursor = shape.column(self.stream.cursor.field, self.where)
        is_time = cursor.house_type in ("timestamp", "date")
        is_plain = not (self._is_sqlite and is_time) and not self._is_by_bytes(cursor)
        return is_plain and self.stream.write != "append" and cursor.name in shape.leads

    def _windows(
        self, shape: TableShape, columns: Sequence[TableColumn], conditions: list[Condition], rows: int, emit: Emit
    ) -> None:
        """One select a window of `rows` keys, sealed each; a resumed read keeps to the cursor values of its beginning.

        Raises:
            ConfigError: a column of the key is not read.
        """
        key = shape.key(self.stream, self.where)
        names = [column.name for column in key]
        chosen = [column.name for column in columns]
        if unread := [name for name in names if name not in chosen]:
            raise ConfigError(self.where, f"keyset.by: {', '.join(unread)} is not read", "Add it to select.")
        saved = self._resumable(names)
        until = self._until(shape, conditions, saved)
        after: list[Any] | None = saved.get("after")
        remaining = [*conditions, _beyond(key, after)] if after is not None else conditions
        self._attest(shape, remaining, emit)
        places = [chosen.index(name) for name in names]
        while True:
            bounded = [*conditions, _beyond(key, after)] if after is not None else conditions
            ordered = self._select(shape, columns, bounded).order_by(*(sa.column(name) for name in names))
            last, count = self._batches(ordered.limit(rows), columns, shape, emit)
            if last is None or count < rows:
                break
            after = [_saved(last[place]) for place in places]
            position = {"by": names, "after": after, "until": until, "since": self.state.cursor}
            emit(Checkpoint(connector={KEYSET: position}, is_ordered=False))
        emit(Checkpoint(connector={}))

    def _until(self, shape: TableShape, conditions: list[Condition], saved: Mapping[str, Any]) -> str | None:
        """The greatest cursor value of the read's beginning; a resumed read leaves later ones to the next sync."""
        if self.stream.cursor is None:
            return None
        cursor = shape.column(self.stream.cursor.field, self.where)
        place = self._comparable(cursor)
        if not saved:
            table = sa.table(shape.table, schema=shape.schema)
            found = self.connection.execute(
                sa.select(sa.func.max(place)).select_from(table).where(*conditions)
            ).scalar()
            if isinstance(found, bytes):
                found = found.decode()
            return None if found is None else str(_saved(found))
        until = cast("str | None", saved.get("until"))
        if until is not None:
            edge = until if self._is_sqlite else self._bound(until, cursor)
            conditions.append(sa.or_(place <= edge, place.is_(None)))
        return until

    def _resumable(self, names: list[str]) -> Mapping[str, Any]:
        saved = cast("Mapping[str, Any]", self.state.connector.get(KEYSET) or {})
        is_same = saved.get("by") == names and saved.get("since") == self.state.cursor
        return saved if is_same and self.context.window is None else {}

    def _attest(self, shape: TableShape, conditions: Sequence[Condition], emit: Emit) -> None:
        """What `reconcile` checks ask for; a column that is not there is not spoken of."""
        table = sa.table(shape.table, schema=shape.schema)
        types = {column.name: column.house_type for column in shape.columns}
        count: int | None = None
        said: dict[str, str | None] = {}
        for measure in asked(self.stream):
            column = summed_column(measure)
            if column is not None and types.get(column) not in ("bigint", "decimal", "double"):
                continue
            self.context.usage.requests += 1
            if measure == KEYS:
                said[measure] = self._key_checksum(table, types, conditions)
                continue
            value = sa.func.count() if column is None else sa.func.coalesce(sa.func.sum(sa.column(column)), 0)
            found = self.connection.execute(sa.select(value).select_from(table).where(*conditions)).scalar()
            if column is None:
                count = int(found or 0)
            else:
                said[measure] = number_text(found)
        texts = {name: text for name, text in said.items() if text is not None}
        if count is not None or texts:
            emit(Attestation(rows=count, measures=texts))

    def _key_checksum(
        self, table: sa.TableClause, types: Mapping[str, str], conditions: Sequence[Condition]
    ) -> str | None:
        """None for keys that databases write in different ways, such as times."""
        names = self.stream.primary_key
        if not names or not all(types.get(name) in ("text", "bigint", "decimal") for name in names):
            return None
        query = sa.select(*map(sa.column, names)).select_from(table).where(*conditions)
        return key_checksum(self.connection.execution_options(stream_results=True).execute(query))

    def _batches(
        self,
        query: sa.Select[Any],
        columns: Sequence[TableColumn],
        shape: TableShape,
        emit: Emit,
        *,
        is_sealed: bool = False,
    ) -> tuple[Sequence[Any] | None, int]:
        """Streams the query; the last row and how many there were."""
        size = max(500, min(FETCH_ROWS, FETCH_VALUES // len(columns)))
        self.context.usage.requests += 1
        last: Sequence[Any] | None = None
        begin = self.rows
        with self.connection.execution_options(stream_results=True).execute(query) as result, _abandoned(result):
            while rows := result.fetchmany(size):
                if self.context.cancelled.is_set():
                    raise failures.cancelled(self.where, self.rows)
                position = f"{shape.label} rows {self.rows + 1}-{self.rows + len(rows)}"
                batch = to_batch(rows, columns, position)
                for rejected in batch.rejected:
                    emit(rejected)
                emit(Frame(batch.table, position))
                self.rows += len(rows)
                self.context.usage.received_bytes += batch.table.nbytes
                last = rows[-1]
                if is_sealed:
                    emit(Checkpoint())
        return last, self.rows - begin


@contextmanager
def _abandoned(result: sa.CursorResult[Any]) -> Generator[None]:
    """When the read ends early, pymysql's result is told so: else it reads the rest of the table to throw it away."""
    try:
        yield
    except BaseException:
        unread: Any = getattr(result.cursor, "_result", None)
        if hasattr(unread, "unbuffered_active"):
            unread.unbuffered_active = False
        raise


def _beyond(key: Sequence[TableColumn], after: Sequence[Any]) -> Condition:
    """(a, b) > (x, y), spelled out: not every database compares rows, or serves it by an index."""
    terms: list[Condition] = []
    for place, column in enumerate(key):
        equal = [sa.column(c.name) == _restored(v, c) for c, v in zip(key[:place], after, strict=False)]
        terms.append(sa.and_(*equal, sa.column(column.name) > _restored(after[place], column)))
    return sa.or_(*terms)


def _saved(value: Any) -> Any:
    """A key value as JSON keeps it; `_restored` is its inverse."""
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, int | str) or (isinstance(value, float) and math.isfinite(value)) else str(value)


def _restored(value: Any, column: TableColumn) -> Any:
    if not isinstance(value, str):
        return value
    if column.house_type == "decimal":
        return Decimal(value)
    if column.house_type == "binary":
        return bytes.fromhex(value)
    return value
