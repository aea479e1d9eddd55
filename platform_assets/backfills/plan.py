"""Which windows a backfill takes, and what it will cost: measured on what the stream's windows have cost so far."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from connectors.contract import Window
from connectors.errors import ConfigError
from connectors.specs import PartitionSpec, SourceSpec, StreamSpec
from platform_assets.assets.partitions import partitions_definition, windows_of
from platform_assets.backfills import store
from platform_assets.backfills.store import Budget

RUN_SECONDS = 6.0
"""What a run costs beside its windows: queue, process, imports (measured with dagster 1.13.27)."""
SAMPLE = 30
_HISTORY = """
select rows_extracted, requests, extract(epoch from finished_at - started_at)::float from ops.syncs
where source = %s and stream = %s and window_start is not null and status like 'succeeded%%'
order by started_at desc limit %s
"""
_READ = """
select distinct window_start from ops.syncs
where source = %s and stream = %s and window_start is not null and status like 'succeeded%%'
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians of one window; None where no window was read yet."""

    rows: float | None = None
    requests: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """windows: by partition, newest first; held: partition to the open backfill that has it already, left out.

    rows, requests, seconds: of all windows; None without history. quota_seconds: what the rate limit allows at best.
    days: how long the budget makes it last.
    """

    windows: Mapping[str, Window]
    held: Mapping[str, str]
    runs: int
    sample: int
    rows: int | None
    requests: int | None
    seconds: float | None
    quota_seconds: float | None
    days: int


def all_windows(stream: StreamSpec, label: str) -> dict[str, Window]:
    """Every window that is over, newest first.

    Raises:
        ConfigError: the stream has no partitions.
    """
    keys = partitions_definition(_partitions(stream, label)).get_partition_keys()
    found = windows_of(partitions_definition(_partitions(stream, label)), keys)
    return {key: found[key] for key in reversed(keys)}


def choose(stream: StreamSpec, label: str, first: date | None = None, last: date | None = None) -> dict[str, Window]:
    """The windows that begin on the days from `first` to `last`, both included, by the partitions' own calendar.

    Raises:
        ConfigError: the stream has no partitions, a bound lies before the first or after the last of them, or they
            are in the wrong order.
    """
    spec = _partitions(stream, label)
    if first is not None and first < spec.start:
        raise ConfigError(
            label,
            f"{first} is before its first partition, {spec.start}: the source has nothing there",
            f"Begin at {spec.start}, or set partitions.start to an earlier day.",
        )
    if first is not None and last is not None and last < first:
        raise ConfigError(label, f"--to {last} is before --from {first}", "Exchange them.")
    zone = ZoneInfo(spec.timezone)
    found = {
        key: window
        for key, window in all_windows(stream, label).items()
        if (first or date.min) <= window.start.astimezone(zone).date() <= (last or date.max)
    }
    if not found:
        raise ConfigError(label, "no partition that is over lies in that range", "The running one ends first.")
    return found


def _partitions(stream: StreamSpec, label: str) -> PartitionSpec:
    if stream.partitions is None:
        raise ConfigError(
            label, "has no partitions, so there is nothing to fill", "Add partitions: {by: day, start: ...}."
        )
    return stream.partitions


def already_read(connection: psycopg.Connection[Any], source: str, stream: str) -> set[datetime]:
    """Starts of the windows that some sync has read."""
    return {row[0].astimezone(UTC) for row in connection.execute(_READ.encode(), [source, stream]).fetchall()}


def cost(connection: psycopg.Connection[Any], source: str, stream: str) -> tuple[Cost, int]:
    """A window's cost, and from how many windows it is known."""
    rows = connection.execute(_HISTORY.encode(), [source, stream, SAMPLE]).fetchall()
    if not rows:
        return Cost(), 0
    return Cost(*(statistics.median(float(row[field]) for row in rows) for field in range(3))), len(rows)


def plan(
    connection: psycopg.Connection[Any],
    source: SourceSpec,
    stream: StreamSpec,
    windows: Mapping[str, Window],
    budget: Budget,
) -> Plan:
    """Nothing is changed. Windows that another open backfill holds are left out."""
    held = store.held(connection, source.source, stream.name, list(windows))
    free = {key: window for key, window in windows.items() if key not in held}
    each, sample = cost(connection, source.source, stream.name)
    number = len(free)
    runs = ceil(number / _partitions(stream, stream.name).per_run)
    requests = None if each.requests is None else ceil(each.requests * number)
    return Plan(
        windows=free,
        held=held,
        runs=runs,
        sample=sample,
        rows=None if each.rows is None else ceil(each.rows * number),
        requests=requests,
        seconds=None if each.seconds is None else each.seconds * number + RUN_SECONDS * runs,
        # a window takes one request at least
        quota_seconds=_quota_seconds(source, number if requests is None else requests),
        # at least one run goes each day, whatever it costs
        days=max(1, min(runs, max(_days(budget, each, number), default=1))),
    )


def _quota_seconds(source: SourceSpec, requests: int | None) -> float | None:
    limit = getattr(source.connector, "rate_limit", None)
    allowed: float | None = getattr(limit, "requests", None)
    per: timedelta | None = getattr(limit, "per", None)
    if requests is None or not allowed or per is None:
        return None
    return requests / allowed * per.total_seconds()


def _days(budget: Budget, each: Cost, number: int) -> Sequence[int]:
    """How many days each bound makes of it."""
    pairs = ((budget.windows, 1.0), (budget.rows, each.rows), (budget.requests, each.requests))
    return [ceil(number * one / bound) for bound, one in pairs if bound and one]
