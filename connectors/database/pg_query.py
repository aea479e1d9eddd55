"""The SQL that PostgreSQL is asked: identifiers and values quoted by psycopg, values cast to the column's type."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import LiteralString, cast

from psycopg import sql

from connectors.contract import CopyFormat
from connectors.database.shape import TableColumn, TableShape
from connectors.measures import COUNT, DIGEST_SQL, KEYS, summed_column, text_sql


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of which columns; conditions are ANDed."""

    shape: TableShape
    columns: tuple[TableColumn, ...]
    conditions: tuple[sql.Composable, ...] = ()
    order_by: tuple[str, ...] = ()
    limit: int | None = None

    def also(self, *conditions: sql.Composable) -> "Selection":
        return replace(self, conditions=(*self.conditions, *conditions))


def literal_of(value: str, column: TableColumn) -> sql.Composable:
    """The value cast to the column's own type; a date is compared as a timestamp, so that hours count."""
    native = "timestamp without time zone" if column.native_type == "date" else column.native_type
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.SQL(cast("LiteralString", native)))


def place(column: TableColumn) -> sql.Composable:
    """The column as positions are compared: a text by code points, as the engine does, whatever its locale."""
    name = sql.Identifier(column.name)
    if _is_worded(column):
        return sql.SQL('{}::text collate "C"').format(name)
    is_text = column.native_type == "text" or column.native_type.startswith("character")
    return sql.SQL('{} collate "C"' if is_text else "{}").format(name)


def _is_worded(column: TableColumn) -> bool:
    """Of a type with an order of its own (citext, an enum) that is kept as text."""
    return column.pg_type == "text" and column.native_type != "text"


def compare(column: TableColumn, operator: LiteralString, value: str) -> sql.Composable:
    return sql.SQL("{} {} {}").format(place(column), sql.SQL(operator), _position(value, column))


def not_above(column: TableColumn, value: str) -> sql.Composable:
    """At most the value, or NULL."""
    return sql.SQL("({} <= {} or {} is null)").format(
        place(column), _position(value, column), sql.Identifier(column.name)
    )


def _position(value: str, column: TableColumn) -> sql.Composable:
    return sql.SQL("{}::text").format(sql.Literal(value)) if _is_worded(column) else literal_of(value, column)


def row_compare(columns: Sequence[TableColumn], operator: LiteralString, values: Sequence[str]) -> sql.Composable:
    """(a, b) > (x, y): the row-wise order that an index on (a, b) serves."""
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    bounds = sql.SQL(", ").join(literal_of(value, column) for column, value in zip(columns, values, strict=True))
    return sql.SQL("({}) {} ({})").format(names, sql.SQL(operator), bounds)


def author_condition(where: str) -> sql.Composable:
    """The stream's own condition, as its author wrote it."""
    return sql.SQL("({})").format(sql.SQL(cast("LiteralString", where)))


def select(selection: Selection, form: CopyFormat) -> sql.Composed:
    """select <columns> from <table> where ... order by ... limit ..."""
    names = sql.SQL(", ").join(_expression(column, form) for column in selection.columns)
    return sql.SQL("select {}{}").format(names, _rest(selection))


def copy_out(selection: Selection, form: CopyFormat) -> sql.Composed:
    """COPY of the rows; a CSV has no header, empty is NULL, "" is empty text."""
    return sql.SQL("copy ({}) to stdout (format {}, encoding 'UTF8')").format(select(selection, form), sql.SQL(form))


def answerable(shape: TableShape, wanted: Sequence[str], keys: Sequence[str]) -> tuple[str, ...]:
    """The measures that this table can tell: sums of its numbers, a checksum where it has the keys."""
    types = {column.name: column.house_type for column in shape.columns}

    def can(measure: str) -> bool:
        if measure == KEYS:
            return bool(keys) and set(keys) <= types.keys()
        column = summed_column(measure)
        return column is None or types.get(column) in ("bigint", "decimal", "double")

    return tuple(measure for measure in wanted if can(measure))


def measures(selection: Selection, wanted: Sequence[str], keys: Sequence[str]) -> sql.Composed:
    """select count(*), sum(amount), <sum of the keys' numbers> from <table> where ..."""
    types = {column.name: column.native_type for column in selection.shape.columns}

    def expression(measure: str) -> sql.Composable:
        if (column := summed_column(measure)) is not None:
            return sql.SQL("coalesce(sum({}), 0)").format(sql.Identifier(column))
        if measure == COUNT:
            return sql.SQL("count(*)")
        texts = [sql.SQL(cast("LiteralString", text_sql(types[key]))).format(sql.Identifier(key)) for key in keys]
        number = sql.SQL(DIGEST_SQL).format(sql.SQL(", ").join(texts))
        return sql.SQL("coalesce(sum({}), 0)").format(number)

    return sql.SQL("select {}{}").format(sql.SQL(", ").join(map(expression, wanted)), _rest(selection))


def greatest(selection: Selection, column: TableColumn) -> sql.Composed:
    return sql.SQL("select max({})::text{}").format(place(column), _rest(selection))


def window_end(selection: Selection, key: Sequence[TableColumn], rows: int) -> sql.Composed:
    """The key of the window's last row as texts; no row when fewer than `rows` are left."""
    names = [sql.Identifier(column.name) for column in key]
    inner = sql.SQL("select {}{} order by {} offset {} limit 1").format(
        sql.SQL(", ").join(names), _rest(selection), sql.SQL(", ").join(names), sql.Literal(rows - 1)
    )
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in names)
    return sql.SQL("select {} from ({}) as last_row").format(texts, inner)


def _expression(column: TableColumn, form: CopyFormat) -> sql.Composable:
    name = sql.Identifier(column.name)
    wanted = column.binary_cast if form == "binary" else column.cast
    return sql.SQL(cast("LiteralString", wanted)).format(name) if wanted else name


def _rest(selection: Selection) -> sql.Composed:
    shape = selection.shape
    table = sql.Identifier(shape.schema, shape.table) if shape.schema else sql.Identifier(shape.table)
    parts: list[sql.Composable] = [sql.SQL(" from {}").format(table)]
    if selection.conditions:
        parts.append(sql.SQL(" where {}").format(sql.SQL(" and ").join(selection.conditions)))
    if selection.order_by:
        order = sql.SQL(", ").join(place(column) for column in shape.columns if column.name in selection.order_by)
        parts.append(sql.SQL(" order by {}").format(order))
    if selection.limit is not None:
        parts.append(sql.SQL(" limit {}").format(sql.Literal(selection.limit)))
    return sql.Composed(parts)
