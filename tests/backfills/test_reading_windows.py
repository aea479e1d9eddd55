"""Runs of several windows: newest first, nothing twice, live syncs in between."""

import threading
from collections.abc import Callable, Generator
from datetime import date
from typing import Any

import dagster as dg
import pytest

from connectors.sync import SyncRequest, sync
from platform_assets.assets.turns import give_way, history_turn, live_turn
from tests.backfills.conftest import Platform, daily_orders
from tests.ingest.conftest import load
from tests.ingest.shop import Answer

KEY = dg.AssetKey(["shop", "orders"])
DAYS = {"dagster/asset_partition_range_start": "2023-01-01", "dagster/asset_partition_range_end": "2023-01-03"}
Run = Callable[..., dg.ExecuteInProcessResult]
NEWEST_STATE = "select state -> 'cursor' ->> 'value' from ops.stream_state order by version desc limit 1"
WAITS = "select 1 from pg_locks where locktype = 'advisory' and not granted"
READ = "select window_start::date from ops.syncs where status like 'succeeded%' order by started_at"


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def execute(platform: Platform, instance: dg.DagsterInstance) -> Run:
    platform.shop.orders = daily_orders(3)

    def run(**tags: str) -> dg.ExecuteInProcessResult:
        job = load(platform.root).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=instance, raise_on_error=False, tags={**DAYS, **tags})

    return run


def days(*numbers: int) -> list[tuple[Any, ...]]:
    return [(date(2023, 1, number),) for number in numbers]


def partitions(instance: dg.DagsterInstance) -> list[str | None]:
    found = instance.fetch_materializations(dg.AssetRecordsFilter(KEY), limit=100, ascending=True).records
    return [record.partition_key for record in found]


def begin(platform: Platform, instance: dg.DagsterInstance, backfill_id: str) -> None:
    """A Dagster backfill of that id, as the UI makes one."""
    from dagster._core.execution.backfill import PartitionBackfill

    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill_id,
            asset_graph=load(platform.root).resolve_asset_graph(),
            partition_names=["2023-01-01"],
            asset_selection=[KEY],
            backfill_timestamp=platform.rows("select extract(epoch from now())::float")[0][0],
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )


def test_windows_are_read_newest_first_and_none_twice_for_one_backfill(
    platform: Platform, instance: dg.DagsterInstance, execute: Run
) -> None:
    begin(platform, instance, "b1")
    platform.shop.on_page = lambda request: platform.shop.refusals.extend(
        [Answer(401, {"error": "expired"})] if request == 2 else []
    )
    assert not execute(**{"dagster/backfill": "b1"}).success
    assert partitions(instance) == ["2023-01-03"]

    assert execute(**{"dagster/backfill": "b1"}).success

    assert platform.rows(READ) == days(3, 2, 1)
    assert partitions(instance) == [f"2023-01-0{day}" for day in (3, 2, 1)]
    # a new backfill is asked for because the data is wanted again
    begin(platform, instance, "b2")
    assert execute(**{"dagster/backfill": "b2"}).success
    assert len(platform.rows(READ)) == 6


def test_a_window_that_was_read_but_not_reported_is_reported_only(
    platform: Platform, instance: dg.DagsterInstance, execute: Run
) -> None:
    """The process died after the commit: the ledger has the window, Dagster does not."""
    begin(platform, instance, "b1")
    assert execute(**{"dagster/backfill": "other"}).success
    sync_ids = dict(platform.rows("select window_start::date::text, sync_id::text from ops.syncs"))
    instance.wipe_assets([KEY])

    assert execute(**{"dagster/backfill": "b1"}).success

    assert len(platform.rows(READ)) == 3
    found = instance.fetch_materializations(dg.AssetRecordsFilter(KEY), limit=100).records
    told = {
        record.partition_key: record.asset_materialization.metadata for record in found if record.asset_materialization
    }
    assert {day: metadata["sync_id"].value for day, metadata in told.items()} == sync_ids
    assert [metadata["rows_loaded"].value for metadata in told.values()] == [2, 2, 2]


