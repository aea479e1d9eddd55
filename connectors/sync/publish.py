"""One publication: a load package, its state and its ledger figures, in one transaction.

The fence is checked first, the audit runs on the staged rows, and the commit comes last: until then no reader sees
anything, and after it everything is true at once.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ContractError, LoaderError
from connectors.specs import StreamSpec
from connectors.sync import dispositions, ledger, quarantine, registry, state
from connectors.sync.audit import Audit
from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, VALID_TO
from connectors.sync.copying import copy_part
from connectors.sync.decode import Reject
from connectors.sync.destination import LOADS_TABLE
from connectors.sync.dispositions import ROW_NUMBER, Tables, Written
from connectors.sync.lease import Lease
from connectors.sync.package import Part
from connectors.sync.result import RowCounts, Step, SyncRequest
from connectors.sync.schema import StreamSchema

_LOAD_SETTING = "headwater.load_id"


@dataclass(slots=True)
class Batch:
    """What one publication carries: sealed parts, rejects, and the position they reach."""

    parts: list[Part] = field(default_factory=list[Part])
    rejects: list[Reject] = field(default_factory=list[Reject])
    extracted: int = 0
    connector_state: dict[str, Any] | None = None
    advances_cursor: bool = True
    is_last: bool = False


class StepClock(Protocol):
    """Books the time inside the block to a step."""

    def during(self, step: Step) -> AbstractContextManager[None]: ...


class Publication:
    """The sink of one load package.

    Raises from commit:
        ContractError: the audit failed; nothing changed.
        LoaderError: the fence is gone, or the warehouse refused.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        lease: Lease,
        request: SyncRequest,
        schema: StreamSchema,
        position: state.Position,
        audit: Audit,
        resolves: Sequence[int] = (),
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._request = request
        self._schema = schema
        self._position = position
        self._audit = audit
        self._resolves = list(resolves)
        self._taken: set[int] = set()
        self._batch = Batch()
        self.rows = RowCounts()
        self.newest_cursor: str | None = None

    def begin(self, batch: Batch, clock: StepClock) -> None:
        self._batch = batch
        self._taken = set()
        self._clock = clock

    def take(self, table_name: str, path: Path) -> None:
        """dlt renames a package's files by hard link, so the inode tells which part this is."""
        self._taken.add(path.stat().st_ino)

    def commit(self, load_id: str, schema_name: str, schema_hash: str) -> None:
        expected = {part.path.stat().st_ino for part in self._batch.parts}
        if self._taken != expected:
            raise LoaderError(
                self._request.label,
                f"the load package has {len(self._taken)} of {len(expected)} files",
                "Run the stream again; if it repeats, report it with --debug.",
            )
        with self._clock.during("publish"), self._connection.transaction():
            self._fence()
            self._connection.execute("select set_config(%s, %s, true)", [_LOAD_SETTING, load_id])
            rows = self._write()
            self._record(load_id, rows)
            self._connection.execute(
                SQL("insert into {} values (%s, %s, 0, now(), %s)").format(
                    Identifier(self._request.source.schema_name, LOADS_TABLE)
                ),
                [load_id, schema_name, schema_hash],
            )
        self.rows = _sum(self.rows, rows)

    def _fence(self) -> None:
        row = self._connection.execute(
            "select epoch from ops.leases where source = %s and stream = %s for share",
            [self._request.source.source, self._request.stream.name],
        ).fetchone()
        if row is None or row[0] != self._lease.epoch:
            raise LoaderError(
                self._request.label,
                f"a later sync took the stream over (epoch {row[0] if row else 'gone'}, ours is {self._lease.epoch})",
                "Nothing was published by this one; look at the later sync.",
            )

    @property
    def _stream(self) -> StreamSpec:
        return self._request.stream

    @property
    def _write_disposition(self) -> str:
        """A replay adds its few records to a table that is otherwise replaced as a whole."""
        write = self._stream.write or "append"
        return "append" if write == "replace" and self._request.trigger == "replay" else write

    def _tables(self, staged: Identifier) -> Tables:
        stream, schema = self._stream, self._schema
        columns = [column.name for column in schema.table_columns]
        if schema.has_overflow:
            columns.append("_overflow")
        cursor = schema.name_of(stream.cursor.field) if stream.cursor else None
        return Tables(
            raw=Identifier(self._request.source.schema_name, stream.name),
            staged=staged,
            columns=tuple(columns),
            keys=tuple(schema.name_of(key) for key in stream.primary_key),
            cursor=cursor if cursor in columns else None,
        )

    def _write(self) -> RowCounts:
        """Stage, clean, audit, apply the write disposition; the window's row counts."""
        connection, stream, batch = self._connection, self._stream, self._batch
        raw = self._tables(Identifier("staged"))
        ensure_platform_columns(connection, raw.raw)
        ensure_index(connection, raw, stream)
        tables = self._stage(raw)
        limit = self._audit.quarantine_left(batch.extracted)
        refused = [
            reject
            for part in batch.parts
            if part.rows
            for reject in copy_part(connection, tables.staged, part, may_refuse=limit)
        ]
        filtered = 0
        if self._request.window is not None and tables.cursor is not None:
            filtered = dispositions.filter_window(connection, tables, self._request.window)
        rules = () if self._goes_straight else self._audit.rules
        broken = quarantine.take_staged(connection, tables, rules, self._schema, self._audit)
        rejects = [*batch.rejects, *refused, *broken]
        quarantined = len(rejects)
        quarantine.hold(connection, self._request, self._lease.sync_id, rejects)
        deduplicated = dispositions.deduplicate(connection, tables) if tables.keys and stream.write != "append" else 0
        self.newest_cursor = self._position.advance(connection, tables, is_live=self._request.is_live)
        with self._clock.during("audit"):
            self._audit.staged(connection, tables, batch.extracted, quarantined, is_last=batch.is_last)
        written = self._apply(tables)
        return RowCounts(
            extracted=batch.extracted,
            loaded=written.loaded,
            updated=written.updated,
            deleted=written.deleted,
            deduplicated=deduplicated + written.deduplicated,
            filtered=filtered + written.filtered,
            quarantined=quarantined,
        )

    def _stage(self, tables: Tables) -> Tables:
        """A relation for this window's rows: the next generation for `replace`, a temporary table otherwise."""
        if self._write_disposition == "replace":
            name = next_generation(self._stream.name)
            staged = Identifier(self._request.source.schema_name, name)
            self._connection.execute(SQL("drop table if exists {}").format(staged))
            self._connection.execute(SQL("create table {} (like {} including all)").format(staged, tables.raw))
            if tables.keys:
                self._add_row_number(staged)
            return self._tables(staged)
        if self._goes_straight:
            return self._tables(tables.raw)
        staged = Identifier("pg_temp", "staged")
        self._connection.execute(
            SQL("create temporary table staged (like {} including defaults) on commit drop").format(tables.raw)
        )
        self._add_row_number(staged)
        return self._tables(staged)

    def _add_row_number(self, staged: Identifier) -> None:
        self._connection.execute(
            SQL("alter table {} add column {} bigint generated always as identity").format(
                staged, Identifier(ROW_NUMBER)
            )
        )

    @property
    def _goes_straight(self) -> bool:
        """An append that nothing has to look at first is copied once, not twice."""
        stream = self._stream
        return (
            stream.write == "append"
            and not stream.primary_key
            and stream.cursor is None
            and self._request.is_live
            and not self._audit.rules
        )

    def _apply(self, tables: Tables) -> Written:
        connection, stream, batch = self._connection, self._stream, self._batch
        is_hard = stream.deletes == "hard"
        match self._write_disposition:
            case "replace":
                return self._replace(tables)
            case "merge":
                gone = self._delete_absent(tables, is_hard=is_hard)
                written = dispositions.merge(
                    connection, tables, is_hard=is_hard, delete_insert=stream.merge == "delete-insert"
                )
                return Written(
                    written.loaded, written.updated, written.deleted + gone, written.deduplicated, written.filtered
                )
            case "scd2":
                gone = self._delete_absent(tables, is_hard=is_hard)
                written = dispositions.scd2(connection, tables)
                return Written(
                    written.loaded, written.updated, written.deleted + gone, written.deduplicated, written.filtered
                )
            case _:
                if self._goes_straight:
                    return Written(loaded=batch.extracted - len(batch.rejects))
                boundary = self._position.boundary if self._request.is_live else None
                return dispositions.append(connection, tables, boundary, self._request.window)

    def _delete_absent(self, tables: Tables, *, is_hard: bool) -> int:
        """Deletes found by a full snapshot; skipped when a record of it is in quarantine, for its key may be there."""
        if not self._stream.snapshot or not self._request.is_live or not self._batch.is_last or self._audit.quarantined:
            return 0
        self._refuse_empty(tables)
        return dispositions.delete_absent(
            self._connection, tables, is_hard=is_hard, is_scd2=self._stream.write == "scd2"
        )

    def _replace(self, tables: Tables) -> Written:
        self._refuse_empty(tables)
        connection, schema_name = self._connection, self._request.source.schema_name
        if tables.keys:
            connection.execute(SQL("alter table {} drop column {}").format(tables.staged, Identifier(ROW_NUMBER)))
        loaded = dispositions.count(connection, SQL("select 1 from {}").format(tables.staged))
        connection.execute(
            "select ops.swap_table(%s, %s, %s)",
            [schema_name, self._stream.name, next_generation(self._stream.name)],
        )
        return Written(loaded=loaded)

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

    def _record(self, load_id: str, rows: RowCounts) -> None:
        connection, request, batch = self._connection, self._request, self._batch
        source, stream = request.source.source, request.stream.name
        version = None
        if batch.is_last or self._schema.drift:
            missing = self._schema.missing() if batch.is_last and rows.extracted and request.is_live else []
            version = registry.record(connection, source, stream, self._lease.sync_id, self._schema, missing)
        committed = None
        if request.is_live:
            committed = self._position.commit(
                connection, request, self._lease.sync_id, batch.connector_state, advances=batch.advances_cursor
            )
        if self._resolves and batch.is_last:
            connection.execute(
                """
                update ops.quarantine set status = 'replayed', resolved_by = %s, resolved_at = now()
                where quarantine_id = any (%s) and status = 'held'
                """,
                [self._lease.sync_id, self._resolves],
            )
        ledger.add_publication(
            connection,
            self._lease.sync_id,
            rows,
            loaded_bytes=sum(part.path.stat().st_size for part in batch.parts),
            state=committed,
            cursor=self.newest_cursor,
            schema_version=version,
            load_id=load_id,
            is_last=batch.is_last,
        )


