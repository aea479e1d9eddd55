"""The table that will take a raw table's place: filled window by window, seen by nobody until the swap.

Each window of a `replace` commits into it, so a long read holds no long transaction, and no window waits for dlt; what
the ledger and dlt's load table say is written with the swap, because only then does a reader see the rows. All of them
are one load. A sync that dies leaves the table behind; the next one drops it.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from connectors.specs import StreamSpec
from connectors.sync.batches import Batch
from connectors.sync.columns import Column
from connectors.sync.destination import TABLES_LOCK
from connectors.sync.indexes import drop_copied_key
from connectors.sync.rejects import Reject
from connectors.sync.relations import columns_of, ensure_platform_columns, has_columns, number_rows, stamp
from connectors.sync.tables import ROW_NUMBER, Tables


def next_generation(table: str) -> str:
    """Its name; never a stream's, which starts with a letter, nor that of the array type of a stream `next_...`."""
    return f"__next_{table}"


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
            drop_copied_key(connection, raw, self.table, self._stream)
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
