"""One read of a replicated table: at first all its rows, from then on what the log says up to now.

The slot is created together with the snapshot that the first read shows, so the changes begin exactly where the rows
end. From then on the stream's committed state is the position: what was read twice because a sync failed is skipped by
the source itself, and the slot is told only what is committed, when the next read begins.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from connectors.contract import Attestation, Checkpoint, CopyFile, Emptied, Frame, Message, ReadContext, StreamState
from connectors.database import pg_slot, pg_wal
from connectors.database.failures import cancelled
from connectors.database.pg_catalog import read_table
from connectors.database.pg_changes import Changes
from connectors.database.pg_output import Begin, Commit, MalformedError, parse
from connectors.database.pg_read import Emit, TableRead
from connectors.database.pg_slot import Slot
from connectors.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from psycopg import Connection

    from connectors.database.shape import TableShape
    from connectors.kinds.database import DatabaseStreamSpec

STATE = "replication"
SEAL_ROWS = 5_000
"""Fewer rows wait at the end of a transaction for those of the next, and are sealed with them."""
_NOW = "select (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end)::text"


@dataclass(slots=True)
class ReplicatedRead:
    """aside: a session for SQL; replication: one for the log. at_snapshot: a session in an exported snapshot.

    rows: how many were read so far. has_created: the slot is ours from this very read.
    """

    aside: "Connection[Any]"
    replication: "Connection[Any]"
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
        shape = read_table(self.aside, self.stream.table_schema or self.schema, self.stream.table_name, self.where)
        pg_slot.require_published(self.aside, self.stream, shape, self.where)
        generated = pg_slot.generated_columns(self.aside, shape)
        if generated:
            self.context.log(f"generated columns are not in the log, so they are not read: {', '.join(generated)}")
        system = pg_slot.system_of(self.replication)
        slot = pg_slot.find_slot(self.aside, self.slot_name)
        saved = cast("Mapping[str, str]", self.state.connector.get(STATE) or {})
        if not saved:
            self._first(shape, generated, slot, system, emit)
        else:
            self._follow(shape, generated, self._usable(slot, saved, system), saved, emit)

    def _first(self, shape: "TableShape", generated: list[str], left: Slot | None, system: str, emit: Emit) -> None:
        if left is not None:
            pg_slot.drop_slot(self.aside, left, self.where)
            self.context.log(f"dropped {left}: it belonged to a read that left no position")
        self.context.usage.requests += 1
        position, snapshot = pg_slot.create_slot(self.replication, self.slot_name)
        self.has_created = True
        self.context.log(f"slot {self.slot_name} begins at {pg_wal.lsn_text(position)}; reading all rows before it")
        with self.at_snapshot(snapshot) as connection:
            read = TableRead(
                connection, self.where, self.schema, _without(self.stream, generated), StreamState(), self.context,
                self.part_bytes,
            )  # fmt: skip

            def emit_rows(message: Message) -> None:
                # what an earlier life of the stream left, and is not there any more, is gone
                if not self.rows and isinstance(message, CopyFile | Frame) and read.rows:
                    emit(Emptied())
                self.rows = read.rows
                emit(message)

            read.run(emit_rows)
        emit(self._checkpoint(position, system))

    def _follow(
        self, shape: "TableShape", generated: list[str], slot: Slot, saved: Mapping[str, str], emit: Emit
    ) -> None:
        position = pg_wal.lsn(saved["lsn"])
        row = self.aside.execute(_NOW).fetchone()
        assert row is not None
        until = pg_wal.lsn(row[0])
        self.context.log(f"{slot}; reading from {saved['lsn']} to {row[0]}")
        assert self.stream.replication is not None
        log = pg_wal.Changes(self.replication, self.context.cancelled)
        log.start(self.slot_name, self.stream.replication.publication, position)
        self.context.usage.requests += 1
        changes = Changes(self.aside, self.where, self.stream, shape, generated, self.context.folder)
        ended, unsealed = position, 0
        for body in log.messages(until):
            self.context.usage.received_bytes += len(body)
            message = self._parsed(body)
            if isinstance(message, Begin) and message.final_lsn >= until:
                break
            for found in changes.take(message):
                emit(found)
                unsealed += 1
            if isinstance(message, Commit):
                ended = message.end_lsn
                if unsealed or changes.pending >= SEAL_ROWS:
                    for found in changes.flush():
                        emit(found)
                    self.rows = changes.rows
                    emit(self._checkpoint(ended, saved["system"]))
                    unsealed = 0
        if self.context.cancelled.is_set():
            raise cancelled(self.where, self.rows)
        for found in changes.flush():
            emit(found)
        self.rows = changes.rows
        if not self.rows and not unsealed:
            emit(Attestation(nothing_new=True))
        # everything that was committed before `until` has come
        emit(self._checkpoint(max(ended, until, position), saved["system"]))

    def _parsed(self, body: bytes) -> Any:
        try:
            return parse(body)
        except MalformedError as error:
            hint = "The server speaks another protocol than pgoutput, version 1; report it."
            raise SourceError(self.where, f"the log of {self.slot_name} is not understood: {error}", hint) from error

    def _usable(self, slot: Slot | None, saved: Mapping[str, str], system: str) -> Slot:
        """The slot that has everything after the saved position."""
        anew = f"Read the table anew: headwater state reset {self.where} --yes"
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

    def _checkpoint(self, position: int, system: str) -> Checkpoint:
        return Checkpoint(connector={STATE: {"lsn": pg_wal.lsn_text(position), "system": system}})


def _without(stream: "DatabaseStreamSpec", columns: list[str]) -> "DatabaseStreamSpec":
    if stream.select:
        return stream.model_copy(update={"select": tuple(name for name in stream.select if name not in columns)})
    return stream.model_copy(update={"exclude": (*stream.exclude, *columns)})
