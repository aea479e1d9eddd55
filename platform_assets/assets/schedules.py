"""Schedules from the source file: one for each distinct cron of a source.

They are stopped until somebody starts them in the UI, so that a checked-out repository never reads from anywhere by
itself; `running` in the deployment is one setting away (Dagster's own, per schedule).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import dagster as dg

from connectors.specs import SourceSpec, StreamSpec
from platform_assets.assets.partitions import partitions_definition
from platform_assets.assets.streams import stream_key


def source_schedules(source: SourceSpec) -> Iterator[dg.ScheduleDefinition]:
    """One schedule for the unpartitioned streams of one cron and priority; a partitioned stream has one of its own."""
    together: defaultdict[tuple[str, int], list[StreamSpec]] = defaultdict(list)
    for stream in source.streams:
        if stream.schedule and stream.partitions:
            yield _partitioned(source, stream, stream.schedule)
        elif stream.schedule:
            together[stream.schedule, stream.priority].append(stream)
    for (cron, priority), streams in together.items():
        suffix = f"__priority_{priority}".replace("-", "minus_") if priority else ""
        yield dg.ScheduleDefinition(
            name=f"{source.source}__{_slug(cron)}{suffix}",
            cron_schedule=cron,
            target=_selection(source, streams),
            execution_timezone="UTC",
            tags=_priority(priority),
            description=f"Syncs {', '.join(stream.name for stream in streams)}.",
        )


def _partitioned(source: SourceSpec, stream: StreamSpec, cron: str) -> dg.ScheduleDefinition:
    """Runs the last whole partition once, at the first tick after its end; older ones are a backfill's."""
    partitions = partitions_definition(stream.partitions) if stream.partitions else None

    def newest(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with dg.partition_loading_context(effective_dt=context.scheduled_execution_time):
            key = partitions.get_last_partition_key() if partitions else None
        if key is None:
            return dg.SkipReason(f"no partition of {source.source}.{stream.name} is over yet")
        return dg.RunRequest(run_key=key, partition_key=key, tags=_priority(stream.priority))

    name = f"{source.source}__{stream.name}__{_slug(cron)}"
    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=cron,
        job=dg.define_asset_job(f"{name}__job", _selection(source, [stream])),
        execution_fn=newest,
        execution_timezone="UTC",
        description=f"Syncs the last whole partition of {stream.name}.",
    )


def _selection(source: SourceSpec, streams: Sequence[StreamSpec]) -> dg.AssetSelection:
    return dg.AssetSelection.assets(*(stream_key(source, stream) for stream in streams))


def _priority(priority: int) -> dict[str, str]:
    return {"dagster/priority": str(priority)} if priority else {}


def _slug(cron: str) -> str:
    """A cron as a name: `@hourly` is hourly, `0 6 * * 1-5` is 0_6_x_x_1to5."""
    words = cron.replace("@", "").replace("*/", "every").replace("*", "x").replace("-", "to")
    return re.sub(r"[^a-zA-Z0-9]+", "_", words).strip("_")
