"""One publication: a load package, its state and its ledger figures, in one transaction.

The fence is checked first, the audit runs on the staged rows, and the commit comes last: until then no reader sees
anything, and after it everything is true at once.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ContractError, LoaderError
from connectors.sync import dispositions, gone, ledger, quarantine, registry, renames, state, superseding
from connectors.sync.audit import Audit, contract_rules
from connectors.sync.batches import Batch
from connectors.sync.checks.contract import Staged
from connectors.sync.columns import DELETED, OVERFLOW, Column
from connectors.sync.copying import Copier
from connectors.sync.destination import LOADS_TABLE
from connectors.sync.dispositions import ROW_NUMBER, Tables, Written
from connectors.sync.generation import (
    LOAD_SETTING,
    Generation,
    columns_of,
    ensure_platform_columns,
    has_columns,
    number_rows,
    stamp,
)
from connectors.sync.indexes import ensure_index, is_prepared
from connectors.sync.lease import Lease
from connectors.sync.packages import BuiltSchema, Package
from connectors.sync.rejects import Reject
from connectors.sync.result import RowCounts, Step, SyncRequest, Verdict


class StepClock(Protocol):
    """Books the time inside the block to a step."""

    def during(self, step: Step) -> AbstractContextManager[None]: ...


class Publication:
    """Publishes a sync's batches, one after the other.

    Raises from publish:
        ContractError: the audit failed; nothing changed.
        LoaderError: the fence is gone, or the warehouse refused.
        dlt's error chain: it could not make the tables.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        lease: Lease,
        request: SyncRequest,
        position: state.Position,
        audit: Audit,
        verdicts: Callable[[], Sequence[Verdict]],
        resolves: Sequence[int] = (),
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._request = request
        self._stream = request.stream
        self._position = position
        self._audit = audit
        self._verdicts = verdicts
        self._resolves = list(resolves)
        self._pending: list[Reject] = []
        self._generation = Generation(connection, request.source.schema_name, request.stream)
        self.rows = RowCounts()
        self.newest_cursor: str | None = None
        self._load_id = _new_load_id()

    def is_unseen(self, batch: Batch) -> bool:
        """The batch goes into the next generation alone; nothing of it is anywhere before the last one is published."""
        return self._decided(batch) == "replace" and not batch.is_last

    def publish(self, batch: Batch, columns: Sequence[Column], package: Package | None, clock: StepClock) -> str:
        """Audit and publish the batch while dlt builds its package, and commit once that is whole. The load id.

        columns: the raw table's. package: None for what is unseen.
        """
        self._batch, self._schema, self._clock, self._columns = batch, batch.schema, clock, columns
        # decided once a batch: the reading thread may learn meanwhile that there is nothing new
        self._disposition = "replace" if package is None else self._decided(batch)
        self._numbers: str | None = None
        self._pending = list(batch.rejects)
        with clock.during("publish"), self._connection.transaction():
            self._fence()
            self._connection.execute("select set_config(%s, %s, true)", [LOAD_SETTING, self._load_id])
            if self._disposition == "replace":
                self._generation.add(self._add_to_generation(package), batch)
                self._pending = []
                rows = self._swap(package) if package is not None and batch.is_last else None
            else:
                assert package is not None
                rows = self._add(package)
        self._pending = []
        load_id = self._load_id
        if rows is not None:
            self._generation.rejects = []
            self.rows = add_rows(self.rows, rows)
            self._load_id = _new_load_id()
        return load_id

    def _add(self, package: Package) -> RowCounts:
        rows = self._write(self._ready(package), package)
        self._generation.only(self._batch)
        self._record(rows, self._built(package))
        return rows

    def _ready(self, package: Package) -> Tables:
        """The raw table as this batch needs it. Most often it is; else dlt makes it, and it is not locked here.

        Before dlt has made its tables nothing is locked that somebody else's DDL, or a reader, may wait for: dlt may
        itself be waiting for those, in a circle that PostgreSQL does not see.
        """
        connection = self._connection
        raw = self._tables(Identifier("staged"))
        if not (has_columns(connection, raw.raw, self._columns) and is_prepared(connection, raw, self._stream)):
            self._wait_for_tables(package)
        ensure_platform_columns(connection, raw.raw)
        ensure_index(connection, raw, self._stream, self._request.label)
        return raw

    def _wait_for_tables(self, package: Package) -> None:
        with self._clock.during("land"):
            package.wait_for_tables()

    def _built(self, package: Package) -> BuiltSchema:
        with self._clock.during("land"):
            return package.wait()

    @property
    def refused(self) -> list[Reject]:
        """Rejects of what is not committed."""
        return [*self._generation.rejects, *self._pending]

    def _fence(self) -> None:
        row = self._connection.execute(
            "select epoch from ops.leases where source = %s and stream = %s for share",
            [self._request.source.source, self._stream.name],
        ).fetchone()
        if row is None or row[0] != self._lease.epoch:
            raise LoaderError(
                self._request.label,
                f"a later sync took the stream over (epoch {row[0] if row else 'gone'}, ours is {self._lease.epoch})",
                "Nothing was published by this one; look at the later sync.",
            )

    def _decided(self, batch: Batch) -> str:
        """A replay adds its few records to a table that is otherwise replaced whole; nothing new replaces nothing."""
        write = self._stream.write or "append"
        adds = self._request.trigger == "replay" or (self._audit.nothing_new and not batch.extracted)
        return "append" if write == "replace" and adds else write

    def _tables(self, staged: Identifier) -> Tables:
        stream, schema = self._stream, self._schema
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

    def _write(self, raw: Tables, package: Package) -> RowCounts:
        """Stage, clean, audit, apply the write disposition; the window's row counts."""
        connection, stream, batch = self._connection, self._stream, self._batch
        tables = self._tables(raw.raw if self._goes_straight else self._make_stage(raw.raw))
        copied = self._copy(tables)
        renames.weigh(connection, tables, self._schema)
        refused = copied.rejects
        filtered = 0
        if self._request.window is not None and tables.cursor is not None:
            filtered = dispositions.filter_window(connection, tables, self._request.window)
        broken = [] if self._goes_straight else self._break_out(tables, copied)
        rejects = [*batch.rejects, *refused, *broken]
        self._hold(rejects)
        staged = self._staged(tables)
        self._audit.arrived(staged, batch.extracted)
        deduplicated = dispositions.deduplicate(connection, tables) if tables.keys and stream.write != "append" else 0
        deduplicated += superseding.settle_keys(connection, self._request, self._lease.sync_id, tables)
        self.newest_cursor = self._position.advance(connection, tables, is_live=self._request.is_live)
        with self._clock.during("audit"):
            self._audit.count(batch.extracted, len(rejects))
            self._audit.judge(staged)
        written = self._apply(tables, refused=len(refused))
        rows = RowCounts(
            extracted=batch.extracted,
            loaded=written.loaded,
            updated=written.updated,
            deleted=written.deleted,
            deduplicated=deduplicated + written.deduplicated,
            filtered=filtered + written.filtered,
            quarantined=len(rejects),
        )
        if batch.is_last:
            # what is concluded may look at other tables, which stay locked until the end
            self._wait_for_tables(package)
            self._conclude(staged, raw.raw, add_rows(self.rows, rows))
        return rows

    def _copy(self, tables: Tables) -> Copier:
        limit = self._audit.quarantine_left
        copier = Copier(self._connection, tables.staged, self._schema.columns, self._numbers)
        try:
            for number, part in enumerate(self._batch.parts):
                if number == self._batch.emptied_after:
                    dispositions.mark_all_deleted(self._connection, tables)
                if part.rows:
                    copier.copy(part, may_refuse=limit)
            if self._batch.emptied_after == len(self._batch.parts):
                dispositions.mark_all_deleted(self._connection, tables)
        finally:
            self._pending += copier.rejects
        return copier

    def _hold(self, rejects: Sequence[Reject]) -> None:
        # the first sync writes version 1 in this very transaction
        version = max(self._schema.version, 1)
        quarantine.hold(self._connection, self._request, self._lease.sync_id, rejects, version)

    def _break_out(self, tables: Tables, copied: Copier) -> list[Reject]:
        rules = contract_rules(self._stream, self._schema)
        broken: list[Reject] = []
        try:
            quarantine.take_staged(self._connection, tables, rules, self._schema, self._audit, copied.place, broken)
        finally:
            self._pending += broken
        return broken

    def _make_stage(self, table: Identifier) -> Identifier:
        """A temporary table for this window's rows, in order of arrival, like the one that they go into."""
        connection = self._connection
        connection.execute(
            SQL("create temporary table staged (like {} including defaults) on commit drop").format(table)
        )
        staged = Identifier("pg_temp", "staged")
        if ROW_NUMBER in columns_of(connection, staged):
            connection.execute(SQL("alter table {} drop column {}").format(staged, Identifier(ROW_NUMBER)))
        self._numbers = number_rows(connection, staged)
        stamp(connection, staged, self._load_id)
        return staged

    @property
    def _goes_straight(self) -> bool:
        """An append that nothing has to look at first is copied once, not twice."""
        stream = self._stream
        return (
            self._disposition == "append"
            and not stream.primary_key
            and stream.cursor is None
            and self._request.is_live
            and not contract_rules(stream, self._schema)
            and not self._audit.has_row_checks
        )

    def _apply(self, tables: Tables, *, refused: int) -> Written:
        connection, stream, batch = self._connection, self._stream, self._batch
        is_hard = stream.deletes == "hard"
        if self._disposition == "append":
            if self._goes_straight:
                loaded = batch.extracted - len(batch.rejects) - refused
                return Written(loaded=loaded, deleted=self._delete_replaced(tables))
            comes_again = False
            if self._request.is_live and stream.cursor is not None and tables.cursor is not None:
                boundary, tolerance = self._position.started_from, stream.cursor.tolerance
                comes_again = dispositions.remember_boundary(connection, tables, boundary, tolerance)
            written = dispositions.append(connection, tables, self._request.window, comes_again=comes_again)
            return replace(written, deleted=written.deleted + self._delete_replaced(tables))
        gone = self._delete_absent(tables, is_hard=is_hard)
        if self._disposition == "scd2":
            written = dispositions.scd2(connection, tables)
        else:
            delete_insert = stream.merge == "delete-insert"
            written = dispositions.merge(connection, tables, is_hard=is_hard, delete_insert=delete_insert)
        return replace(written, deleted=written.deleted + gone + self._delete_replaced(tables))

    def _delete_replaced(self, tables: Tables) -> int:
        """Rows that the source has replaced as a whole, once all of the read is in the table."""
        replaces = self._batch.replaces
        if replaces is None or not self._request.is_live:
            return 0
        if self._audit.quarantined:
            self._audit.skip_deletes()
            return 0
        column = self._schema.name_of(replaces.column)
        if column not in tables.columns:
            return 0
        is_hard = self._stream.deletes == "hard"
        gone = dispositions.delete_others(
            self._connection, tables, column, replaces.value, is_hard=is_hard, is_scd2=self._stream.write == "scd2"
        )
        probe = SQL("select 1 from {} where {} = %s limit 1").format(tables.raw, Identifier(column))
        left = self._connection.execute(probe, [replaces.value]).fetchone()
        if gone and left is None and not self._stream.allow_empty:
            raise ContractError(
                self._request.label,
                f"the source replaced all {gone:,} rows by none",
                "Check the source; set allow_empty: true if nothing is a right answer.",
            )
        return gone

    def _delete_absent(self, tables: Tables, *, is_hard: bool) -> int:
        """Deletes found by a full snapshot; skipped when a record of it is in quarantine, for its key may be there.

        A source that was emptied is no snapshot: it said so itself.
        """
        audit, batch = self._audit, self._batch
        if batch.emptied_after is not None:
            if batch.by_snapshot and audit.quarantined:
                audit.skip_deletes(for_good=True)
                return 0
            if batch.by_snapshot and not batch.may_be_none:
                self._refuse_empty(tables)
            is_scd2 = self._stream.write == "scd2"
            return dispositions.delete_absent(self._connection, tables, is_hard=is_hard, is_scd2=is_scd2)
        if not self._stream.snapshot or not self._request.is_live or not batch.is_last or audit.nothing_new:
            return 0
        if audit.quarantined:
            audit.skip_deletes()
            return 0
        self._refuse_empty(tables)
        return dispositions.delete_absent(
            self._connection, tables, is_hard=is_hard, is_scd2=self._stream.write == "scd2"
        )

    @property
    def _is_full(self) -> bool:
        """What is not in this read, or came before the source was emptied, is not in the source."""
        is_whole = self._stream.snapshot or self._stream.write == "replace"
        says_all = is_whole and not self._audit.nothing_new
        return self._request.is_live and (says_all or self._batch.emptied_after is not None)

    def _add_to_generation(self, package: Package | None) -> list[Reject]:
        """This window's rows into the table that will take the raw table's place; its rejects."""
        connection, generation = self._connection, self._generation
        raw = self._tables(Identifier("staged")).raw
        if package is not None and generation.has_to_wait(raw, self._columns):
            self._wait_for_tables(package)
        generation.ready(raw, self._columns, self._load_id)
        target = self._tables(generation.table)
        if not contract_rules(self._stream, self._schema):
            return [*self._batch.rejects, *self._copy(target).rejects]
        tables = self._tables(self._make_stage(generation.table))
        copied = self._copy(tables)
        rejects = [*self._batch.rejects, *copied.rejects, *self._break_out(tables, copied)]
        connection.execute(
            SQL("insert into {} ({columns}) select {columns} from {} order by {}").format(
                target.staged,
                tables.staged,
                Identifier(ROW_NUMBER),
                columns=dispositions.names((*tables.columns, DELETED)),
            )
        )
        return rejects

    def _swap(self, package: Package) -> RowCounts:
        """The last window is in: audit the whole generation and put it in the raw table's place."""
        connection, generation = self._connection, self._generation
        built = self._built(package)
        tables = self._tables(generation.table)
        renames.weigh(connection, tables, self._schema)
        staged = self._staged(tables)
        self._audit.arrived(staged, generation.extracted)
        deduplicated = dispositions.deduplicate(connection, tables) if tables.keys else 0
        self.newest_cursor = self._position.advance(connection, tables, is_live=self._request.is_live)
        self._hold(generation.rejects)
        with self._clock.during("audit"):
            self._audit.count(generation.extracted, len(generation.rejects))
            self._audit.judge(staged)
        self._refuse_empty(tables)
        rows = RowCounts(
            extracted=generation.extracted,
            loaded=generation.extracted - len(generation.rejects) - deduplicated,
            deduplicated=deduplicated,
            quarantined=len(generation.rejects),
        )
        self._conclude(staged, tables.staged, rows)
        generation.swap(tables)
        self._record(rows, built)
        return rows

    def _staged(self, tables: Tables) -> Staged:
        boundary = self._position.started_from if self._request.is_live else None
        return Staged(self._connection, self._request, tables, self._schema, boundary)

    def _conclude(self, staged: Staged, table: Identifier, rows: RowCounts) -> None:
        with self._clock.during("audit"):
            self._audit.conclude(staged, table, self._lease.sync_id, rows)

    def _refuse_empty(self, tables: Tables) -> None:
        """A full read of nothing must not empty a table that has rows, unless the stream allows it."""
        if self._stream.allow_empty:
            return
        probe = SQL("select 1 from {} limit 1")
        if self._connection.execute(probe.format(tables.staged)).fetchone() is None and (
            self._connection.execute(probe.format(tables.raw)).fetchone() is not None
        ):
            raise ContractError(
                self._request.label,
                "the source sent no rows, and the raw table has some",
                "Check the source; set allow_empty: true if nothing is a right answer.",
            )

    def _record(self, rows: RowCounts, built: BuiltSchema) -> None:
        """Schema version, state, replayed records, dlt's and our own ledger: all true with the data."""
        connection, request, batch = self._connection, self._request, self._batch
        source, stream = request.source.source, request.stream.name
        version = None
        if batch.is_last or self._schema.drift:
            missing = []
            if batch.is_last and rows.extracted and gone.speaks_of_now(connection, request):
                missing = self._schema.missing()
                gone.say_missing(connection, Identifier(request.source.schema_name, stream), missing)
            version = registry.record(connection, source, stream, self._lease.sync_id, self._schema, missing)
        committed = None
        if request.is_live:
            committed = self._position.commit(
                connection, request, self._lease.sync_id, batch.connector_state, advances=batch.advances_cursor
            )
        if batch.is_last or batch.emptied_after is not None:
            superseding.by_read(connection, request, self._lease.sync_id, is_full=self._is_full)
        if self._resolves and batch.is_last:
            quarantine.release(connection, request.label, self._lease.sync_id, self._resolves)
        connection.execute(
            SQL("insert into {} values (%s, %s, 0, now(), %s)").format(
                Identifier(request.source.schema_name, LOADS_TABLE)
            ),
            [self._load_id, built.name, built.hash],
        )
        ledger.add_publication(
            connection,
            self._lease.sync_id,
            rows,
            windows=self._generation.windows,
            loaded_bytes=self._generation.loaded_bytes,
            state=committed,
            cursor=self.newest_cursor,
            schema_version=version,
            load_ids=[self._load_id],
            cost=self._lease.cost(),
            verdicts=self._verdicts() if batch.is_last else self._audit.verdicts,
            is_last=batch.is_last,
        )


def _new_load_id() -> str:
    """Seconds since 1970, as dlt's are, to the nanosecond."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{seconds}.{rest:09d}"


def add_rows(left: RowCounts, right: RowCounts) -> RowCounts:
    return RowCounts(
        extracted=left.extracted + right.extracted,
        loaded=left.loaded + right.loaded,
        updated=left.updated + right.updated,
        deleted=left.deleted + right.deleted,
        deduplicated=left.deduplicated + right.deduplicated,
        filtered=left.filtered + right.filtered,
        quarantined=left.quarantined + right.quarantined,
    )
