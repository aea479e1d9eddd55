"""Every stream and mart has a freshness policy: the file's own, or one that follows from the schedule."""

from datetime import UTC, datetime, timedelta
from functools import cache

import dagster as dg

from connectors.specs import StreamSpec

UNSCHEDULED = timedelta(days=1)
"""A stream without a schedule is expected once a day."""

WARN_AFTER, FAIL_AFTER = 1.5, 2.5
"""In longest gaps between two ticks: one sync missed warns, two missed fail."""


def freshness_policy(stream: StreamSpec) -> dg.FreshnessPolicy:
    """The declared windows; else 1.5 and 2.5 times the schedule's longest gap, or of a day without a schedule.

    It measures when the stream was last synced. Whether its data is new is another question: see docs/checks.md.
    """
    if stream.freshness is not None:
        return dg.FreshnessPolicy.time_window(
            fail_window=stream.freshness.fail_after, warn_window=stream.freshness.warn_after
        )
    gap = longest_gap(stream.schedule) if stream.schedule else UNSCHEDULED
    return dg.FreshnessPolicy.time_window(fail_window=gap * FAIL_AFTER, warn_window=gap * WARN_AFTER)


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
