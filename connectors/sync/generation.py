"""The table that will take a raw table's place: filled window by window, seen by nobody until the swap.

Each window of a `replace` commits into it, so a long read holds no long transaction; what the ledger and dlt's load
table say of those windows is written with the swap, because only then does a reader see them. A sync that dies leaves
the table behind; the next one drops it.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from connectors.specs import StreamSpec
from connectors.sync.batches import Batch, Load
from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, Column
from connectors.sync.dispositions import ROW_NUMBER, Tables
from connectors.sync.rejects import Reject

LOAD_SETTING = "headwater.load_id"
"""Holds the load's id while its publication runs."""


def next_generation(table: str) -> str:
    """Its name; never a stream's, which starts with a letter."""
    return f"_next_{table}"


def number_rows(connection: psycopg.Connection[Any], relation: Identifier) -> str:
    """Give the relation a column that keeps the order of arrival; the sequence that counts it."""
    connection.execute(
        # numbers are taken by the thousand: one writer, so they still ascend
        SQL("alter table {} add column {} bigint generated always as identity (cache 1000)").format(
            relation, Identifier(ROW_NUMBER)
        )
    )
    row = connection.execute(
        "select pg_get_serial_sequence(%s, %s)", [relation.as_string(connection), ROW_NUMBER]
    ).fetchone()
    assert row is not None
    return row[0]


def stamp(connection: psycopg.Connection[Any], relation: Identifier, load_id: str | None) -> None:
    """What the relation's rows get as load id: this one, or with None that of the publication that inserts them.

    A constant costs a row a third of what reading the setting does.
    """
    default = SQL("current_setting({})").format(LOAD_SETTING) if load_id is None else Literal(load_id)
    connection.execute(
        SQL("alter table {} alter column {} set default {}").format(relation, Identifier(LOAD_ID), default)
    )


def has_columns(connection: psycopg.Connection[Any], table: Identifier, columns: Sequence[Column]) -> bool:
    """Whether the table is there with all of these columns; then nobody changes it before the transaction ends.

    Without them nothing stays locked, so that another connection can make them.
    """
    name = table.as_string(connection)
    with connection.transaction() as attempt:
        if connection.execute("select to_regclass(%s)", [name]).fetchone() == (None,):
            return False
        connection.execute(SQL("lock table {} in access share mode").format(table))
        found = connection.execute(
            "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
            [name],
        )
        if {column.name for column in columns} <= {row[0] for row in found}:
            return True
        raise psycopg.Rollback(attempt)
    return False


def ensure_platform_columns(connection: psycopg.Connection[Any], raw: Identifier) -> None:
    """Defaults of our own columns, once in a table's life, so that part files need not repeat them."""
    table = connection.execute("select %s::regclass", [raw.as_string(connection)]).fetchone()
    assert table is not None
    have = connection.execute("select 1 from pg_attrdef where adrelid = %s::regclass", [table[0]]).fetchone()
    if have:
        return
    connection.execute(
        SQL("alter table {} alter column {} set default now(), alter column {} set default false").format(
            raw, Identifier(SYNCED_AT), Identifier(DELETED)
        )
    )
    stamp(connection, raw, None)


class Generation:
    """The next generation of one stream's table, and the figures of the loads that went into it."""

    def __init__(self, connection: psycopg.Connection[Any], schema_name: str, stream: StreamSpec) -> None:
        self._connection = connection
        self._schema_name = schema_name
        self._table = stream.name
        self._has_keys = bool(stream.primary_key)
        self.table = Identifier(schema_name, next_generation(stream.name))
        self._columns: set[str] = set()
        self.loads: list[Load] = []
        self.rejects: list[Reject] = []
        self.extracted = 0
        self.loaded_bytes = 0

    def add(self, load: Load, rejects: Sequence[Reject], batch: Batch) -> None:
        """Count a window that went into the table."""
        self.loads.append(load)
        self.rejects += rejects
        self.extracted += batch.extracted
        self.loaded_bytes += _size(batch)

    def only(self, load: Load, batch: Batch) -> None:
        """Count a load that is published by itself."""
        self.loads, self.loaded_bytes = [load], _size(batch)

    def may_begin(self, raw: Tables) -> bool:
        """Whether the table can be made though there is no raw table yet: nobody has to wait until dlt has made one."""
        row = self._connection.execute(
            "select to_regclass(%s) is null and to_regnamespace(%s) is not null",
            [raw.raw.as_string(self._connection), Identifier(self._schema_name).as_string(self._connection)],
        ).fetchone()
        return not self._columns and row == (True,)

    def ready(self, raw: Tables, columns: Sequence[Column], load_id: str) -> None:
        """The table for this load's rows, made like the raw one at first and widened with it later.

        columns: the raw table's, for where there is none yet.
        """
        wanted = set(raw.columns)
        if not self._columns:
            self._connection.execute(SQL("drop table if exists {}").format(self.table))
            if has_columns(self._connection, raw.raw, columns):
                self._connection.execute(SQL("create table {} (like {} including all)").format(self.table, raw.raw))
            else:
                self._connection.execute(SQL("create table {} ({})").format(self.table, _definitions(columns)))
            # dlt may have made the raw table this very moment, without them
            ensure_platform_columns(self._connection, self.table)
            if self._has_keys:
                number_rows(self._connection, self.table)
        elif new := wanted - self._columns:
            types = self._connection.execute(
                """
                select attname, format_type(atttypid, atttypmod) from pg_attribute
                where attrelid = %s::regclass and attname = any (%s) and not attisdropped
                """,
                [raw.raw.as_string(self._connection), list(new)],
            ).fetchall()
            for name, kind in types:
                self._connection.execute(
                    SQL("alter table {} add column {} {}").format(self.table, Identifier(name), SQL(kind))
                )
        self._columns = wanted
        stamp(self._connection, self.table, load_id)

    def swap(self, tables: Tables) -> None:
        """Put it in the raw table's place, under the views that read it; in the caller's transaction."""
        if self._has_keys:
            self._connection.execute(SQL("alter table {} drop column {}").format(tables.staged, Identifier(ROW_NUMBER)))
        stamp(self._connection, tables.staged, None)
        self._connection.execute(
            "select ops.swap_table(%s, %s, %s)",
            [self._schema_name, self._table, next_generation(self._table)],
        )


def _size(batch: Batch) -> int:
    return sum(part.path.stat().st_size for part in batch.parts)


def _definitions(columns: Sequence[Column]) -> Composed:
    return SQL(", ").join(SQL("{} {}").format(Identifier(column.name), SQL(column.pg_type)) for column in columns)  # pyright: ignore[reportArgumentType]
