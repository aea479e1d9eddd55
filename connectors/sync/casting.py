"""Arrow columns to the schema's types: casts that cannot change a value are left to Arrow, the rest go by value."""

import base64
import json
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pyarrow_compute

from connectors.sync.columns import Column
from connectors.sync.columnwise import dates, decimal_texts
from connectors.sync.values import MAX_EXACT_INTEGER, Cleaning, UnfitError, Unreadable, convert

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_UTC = pa.timestamp("us", "UTC")
# 0001-01-01 to 9999-12-31: what Python, PostgreSQL and every reader after them agree on
_DAYS = (-719_162, 2_932_896)
_MICROSECONDS = (_DAYS[0] * 86_400_000_000, (_DAYS[1] + 1) * 86_400_000_000 - 1)


def cast(array: Any, column: Column, cleaning: Cleaning, null_values: frozenset[str] = frozenset()) -> Any:
    """The array in the column's canonical type.

    Raises:
        ArrowException, ValueError, UnfitError: some value does not fit; record by record shows which.
    """
    kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        array, kind = array.cast(pa.string()), pa.string()
    if pa.types.is_string(kind):
        return _cast_text(array, column, cleaning, null_values)
    if column.type == "timestamp" and pa.types.is_timestamp(kind):
        return _timestamps(array, cleaning)
    if column.type == "date" and pa.types.is_date32(kind):
        _refuse_outside(array.cast(pa.int32()), _DAYS)
        return array
    if column.type == "decimal" and (pa.types.is_decimal(kind) or pa.types.is_integer(kind)):
        return decimal_texts(array, column)
    if (
        pa.types.is_null(kind)
        or (column.type == "bigint" and pa.types.is_integer(kind))
        or (column.type == "double" and (pa.types.is_floating(kind) or pa.types.is_integer(kind)))
        or (column.type == "bool" and pa.types.is_boolean(kind))
        or (column.type == "binary" and pa.types.is_binary(kind))
    ):
        return array.cast(column.arrow_type, safe=True)
    return by_value(python_values(array, cleaning), column, cleaning)


def by_value(values: list[Any], column: Column, cleaning: Cleaning) -> Any:
    return pa.array([convert(value, column, cleaning) for value in values], column.arrow_type)


def _cast_text(array: Any, column: Column, cleaning: Cleaning, null_values: frozenset[str]) -> Any:
    if null_values:
        nulls = pa.array(sorted(null_values), array.type)
        array = pc.if_else(pc.is_in(array, value_set=nulls), pa.scalar(None, array.type), array)
    if column.type == "text" and not pc.any(pc.match_substring(array, "\x00")).as_py():
        return array
    if column.type == "json":
        return by_value(json_values(array, null_values), column, cleaning)
    if column.type == "timestamp":
        return _within(array.cast(_UTC, safe=True))
    if column.type == "date":
        return dates(array)
    if column.type == "decimal":
        return decimal_texts(array, column)
    # Arrow reads 0x1F as 31 and 1e400 as infinity
    if column.type in ("bigint", "double") and not pc.any(pc.match_substring_regex(array, "[xXeEiI]")).as_py():
        numbers = array.cast(column.arrow_type, safe=True)
        if column.type == "bigint" or not has_long_integers(numbers):
            return numbers
    return by_value(array.to_pylist(), column, cleaning)


def json_values(array: Any, null_values: frozenset[str]) -> list[Any]:
    """What the texts of a json column say; a text that is no JSON comes out as Unreadable."""
    return [None if text is None or text in null_values else _json_value(text) for text in array.to_pylist()]


def _json_value(text: str) -> Any:
    try:
        return json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return Unreadable(text, "no valid JSON")


def has_long_integers(numbers: Any) -> bool:
    """True when a double is so large that an integer may have lost digits on the way to it."""
    greatest = pc.max(pc.abs(numbers)).as_py()
    return greatest is not None and greatest >= MAX_EXACT_INTEGER


def _timestamps(array: Any, cleaning: Cleaning) -> Any:
    """timestamp[us, UTC]; times without a zone are taken as UTC."""
    array = _to_microseconds(array, cleaning)
    return _within(pc.assume_timezone(array, "UTC") if array.type.tz is None else array.cast(_UTC, safe=True))


def _to_microseconds(array: Any, cleaning: Cleaning) -> Any:
    kind = array.type
    if pa.types.is_time64(kind) and kind.unit == "ns":
        cut = array.cast(pa.time64("us"), safe=False)
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        cut = array.cast(pa.timestamp("us", kind.tz), safe=False)
    else:
        return array.cast(pa.timestamp("us", kind.tz), safe=True) if pa.types.is_timestamp(kind) else array
    cleaning.fractions += pc.sum(pc.not_equal(cut.cast(kind), array)).as_py() or 0
    return cut


def _within(moments: Any) -> Any:
    _refuse_outside(moments.cast(pa.int64()), _MICROSECONDS)
    return moments


def _refuse_outside(numbers: Any, bounds: tuple[int, int]) -> None:
    found = pc.min_max(numbers).as_py()
    if found["min"] is not None and (found["min"] < bounds[0] or found["max"] > bounds[1]):
        raise UnfitError("date out of range")


def python_values(array: Any, cleaning: Cleaning) -> list[Any]:
    """The values as Python has them; one that Python cannot hold comes out as Unreadable."""
    try:
        array = _to_microseconds(array, cleaning)
        return array.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError):
        return [_python_value(scalar) for scalar in array]


def _python_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return Unreadable(scalar.as_buffer().to_pybytes().decode("utf-8", "replace"), "text that is not UTF-8")
    except (ValueError, OverflowError):
        number = getattr(scalar, "value", None)
        return Unreadable(f"{number} ({scalar.type} since 1970)", "date or timestamp out of range")


def payload_text(row: Mapping[str, Any]) -> str:
    """The row as JSON for quarantine; what JSON lacks stands as text that a replay reads again."""
    return json.dumps(row, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value.text if isinstance(value, Unreadable) else str(value)
