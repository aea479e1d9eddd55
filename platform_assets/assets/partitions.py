"""A stream's partitions as Dagster's, and Dagster's slices as the engine's windows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
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
_BEYOND = timedelta(days=2)


def partitions_definition(spec: PartitionSpec) -> dg.TimeWindowPartitionsDefinition:
    """Calendar slices from the spec's start, in its time zone; the running slice is not one until it is over."""
    start = datetime.combine(spec.start, time(), ZoneInfo(spec.timezone))
    return _BY[spec.by](start_date=start, timezone=spec.timezone)


def window_of(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> Window:
    """The slice of one partition key, see `windows_of`."""
    return windows_of(partitions, [key])[key]


def windows_of(partitions: dg.TimeWindowPartitionsDefinition, keys: Sequence[str]) -> Mapping[str, Window]:
    """The slice of each key: half-open, UTC, from the key's start to the next key's, so that slices always tile.

    Dagster's own end leaves half an hour out where DST moves by half an hour (Lord Howe), and counts a day twice
    where the calendar skipped one (Apia, 30 December 2011): that day's slice is empty here.
    """
    if not keys:
        return {}
    newest = partitions.time_window_for_partition_key(max(keys))
    with dg.partition_loading_context(effective_dt=newest.end + 2 * (newest.end - newest.start) + _BEYOND):
        listed = partitions.get_partition_keys()
    wanted = set(keys)
    tiles = [(key, following) for key, following in pairwise(listed) if key in wanted]
    return {key: Window(_start(partitions, key), _start(partitions, following)) for key, following in tiles}


def _start(partitions: dg.TimeWindowPartitionsDefinition, key: str) -> datetime:
    return partitions.time_window_for_partition_key(key).start.astimezone(UTC)
