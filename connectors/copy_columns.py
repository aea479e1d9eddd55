"""Arrow's fields as columns of a COPY file: the house's type and PostgreSQL's."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, cast

from connectors.contract import CopyColumn
from connectors.specs import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

PG_TYPES: Mapping[ColumnType, str] = {
    "text": "text",
    "bigint": "bigint",
    "double": "double precision",
    "decimal": "numeric",
    "bool": "boolean",
    "timestamp": "timestamp with time zone",
    "date": "date",
    "time": "time without time zone",
    "json": "jsonb",
    "binary": "bytea",
}


def copy_columns(schema: "Iterable[pa.Field]") -> tuple[CopyColumn, ...]:
    """In order; a field's metadata `pg_type`, where present, is its exact type."""
    return tuple(map(copy_column, schema))


def copy_column(field: "pa.Field") -> CopyColumn:
    import pyarrow as pa

    kind = house_type(field.type)
    pg_type = PG_TYPES[kind]
    if pa.types.is_decimal(field.type):
        pg_type = f"numeric({field.type.precision},{field.type.scale})"
    metadata = cast("Mapping[bytes, bytes]", field.metadata or {})
    if exact := metadata.get(b"pg_type", b"").decode():
        pg_type = exact
        kind = _house_type_of_pg(exact, kind)
    return CopyColumn(field.name, kind, pg_type)


def house_type(kind: "pa.DataType") -> ColumnType:
    import pyarrow as pa

    tests: tuple[tuple[ColumnType, bool], ...] = (
        ("bool", pa.types.is_boolean(kind)),
        ("decimal", pa.types.is_decimal(kind) or pa.types.is_uint64(kind)),
        ("bigint", pa.types.is_integer(kind)),
        ("double", pa.types.is_floating(kind)),
        ("timestamp", pa.types.is_timestamp(kind)),
        ("date", pa.types.is_date(kind)),
        ("time", pa.types.is_time(kind)),
        ("binary", pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)),
        ("json", pa.types.is_nested(kind)),
    )
    for name, is_it in tests:
        if is_it:
            return name
    return "text"


def _house_type_of_pg(pg_type: str, fallback: ColumnType) -> ColumnType:
    """The house type whose text form COPY accepts for this PostgreSQL type."""
    base = pg_type.partition("(")[0].strip()
    table: dict[str, ColumnType] = {
        "numeric": "decimal", "jsonb": "json", "json": "json", "uuid": "text", "bytea": "binary", "date": "date",
        "smallint": "bigint", "integer": "bigint", "bigint": "bigint", "real": "double", "double precision": "double",
        "boolean": "bool", "timestamp with time zone": "timestamp", "time without time zone": "time",
    }  # fmt: skip
    return "text" if base.endswith("[]") else table.get(base, fallback)
