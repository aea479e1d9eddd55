"""A source of kind webhook is read when its inbox has something new: one sensor a source."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import dagster as dg

from connectors.specs import SourceSpec
from platform_assets.assets.streams import stream_key

if TYPE_CHECKING:
    from platform_assets.assets.resources import WarehouseResource
    from platform_assets.webhooks.backlog import Backlog

KIND = "webhook"
INTERVAL_SECONDS = 30
AGAIN_SECONDS = 600
"""After so long a run that failed is asked for again, though nothing new came."""
STREAM_TAG = "headwater/webhook_stream"
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def inbox_sensors(source: SourceSpec) -> Iterator[dg.SensorDefinition]:
    """The sensor of a webhook source; nothing for a source of another kind."""
    if source.connector.kind != KIND:
        return
    streams = [stream for stream in source.streams if stream.partitions is None]
    if not streams:
        return
    keys = {stream.name: stream_key(source, stream) for stream in streams}

    @dg.sensor(
        name=f"{source.source}__webhooks",
        target=dg.AssetSelection.assets(*keys.values()),
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"warehouse"},
        description=f"Syncs the streams of {source.source} whose inbox has something new.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
        requests = 0
        for item in _unread(source, dsn):
            if item.stream not in keys or not item.deliveries:
                continue
            label = f"{item.source}.{item.stream}"
            if context.instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED, tags={STREAM_TAG: label}), limit=1):
                continue
            requests += 1
            yield dg.RunRequest(
                run_key=f"{label}:{item.newest}:{int(time.time() // AGAIN_SECONDS)}",
                asset_selection=[keys[item.stream]],
                tags={STREAM_TAG: label},
            )
        if not requests:
            yield dg.SkipReason("nothing new in the inbox, or its runs are on their way")

    yield _sensor


def _unread(source: SourceSpec, dsn: str) -> "list[Backlog]":
    import psycopg  # the driver loads with the first tick, not with definitions

    from platform_assets.webhooks.backlog import read_backlog

    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as session:
        session.execute("set statement_timeout = '20s'")
        return list(read_backlog(session, [source]))
