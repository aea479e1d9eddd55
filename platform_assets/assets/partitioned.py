"""Partitions of one run: newest first, each a sync and a materialization of its own, none read twice."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import dagster as dg

from connectors.contract import Window
from connectors.errors import HeadwaterError
from connectors.sync import SyncRequest, SyncResult
from platform_assets.assets.materialize import Done, StreamAsset, judged, materialization, sync_one, trigger_of
from platform_assets.assets.partitions import windows_of
from platform_assets.assets.turns import give_way, history_turn, live_turn

if TYPE_CHECKING:
    import psycopg

BACKFILL_TAG = "dagster/backfill"
OF_ONE_WINDOW = frozenset({"contract", "source"})
"""Classes of failure that say something of one window's data, and nothing of the next one's."""
_FINISHED = """
select sync_id::text from ops.syncs
where source = %s and stream = %s and window_start = %s and window_end = %s and status like 'succeeded%%'
    and (started_at >= %s or run_id = any(%s))
order by started_at desc limit 1
"""


def sync_partitions(asset: StreamAsset, context: dg.AssetExecutionContext, dsn: str) -> Sequence[Done]:
    """Sync the run's partitions. What this run, one that it retries, or its backfill has read is not read again.

    A window that breaks its contract does not keep the older ones from being read; its error is raised at the end.
    """
    label = f"{asset.source.source}.{asset.stream.name}"
    definition = cast("dg.TimeWindowPartitionsDefinition", context.assets_def.partitions_def)
    found = windows_of(definition, context.partition_keys)
    slices = {key: found[key] for key in reversed(context.partition_keys)}
    if trigger_of(context) != "backfill":
        with live_turn(dsn, label) as session:
            return _read(asset, context, dsn, session, slices)
    with history_turn(dsn, label) as session:
        return _read(asset, context, dsn, session, slices)


def _read(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    dsn: str,
    session: "psycopg.Connection[tuple[object, ...]]",
    slices: Mapping[str, Window],
) -> Sequence[Done]:
    done: list[Done] = []
    failed: HeadwaterError | None = None
    since = _begun(context)
    for key, window in slices.items():
        if trigger_of(context) == "backfill":
            give_way(session, f"{asset.source.source}.{asset.stream.name}")
        before = _finished(asset, context, session, window, since)
        if before is not None:
            request = SyncRequest(asset.source, asset.stream, window=window)
            again = judged(asset, dsn, request, before, key)
            if not _is_reported(asset, context, again):
                context.log.info("partition %s was read by sync %s and is not read again", key, before.sync_id)
                context.log_event(materialization(asset, again))
            done.append(again)
            continue
        try:
            done.append(sync_one(asset, context, dsn, key, window))
            context.log_event(materialization(asset, done[-1]))
        except HeadwaterError as error:
            if error.failure_class not in OF_ONE_WINDOW:
                raise
            context.log.error("partition %s: %s", key, error)
            failed = failed or error
    if failed is not None:
        raise failed
    return done


def _begun(context: dg.AssetExecutionContext) -> datetime | None:
    """When the run's backfill began; None for a run of none."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    backfill = context.instance.get_backfill(backfill_id) if backfill_id else None
    return datetime.fromtimestamp(backfill.backfill_timestamp, UTC) if backfill else None


def _finished(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    session: "psycopg.Connection[tuple[object, ...]]",
    window: Window,
    since: datetime | None,
) -> SyncResult | None:
    """The sync that has read this window already, as the ledger has it."""
    from connectors.sync import past

    run = context.run
    runs = [run.run_id, run.root_run_id or run.run_id, run.parent_run_id or run.run_id]
    row = session.execute(
        _FINISHED, [asset.source.source, asset.stream.name, window.start, window.end, since, runs]
    ).fetchone()
    if row is None:
        return None
    table = f"{session.info.dbname}.{asset.source.schema_name}.{asset.stream.name}"
    return past.result_of(past.one(session, str(row[0])), table)


def _is_reported(asset: StreamAsset, context: dg.AssetExecutionContext, done: Done) -> bool:
    """A run of this backfill has told Dagster of the sync; otherwise the process died before it could."""
    wanted = dg.AssetRecordsFilter(asset.key, asset_partitions=[done.partition or ""])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        told = record.asset_materialization
        known = told.metadata.get("sync_id") if told else None
        run = context.instance.get_run_by_id(record.run_id)
        is_ours = run is not None and run.tags.get(BACKFILL_TAG) == context.run.tags.get(BACKFILL_TAG)
        return is_ours and known is not None and known.value == done.result.sync_id
    return False
