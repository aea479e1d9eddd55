"""Looking at the ledger: recent syncs, and everything about one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import psycopg
from psycopg.rows import class_row

from connectors.errors import ConfigError
from connectors.sync.result import RowCounts, Status, SyncResult, Trigger, Verdict

_COLUMNS = """
    sync_id::text, source, stream, kind, trigger, run_id, epoch, window_start, window_end, started_at, finished_at,
    heartbeat_at, step, step_seconds, windows, rows_extracted, rows_loaded, rows_updated, rows_deleted,
    rows_deduplicated, rows_filtered, rows_quarantined, received_bytes, loaded_bytes, requests, wait_seconds,
    peak_memory_bytes, state_before, state_after, newest_cursor, schema_version, load_ids, verdicts, status,
    failure_class, message
"""


@dataclass(frozen=True, slots=True)
class PastSync:
    """One row of `ops.syncs`. status `running`: it has not ended, or died and is not settled yet."""

    sync_id: str
    source: str
    stream: str
    kind: str
    trigger: Trigger
    run_id: str | None
    epoch: int
    window_start: datetime | None
    window_end: datetime | None
    started_at: datetime
    finished_at: datetime | None
    heartbeat_at: datetime
    step: str
    step_seconds: Mapping[str, float]
    windows: int
    rows_extracted: int
    rows_loaded: int
    rows_updated: int
    rows_deleted: int
    rows_deduplicated: int
    rows_filtered: int
    rows_quarantined: int
    received_bytes: int
    loaded_bytes: int
    requests: int
    wait_seconds: float
    peak_memory_bytes: int
    state_before: Mapping[str, Any] | None
    state_after: Mapping[str, Any] | None
    newest_cursor: str | None
    schema_version: int | None
    load_ids: tuple[str, ...]
    verdicts: tuple[Mapping[str, Any], ...]
    status: "Status | str"
    failure_class: str | None
    message: str | None

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    @property
    def seconds(self) -> float:
        """From start to end, or to the last sign of life."""
        return ((self.finished_at or self.heartbeat_at) - self.started_at).total_seconds()


def recent(
    connection: psycopg.Connection[Any], source: str | None = None, stream: str | None = None, *, limit: int = 20
) -> list[PastSync]:
    """Syncs of everything, a source or a stream, newest first."""
    with connection.cursor(row_factory=class_row(PastSync)) as cursor:
        return cursor.execute(
            f"""
            select {_COLUMNS} from ops.syncs
            where source = coalesce(%(source)s, source) and stream = coalesce(%(stream)s, stream)
            order by started_at desc, sync_id limit %(limit)s
            """,
            {"source": source, "stream": stream, "limit": limit},
        ).fetchall()


def one(connection: psycopg.Connection[Any], sync_id: str) -> PastSync:
    """The sync whose id starts so.

    Raises:
        ConfigError: there is none, or more than one.
    """
    pattern = sync_id.lower().replace("\\", "").replace("%", "").replace("_", "") + "%"
    with connection.cursor(row_factory=class_row(PastSync)) as cursor:
        found = cursor.execute(
            f"select {_COLUMNS} from ops.syncs where sync_id::text like %s limit 2", [pattern]
        ).fetchall()
    if len(found) != 1:
        what = f"no sync's id starts with {sync_id}" if not found else f"several syncs' ids start with {sync_id}"
        raise ConfigError("syncs show", what, "`headwater syncs` lists the recent ones.")
    return found[0]


def result_of(sync: PastSync, table_name: str) -> SyncResult:
    """A sync that has succeeded, as it was handed to its caller; its columns are not in the ledger."""
    assert sync.finished_at is not None
    rows = RowCounts(
        sync.rows_extracted,
        sync.rows_loaded,
        sync.rows_updated,
        sync.rows_deleted,
        sync.rows_deduplicated,
        sync.rows_filtered,
        sync.rows_quarantined,
    )
    return SyncResult(
        sync_id=sync.sync_id,
        source=sync.source,
        stream=sync.stream,
        status=cast("Status", sync.status),
        rows=rows,
        table_name=table_name,
        columns=(),
        step_seconds=sync.step_seconds,
        received_bytes=sync.received_bytes,
        loaded_bytes=sync.loaded_bytes,
        requests=sync.requests,
        wait_seconds=sync.wait_seconds,
        peak_memory_bytes=sync.peak_memory_bytes,
        windows=sync.windows,
        state_before=sync.state_before or {},
        state_after=sync.state_after or {},
        newest_cursor=sync.newest_cursor,
        schema_version=sync.schema_version,
        load_ids=tuple(sync.load_ids),
        verdicts=tuple(Verdict(**verdict) for verdict in sync.verdicts),
        started_at=sync.started_at,
        finished_at=sync.finished_at,
        message=sync.message or "",
    )
