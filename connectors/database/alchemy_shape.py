"""The shape of any SQLAlchemy database's tables, by reflection."""

from typing import TYPE_CHECKING

from sqlalchemy.engine import Inspector

from connectors.database.alchemy_types import map_type
from connectors.database.shape import TableColumn, TableShape
from connectors.errors import ConfigError
from connectors.specs import did_you_mean

if TYPE_CHECKING:
    from connectors.kinds.database import DatabaseStreamSpec


def table_names(inspector: Inspector, schema: str | None) -> list[str]:
    """Tables and views, by name."""
    return sorted({*inspector.get_table_names(schema), *inspector.get_view_names(schema)})


def read_shape(
    inspector: Inspector, schema: str | None, table: str, where: str, stream: "DatabaseStreamSpec | None" = None
) -> TableShape:
    """The shape of one table or view; types that the stream's contract declares win.

    Raises:
        ConfigError: it is not there; the nearest name.
    """
    names = table_names(inspector, schema)
    if table not in names:
        place = f"schema {schema!r}" if schema else "the database"
        hint = did_you_mean(table, names[:40]) if names else "It has no table that this user can see."
        raise ConfigError(where, f"no table {table!r} in {place}", hint)
    contracts = stream.columns if stream else {}
    columns: list[TableColumn] = []
    for item in inspector.get_columns(table, schema):
        name = str(item["name"])
        mapped = map_type(item["type"], inspector.dialect, contracts.get(name))
        native = str(getattr(item["type"], "__visit_name__", item["type"]))
        columns.append(TableColumn(name, native, mapped.pg_type, mapped.house_type, bool(item["nullable"])))
    key = tuple(inspector.get_pk_constraint(table, schema).get("constrained_columns", ()))
    leads = {str(names[0]) for index in inspector.get_indexes(table, schema) if (names := index["column_names"])}
    # a primary key holds no NULL, also where SQLite's declaration allows one
    columns = [_not_null(column) if column.name in key else column for column in columns]
    return TableShape(schema, table, tuple(columns), key, frozenset({*leads, *key[:1]}))


def _not_null(column: TableColumn) -> TableColumn:
    return TableColumn(column.name, column.native_type, column.pg_type, column.house_type, is_nullable=False)
