"""Every stream and model has a freshness policy: its own, or one that follows from the schedule or from upstream."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

import dagster as dg

from connectors.specs import StreamSpec

UNSCHEDULED = timedelta(days=1)
"""A stream without a schedule is expected once a day."""

WARN_AFTER, FAIL_AFTER = 1.5, 2.5
"""In longest gaps between two ticks: one sync missed warns, two missed fail."""


def freshness_policy(stream: StreamSpec) -> dg.FreshnessPolicy:
    """When the stream must have been synced. Whether its data is new is the check `freshness_data`'s question."""
    fail_after, warn_after = _windows(stream)
    return dg.FreshnessPolicy.time_window(fail_window=fail_after, warn_window=warn_after)


def inherited_policy(streams: Sequence[StreamSpec]) -> dg.FreshnessPolicy:
    """Of a model that declares none: the longest windows of the streams that it is built from.

    No stream is known, because it is loaded elsewhere or its file is broken: as for a stream without a schedule.
    """
    found = [_windows(stream) for stream in streams] or [(UNSCHEDULED * FAIL_AFTER, UNSCHEDULED * WARN_AFTER)]
    fail_after = max(fail for fail, _ in found)
    warnings = [warn for _, warn in found if warn is not None and warn < fail_after]
    return dg.FreshnessPolicy.time_window(fail_window=fail_after, warn_window=max(warnings, default=None))


def _windows(stream: StreamSpec) -> tuple[timedelta, timedelta | None]:
    """The declared ones; else 2.5 and 1.5 times the schedule's longest gap, or of a day without a schedule."""
    if stream.freshness is not None:
        return stream.freshness.fail_after, stream.freshness.warn_after
    gap = longest_gap(stream.schedule) if stream.schedule else UNSCHEDULED
    return gap * FAIL_AFTER, gap * WARN_AFTER


@cache
def longest_gap(schedule: str) -> timedelta:
    """Longest time between two ticks of a cron schedule in UTC; weekends and months count, leap days do not.

    Ticks of eight days are looked at, of three years where those are fewer than three.
    """
    gap = timedelta(minutes=1)
    for horizon in (timedelta(days=8), timedelta(days=3 * 366)):
        start = datetime(2024, 1, 1, tzinfo=UTC)
        slices = dg.TimeWindowPartitionsDefinition(
            start=start, end=start + horizon, cron_schedule=schedule, fmt="%Y-%m-%dT%H:%M", timezone="UTC"
        )
        keys = slices.get_partition_keys()
        if len(keys) > 1:
            windows = (slices.time_window_for_partition_key(key) for key in keys)
            return max(gap, *(window.end - window.start for window in windows))
    return timedelta(days=366)
