"""Which blocking checks a stream fails now, told by the ledger alone: no Dagster, and whoever ran the syncs."""

import json
from uuid import uuid4

import pytest

from connectors.specs import SourceSpec, parse_source
from platform_assets.checks import checks_of
from platform_assets.checks.standing import failing_checks
from platform_assets.warehouse import Warehouse
from tests.support.sql import run as sql

CHECKS = [
    {"type": "reconcile"},
    {"type": "freshness_data", "fail_after": "PT1H", "severity": "error", "blocking": True},
]
GOOD, BAD, MILD = (True, "error"), (False, "error"), (False, "warn")


@pytest.fixture
def source() -> SourceSpec:
    partitions = {"by": "day", "start": "2024-01-01"}
    common = {"path": "/", "primary_key": "id", "write": "merge", "cursor": {"field": "at"}, "checks": CHECKS}
    attributes = {
        "source": "shop",
        "owner": "team:data",
        "connector": {"kind": "rest", "base_url": "http://localhost"},
        "streams": [
            {"name": "live", **common},
            {"name": "days", **common, "partitions": partitions, "incremental": {"param": "a", "end_param": "b"}},
        ],
    }
    return parse_source(attributes, "shop/defs.yaml")


def synced(
    warehouse: Warehouse, stream: str, said: tuple[bool, str] | None, *, day: int = 0, days: int = 1,
    status: str = "", newest: str = "now()", trigger: str = "cli",
) -> None:  # fmt: skip
    """A finished sync, of some days of January 2024 where `day` is given. said: of reconcile, passed and severity."""
    verdict = {"name": "reconcile", "explanation": f"day {day}", "blocking": True, "measured": {}}
    verdicts = json.dumps([verdict | {"passed": said[0], "severity": said[1]}] if said else [])
    status = status or ("failed" if said == BAD else "succeeded")
    failure = "'contract'" if status in ("failed", "cancelled") else "null"
    window = f"'2024-01-{day:02}Z', '2024-01-{day + days:02}Z'" if day else "null, null"
    sql(
        warehouse.admin_dsn,
        "insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, started_at, finished_at, verdicts, "
        "status, failure_class, newest_cursor, window_start, window_end) values"
        f" ('{uuid4()}', 'shop', '{stream}', 'rest', '{trigger}', 1, clock_timestamp(), clock_timestamp(), "
        f"'{verdicts}', '{status}', {failure}, "
        f"to_char({newest} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), {window})",
    )


def failing(warehouse: Warehouse, source: SourceSpec, name: str) -> list[str]:
    stream = source.stream(name)
    blocking = [check for check in checks_of(stream, "defs.yaml") if check.blocking]
    found = failing_checks(warehouse.loader_dsn, source, stream, blocking)
    return [f"{one.check} {one.window_start:%d}" if one.window_start else one.check for one in found]


def test_the_newest_word_of_a_live_stream_counts(warehouse: Warehouse, source: SourceSpec) -> None:
    assert failing(warehouse, source, "live") == []
    synced(warehouse, "live", BAD)
    assert failing(warehouse, source, "live") == ["reconcile"]
    # the next attempt did not come so far
    synced(warehouse, "live", None, status="failed")
    synced(warehouse, "live", None, trigger="replay")
    assert failing(warehouse, source, "live") == ["reconcile"]
    synced(warehouse, "live", GOOD)
    assert failing(warehouse, source, "live") == []
    synced(warehouse, "live", MILD)
    assert failing(warehouse, source, "live") == []
    # a check that judges a finished sync is asked again
    sql(warehouse.admin_dsn, "delete from ops.syncs")
    synced(warehouse, "live", GOOD, newest="(now() - interval '2 hours')")
    assert failing(warehouse, source, "live") == ["freshness_data"]


def test_each_window_has_a_word_of_its_own(warehouse: Warehouse, source: SourceSpec) -> None:
    synced(warehouse, "days", BAD, day=2)
    synced(warehouse, "days", BAD, day=3)
    synced(warehouse, "days", GOOD, day=4)
    assert failing(warehouse, source, "days") == ["reconcile 03", "reconcile 02"]

    synced(warehouse, "days", None, day=3, status="cancelled")
    synced(warehouse, "days", None, day=2, status="failed")
    assert failing(warehouse, source, "days") == ["reconcile 03", "reconcile 02"]
    synced(warehouse, "days", MILD, day=3)
    assert failing(warehouse, source, "days") == ["reconcile 02"]

    synced(warehouse, "days", BAD, day=2, days=7)
    assert failing(warehouse, source, "days") == ["reconcile 02"]
    # the partitions are weeks now: one that is read well has mended its days
    synced(warehouse, "days", GOOD, day=1, days=8)
    assert failing(warehouse, source, "days") == []
