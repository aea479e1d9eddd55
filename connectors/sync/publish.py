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

from connectors.errors import LoaderError
from connectors.sync import deletes, dispositions, quarantine, renames, sifting, state, superseding
from connectors.sync.audit import Audit
from connectors.sync.batches import Batch
from connectors.sync.checks.contract import Staged
from connectors.sync.columns import DELETED, Column
from connectors.sync.dispositions import Written
from connectors.sync.generation import Generation
from connectors.sync.indexes import ensure_index, is_prepared
from connectors.sync.lease import Lease
from connectors.sync.load_record import LoadRecord
from connectors.sync.packages import BuiltSchema, Package
from connectors.sync.rejects import Reject
from connectors.sync.relations import LOAD_SETTING, ensure_platform_columns, has_columns
from connectors.sync.result import RowCounts, Step, SyncRequest, Verdict
from connectors.sync.stage import Stage
from connectors.sync.tables import ROW_NUMBER, Tables, names


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
        self._record = LoadRecord(connection, lease, request, position, audit, verdicts, list(resolves))
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
        self._batch, self._clock, self._columns = batch, clock, columns
        # decided once a batch: the reading thread may learn meanwhile that there is nothing new
        self._disposition = "replace" if package is None else self._decided(batch)
        self._stage = Stage(self._connection, self._request, batch, self._audit, self._load_id)
        self._pending = self._stage.rejects
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
        return self._recorded(rows, self._built(package))

    def _ready(self, package: Package) -> Tables:
        """The raw table as this batch needs it. Most often it is; else dlt makes it, and it is not locked here.

        Before dlt has made its tables nothing is locked that somebody else's DDL, or a reader, may wait for: dlt may
        itself be waiting for those, in a circle that PostgreSQL does not see.
        """
        connection = self._connection
        raw = self._stage.tables(Identifier("staged"))
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

    def _write(self, raw: Tables, package: Package) -> RowCounts:
        """Stage, clean, audit, apply the write disposition; the window's row counts."""
        connection, stream, batch, stage = self._connection, self._stream, self._batch, self._stage
        tables = stage.tables(raw.raw) if self._goes_straight else stage.make(raw.raw)
        copied = stage.copy(tables)
        renames.weigh(connection, tables, batch.schema)
        refused = copied.rejects
        filtered = 0
        if self._request.window is not None and tables.cursor is not None:
            filtered = sifting.filter_window(connection, tables, self._request.window)
        broken = [] if self._goes_straight else stage.break_out(tables, copied)
        rejects = [*batch.rejects, *refused, *broken]
        self._hold(rejects)
        staged = self._staged(tables)
        self._audit.arrived(staged, batch.extracted)
        deduplicated = sifting.deduplicate(connection, tables) if tables.keys and stream.write != "append" else 0
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

    def _hold(self, rejects: Sequence[Reject]) -> None:
        # the first sync writes version 1 in this very transaction
        version = max(self._batch.schema.version, 1)
        quarantine.hold(self._connection, self._request, self._lease.sync_id, rejects, version)

    @property
    def _goes_straight(self) -> bool:
        """An append that nothing has to look at first is copied once, not twice."""
        stream = self._stream
        return (
            self._disposition == "append"
            and not stream.primary_key
            and stream.cursor is None
            and self._request.is_live
            and not self._stage.rules
            and not self._audit.has_row_checks
        )

    def _apply(self, tables: Tables, *, refused: int) -> Written:
        connection, request, stream, batch = self._connection, self._request, self._stream, self._batch
        gone = 0
        if self._goes_straight:
            written = Written(loaded=batch.extracted - len(batch.rejects) - refused)
        elif self._disposition == "append":
            comes_again = False
            if request.is_live and stream.cursor is not None and tables.cursor is not None:
                boundary, tolerance = self._position.started_from, stream.cursor.tolerance
                comes_again = sifting.remember_boundary(connection, tables, boundary, tolerance)
            written = dispositions.append(connection, tables, request.window, comes_again=comes_again)
        else:
            gone = deletes.delete_absent(connection, tables, request, batch, self._audit)
            if self._disposition == "scd2":
                written = dispositions.scd2(connection, tables)
            else:
                is_hard, delete_insert = stream.deletes == "hard", stream.merge == "delete-insert"
                written = dispositions.merge(connection, tables, is_hard=is_hard, delete_insert=delete_insert)
        gone += deletes.delete_replaced(connection, tables, request, batch, self._audit)
        return replace(written, deleted=written.deleted + gone)

    def _add_to_generation(self, package: Package | None) -> list[Reject]:
        """This window's rows into the table that will take the raw table's place; its rejects."""
        batch, generation, stage = self._batch, self._generation, self._stage
        raw = stage.tables(Identifier("staged")).raw
        if package is not None and generation.has_to_wait(raw, self._columns):
            self._wait_for_tables(package)
        generation.ready(raw, self._columns, self._load_id)
        target = stage.tables(generation.table)
        if not stage.rules:
            return [*batch.rejects, *stage.copy(target).rejects]
        tables = stage.make(generation.table)
        copied = stage.copy(tables)
        rejects = [*batch.rejects, *copied.rejects, *stage.break_out(tables, copied)]
        self._connection.execute(
            SQL("insert into {} ({columns}) select {columns} from {} order by {}").format(
                target.staged,
                tables.staged,
                Identifier(ROW_NUMBER),
                columns=names((*tables.columns, DELETED)),
            )
        )
        return rejects

    def _swap(self, package: Package) -> RowCounts:
        """The last window is in: audit the whole generation and put it in the raw table's place."""
        connection, generation = self._connection, self._generation
        built = self._built(package)
        tables = self._stage.tables(generation.table)
        renames.weigh(connection, tables, self._batch.schema)
        staged = self._staged(tables)
        self._audit.arrived(staged, generation.extracted)
        deduplicated = sifting.deduplicate(connection, tables) if tables.keys else 0
        self.newest_cursor = self._position.advance(connection, tables, is_live=self._request.is_live)
        self._hold(generation.rejects)
        with self._clock.during("audit"):
            self._audit.count(generation.extracted, len(generation.rejects))
            self._audit.judge(staged)
        deletes.refuse_empty(connection, tables, self._request)
        rows = RowCounts(
            extracted=generation.extracted,
            loaded=generation.extracted - len(generation.rejects) - deduplicated,
            deduplicated=deduplicated,
            quarantined=len(generation.rejects),
        )
        self._conclude(staged, tables.staged, rows)
        generation.swap(tables)
        return self._recorded(rows, built)

    def _staged(self, tables: Tables) -> Staged:
        boundary = self._position.started_from if self._request.is_live else None
        return Staged(self._connection, self._request, tables, self._batch.schema, boundary)

    def _conclude(self, staged: Staged, table: Identifier, rows: RowCounts) -> None:
        with self._clock.during("audit"):
            self._audit.conclude(staged, table, self._lease.sync_id, rows)

    def _recorded(self, rows: RowCounts, built: BuiltSchema) -> RowCounts:
        generation = self._generation
        self._record.write(
            self._batch, rows, self._load_id, built,
            windows=generation.windows, loaded_bytes=generation.loaded_bytes, cursor=self.newest_cursor,
        )  # fmt: skip
        return rows


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
