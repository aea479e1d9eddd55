"""The table that will take a raw table's place: filled window by window, seen by nobody until the swap.

Each window of a `replace` commits into it, so a long read holds no long transaction, and no window waits for dlt; what
the ledger and dlt's load table say is written with the swap, because only then does a reader see the rows. All of them
are one load. A sync that dies leaves the table behind; the next one drops it.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from connectors.specs import StreamSpec
from connectors.sync.batches import Batch
from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, Column
from connectors.sync.destination import TABLES_LOCK
from connectors.sync.dispositions import ROW_NUMBER, Tables
from connectors.sync.rejects import Reject

LOAD_SETTING = "headwater.load_id"
"""Holds the load's id while its publication runs."""


def next_generation(table: str) -> str:
    """Its name; never a stream's, which starts with a letter, nor that of the array type of a stream `next_...`."""
    return f"__next_{table}"


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


def columns_of(connection: psycopg.Connection[Any], table: Identifier) -> set[str]:
    """The table's columns; none when it is not there."""
    found = connection.execute(
        "select attname::text from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [table.as_string(connection)],
    )
    return {row[0] for row in found}


def has_columns(connection: psycopg.Connection[Any], table: Identifier, columns: Sequence[Column]) -> bool:
    """Whether the table is there with all of these columns; then nobody changes it before the transaction ends.

    Without them nothing stays locked, so that another connection can make them.
    """
    wanted = {column.name for column in columns}
    with connection.transaction() as attempt:
        if not columns_of(connection, table):
            return False
        connection.execute(SQL("lock table {} in access share mode").format(table))
        if wanted <= columns_of(connection, table):
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
    """The next generation of one stream's table, and the figures of what went into it."""

    def __init__(self, connection: psycopg.Connection[Any], schema_name: str, stream: StreamSpec) -> None:
        self._connection = connection
        self._schema_name = schema_name
        self._stream = stream.name
        self._has_keys = bool(stream.primary_key)
        self._columns: set[str] = set()
        self.table = Identifier(schema_name, next_generation(stream.name))
        self.windows = 0
        self.rejects: list[Reject] = []
        self.extracted = 0
        self.loaded_bytes = 0

    def add(self, rejects: Sequence[Reject], batch: Batch) -> None:
        """Count a window that went into the table."""
        self.windows += 1
        self.rejects += rejects
        self.extracted += batch.extracted
        self.loaded_bytes += _size(batch)

    def only(self, batch: Batch) -> None:
        """Count a window that is published by itself."""
        self.windows, self.loaded_bytes = 1, _size(batch)

    def has_to_wait(self, raw: Identifier, columns: Sequence[Column]) -> bool:
        """Whether dlt, which is about to make or widen the raw table, has to come first: for the schema that the table
        is to be in, or because the table is made like the raw one, which that locks against dlt."""
        connection = self._connection
        if self._columns:
            return False
        if columns_of(connection, raw):
            return not has_columns(connection, raw, columns)
        row = connection.execute("select to_regnamespace(quote_ident(%s))", [self._schema_name]).fetchone()
        return row == (None,)

    def ready(self, raw: Identifier, columns: Sequence[Column], load_id: str) -> None:
        """The table with these columns, made like the raw one at first, when there is one. Its rows are one load."""
        connection = self._connection
        is_new = not self._columns
        if is_new:
            _ensure_schema(connection, self._schema_name)
            # the other is what it was called before, where a sync died
            former = Identifier(self._schema_name, f"_next_{self._stream}")
            connection.execute(SQL("drop table if exists {}, {}").format(self.table, former))
            self._columns = columns_of(connection, raw)
            form = SQL("(like {} including all)").format(raw) if self._columns else SQL("()")
            connection.execute(SQL("create table {} {}").format(self.table, form))
        new = [column for column in columns if column.name not in self._columns]
        if new:
            connection.execute(SQL("alter table {} {}").format(self.table, _additions(new)))
            self._columns |= {column.name for column in new}
        if is_new:
            ensure_platform_columns(connection, self.table)
            stamp(connection, self.table, load_id)
            if self._has_keys:
                number_rows(connection, self.table)

    def swap(self, tables: Tables) -> None:
        """Put it in the raw table's place, under the views that read it; in the caller's transaction."""
        if self._has_keys:
            self._connection.execute(SQL("alter table {} drop column {}").format(tables.staged, Identifier(ROW_NUMBER)))
        stamp(self._connection, tables.staged, None)
        self._connection.execute(
            "select ops.swap_table(%s, %s, %s)",
            [self._schema_name, self._stream, next_generation(self._stream)],
        )


def _size(batch: Batch) -> int:
    return sum(part.path.stat().st_size for part in batch.parts)


def _ensure_schema(connection: psycopg.Connection[Any], name: str) -> None:
    if connection.execute("select to_regnamespace(quote_ident(%s))", [name]).fetchone() == (None,):
        connection.execute(f"select pg_advisory_xact_lock({TABLES_LOCK})", [name])
        connection.execute(SQL("create schema if not exists {}").format(Identifier(name)))


def _additions(columns: Sequence[Column]) -> Composed:
    return SQL(", ").join(
        SQL("add column {} {}").format(Identifier(column.name), SQL(column.pg_type))  # pyright: ignore[reportArgumentType]
        for column in columns
    )
