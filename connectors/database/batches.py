"""Rows of a database driver to Arrow tables of exact types; a value that its column cannot hold rejects its row."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import pyarrow as pa

from connectors.contract import Rejected
from connectors.database.shape import TableColumn, schema_of

Rows = Sequence[Sequence[Any]]
_ARROW_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


class UnfitError(ValueError):
    """The value cannot stand in its column without loss."""


@dataclass(frozen=True, slots=True)
class Batch:
    """table: Table[n, columns]. rejected: the rows that are not in it."""

    table: pa.Table
    rejected: tuple[Rejected, ...]


def to_batch(rows: Rows, columns: Sequence[TableColumn], position: str) -> Batch:
    """Columns at once where every value fits; a column that does not is converted value by value."""
    schema = schema_of(columns)
    values: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
    arrays: list[pa.Array | None] = []
    unfit: dict[int, str] = {}
    for index, item in enumerate(schema):
        try:
            arrays.append(pa.array(values[index], item.type))
        except _ARROW_ERRORS:
            values[index] = _converted(values[index], columns[index], unfit)
            arrays.append(None)
    rejected = tuple(
        Rejected(_payload(rows[row], columns), reason, f"{position}, row {row + 1}")
        for row, reason in sorted(unfit.items())
    )
    final = [
        array if array is not None and not unfit else _array(values[index], schema.field(index).type, unfit)
        for index, array in enumerate(arrays)
    ]
    return Batch(pa.table(final, schema=_nullable(schema)), rejected)


def _nullable(schema: pa.Schema) -> pa.Schema:
    """SQLite and MySQL hold NULL where they promise none (views, old modes): the promise is not passed on."""
    return pa.schema([item.with_nullable(True) for item in schema])


def _array(values: list[Any], kind: pa.DataType, without: dict[int, str]) -> pa.Array:
    kept = [value for row, value in enumerate(values) if row not in without] if without else values
    return pa.array(kept, kind)


def _converted(values: list[Any], column: TableColumn, unfit: dict[int, str]) -> list[Any]:
    """The values as the Arrow type takes them; rows that do not fit are noted, their value becomes None."""
    convert = _converter(column)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            values[row] = convert(value)
        except _ARROW_ERRORS as error:
            values[row] = None
            unfit.setdefault(row, _reason(column, value, error))
    try:
        pa.array(values, column.arrow_type)
    except _ARROW_ERRORS:
        # Arrow judges precision and range; which value was it?
        for row, value in enumerate(values):
            try:
                pa.scalar(value, column.arrow_type)
            except _ARROW_ERRORS as error:
                values[row] = None
                unfit.setdefault(row, _reason(column, value, error))
    return values


def _reason(column: TableColumn, value: Any, error: Exception) -> str:
    what = str(error) if isinstance(error, UnfitError) else f"{value!s:.40} does not fit"
    return f"{column.name}: {what} {column.pg_type}"


def _converter(column: TableColumn) -> Callable[[Any], Any]:
    if column.house_type == "decimal":
        return _decimal if pa.types.is_decimal(column.arrow_type) else _decimal_text
    if column.house_type == "timestamp":
        return _moment if column.arrow_type.tz else _local
    return _CONVERTERS[column.house_type]


def _bool(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    if value in (b"\x00", b"\x01"):
        return value == b"\x01"
    raise UnfitError(f"{value!r:.40} is not a truth value:")


def _bigint(value: Any) -> int:
    if isinstance(value, bytes):
        # MySQL's BIT
        return int.from_bytes(value, "big")
    if isinstance(value, int | float | Decimal) and value == int(value):
        return int(value)
    raise UnfitError(f"{type(value).__name__} does not fit")


def _double(value: Any) -> float:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float(value)
    raise UnfitError(f"{type(value).__name__} does not fit")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bytes):
        return Decimal(int.from_bytes(value, "big"))
    if isinstance(value, bool):
        raise UnfitError("bool does not fit")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, TypeError) as error:
        raise UnfitError(f"{type(value).__name__} does not fit") from error
    if not number.is_finite():
        raise UnfitError("NaN or infinity does not fit")
    return number


def _decimal_text(value: Any) -> str:
    return f"{_decimal(value):f}"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise UnfitError("bytes that are not UTF-8 do not fit") from error
    if isinstance(value, str):
        # an undecodable byte arrives as a lone surrogate
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UnfitError("bytes that are not UTF-8 do not fit")
        return value
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)


def _datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError as error:
            raise UnfitError(f"{value!r:.40} is not a time of ISO 8601 for") from error
    raise UnfitError(f"{type(value).__name__} does not fit")


def _moment(value: Any) -> datetime:
    found = _datetime(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _local(value: Any) -> datetime:
    return _moment(value).replace(tzinfo=None)


def _date(value: Any) -> date:
    found = _datetime(value)
    if found.time() != time() or found.tzinfo is not None:
        raise UnfitError("a moment of the day does not fit")
    return found.date()


def _time(value: Any) -> time:
    if isinstance(value, time):
        return value
    if isinstance(value, timedelta) and timedelta(0) <= value < timedelta(days=1):
        return (datetime(1, 1, 1, tzinfo=UTC) + value).time()
    try:
        return time.fromisoformat(str(value))
    except ValueError as error:
        raise UnfitError(f"{value!s:.40} is not a time of day for") from error


def _binary(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise UnfitError(f"{type(value).__name__} does not fit")


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "bigint": _bigint,
    "double": _double,
    "text": _text,
    "json": _text,
    "date": _date,
    "time": _time,
    "binary": _binary,
}


def _payload(row: Sequence[Any], columns: Sequence[TableColumn]) -> bytes:
    """The row as JSON; bytes in base64, other values as their text."""
    return msgspec.json.encode({column.name: _plain(value) for column, value in zip(columns, row, strict=True)})


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return value if value is None or isinstance(value, bool | int | float) else str(value)
