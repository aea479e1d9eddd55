"""Backfills as rows: who holds which window, what is done, what a day may cost."""

import json
from collections.abc import Generator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest

from connectors.errors import ConfigError
from connectors.specs import SourceSpec
from connectors.sync import SyncRequest
from connectors.sync.lifecycle import run
from connectors.sync.result import Progress
from platform_assets.backfills import plan, store
from platform_assets.cli import main
from platform_assets.warehouse import Warehouse
from tests.support.scripted import Scripted, records, source

START = date(2024, 1, 1)
SPEC: dict[str, Any] = {
    "primary_key": ["id"], "write": "merge", "cursor": {"field": "at"}, "partitions": {"by": "day", "start": START},
    "incremental": {"param": "since", "end_param": "until"},
}  # fmt: skip


@pytest.fixture
def spec() -> SourceSpec:
    return source(**SPEC)


@pytest.fixture
def connection(warehouse: Warehouse) -> Generator[psycopg.Connection[Any]]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        yield session


def wanted(spec: SourceSpec, first: int, last: int, **settings: Any) -> store.Wanted:
    """Days of January 2024."""
    days = [START + timedelta(days=number - 1) for number in (first, last)]
    return store.Wanted("unit", "things", plan.choose(spec.streams[0], "unit.things", *days), "January", **settings)


def read(warehouse: Warehouse, spec: SourceSpec, backfill: store.Backfill, day: int, *messages: Any) -> None:
    """A backfill's sync of one window."""
    windows = plan.choose(spec.streams[0], "unit.things", *[START + timedelta(days=day - 1)] * 2)
    request = SyncRequest(spec, spec.streams[0], trigger="backfill", window=next(iter(windows.values())))
    script = messages or [records({"id": day, "at": f"2024-01-{day:02}T01:00:00Z"})]
    run(request, warehouse.loader_dsn, Progress(), Scripted(script))


def test_a_second_backfill_takes_only_the_windows_that_are_free(
    connection: psycopg.Connection[Any], spec: SourceSpec
) -> None:
    first = store.create(connection, wanted(spec, 5, 10))
    second = store.create(connection, wanted(spec, 1, 10))

    assert [window.partition for window in store.windows(connection, second)] == [
        "2024-01-04", "2024-01-03", "2024-01-02", "2024-01-01",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=f"all 3 windows are in backfill {first.backfill_id} already"):
        store.create(connection, wanted(spec, 6, 8))
    assert [item.backfill_id for item in store.several(connection, is_open=True)] == [
        first.backfill_id, second.backfill_id,
    ]  # fmt: skip

    store.move(connection, first, "cancelled", since=["requested"])
    third = store.create(connection, wanted(spec, 6, 8))
    assert len(store.windows(connection, third)) == 3


def test_a_window_is_done_once_it_was_read_since_the_backfill_was_made(
    warehouse: Warehouse, connection: psycopg.Connection[Any], spec: SourceSpec
) -> None:
    earlier = store.create(connection, wanted(spec, 1, 1))
    read(warehouse, spec, earlier, 2)
    backfill = store.create(connection, wanted(spec, 2, 4))
    read(warehouse, spec, backfill, 3)

    assert {window.partition: window.is_done for window in store.windows(connection, backfill)} == {
        "2024-01-04": False, "2024-01-03": True, "2024-01-02": False,
    }  # fmt: skip
    assert list(store.rest(connection, backfill)) == ["2024-01-04", "2024-01-02"]
    assert store.spent(connection, backfill) == store.Spent(windows=1, rows=1, requests=0)


def test_a_state_is_left_only_where_that_makes_sense(connection: psycopg.Connection[Any], spec: SourceSpec) -> None:
    backfill = store.create(connection, wanted(spec, 1, 2))
    ended = store.move(connection, backfill, "cancelled", "by hand", since=["requested"])
    assert ended.ended_at is not None
    with pytest.raises(ConfigError, match="is cancelled"):
        store.move(connection, ended, "paused", since=["running"])
    with pytest.raises(ConfigError, match="there is none"):
        store.one(connection, "nothing")


def test_a_plan_counts_on_what_windows_have_cost(
    warehouse: Warehouse, connection: psycopg.Connection[Any], spec: SourceSpec
) -> None:
    unknown = plan.plan(connection, spec, spec.streams[0], wanted(spec, 1, 31).windows, store.Budget())
    assert (unknown.rows, unknown.requests, unknown.seconds, unknown.sample) == (None, None, None, 0)
    earlier = store.create(connection, wanted(spec, 1, 1))
    for day in (1, 2, 3):
        read(
            warehouse, spec, earlier, day,
            records(*({"id": 100 * day + n, "at": f"2024-01-{day:02}T01:00:00Z"} for n in range(day))),
        )  # fmt: skip

    def planned(per_run: int) -> plan.Plan:
        stream = source(**SPEC | {"partitions": {"by": "day", "start": START, "per_run": per_run}}).streams[0]
        return plan.plan(connection, spec, stream, wanted(spec, 1, 31).windows, store.Budget(windows=7, rows=10))

    made = planned(per_run=5)
    assert (len(made.windows), made.runs, made.sample, made.rows) == (30, 6, 3, 60)
    assert made.held == {"2024-01-01": earlier.backfill_id}
    assert made.seconds is not None
    assert made.seconds > plan.RUN_SECONDS
    # 60 rows at 10 a day are more days than 30 windows at 7; at least one run goes each day
    assert made.days == 6
    assert [planned(per_run).days for per_run in (1, 10, 30)] == [6, 3, 1]


def test_a_plan_tells_what_the_rate_limit_allows(
    warehouse: Warehouse, connection: psycopg.Connection[Any], spec: SourceSpec
) -> None:
    connector = spec.connector.model_copy(
        update={"rate_limit": spec.connector.rate_limit.model_copy(update={"requests": 2})}  # pyright: ignore[reportAttributeAccessIssue]  of kind rest
    )
    limited = spec.model_copy(update={"connector": connector})
    earlier = store.create(connection, wanted(spec, 1, 1))
    read(warehouse, spec, earlier, 1)
    connection.execute("update ops.syncs set requests = 4")

    made = plan.plan(connection, limited, spec.streams[0], wanted(spec, 2, 11).windows, store.Budget())

    assert (made.requests, made.quota_seconds) == (40, 20.0)


def test_status_tells_what_was_read_beside_what_came_new(
    connection: psycopg.Connection[Any],
    warehouse: Warehouse,
    spec: Any,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = store.create(connection, wanted(spec, 1, 2))
    for _ in range(2):
        read(warehouse, spec, made, 1)

    assert main(["backfill", "status", made.backfill_id, "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    # the second read of the window found in the table what it had read
    assert (line["rows_read"], line["rows"], line["done"]) == (1, 0, 1)
    assert main(["backfill", "status", made.backfill_id]) == 0
    assert {"read", "loaded"} <= set(capsys.readouterr().out.replace("│", " ").replace("┃", " ").split())
