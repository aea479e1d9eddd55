"""The row in `ops.syncs`: opened at start, raised with every publication, closed with the final status.

Publications and heartbeats write verdicts and cost so far, so that a sync that is killed leaves a true row.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from connectors.errors import HeadwaterError
from connectors.sync.result import RowCounts, Status, SyncRequest, Verdict

_OPEN = """
insert into ops.syncs (sync_id, source, stream, kind, trigger, run_id, epoch, window_start, window_end, state_before)
values (
    %(sync_id)s, %(source)s, %(stream)s, %(kind)s, %(trigger)s, %(run_id)s, %(epoch)s, %(start)s, %(end)s,
    coalesce((
        select state from ops.stream_state
        where source = %(source)s and stream = %(stream)s order by version desc limit 1
    ), '{}')
)
"""
_COST = """
    step_seconds = %(step_seconds)s, received_bytes = %(received_bytes)s, requests = %(requests)s,
    wait_seconds = %(wait_seconds)s, peak_memory_bytes = %(peak_memory_bytes)s
"""
_BEAT = f"""
update ops.syncs set
    heartbeat_at = now(), step = case step when 'done' then step else %(step)s end, {_COST}
where sync_id = %(sync_id)s and status = 'running'
"""
_PUBLISHED = f"""
update ops.syncs set
    heartbeat_at = now(), step = %(step)s, windows = windows + %(windows)s,
    rows_extracted = rows_extracted + %(extracted)s, rows_loaded = rows_loaded + %(loaded)s,
    rows_updated = rows_updated + %(updated)s, rows_deleted = rows_deleted + %(deleted)s,
    rows_deduplicated = rows_deduplicated + %(deduplicated)s, rows_filtered = rows_filtered + %(filtered)s,
    rows_quarantined = rows_quarantined + %(quarantined)s, loaded_bytes = loaded_bytes + %(loaded_bytes)s,
    state_after = coalesce(%(state)s, state_after), newest_cursor = coalesce(%(cursor)s, newest_cursor),
    schema_version = coalesce(%(schema_version)s, schema_version), load_ids = load_ids || %(load_ids)s::text[],
    verdicts = %(verdicts)s, {_COST}
where sync_id = %(sync_id)s
"""
_CLOSE = f"""
update ops.syncs set
    status = %(status)s, failure_class = %(failure_class)s, message = %(message)s, step = 'done', finished_at = now(),
    verdicts = %(verdicts)s, {_COST}
where sync_id = %(sync_id)s
returning started_at, finished_at, rows_extracted, rows_loaded, rows_updated, rows_deleted, rows_deduplicated,
    rows_filtered, rows_quarantined, loaded_bytes, windows, state_after, newest_cursor, schema_version, load_ids
"""
_USAGE = """
insert into ops.usage as u (day, source, stream, syncs, requests, received_bytes, loaded_bytes, rows_loaded,
    busy_seconds, wait_seconds)
select (started_at at time zone 'UTC')::date, source, stream, 1, requests, received_bytes, loaded_bytes, rows_loaded,
    extract(epoch from finished_at - started_at), wait_seconds
from ops.syncs where sync_id = %s
on conflict (day, source, stream) do update set
    syncs = u.syncs + 1, requests = u.requests + excluded.requests,
    received_bytes = u.received_bytes + excluded.received_bytes, loaded_bytes = u.loaded_bytes + excluded.loaded_bytes,
    rows_loaded = u.rows_loaded + excluded.rows_loaded, busy_seconds = u.busy_seconds + excluded.busy_seconds,
    wait_seconds = u.wait_seconds + excluded.wait_seconds
"""


@dataclass(slots=True)
class Cost:
    """What the sync costs, at its end or so far."""

    step_seconds: dict[str, float] = field(default_factory=dict[str, float])
    received_bytes: int = 0
    requests: int = 0
    wait_seconds: float = 0.0
    peak_memory_bytes: int = 0


def open_row(connection: psycopg.Connection[Any], request: SyncRequest, sync_id: str, epoch: int) -> None:
    """The sync has begun, from the stream's newest state."""
    window = request.window
    connection.execute(
        _OPEN,
        {
            "sync_id": sync_id, "source": request.source.source, "stream": request.stream.name,
            "kind": request.source.connector.kind, "trigger": request.trigger, "run_id": request.run_id,
            "epoch": epoch, "start": window and window.start, "end": window and window.end,
        },
    )  # fmt: skip


def add_publication(
    connection: psycopg.Connection[Any],
    sync_id: str,
    rows: RowCounts,
    *,
    windows: int,
    loaded_bytes: int,
    state: dict[str, Any] | None,
    cursor: str | None,
    schema_version: int | None,
    load_ids: list[str],
    cost: Cost,
    verdicts: Sequence[Verdict],
    is_last: bool,
) -> None:
    """Inside the publication's own transaction: counts and data become true together.

    cost, verdicts: of the sync so far, instead of those before; the last publication's are what a killed sync is
    settled by.
    """
    connection.execute(
        _PUBLISHED,
        {
            "sync_id": sync_id, "step": "done" if is_last else "extract", "extracted": rows.extracted,
            "loaded": rows.loaded, "updated": rows.updated, "deleted": rows.deleted,
            "deduplicated": rows.deduplicated, "filtered": rows.filtered, "quarantined": rows.quarantined,
            "loaded_bytes": loaded_bytes, "state": Jsonb(state) if state is not None else None, "cursor": cursor,
            "schema_version": schema_version, "load_ids": load_ids, "windows": windows,
            "verdicts": _said(verdicts), **_spent(cost),
        },
    )  # fmt: skip


def beat(connection: psycopg.Connection[Any], sync_id: str, step: str, cost: Cost) -> None:
    """The sync is alive, and has cost so much. A sync that has published all stays `done`, a closed one as it is."""
    connection.execute(_BEAT, {"sync_id": sync_id, "step": step, **_spent(cost)})


def close_row(
    connection: psycopg.Connection[Any],
    sync_id: str,
    status: Status,
    error: HeadwaterError | None,
    message: str,
    cost: Cost,
    verdicts: Sequence[Verdict],
) -> tuple[Any, ...]:
    """The final status, counted in `ops.usage` in one commit; returns the row's figures in the order of `_CLOSE`."""
    with connection.transaction():
        row = connection.execute(
            _CLOSE,
            {
                "sync_id": sync_id, "status": status, "failure_class": error.failure_class if error else None,
                "message": message or None, "verdicts": _said(verdicts), **_spent(cost),
            },
        ).fetchone()  # fmt: skip
        assert row is not None
        add_usage(connection, sync_id)
    return row


def add_usage(connection: psycopg.Connection[Any], sync_id: str) -> None:
    """Count a finished sync in `ops.usage`."""
    connection.execute(_USAGE, [sync_id])


def _spent(cost: Cost) -> dict[str, Any]:
    return asdict(cost) | {"step_seconds": Jsonb(cost.step_seconds)}


def _said(verdicts: Sequence[Verdict]) -> Jsonb:
    return Jsonb([
        {
            "name": verdict.name, "passed": verdict.passed, "severity": verdict.severity, "blocking": verdict.blocking,
            "explanation": verdict.explanation, "measured": dict(verdict.measured),
        }
        for verdict in verdicts
    ])  # fmt: skip
