"""PostgreSQL's types: their exact Arrow form, and the column type that holds them in the warehouse."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from connectors.specs import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DECIMAL128, MAX_DECIMAL256 = 38, 76
_NUMERIC = re.compile(r"^numeric\((\d+)(?:,\s*(-?\d+))?\)$")
_PRECISION = re.compile(r"\(\d+\)")


@dataclass(frozen=True, slots=True)
class PgType:
    """A resolved column type of the catalog: domains already replaced by what they rest on.

    name: `pg_type.typname`. is_builtin: it lives in pg_catalog, so every PostgreSQL has it.
    category: `pg_type.typcategory` (A array, E enum, R range, ...). modifier: `atttypmod`, -1 for none.
    formatted: `format_type(...)`, e.g. `numeric(12,2)`.
    """

    name: str
    is_builtin: bool
    category: str
    modifier: int
    formatted: str


@dataclass(frozen=True, slots=True)
class Mapped:
    pg_type: str
    house_type: ColumnType
    cast: str = ""


_PLAIN: Mapping[str, ColumnType] = {
    "bool": "bool", "int2": "bigint", "int4": "bigint", "int8": "bigint", "float4": "double", "float8": "double",
    "text": "text", "varchar": "text", "bpchar": "text", "bytea": "binary", "date": "date", "time": "time",
    "timetz": "text", "timestamp": "timestamp", "timestamptz": "timestamp", "uuid": "text", "json": "json",
    "jsonb": "json", "inet": "text", "cidr": "text", "macaddr": "text", "macaddr8": "text", "bit": "text",
    "varbit": "text", "numeric": "decimal",
}  # fmt: skip
"""Types that are read and created as they are."""


def map_type(source: PgType) -> Mapped:
    """How a column travels and what is created for it.

    Arrays become jsonb. Enums, intervals, ranges, composites, geometric, full-text and extension types become their
    own text.
    """
    if source.category == "A":
        return Mapped("jsonb", "json", "to_jsonb({})")
    if source.is_builtin:
        if source.name == "money":
            return Mapped("numeric", "decimal", "({})::numeric")
        if source.name in ("oid", "xid", "cid"):
            return Mapped("bigint", "bigint")
        if (plain := _PLAIN.get(source.name)) is not None:
            return Mapped(source.formatted, plain)
    return Mapped("text", "text")


@cache
def arrow_type(pg_type: str) -> "pa.DataType":
    """The Arrow type that holds every value exactly; text where none does, as for a numeric without bounds."""
    import pyarrow as pa

    if match := _NUMERIC.match(pg_type):
        precision, scale = int(match[1]), int(match[2] or 0)
        if precision > MAX_DECIMAL256 or not 0 <= scale <= precision:
            return pa.string()
        return pa.decimal128(precision, scale) if precision <= MAX_DECIMAL128 else pa.decimal256(precision, scale)
    types: Mapping[str, pa.DataType] = {
        "boolean": pa.bool_(), "smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64(),
        "real": pa.float32(), "double precision": pa.float64(), "bytea": pa.binary(), "date": pa.date32(),
        "time without time zone": pa.time64("us"), "timestamp without time zone": pa.timestamp("us"),
        "timestamp with time zone": pa.timestamp("us", "UTC"),
    }  # fmt: skip
    return types.get(_PRECISION.sub("", pg_type), pa.string())
