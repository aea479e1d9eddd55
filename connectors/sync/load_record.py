"""What a load's commit says of itself: schema version, state, replayed records, dlt's ledger and ours."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.sync import gone, ledger, quarantine, registry, superseding
from connectors.sync.audit import Audit
from connectors.sync.batches import Batch
from connectors.sync.destination import LOADS_TABLE
from connectors.sync.lease import Lease
from connectors.sync.packages import BuiltSchema
from connectors.sync.result import RowCounts, SyncRequest, Verdict
from connectors.sync.state import Position


class LoadRecord:
    """Of one sync's loads, each in the transaction of its data.

    verdicts: the sync's so far, for its last load. resolves: quarantine ids that it replays.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        lease: Lease,
        request: SyncRequest,
        position: Position,
        audit: Audit,
        verdicts: Callable[[], Sequence[Verdict]],
        resolves: Sequence[int],
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._request = request
        self._position = position
        self._audit = audit
        self._verdicts = verdicts
        self._resolves = resolves

    def write(
        self,
        batch: Batch,
        rows: RowCounts,
        load_id: str,
        built: BuiltSchema,
        *,
        windows: int,
        loaded_bytes: int,
        cursor: str | None,
    ) -> None:
        """windows, loaded_bytes: that went into the load. cursor: the greatest value among its rows."""
        connection, request = self._connection, self._request
        source, stream, sync_id = request.source.source, request.stream.name, self._lease.sync_id
        version = None
        if batch.is_last or batch.schema.drift:
            seen = None
            if batch.is_last and rows.extracted and gone.speaks_of_now(connection, request):
                raw = Identifier(request.source.schema_name, stream)
                seen = registry.Seen(batch.schema.missing(), self._audit.extracted, raw, load_id)
                gone.say_missing(connection, raw, seen.missing)
            version = registry.record(connection, source, stream, sync_id, batch.schema, seen)
        committed = None
        if request.is_live:
            committed = self._position.commit(
                connection, request, sync_id, batch.connector_state, advances=batch.advances_cursor
            )
        if batch.is_last or batch.emptied_after is not None:
            superseding.by_read(connection, request, sync_id, is_full=self._is_full(batch))
        if self._resolves and batch.is_last:
            quarantine.release(connection, request.label, sync_id, self._resolves)
        connection.execute(
            SQL("insert into {} values (%s, %s, 0, now(), %s)").format(
                Identifier(request.source.schema_name, LOADS_TABLE)
            ),
            [load_id, built.name, built.hash],
        )
        ledger.add_publication(
            connection,
            sync_id,
            rows,
            windows=windows,
            loaded_bytes=loaded_bytes,
            state=committed,
            cursor=cursor,
            schema_version=version,
            load_ids=[load_id],
            cost=self._lease.cost(),
            verdicts=self._verdicts() if batch.is_last else self._audit.verdicts,
            is_last=batch.is_last,
        )

    def _is_full(self, batch: Batch) -> bool:
        """What is not in this read, or came before the source was emptied, is not in the source."""
        stream = self._request.stream
        is_whole = stream.snapshot or stream.write == "replace"
        says_all = is_whole and not self._audit.nothing_new
        return self._request.is_live and (says_all or batch.emptied_after is not None)
