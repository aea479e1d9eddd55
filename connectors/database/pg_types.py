"""PostgreSQL's types: their exact Arrow form, and the column type that holds them in the warehouse."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from connectors.specs import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

MAX_DECIMAL128, MAX_DECIMAL256 = 38, 76


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
    arrow_type: "pa.DataType"
    house_type: ColumnType
    cast: str = ""


@cache
def _plain() -> dict[str, tuple["pa.DataType", ColumnType]]:
    """Types that are read and created as they are."""
    import pyarrow as pa

    text = pa.string()
    return {
        "bool": (pa.bool_(), "bool"),
        "int2": (pa.int16(), "bigint"),
        "int4": (pa.int32(), "bigint"),
        "int8": (pa.int64(), "bigint"),
        "float4": (pa.float32(), "double"),
        "float8": (pa.float64(), "double"),
        "text": (text, "text"),
        "varchar": (text, "text"),
        "bpchar": (text, "text"),
        "bytea": (pa.binary(), "binary"),
        "date": (pa.date32(), "date"),
        "time": (pa.time64("us"), "time"),
        "timetz": (text, "text"),
        "timestamp": (pa.timestamp("us"), "timestamp"),
        "timestamptz": (pa.timestamp("us", "UTC"), "timestamp"),
        "uuid": (text, "text"),
        "json": (text, "json"),
        "jsonb": (text, "json"),
        "inet": (text, "text"),
        "cidr": (text, "text"),
        "macaddr": (text, "text"),
        "macaddr8": (text, "text"),
        "bit": (text, "text"),
        "varbit": (text, "text"),
    }


def map_type(source: PgType) -> Mapped:
    """How a column travels and what is created for it.

    Arrays become jsonb. Enums, intervals, ranges, composites, geometric, full-text and extension types become their
    own text. An unbounded numeric, or one wider than Arrow's decimals, travels as decimal text.
    """
    import pyarrow as pa

    if source.category == "A":
        return Mapped("jsonb", pa.string(), "json", "to_jsonb({})")
    if source.is_builtin:
        if source.name == "numeric":
            return Mapped(source.formatted, _decimal(source.modifier), "decimal")
        if source.name == "money":
            return Mapped("numeric", pa.string(), "decimal", "({})::numeric")
        if source.name in ("oid", "xid", "cid"):
            return Mapped("bigint", pa.int64(), "bigint")
        if (plain := _plain().get(source.name)) is not None:
            return Mapped(source.formatted, *plain)
    return Mapped("text", pa.string(), "text")


def _decimal(modifier: int) -> "pa.DataType":
    """decimal128 or decimal256 of numeric(p,s); text when unbounded, too wide, or with an odd scale."""
    import pyarrow as pa

    if modifier < 0:
        return pa.string()
    precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400
    if precision > MAX_DECIMAL256 or not 0 <= scale <= precision:
        return pa.string()
    return pa.decimal128(precision, scale) if precision <= MAX_DECIMAL128 else pa.decimal256(precision, scale)
