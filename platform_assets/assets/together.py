"""A source whose streams come out of one process: one op with a subset, each stream an asset with its own outcome."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import dagster as dg

from connectors import errors
from connectors.errors import HeadwaterError, merged
from connectors.sync import SyncRequest, SyncResult
from platform_assets.assets.failures import as_dagster, detach
from platform_assets.assets.materialize import (
    Event,
    StreamAsset,
    failed_checks,
    judged,
    report,
    trigger_of,
)
from platform_assets.assets.resources import DltResource, WarehouseResource
from platform_assets.assets.syncing import run_together

_RETRYABLE = tuple(
    kind.failure_class for kind in (errors.RateLimited, errors.TransientError, errors.LoaderError) if kind.is_retryable
)


@dataclass(frozen=True, slots=True)
class Earlier:
    """How a stream's sync ended in an earlier attempt of this op. failure: None when it succeeded."""

    failure: str | None
    is_retryable: bool


def materialize_together(assets: Sequence[StreamAsset], context: dg.AssetExecutionContext) -> Iterator[Event]:
    """Sync the selected streams in one run of their program. Each that succeeds is materialized, whatever others do.

    A retry of the op reads only the streams that a retry can help.
    """
    selected = [asset for asset in assets if asset.key in context.selected_asset_keys]
    with cast("DltResource", context.resources.dlt).applied():
        try:
            dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
        except HeadwaterError as error:
            raise _raised([(selected[0], error)], {}, context) from error
        earlier = _earlier(dsn, selected[0].source.source, context) if context.retry_number else {}
        pending = [asset for asset in selected if (past := earlier.get(asset.stream.name)) is None or past.is_retryable]
        requests = [_request(asset, context) for asset in pending]
        outcomes = run_together(requests, dsn, context.log.info)
        failed: list[tuple[StreamAsset, HeadwaterError]] = []
        for asset, request in zip(pending, requests, strict=True):
            outcome = outcomes[asset.stream.name]
            if isinstance(outcome, SyncResult):
                result = report(asset, judged(asset, dsn, request, outcome))
                yield dg.MaterializeResult(asset_key=asset.key, metadata=result.metadata)
                yield from _selected(asset, result.check_results or (), context)
            elif isinstance(outcome, HeadwaterError):
                failed.append((asset, outcome))
            else:
                raise outcome
        for asset, error in failed:
            yield from _judge_failure(asset, error, context)
    lost = {name: past.failure for name, past in earlier.items() if past.failure and not past.is_retryable}
    if failed or lost:
        raise _raised(failed, lost, context)


def _request(asset: StreamAsset, context: dg.AssetExecutionContext) -> SyncRequest:
    return SyncRequest(asset.source, asset.stream, trigger=trigger_of(context), run_id=context.run.run_id)


def _selected(
    asset: StreamAsset, checks: Iterable[dg.AssetCheckResult], context: dg.AssetExecutionContext
) -> Iterator[dg.AssetCheckResult]:
    """Without the checks that this run leaves out."""
    keys = context.selected_asset_check_keys
    return (check for check in checks if dg.AssetCheckKey(asset.key, check.check_name or "") in keys)


def _judge_failure(
    asset: StreamAsset, error: HeadwaterError, context: dg.AssetExecutionContext
) -> Iterator[dg.AssetCheckResult]:
    context.log.error("%s", error)
    if not (error.is_retryable and context.retry_number < asset.stream.retries):
        yield from _selected(asset, failed_checks(asset, error, context), context)


def _raised(
    failed: Sequence[tuple[StreamAsset, HeadwaterError]], lost: Mapping[str, str], context: dg.AssetExecutionContext
) -> dg.Failure | dg.RetryRequested:
    """What the op raises for all that failed: a retry if it helps any of them, else a failure that names each."""
    outcomes = [
        as_dagster(error, asset.stream.retries, context.retry_number, detach(error, asset.source))
        for asset, error in failed
    ]
    retries = [outcome for outcome in outcomes if isinstance(outcome, dg.RetryRequested)]
    if retries:
        return max(retries, key=lambda retry: retry.seconds_to_wait or 0)
    failures = [outcome for outcome in outcomes if isinstance(outcome, dg.Failure)]
    if len(failures) == 1 and not lost:
        return failures[0]
    lines = [*map(str, merged(error for _, error in failed)), *lost.values()]
    metadata: dict[str, Any] = dict(failures[0].metadata) if failures else {}
    names = sorted([*(asset.stream.name for asset, _ in failed), *lost])
    return dg.Failure(
        description="\n".join(lines), metadata={**metadata, "failed_streams": ", ".join(names)}, allow_retries=False
    )


def _earlier(dsn: str, source: str, context: dg.AssetExecutionContext) -> dict[str, Earlier]:
    """The last sync of each stream in this run, from the ledger."""
    import psycopg  # the driver loads with the first sync, not with definitions

    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            """
            select distinct on (stream) stream, status, failure_class, message from ops.syncs
            where source = %s and run_id = %s order by stream, started_at desc
            """,
            [source, context.run.run_id],
        ).fetchall()
    return {
        stream: Earlier(message if failure_class else None, failure_class in _RETRYABLE)
        for stream, _status, failure_class, message in rows
    }
