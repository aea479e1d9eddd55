"""A stream's partitions as Dagster's, and Dagster's slices as the engine's windows."""

from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo

import dagster as dg

from connectors.contract import Window
from connectors.specs import PartitionSpec

_BY = {
    "hour": dg.HourlyPartitionsDefinition,
    "day": dg.DailyPartitionsDefinition,
    "week": dg.WeeklyPartitionsDefinition,
    "month": dg.MonthlyPartitionsDefinition,
}


def partitions_definition(spec: PartitionSpec) -> dg.TimeWindowPartitionsDefinition:
    """Calendar slices from the spec's start, in its time zone; the running slice is not one until it is over."""
    start = datetime.combine(spec.start, time(), ZoneInfo(spec.timezone))
    return _BY[spec.by](start_date=start, timezone=spec.timezone)


def window_of(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> Window:
    """The slice of one partition key: half-open, UTC. Neighbouring keys share an end, across DST too."""
    slice_ = partitions.time_window_for_partition_key(key)
    return Window(slice_.start.astimezone(UTC), slice_.end.astimezone(UTC))
