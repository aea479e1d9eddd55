"""Sensors of backfills: one that runs them all in the right order, and those that launch them, one a reason."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import dagster as dg

from connectors.specs import SourceSpec
from platform_assets.assets.streams import pool, stream_key
from platform_assets.backfills.reasons import NAMES

if TYPE_CHECKING:
    from platform_assets.assets.resources import WarehouseResource

INTERVAL_SECONDS = 15
LOOK_SECONDS = 60
WHY = "headwater/why"
"""The tag of a run that a sensor asked for, with its explanation."""
ASKED_BY, ASKED_FOR = "headwater/asked_by", "headwater/asked_for"
"""Tags of it: the sensor, and the stream."""


@dg.sensor(
    name="run_backfills",
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    required_resource_keys={"warehouse"},
    description="Runs what ops.backfills asks for: newest windows first, within the budgets; see docs/backfills.md.",
)
def run_backfills(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    from connectors.sync.lease import connect  # the driver loads with the first tick, not with definitions
    from platform_assets.backfills.steer import steer

    repository = context.repository_def
    assert repository is not None
    dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
    with connect(dsn, "backfills", autocommit=True) as connection:
        lines = steer(context.instance, repository.asset_graph, connection)
    for line in lines:
        context.log.info("%s", line)
    return dg.SkipReason("; ".join(lines) or "no backfill is open")


def backfill_sensors(source: SourceSpec) -> Iterator[dg.SensorDefinition]:
    """One sensor for each reason that a stream names in `backfill.reasons`; nothing for a source of none."""
    wanted = {name for stream in source.streams for name in stream.backfill.reasons}
    for name in NAMES:
        if name in wanted:
            yield _sensor(source, name)


def _sensor(source: SourceSpec, reason: str) -> dg.SensorDefinition:
    streams = {stream.name: stream_key(source, stream) for stream in source.streams}
    # what it may ask Dagster for itself; windows are asked for through ops.backfills
    asks: dict[str, Any] = {}
    name = f"{source.source}__backfill_{reason}"
    if reason == "new_files":
        asks = {"target": dg.AssetSelection.assets(*streams.values())}
    elif reason == "contract":
        asks = {"job": replay_job(source)}

    @dg.sensor(
        name=name,
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"warehouse"},
        description=f"Launches backfills of {source.source} for the reason {reason}; see docs/backfills.md.",
        **asks,
    )
    def _look(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from connectors.sync.lease import connect
        from platform_assets.backfills.suggest import suggest

        dsn = cast("WarehouseResource", context.resources.warehouse).loader_dsn()
        busy = _asked_for(context, name) if asks else frozenset[str]()
        with connect(dsn, "backfills", autocommit=True) as connection:
            found = suggest(connection, [source], names=[reason], launch=True, busy=busy)
        for suggestion in found:
            context.log.info("%s", suggestion)
            if not suggestion.run_key:
                continue
            tags = {WHY: str(suggestion), ASKED_BY: name, ASKED_FOR: suggestion.label}
            if suggestion.is_live:
                selection = [streams[suggestion.stream]]
                yield dg.RunRequest(run_key=suggestion.run_key, asset_selection=selection, tags=tags)
            else:
                config = {"ops": {"replay": {"config": {"stream": suggestion.stream}}}}
                yield dg.RunRequest(run_key=suggestion.run_key, run_config=config, tags=tags)
        said = "; ".join(map(str, found)) or f"nothing is due for {reason}"
        if not any(suggestion.run_key for suggestion in found):
            yield dg.SkipReason(said)

    return _look


def _asked_for(context: dg.SensorEvaluationContext, sensor: str) -> frozenset[str]:
    """Streams whose run this sensor has asked for and which has not ended."""
    from platform_assets.backfills.steer import UNFINISHED

    runs = context.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags={ASKED_BY: sensor}))
    return frozenset(run.tags.get(ASKED_FOR, "") for run in runs)


def replay_job(source: SourceSpec) -> dg.JobDefinition:
    """Replays what is in quarantine of one stream of the source."""

    @dg.op(
        name="replay",
        config_schema={"stream": str},
        required_resource_keys={"warehouse"},
        pool=pool(source),
    )
    def _replay(context: dg.OpExecutionContext) -> None:
        from connectors.sync import SyncRequest, replay

        stream = source.stream(context.op_config["stream"])
        request = SyncRequest(source, stream, trigger="replay", run_id=context.run_id)
        result = replay.replay(request, cast("WarehouseResource", context.resources.warehouse).loader_dsn())
        context.log.info(
            "%s", f"{result.rows.loaded} of {result.rows.extracted} loaded" if result else "nothing is held"
        )

    @dg.job(name=f"{source.source}__replay_quarantine", executor_def=dg.in_process_executor)
    def _job() -> None:
        _replay()

    return _job
