"""Columns of text to typed Arrow columns, exactly or not at all.

Sources that hand over text (delimited files, Sling) use the same rules: a column converts as a whole without losing a
digit, or it stays text and the sync engine judges its rows by the contract.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from connectors.specs import ColumnSpec, ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

PG_TYPE = b"pg_type"
"""Field metadata: the exact PostgreSQL type, where the source knows it."""
MAX_PRECISION = 76

_INTEGER = r"^-?(0|[1-9][0-9]*)$"
_NUMBER = r"^-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_LEADING_ZERO = r"^-?0[0-9]"
_HEX = r"^[+-]?0[xX]"
_BOOL = r"^(?i:true|false)$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
_TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?$"
)
_SUB_MICRO = r"(\.[0-9]{6})[0-9]+"
_INFERRED: tuple[tuple[ColumnType, str], ...] = (("bool", _BOOL), ("date", _DATE), ("timestamp", _TIMESTAMP))


@dataclass(frozen=True, slots=True)
class TextType:
    """What a text column is to become.

    precision and scale belong to decimals. pg_type: the exact type where the source names one, else empty.
    """

    name: ColumnType
    precision: int | None = None
    scale: int | None = None
    pg_type: str = ""


def declared(columns: Mapping[str, ColumnSpec]) -> dict[str, TextType]:
    """The types that a stream's contract names, by the source's own column name."""
    return {
        name: TextType(column.type, column.precision, column.scale)
        for name, column in columns.items()
        if column.type is not None
    }


def arrow_type(wanted: TextType) -> "pa.DataType":
    """The Arrow type of a converted column: int64, double, decimal, bool, timestamp[us, UTC], date32, time64[us].

    A decimal without bounds, or beyond Arrow's 76 digits, stays text: no Arrow decimal holds every numeric.
    """
    import pyarrow as pa

    if wanted.name == "decimal" and wanted.precision is not None and wanted.precision <= MAX_PRECISION:
        scale = wanted.scale or 0
        return (
            pa.decimal128(wanted.precision, scale) if wanted.precision <= 38 else pa.decimal256(wanted.precision, scale)
        )
    types: Mapping[str, pa.DataType] = {
        "bigint": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
        "time": pa.time64("us"),
    }
    return types.get(wanted.name, pa.string())


def arrow_field(name: str, column: Any, wanted: TextType) -> "pa.Field":
    """The field of a converted (or left) column, with the exact type in its metadata."""
    import pyarrow as pa

    return pa.field(name, column.type, metadata={PG_TYPE: wanted.pg_type.encode()} if wanted.pg_type else None)


def arrow_field_of(field: "pa.Field", wanted: TextType) -> "pa.Field":
    """The field that a column of texts stands for: the wanted Arrow type, the exact one in its metadata.

    What did not arrive as text keeps its own type.
    """
    import pyarrow as pa

    is_text = pa.types.is_string(field.type) or wanted.name == "binary"
    kind = pa.binary() if wanted.name == "binary" else arrow_type(wanted) if is_text else field.type
    return pa.field(field.name, kind, metadata={PG_TYPE: wanted.pg_type.encode()} if wanted.pg_type else None)


def convert(column: Any, wanted: TextType) -> Any:
    """A text array as `wanted`, or the array itself when one value does not convert.

    Timestamps without a zone are UTC; digits beyond microseconds are cut. binary stays text.

    Args:
        column: Array or ChunkedArray (string).
    """
    import pyarrow as pa

    pc = compute()
    target = arrow_type(wanted)
    if target == column.type:
        return column
    if column.null_count == len(column):
        return pa.nulls(len(column), target)
    try:
        if wanted.name == "timestamp":
            return _timestamps(column)
        if wanted.name == "time":
            stamps = pc.binary_join_element_wise(pa.scalar("1970-01-01T"), column, "")
            return pc.cast(pc.cast(stamps, pa.timestamp("us")), pa.time64("us"))
        if wanted.name == "bigint" and _any(column, _HEX):
            return column
        if wanted.name == "decimal" and not _all(column, _decimal_of(wanted)):
            # Arrow's cast wraps digits beyond its 128 or 256 bits without a word (Arrow 26)
            return column
        return pc.cast(column, target)
    except pa.ArrowInvalid:
        return column


def decoded(column: Any) -> tuple[Any, list[int]]:
    """A column of bytes as text, and the rows whose bytes are not UTF-8 (they become NULL).

    Args:
        column: Array or ChunkedArray (binary, or string not yet checked).
    """
    import pyarrow as pa

    raw = compute().cast(column, pa.binary())
    try:
        return compute().cast(raw, pa.string()), []
    except pa.ArrowInvalid:
        values: list[bytes | None] = raw.to_pylist()
    bad = [row for row, value in enumerate(values) if value is not None and not _is_utf8(value)]
    for row in bad:
        values[row] = None
    return pa.array(values, pa.binary()).cast(pa.string()), bad


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def infer(column: Any) -> TextType | None:
    """The narrowest type that every value of a text sample has; None when the sample is all NULL.

    Codes stay text: leading zeros, hexadecimal, `+1`, `yes`, integers beyond int64, dates in local order.
    """
    if column.null_count == len(column):
        return None
    if _all(column, _INTEGER):
        return TextType("bigint" if _converts(column, TextType("bigint")) else "text")
    if _all(column, _NUMBER) and not _any(column, _LEADING_ZERO):
        return TextType("double")
    for name, pattern in _INFERRED:
        wanted = TextType(name)
        if _all(column, pattern) and _converts(column, wanted):
            return wanted
    return TextType("text")


def compute() -> Any:
    """pyarrow.compute; its functions are made at import, so no checker knows them."""
    import pyarrow.compute

    return pyarrow.compute


def _decimal_of(wanted: TextType) -> str:
    scale = wanted.scale or 0
    whole = max((wanted.precision or MAX_PRECISION) - scale, 1)
    return rf"^-?[0-9]{{1,{whole}}}(\.[0-9]{{0,{scale}}})?$"


def _converts(column: Any, wanted: TextType) -> bool:
    return convert(column, wanted) is not column


def _timestamps(column: Any) -> Any:
    import pyarrow as pa

    pc = compute()
    column = pc.replace_substring_regex(column, _SUB_MICRO, r"\1")
    zoned = pc.match_substring_regex(column, r"[T ].*" + _ZONE)
    if pc.all(zoned).as_py():
        return pc.cast(column, pa.timestamp("us", "UTC"))
    if pc.any(zoned).as_py():
        # both in one column: what has no zone gets one, then all convert alike
        column = pc.if_else(zoned, column, pc.binary_join_element_wise(column, pa.scalar("Z"), ""))
        return pc.cast(column, pa.timestamp("us", "UTC"))
    return pc.assume_timezone(pc.cast(column, pa.timestamp("us")), "UTC")


def _all(column: Any, pattern: str) -> bool:
    pc = compute()
    return bool(pc.all(pc.match_substring_regex(column, pattern)).as_py())


def _any(column: Any, pattern: str) -> bool:
    pc = compute()
    return bool(pc.any(pc.match_substring_regex(column, pattern)).as_py())


def has_longer_line(body: bytes, size_bytes: int) -> bool:
    """From line start to line start in steps of at most `size_bytes`, without a copy."""
    start = 0
    while len(body) - start > size_bytes:
        end = body.rfind(b"\n", start, start + size_bytes + 1)
        if end < 0:
            return True
        start = end + 1
    return False
