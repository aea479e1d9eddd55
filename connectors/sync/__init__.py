"""The sync engine: one lifecycle for every kind. No Dagster here.

`sync(request, dsn)` takes a stream from start to its final status.
"""

from connectors.registry import kind
from connectors.sync.interpreter import tune
from connectors.sync.result import (
    ObservedColumn,
    Progress,
    RowCounts,
    Status,
    SyncRequest,
    SyncResult,
    Trigger,
    Verdict,
)

__all__ = [
    "ObservedColumn",
    "Progress",
    "RowCounts",
    "Status",
    "SyncRequest",
    "SyncResult",
    "Trigger",
    "Verdict",
    "sync",
]


def sync(request: SyncRequest, dsn: str, progress: Progress | None = None) -> SyncResult:
    """Run one stream's sync to its final status and record it in `ops.syncs`.

    A stream with `limits.memory_mb` runs in a process of its own, so that no sibling is blamed for its memory or ends
    with it; so does one with `limits.time` whose reader nothing but the end of a process stops (`Kind.may_block`).

    Args:
        dsn: libpq URL of the warehouse for the loader role; the platform's bootstrap has run there.

    Returns:
        The result of a sync that succeeded, with or without warnings, or read nothing.

    Raises:
        HeadwaterError: classified; the ledger row is already final and the last good data is in place. Its
            `sync_id` attribute names the row.
    """
    tune()
    if request.source.connector.reads_together:
        from connectors.sync.together import sync_together

        progress = progress or Progress()
        outcome = sync_together([request], dsn, {request.stream.name: progress}, progress.on_log)[request.stream.name]
        if isinstance(outcome, SyncResult):
            return outcome
        raise outcome
    limits = request.stream.limits
    if limits.memory_mb is not None or (limits.time is not None and kind(request.source.connector.kind).may_block):
        from connectors.sync.isolated import run_isolated

        return run_isolated(request, dsn, progress or Progress())
    from connectors.sync.lifecycle import run  # the engine's libraries load with the first sync, not with definitions

    return run(request, dsn, progress or Progress())