def test_a_window_that_breaks_its_contract_does_not_stop_the_older_ones(
    platform: Platform, instance: dg.DagsterInstance, execute: Run
) -> None:
    platform.declare((platform.root / "platform_assets/defs/ingest/shop/defs.yaml").read_text()
                     + "      checks: [{type: row_rule, column: cents, min: 0}]\n")  # fmt: skip
    platform.shop.orders[3]["cents"] = -1

    result = execute(**{"dagster/backfill": "b1"})

    assert not result.success
    assert partitions(instance) == [f"2023-01-0{day}" for day in (3, 1)]
    (red,) = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert red.check_name == "row_rule"
    assert platform.rows("select count(*) from raw_shop.orders") == [(4,)]


def test_a_refused_credential_is_asked_for_once_not_for_every_window(platform: Platform, execute: Run) -> None:
    platform.shop.refusals = [Answer(401, {"error": "expired"})] * 9

    result = execute(**{"dagster/backfill": "b1"})

    assert not result.success
    assert platform.rows("select failure_class from ops.syncs") == [("auth",)]
    kinds = [event.event_type for event in result.all_events]
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds


def test_a_live_sync_goes_before_the_next_window_and_its_position_is_its_own(platform: Platform, execute: Run) -> None:
    """It is asked for while a backfill reads; the backfill waits between two windows and then goes on."""
    source = platform.source
    request = SyncRequest(source, source.streams[0], trigger="schedule")
    waiting, live = threading.Event(), threading.Thread(target=lambda: _sync_live(platform, request, waiting))

    def begin_live(request: int) -> None:
        if request == 2:
            live.start()
            # the second window is under way until the live sync stands in line
            waiting.wait(30)
        if request == 3:
            # and the live sync is until the backfill stands in line
            platform.wait_for(WAITS, 30)

    platform.shop.on_page = begin_live
    assert execute(**{"dagster/backfill": "b1"}).success
    live.join()

    order = platform.rows("select coalesce(window_start::date::text, 'live') from ops.syncs order by started_at")
    assert [name for (name,) in order] == ["2023-01-03", "2023-01-02", "live", "2023-01-01"]
    assert platform.rows(NEWEST_STATE) == [("2023-01-03T18:00:00Z",)]
    assert platform.rows("select count(*), count(distinct id) from raw_shop.orders") == [(6, 6)]


def _sync_live(platform: Platform, request: SyncRequest, waiting: threading.Event) -> None:
    dsn = platform.warehouse.loader_dsn

    def told() -> None:
        platform.wait_for(WAITS, 30)
        waiting.set()

    threading.Thread(target=told).start()
    with live_turn(dsn, request.label):
        sync(request, dsn)


def test_two_runs_of_history_take_turns(platform: Platform) -> None:
    dsn, order = platform.warehouse.loader_dsn, list[str]()

    def second() -> None:
        with history_turn(dsn, "shop.orders"):
            order.append("second")

    thread = threading.Thread(target=second)
    with history_turn(dsn, "shop.orders") as session:
        thread.start()
        platform.wait_for(WAITS, 30)
        give_way(session, "shop.orders")
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_permanent_failure_is_retried_by_nobody(platform: Platform) -> None:
    """Neither by the op nor, with this repository's dagster.yaml, by the daemon that retries runs."""
    platform.shop.orders = daily_orders(1)
    platform.shop.refusals = [Answer(401, {"error": "expired"})] * 9
    job = load(platform.root).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as configured:
        tags = {**DAYS, "dagster/backfill": "b1", "dagster/max_retries": "3"}
        result = job.execute_in_process(instance=configured, raise_on_error=False, tags=tags)
        run = configured.get_run_by_id(result.run_id)

    assert run is not None
    assert (run.status, run.tags["dagster/will_retry"]) == (dg.DagsterRunStatus.FAILURE, "false")
    assert platform.rows("select failure_class from ops.syncs") == [("auth",)]
