"""The body of every stream's op: sync each partition asked for (or the live stream), judge it, report it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg

from connectors.contract import Window
from connectors.errors import HeadwaterError
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync import SyncRequest, SyncResult, Trigger, Verdict
from platform_assets.assets.failures import as_dagster, detach
from platform_assets.assets.metadata import check_result, sync_metadata, total_metadata
from platform_assets.assets.partitions import window_of
from platform_assets.assets.resources import DltResource, SlingResource, WarehouseResource
from platform_assets.assets.syncing import run_sync
from platform_assets.checks import Observation, StreamCheck
from platform_assets.checks.history import read_history

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult

_TRIGGERS: Mapping[str, Trigger] = {
    "dagster/backfill": "backfill",
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
}


@dataclass(frozen=True, slots=True)
class StreamAsset:
    """What the op of one stream works with."""

    key: dg.AssetKey
    source: SourceSpec
    stream: StreamSpec
    checks: tuple[StreamCheck, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """One finished sync with what is reported of it. partition: its key, None for a live sync."""

    partition: str | None
    result: SyncResult
    verdicts: tuple[Verdict, ...]
    table_rows: int | None


def materialize(asset: StreamAsset, context: dg.AssetExecutionContext) -> Iterator[Event]:
    """Sync, then one materialization (an empty sync has one too) and every check's result.

    A failed sync has no materialization; the checks that failed it are red, and partitions that had finished before
    it are recorded.
    """
    done: list[Done] = []
    with ExitStack() as settings:
        settings.enter_context(cast("DltResource", context.resources.dlt).applied())
        if asset.source.connector.kind == "sling":
            settings.enter_context(cast("SlingResource", context.resources.sling).applied())
        try:
            dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
            for partition, window in _slices(context):
                request = SyncRequest(
                    asset.source, asset.stream, trigger=trigger_of(context), run_id=context.run.run_id, window=window
                )
                done.append(judged(asset, dsn, request, run_sync(request, dsn, context.log.info), partition))
        except HeadwaterError as error:
            for earlier in done:
                context.log_event(_materialization(asset, earlier))
            yield from failed_checks(asset, error)
            trace = detach(error, asset.source)
            outcome = as_dagster(error, asset.stream.retries, context.retry_number, trace)
            if isinstance(outcome, dg.Failure):
                yield from checks_of_failure(asset, context)
            raise outcome from error
    yield report(asset, context, done)


def judged(
    asset: StreamAsset, dsn: str, request: SyncRequest, result: SyncResult, partition: str | None = None
) -> Done:
    """The sync with the verdicts of the asset's checks."""
    history = read_history(dsn, request, result.sync_id)
    observation = Observation(asset.stream, result, history)
    verdicts = tuple(_verdict(check, observation) for check in asset.checks)
    return Done(partition, result, verdicts, history.table_rows)


def _verdict(check: StreamCheck, observation: Observation) -> Verdict:
    """The engine's own verdict for what it audits before publishing; the check's judgement otherwise."""
    audited = (verdict for verdict in observation.result.verdicts if verdict.name == check.name)
    return (next(audited, None) if check.type.is_audit else None) or check.judge(observation)


def _slices(context: dg.AssetExecutionContext) -> Sequence[tuple[str | None, Window | None]]:
    """One slice per partition of the run, in order; a run without a partition is one live sync."""
    if not context.has_partition_key and not context.has_partition_key_range:
        return [(None, None)]
    partitions = cast("dg.TimeWindowPartitionsDefinition", context.assets_def.partitions_def)
    return [(key, window_of(partitions, key)) for key in context.partition_keys]


def trigger_of(context: dg.AssetExecutionContext) -> Trigger:
    for tag, trigger in _TRIGGERS.items():
        if tag in context.run.tags:
            return trigger
    return "manual"


def _metadata(asset: StreamAsset, done: Done) -> dict[str, Any]:
    metadata = sync_metadata(done.result, asset.stream, done.table_rows)
    if done.partition is not None:
        metadata["dagster/partition_row_count"] = done.result.rows.loaded
    return metadata


def _materialization(asset: StreamAsset, done: Done) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(asset.key, partition=done.partition, metadata=_metadata(asset, done))


def report(asset: StreamAsset, context: dg.AssetExecutionContext, done: Sequence[Done]) -> dg.MaterializeResult[Any]:
    """A range run would put one metadata on all its partitions: each gets its own, the range's sums are common."""
    checks = [
        check_result(_worst(verdicts), asset.key) for verdicts in zip(*(one.verdicts for one in done), strict=True)
    ]
    if len(done) == 1:
        return dg.MaterializeResult(asset_key=asset.key, metadata=_metadata(asset, done[0]), check_results=checks)
    for one in done:
        context.add_asset_metadata(_metadata(asset, one), asset_key=asset.key, partition_key=one.partition)
    total = total_metadata(one.result for one in done)
    return dg.MaterializeResult(asset_key=asset.key, metadata=total, check_results=checks)


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Of one check over the partitions of a run: the gravest failure, else the newest partition's."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    return max(failed, key=lambda verdict: verdict.severity == "error") if failed else verdicts[-1]


def failed_checks(asset: StreamAsset, error: HeadwaterError) -> Iterator[dg.AssetCheckResult]:
    """The audit's verdicts behind a failed sync, for the checks that the asset has."""
    known = {check.name for check in asset.checks}
    verdicts = cast("Sequence[Verdict]", getattr(error, "verdicts", ()))
    yield from (check_result(verdict, asset.key) for verdict in verdicts if verdict.name in known)


def checks_of_failure(asset: StreamAsset, context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Checks that judge failed syncs too, from the ledger; nothing when the warehouse is what failed."""
    checks = [check for check in asset.checks if check.type.on_failure is not None]
    if not checks:
        return
    _, window = _slices(context)[0]
    request = SyncRequest(asset.source, asset.stream, window=window)
    try:
        history = read_history(cast("WarehouseResource", context.resources.warehouse).loader_dsn(), request)
    except HeadwaterError as error:
        context.log.warning("The failed sync could not be judged: %s", error)
        return
    for check in checks:
        if (verdict := check.judge_failed(history)) is not None:
            yield check_result(verdict, asset.key)
