"""A batch's rows on their way: copied into a relation that nobody reads yet, and what breaks the contract taken out."""

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.sync import deletes, quarantine
from connectors.sync.audit import Audit, RowRule, contract_rules
from connectors.sync.batches import Batch
from connectors.sync.columns import DELETED, OVERFLOW
from connectors.sync.copying import Copier
from connectors.sync.rejects import Reject
from connectors.sync.relations import columns_of, number_rows, stamp
from connectors.sync.result import SyncRequest
from connectors.sync.tables import ROW_NUMBER, Tables


class Stage:
    """One batch's. rejects: all that was found so far, that of a step which failed midway too."""

    def __init__(
        self, connection: psycopg.Connection[Any], request: SyncRequest, batch: Batch, audit: Audit, load_id: str
    ) -> None:
        self._connection = connection
        self._request = request
        self._batch = batch
        self._audit = audit
        self._load_id = load_id
        self._numbers: str | None = None
        self.rejects: list[Reject] = list(batch.rejects)

    @property
    def rules(self) -> tuple[RowRule, ...]:
        return contract_rules(self._request.stream, self._batch.schema)

    def tables(self, staged: Identifier) -> Tables:
        stream, schema = self._request.stream, self._batch.schema
        columns = [column.name for column in schema.table_columns]
        if schema.has_overflow:
            columns.append(OVERFLOW)
        cursor = schema.name_of(stream.cursor.field) if stream.cursor else None
        types = {column.name: column.pg_type for column in schema.table_columns}
        return Tables(
            raw=Identifier(self._request.source.schema_name, stream.name),
            staged=staged,
            columns=tuple(columns),
            keys=tuple(schema.name_of(key) for key in stream.primary_key),
            cursor=cursor if cursor in columns else None,
            cursor_type=types.get(cursor or "", ""),
            has_marks=self._batch.emptied_after is not None
            or any(DELETED in part.columns for part in self._batch.parts),
            unequal=frozenset(name for name, pg_type in types.items() if pg_type == "json"),
        )

    def make(self, table: Identifier) -> Tables:
        """With a temporary table for the rows, in order of arrival, like the one that they go into."""
        connection = self._connection
        connection.execute(
            SQL("create temporary table staged (like {} including defaults) on commit drop").format(table)
        )
        staged = Identifier("pg_temp", "staged")
        if ROW_NUMBER in columns_of(connection, staged):
            connection.execute(SQL("alter table {} drop column {}").format(staged, Identifier(ROW_NUMBER)))
        self._numbers = number_rows(connection, staged)
        stamp(connection, staged, self._load_id)
        return self.tables(staged)

    def copy(self, tables: Tables) -> Copier:
        """The batch's parts, in order. What was emptied in the middle of them is marked."""
        batch, limit = self._batch, self._audit.quarantine_left
        copier = Copier(self._connection, tables.staged, batch.schema.columns, self._numbers)
        try:
            for number, part in enumerate(batch.parts):
                if number == batch.emptied_after:
                    deletes.mark_all(self._connection, tables)
                if part.rows:
                    copier.copy(part, may_refuse=limit)
            if batch.emptied_after == len(batch.parts):
                deletes.mark_all(self._connection, tables)
        finally:
            self.rejects += copier.rejects
        return copier

    def break_out(self, tables: Tables, copied: Copier) -> list[Reject]:
        """Rows that break a rule of the contract; they leave the stage."""
        broken: list[Reject] = []
        try:
            quarantine.take_staged(
                self._connection, tables, self.rules, self._batch.schema, self._audit, copied.place, broken
            )
        finally:
            self.rejects += broken
        return broken
