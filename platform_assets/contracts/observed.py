"""The shapes that a source offers, a contract declares, a table has and a manifest describes, in house types."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

from connectors.column_spec import ColumnType
from connectors.contract import DiscoveredStream
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync.differences import Field, Shape

if TYPE_CHECKING:
    from connectors.sync.registry import SchemaVersion

_HOUSE: Mapping[str, ColumnType] = {
    "double precision": "double", "real": "double", "numeric": "decimal", "boolean": "bool", "timestamptz": "timestamp",
    "timestamp with time zone": "timestamp", "timestamp": "timestamp", "jsonb": "json", "bytea": "binary",
    "integer": "bigint", "int": "bigint", "smallint": "bigint", "time without time zone": "time", "decimal": "decimal",
    "varchar": "text", "character varying": "text",
}  # fmt: skip
_HOLDS: Mapping[str, frozenset[str]] = {
    "text": frozenset(get_args(ColumnType)),
    "double": frozenset({"bigint", "decimal"}),
    "decimal": frozenset({"bigint", "double"}),
    "timestamp": frozenset({"date"}),
    "json": frozenset(get_args(ColumnType)),
}
"""What a column takes besides values of its own type."""
TYPED_KINDS = frozenset({"database", "sling"})
"""Kinds whose discovery says the source's own types and every stream; others guess from a sample."""


def offered_to(spec: SourceSpec, offered: Iterable[DiscoveredStream]) -> dict[str, DiscoveredStream]:
    """What discovery says of each declared stream, whatever name it goes by there."""
    found: dict[str, DiscoveredStream] = {}
    for one in offered:
        for stream in spec.streams:
            names = {stream.name, getattr(stream, "table_name", ""), getattr(stream, "object_name", "")} - {""}
            if one.name in names or one.name.rpartition(".")[2] in names:
                found[stream.name] = one
    return found


def declared_shape(stream: StreamSpec) -> Shape:
    """Columns whose type is declared and that reach the table."""
    return Shape(
        {
            name: Field("text" if spec.rewrites else spec.type or "", spec.nullable and name not in stream.primary_key,
                        spec.accepted_values)
            for name, spec in stream.columns.items()
            if spec.rule != "block" and (spec.type is not None or spec.rewrites)
        },
        stream.primary_key,
    )  # fmt: skip


def offered_shape(stream: DiscoveredStream) -> Shape:
    return Shape({one.name: Field(one.type, one.is_nullable) for one in stream.columns}, stream.primary_key)


def table_shape(version: "SchemaVersion") -> Shape:
    types = {column.source_name: column.type for column in version.columns}
    shape = version.shape
    columns = {name: Field(types[name], field.nullable, field.accepted_values) for name, field in shape.columns.items()}
    return Shape(columns, shape.key)


def raw_names(version: "SchemaVersion") -> dict[str, str]:
    """Warehouse name of each column, by the source's name."""
    return {column.source_name: column.name for column in version.columns if column.variant_of is None}


def described_shape(source: Mapping[str, Any], by_raw: Mapping[str, str]) -> Shape:
    """A dbt source as `headwater contract write` writes it; the engine's own columns left out.

    by_raw: the source's own spelling of raw names, which are all that dbt knows.
    """
    columns: dict[str, Field] = {}
    key: list[str] = []
    for raw, column in source["columns"].items():
        name = by_raw.get(raw, raw)
        if raw in ("_synced_at", "_deleted", "_dlt_load_id"):
            continue
        meta = meta_of(column)
        if meta.get("key"):
            key.append(name)
        columns[name] = Field(
            house_type(column.get("data_type") or ""),
            meta.get("nullable", True),
            tuple(meta.get("accepted_values") or ()),
        )
    return Shape(columns, tuple(key))


def meta_of(column: Mapping[str, Any]) -> Mapping[str, Any]:
    """What dbt's manifest keeps of a column beside its type."""
    return (column.get("config") or {}).get("meta") or column.get("meta") or {}


def house_type(sql_type: str) -> str:
    """The house's word for PostgreSQL's, without its precision; another word stays as it is."""
    kind = sql_type.partition("(")[0].strip()
    return _HOUSE.get(kind, kind)


def holds(column: str, value: str, *, is_typed: bool) -> bool:
    """A column of one house type takes values of another. is_typed: the source's text is text, and no unread number."""
    if column == value or value in _HOLDS.get(column, ()):
        return True
    return value == "text" and not is_typed
