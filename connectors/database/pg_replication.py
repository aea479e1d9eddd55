"""One read of a replicated table: at first all its rows, from then on what the log says up to now.

The slot is created together with the snapshot that the first read shows, so the changes begin exactly where the rows
end. From then on the stream's committed state is the position: what was read twice because a sync failed is skipped by
the source itself, and the slot is told only what is committed, when the next read begins.

What the log cannot tell, see `pg_mark`, is read from the table again: a slot that lives as long as the read gives a
snapshot and its place in the log, and the stream's own slot is not touched, so that a read may end anywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from psycopg import sql

from connectors.contract import Attestation, Checkpoint, Emptied, Message, ReadContext, StreamState
from connectors.database import pg_mark, pg_output, pg_slot, pg_wal
from connectors.database.failures import cancelled
from connectors.database.pg_catalog import read_table
from connectors.database.pg_changes import Changes
from connectors.database.pg_mark import Mark
from connectors.database.pg_output import Begin, Commit, MalformedError, parse
from connectors.database.pg_read import Emit, TableRead
from connectors.database.pg_slot import Slot
from connectors.errors import ConfigError, SourceError, TransientError

if TYPE_CHECKING:
    from psycopg import Connection

    from connectors.database.shape import TableShape
    from connectors.kinds.database import DatabaseStreamSpec

STATE = "replication"
_POSITION = ("lsn", "system", "slot")
SEAL_ROWS = 5_000
"""Fewer rows wait at the end of a transaction for those of the next, and are sealed with them."""
_NOW = "select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end)::text"


@dataclass(frozen=True, slots=True)
class _Table:
    """The table as it is when the read begins. generated: columns that are not read."""

    shape: "TableShape"
    generated: list[str]
    mark: Mark
    system: str


@dataclass(slots=True)
class ReplicatedRead:
    """aside: a session for SQL. replicating: a session for the log. at_snapshot: one in an exported snapshot.

    rows: how many were read so far. has_created: the slot is ours from this very read.
    """

    aside: "Connection[Any]"
    replicating: "Callable[[], AbstractContextManager[Connection[Any]]]"
    at_snapshot: "Callable[[str], AbstractContextManager[Connection[Any]]]"
    where: str
    schema: str
    stream: "DatabaseStreamSpec"
    slot_name: str
    state: StreamState
    context: ReadContext
    part_bytes: int
    rows: int = 0
    has_created: bool = field(default=False, init=False)

    def run(self, emit: Emit) -> None:
        """Emits rows, and checkpoints where transactions end.

        Raises:
            ConfigError: the source is not set up for it, or has no longer what the saved position needs.
        """
        saved = cast("Mapping[str, Any]", self.state.connector.get(STATE) or {})
        with self.replicating() as replication:
            table = self._looked_at(pg_slot.system_of(replication))
            slot = pg_slot.find_slot(self.aside, self.slot_name)
            if not saved:
                self._first(table, slot, replication, emit)
                return
            slot = self._usable(slot, saved, table.system)
            self.context.usage.measures["slot_held_bytes"] = slot.held_bytes
            if slot.warning:
                self.context.usage.warnings["replication_slot"] = str(slot)
            is_new = table.mark.is_followed(saved) and self._follow(table, slot, replication, saved, emit)
        if missed := table.mark.missed(saved):
            self._anew(table, missed, emit)
        elif not is_new:
            emit(Attestation(nothing_new=True))

    def _looked_at(self, system: str) -> _Table:
        """Before any position is taken: what is altered from here on is seen by the next read."""
        shape = read_table(self.aside, self.stream.table_schema or self.schema, self.stream.table_name, self.where)
        pg_slot.require_published(self.aside, self.stream, shape, self.where)
        generated = pg_slot.generated_columns(self.aside, shape)
        if generated:
            self.context.log(f"generated columns are not in the log, so they are not read: {', '.join(generated)}")
        return _Table(shape, generated, self._mark(shape, generated), system)

    def _mark(self, shape: "TableShape", generated: list[str]) -> Mark:
        assert self.stream.replication is not None
        names = [column.name for column in shape.chosen(_without(self.stream, generated), self.where)]
        return pg_mark.read_mark(self.aside, pg_slot.quoted(shape), self.stream.replication.publication, names)

    def _first(self, table: _Table, left: Slot | None, replication: "Connection[Any]", emit: Emit) -> None:
        if left is not None:
            pg_slot.drop_slot(self.aside, left, self.where)
            self.context.log(f"dropped {left}: it belonged to a read that left no position")
        self.context.log(f"making slot {self.slot_name}, which waits for transactions that are running at the source")
        position, snapshot = pg_slot.create_slot(replication, self.slot_name, self.where)
        self.has_created = True
        self.context.log(f"slot {self.slot_name} begins at {pg_wal.lsn_text(position)}; reading all rows before it")
        self._whole(table, position, snapshot, Emptied(by_snapshot=True), emit)

    def _anew(self, table: _Table, reason: str, emit: Emit) -> None:
        """All rows again; the slot stays, and goes on from the place of the snapshot."""
        with self.replicating() as replication:
            name = f"headwater_anew_{uuid4().hex}"
            position, snapshot = pg_slot.create_slot(replication, name, self.where, is_temporary=True)
            self.context.log(f"reading all rows before {pg_wal.lsn_text(position)} again: {reason}")
            self._whole(table, position, snapshot, Emptied(by_snapshot=True, may_be_none=True), emit)

    def _whole(self, table: _Table, position: int, snapshot: str, emptied: Emptied, emit: Emit) -> None:
        """All rows of a snapshot. What the stream had and is not among them is gone."""
        self.context.usage.requests += 1
        emit(emptied)
        with self.at_snapshot(snapshot) as connection:
            self._hold(connection, table)
            read = TableRead(
                connection, self.where, self.schema, _without(self.stream, table.generated), StreamState(),
                self.context, self.part_bytes,
            )  # fmt: skip
            before = self.rows

            def emit_rows(message: Message) -> None:
                self.rows = before + read.rows
                emit(message)

            read.run(emit_rows)
        emit(Checkpoint(connector=_state(position, table.system, self.slot_name, table.mark.state())))

    def _hold(self, connection: "Connection[Any]", table: _Table) -> None:
        """From here on nobody rewrites the table.

        Raises:
            TransientError: somebody just did, and an older snapshot shows a rewritten table as an empty one.
        """
        name = sql.Identifier(table.shape.schema or "public", table.shape.table)
        # its lock is kept; LOCK TABLE would ask for more rights than reading some columns does
        connection.execute(sql.SQL("select from {} limit 0").format(name))
        if self._mark(table.shape, table.generated) != table.mark:
            what = f"{table.shape.label} or its publication was altered while a snapshot was taken"
            raise TransientError(self.where, what, "The next attempt reads it as it is.")

    def _follow(
        self, table: _Table, slot: Slot, replication: "Connection[Any]", saved: Mapping[str, Any], emit: Emit
    ) -> bool:
        """What the log has up to now; whether it had anything. The mark stays until the table was read by it."""
        position, until = pg_wal.lsn(saved["lsn"]), self._end_of_log(saved["lsn"])
        self.context.log(f"{slot}; reading from {saved['lsn']} to {pg_wal.lsn_text(until)}")
        assert self.stream.replication is not None
        log = pg_wal.Changes(replication, self.context.cancelled)
        log.start(self.slot_name, self.stream.replication.publication, position)
        self.context.usage.requests += 1
        changes = Changes(
            self.aside, self.where, self.stream, table.shape, table.mark.table, table.generated, self.context.folder
        )
        mark = {name: saved[name] for name in saved if name not in _POSITION}

        def checkpoint(reached: int) -> Checkpoint:
            return Checkpoint(connector=_state(reached, table.system, self.slot_name, mark))

        ended, unsealed, is_new = position, 0, False
        for message in self._messages(log, until):
            for found in changes.take(message):
                emit(found)
                unsealed += 1
            if isinstance(message, Commit):
                ended = message.end_lsn
                if unsealed or changes.pending >= SEAL_ROWS:
                    for found in changes.flush():
                        emit(found)
                    self.rows = changes.rows
                    emit(checkpoint(ended))
                    unsealed, is_new = 0, True
        if self.context.cancelled.is_set():
            raise cancelled(self.where, self.rows)
        for found in changes.flush():
            emit(found)
            is_new = True
        self.rows = changes.rows
        if not table.mark.missed(saved):
            mark = table.mark.state()
        # everything that was committed before `until` has come
        emit(checkpoint(max(ended, until, position)))
        return is_new

    def _end_of_log(self, saved: str) -> int:
        """What is durable at the source. Raises ConfigError when that is less than was read before."""
        row = self.aside.execute(_NOW).fetchone()
        assert row is not None
        if (until := pg_wal.lsn(row[0])) < pg_wal.lsn(saved):
            what = f"the log of the source ends at {row[0]}, before the saved {saved}: an older copy of it runs"
            raise ConfigError(self.where, what, f"On a standby wait for it. {self._anew_hint}")
        return until

    def _messages(self, log: pg_wal.Changes, until: int) -> "Iterator[pg_output.Message]":
        """Of transactions that were committed before `until`."""
        for body in log.messages(until):
            self.context.usage.received_bytes += len(body)
            message = self._parsed(body)
            if isinstance(message, Begin) and message.final_lsn >= until:
                return
            yield message

    def _parsed(self, body: bytes) -> "pg_output.Message":
        try:
            return parse(body)
        except MalformedError as error:
            hint = "The server speaks another protocol than pgoutput, version 1; report it."
            raise SourceError(self.where, f"the log of {self.slot_name} is not understood: {error}", hint) from error

    @property
    def _anew_hint(self) -> str:
        return f"Read the table anew: headwater state reset {self.where} --yes"

    def _usable(self, slot: Slot | None, saved: Mapping[str, Any], system: str) -> Slot:
        """The slot that has everything after the saved position."""
        anew = self._anew_hint
        if saved["system"] != system:
            raise ConfigError(self.where, "the saved position is one of another server", anew)
        if slot is None:
            raise ConfigError(self.where, f"slot {self.slot_name} is gone, and with it what changed since", anew)
        if slot.status == "lost":
            what = f"slot {self.slot_name} has lost changes: the source could not keep its log any longer"
            raise ConfigError(self.where, what, f"{anew}\nRaise max_slot_wal_keep_size there, or sync more often.")
        if slot.confirmed > pg_wal.lsn(saved["lsn"]):
            what = f"slot {self.slot_name} was read by somebody else up to {pg_wal.lsn_text(slot.confirmed)}"
            hint = f"{anew}\nGive each reader a slot of its own: replication: {{slot: ...}}."
            raise ConfigError(self.where, f"{what}, beyond the saved {saved['lsn']}", hint)
        return slot


def _state(position: int, system: str, slot: str, mark: Mapping[str, Any]) -> dict[str, Any]:
    return {STATE: {"lsn": pg_wal.lsn_text(position), "system": system, "slot": slot, **mark}}


def _without(stream: "DatabaseStreamSpec", columns: list[str]) -> "DatabaseStreamSpec":
    if stream.select:
        return stream.model_copy(update={"select": tuple(name for name in stream.select if name not in columns)})
    return stream.model_copy(update={"exclude": (*stream.exclude, *columns)})