def next_generation(table: str) -> str:
    """The name of a table that will take the place of `table`; never a stream's name, which starts with a letter."""
    return f"_next_{table}"


def ensure_platform_columns(connection: psycopg.Connection[Any], raw: Identifier) -> None:
    """Defaults of our own columns, once in a table's life, so that part files need not repeat them."""
    table = connection.execute("select %s::regclass", [raw.as_string(connection)]).fetchone()
    assert table is not None
    have = connection.execute("select 1 from pg_attrdef where adrelid = %s::regclass", [table[0]]).fetchone()
    if have:
        return
    connection.execute(
        SQL(
            "alter table {} alter column {} set default now(), alter column {} set default false, "
            "alter column {} set default current_setting({})"
        ).format(raw, Identifier(SYNCED_AT), Identifier(DELETED), Identifier(LOAD_ID), _LOAD_SETTING)
    )


def ensure_index(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec) -> None:
    """The index that the write disposition works with."""
    parts: Sequence[str]
    if stream.write in ("merge", "scd2"):
        parts, kind, where = tables.keys, SQL("unique index"), SQL("")
        if stream.write == "scd2":
            where = SQL(" where {} is null").format(Identifier(VALID_TO))
    elif stream.write == "append" and tables.cursor:
        parts, kind, where = (tables.cursor,), SQL("index"), SQL("")
    else:
        return
    name = Identifier(f"{stream.name}_by_{'key' if stream.write != 'append' else 'cursor'}"[:63])
    connection.execute(
        SQL("create {} if not exists {} on {} ({}){}").format(kind, name, tables.raw, dispositions.names(parts), where)
    )


def _sum(left: RowCounts, right: RowCounts) -> RowCounts:
    return RowCounts(
        extracted=left.extracted + right.extracted,
        loaded=left.loaded + right.loaded,
        updated=left.updated + right.updated,
        deleted=left.deleted + right.deleted,
        deduplicated=left.deduplicated + right.deduplicated,
        filtered=left.filtered + right.filtered,
        quarantined=left.quarantined + right.quarantined,
    )
