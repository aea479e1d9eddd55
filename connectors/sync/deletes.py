"""Rows that are gone at the source: when a batch says so, and what becomes of them in the raw table.

A record in quarantine may be one of those that seem gone, so with one of them nothing is concluded from absence.
"""

from psycopg.sql import SQL, Composed, Identifier

from connectors.errors import ContractError
from connectors.specs import StreamSpec
from connectors.sync.audit import Audit
from connectors.sync.batches import Batch
from connectors.sync.columns import DELETED, SYNCED_AT, VALID_TO
from connectors.sync.result import SyncRequest
from connectors.sync.tables import Connection, Tables, changed, match


def mark_all(connection: Connection, tables: Tables) -> None:
    """The source was emptied after these staged rows."""
    connection.execute(SQL("update {} set {} = true").format(tables.staged, Identifier(DELETED)))


def delete_absent(connection: Connection, tables: Tables, request: SyncRequest, batch: Batch, audit: Audit) -> int:
    """Deletes found by a full snapshot; skipped when a record of it is in quarantine, for its key may be there.

    A source that was emptied is no snapshot: it said so itself.
    """
    stream = request.stream
    if batch.emptied_after is not None:
        if batch.by_snapshot and audit.quarantined:
            audit.skip_deletes(for_good=True)
            return 0
        if batch.by_snapshot and not batch.may_be_none:
            refuse_empty(connection, tables, request)
    elif not stream.snapshot or not request.is_live or not batch.is_last or audit.nothing_new:
        return 0
    elif audit.quarantined:
        audit.skip_deletes()
        return 0
    else:
        refuse_empty(connection, tables, request)
    absent = SQL("not exists (select 1 from {staged} s where {on})").format(
        staged=tables.staged, on=match(tables.keys, "t", "s")
    )
    return _delete(connection, tables, absent, stream)


def delete_replaced(connection: Connection, tables: Tables, request: SyncRequest, batch: Batch, audit: Audit) -> int:
    """Rows that the source has replaced as a whole, once all of the read is in the table."""
    stream, replaces = request.stream, batch.replaces
    if replaces is None or not request.is_live:
        return 0
    if audit.quarantined:
        audit.skip_deletes()
        return 0
    column = batch.schema.name_of(replaces.column)
    if column not in tables.columns:
        return 0
    other = SQL("{} is distinct from {}").format(Identifier("t", column), replaces.value)
    gone = _delete(connection, tables, other, stream)
    probe = SQL("select 1 from {} where {} = %s limit 1").format(tables.raw, Identifier(column))
    left = connection.execute(probe, [replaces.value]).fetchone()
    if gone and left is None and not stream.allow_empty:
        raise ContractError(
            request.label,
            f"the source replaced all {gone:,} rows by none",
            "Check the source; set allow_empty: true if nothing is a right answer.",
        )
    return gone


def refuse_empty(connection: Connection, tables: Tables, request: SyncRequest) -> None:
    """A full read of nothing must not empty a table that has rows, unless the stream allows it."""
    if request.stream.allow_empty:
        return
    probe = SQL("select 1 from {} limit 1")
    if connection.execute(probe.format(tables.staged)).fetchone() is None and (
        connection.execute(probe.format(tables.raw)).fetchone() is not None
    ):
        raise ContractError(
            request.label,
            "the source sent no rows, and the raw table has some",
            "Check the source; set allow_empty: true if nothing is a right answer.",
        )


def _delete(connection: Connection, tables: Tables, gone: Composed, stream: StreamSpec) -> int:
    """Raw rows `t` that are gone: deleted, marked as deleted, or their version closed. Rows that were not so before."""
    if stream.write == "scd2":
        query = SQL("update {raw} t set {until} = now(), {synced} = now() where {until} is null and {gone}")
    elif stream.deletes == "hard":
        query = SQL("delete from {raw} t where {gone}")
    else:
        query = SQL("update {raw} t set {flag} = true, {synced} = now() where not {flag} and {gone}")
    return changed(
        connection,
        query.format(
            raw=tables.raw, gone=gone, flag=Identifier(DELETED),
            until=Identifier(VALID_TO), synced=Identifier(SYNCED_AT),
        ),
    )  # fmt: skip
