"""The body of every stream's op: sync each partition asked for (or the live stream), judge it, report it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg

from connectors.contract import Window
from connectors.errors import HeadwaterError
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync import SyncRequest, SyncResult, Trigger, Verdict
from platform_assets.assets.failures import as_dagster, detach
from platform_assets.assets.metadata import check_result, sync_metadata
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

    A failed sync has no materialization; the checks that failed it are red. Each partition is reported as soon as it
    is read, so nothing of a run that dies is lost; its checks are at the end, for all partitions of the run, whether
    some of them failed or not.
    """
    verdicts: Sequence[Verdict] | None = None
    with ExitStack() as settings:
        settings.enter_context(cast("DltResource", context.resources.dlt).applied())
        if asset.source.connector.kind == "sling":
            settings.enter_context(cast("SlingResource", context.resources.sling).applied())
        try:
            dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
            if asset.stream.partitions is None:
                yield report(asset, sync_one(asset, context, dsn))
            else:
                from platform_assets.assets.partitioned import sync_partitions

                verdicts, failed = sync_partitions(asset, context, dsn)
                if failed is not None:
                    raise failed
                yield from check_results(asset, verdicts)
        except HeadwaterError as error:
            trace = detach(error, asset.source)
            outcome = as_dagster(error, asset.stream.retries, context.retry_number, trace)
            if isinstance(outcome, dg.Failure):
                yield from failed_checks(asset, error if verdicts is None else verdicts, context)
            raise outcome from error


def sync_one(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    dsn: str,
    partition: str | None = None,
    window: Window | None = None,
) -> Done:
    """The live stream or one partition of it, synced and judged."""
    request = SyncRequest(
        asset.source, asset.stream, trigger=trigger_of(context), run_id=context.run.run_id, window=window
    )
    return judged(asset, dsn, request, run_sync(request, dsn, context.log.info), partition)


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


def materialization(asset: StreamAsset, done: Done) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(asset.key, partition=done.partition, metadata=_metadata(asset, done))


def report(asset: StreamAsset, done: Done) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(
        asset_key=asset.key, metadata=_metadata(asset, done), check_results=check_results(asset, done.verdicts)
    )


def check_results(asset: StreamAsset, verdicts: Iterable[Verdict]) -> list[dg.AssetCheckResult]:
    """Of the checks that the asset has."""
    known = {check.name for check in asset.checks}
    return [check_result(verdict, asset.key) for verdict in verdicts if verdict.name in known]


def verdicts_of(error: HeadwaterError) -> Sequence[Verdict]:
    """The audit's, behind a failed sync."""
    return cast("Sequence[Verdict]", getattr(error, "verdicts", ()))


def failed_checks(
    asset: StreamAsset, found: HeadwaterError | Sequence[Verdict], context: dg.AssetExecutionContext
) -> list[dg.AssetCheckResult]:
    """What is known when the op has failed for good. found: the error of a sync, or what partitions said.

    Checks that judge failed syncs too are asked last, and have the last word.
    """
    verdicts = verdicts_of(found) if isinstance(found, HeadwaterError) else found
    said = {verdict.name: verdict for verdict in (*verdicts, *_of_failure(asset, context))}
    return check_results(asset, said.values())


def _of_failure(asset: StreamAsset, context: dg.AssetExecutionContext) -> Iterator[Verdict]:
    """From the ledger; nothing when the warehouse is what failed."""
    checks = [check for check in asset.checks if check.type.on_failure is not None]
    if not checks:
        return
    now = datetime.now(UTC)
    window = Window(now, now) if asset.stream.partitions else None  # the history of partitions, whichever one
    request = SyncRequest(asset.source, asset.stream, window=window)
    try:
        history = read_history(cast("WarehouseResource", context.resources.warehouse).loader_dsn(), request)
    except HeadwaterError as error:
        context.log.warning("The failed sync could not be judged: %s", error)
        return
    for check in checks:
        if (verdict := check.judge_failed(history)) is not None:
            yield verdict
