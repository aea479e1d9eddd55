"""The tables that a publication works on, and the words of SQL that say things of them.

Identifiers are composed by the driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, VALID_FROM, VALID_TO
from connectors.sync.result import ObservedColumn, SyncRequest

Connection = psycopg.Connection[Any]
ROW_NUMBER = "_row"
PLATFORM = (SYNCED_AT, LOAD_ID, ROW_NUMBER, VALID_FROM, VALID_TO, DELETED)
"""Columns that are not the source's."""


@dataclass(frozen=True, slots=True)
class Tables:
    """raw: the table that readers see. staged: this window's rows, in a relation nobody else sees.

    columns: the stream's own columns. keys: a part of them. cursor: one of them, or None; cursor_type: PostgreSQL's.
    has_marks: a staged row may be a delete mark. unequal: columns of a type without equality, such as json.
    """

    raw: Identifier
    staged: Identifier
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    cursor: str | None
    cursor_type: str = ""
    has_marks: bool = True
    unequal: frozenset[str] = frozenset()

    @property
    def position(self) -> Composable:
        """The cursor as positions are compared: a text by code points, whatever the database's locale is.

        That is the order of ISO dates, of Python, and of the source that is asked for what comes after a position.
        """
        return self.position_in()

    def position_in(self, *alias: str) -> Composable:
        assert self.cursor is not None
        is_text = self.cursor_type == "text" or self.cursor_type.startswith("character")
        return SQL('{} collate "C"' if is_text else "{}").format(Identifier(*alias, self.cursor))

    def becomes_position(self, tolerance: timedelta) -> Composable | None:
        """Whether a cursor value may be a position; None: every one may.

        Nothing would come after the far future, an infinity, NaN or a year before 1.
        """
        kind, cursor = self.cursor_type, Identifier(self.cursor or "")
        if kind == "date" or kind.startswith("timestamp"):
            return SQL("({c} >= '0001-01-01' and {c} <= now() + {t})").format(c=cursor, t=Literal(tolerance))
        if kind in ("real", "double precision") or kind.startswith("numeric"):
            return SQL("({c} > '-Infinity' and {c} < 'Infinity')").format(c=cursor)
        return None


def names(columns: Sequence[str], alias: str | None = None) -> Composed:
    """`"a", "b"` or `x."a", x."b"`."""
    return SQL(", ").join(Identifier(alias, column) if alias else Identifier(column) for column in columns)


def match(keys: Sequence[str], left: str, right: str) -> Composed:
    """`l."k" = r."k" and ...`"""
    return SQL(" and ").join(SQL("{} = {}").format(Identifier(left, key), Identifier(right, key)) for key in keys)


def differs(tables: Tables, columns: Sequence[str], left: str, right: str) -> Composable:
    """True when some column is distinct; false for an empty list."""
    if not columns:
        return SQL("false")

    def row(alias: str) -> Composable:
        values = [(Identifier(alias, name), SQL("::text" if name in tables.unequal else "")) for name in columns]
        return SQL(", ").join(SQL("{}{}").format(value, cast) for value, cast in values)

    return SQL("row({}) is distinct from row({})").format(row(left), row(right))


def count(connection: Connection, query: SQL | Composed, parameters: Sequence[Any] = ()) -> int:
    row = connection.execute(SQL("select count(*) from ({}) as q").format(query), parameters).fetchone()
    assert row is not None
    return int(row[0])


def changed(
    connection: Connection, query: SQL | Composed, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> int:
    """Run a data-changing statement; rows it touched."""
    return max(connection.execute(query, parameters).rowcount, 0)


def observed_columns(connection: psycopg.Connection[Any], request: SyncRequest) -> tuple[ObservedColumn, ...]:
    """Columns of the raw table in order, with the contract's descriptions."""
    rows = connection.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod), not a.attnotnull
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
        order by a.attnum
        """,
        [request.source.schema_name, request.stream.name],
    ).fetchall()
    described = {name: spec.description for name, spec in request.stream.columns.items()}
    return tuple(ObservedColumn(name, kind, nullable, described.get(name, "")) for name, kind, nullable in rows)
