"""What the sensor run_backfills does with one tick, on a real instance and a real queue; no run is executed."""

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

from platform_assets.assets.resources import WarehouseResource
from platform_assets.backfills import plan, store
from platform_assets.backfills.steer import HELD, STREAM
from platform_assets.sensors import run_backfills
from tests.backfills.conftest import START, Platform
from tests.ingest.conftest import load

KEY = dg.AssetKey(["shop", "orders"])
PER_RUN = 30
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("ingest"), "__repository__"), "__ASSET_JOB"
)


@dataclass(slots=True)
class Steering:
    """The platform beside an instance in memory. Runs are submitted as Dagster's backfill daemon does it."""

    platform: Platform
    instance: dg.DagsterInstance
    connection: psycopg.Connection[Any]
    definitions: dg.Definitions

    def ask(self, days: int, **settings: Any) -> store.Backfill:
        stream = self.platform.source.streams[0]
        chosen = plan.choose(stream, "shop.orders", START, START + timedelta(days=days - 1))
        return store.create(self.connection, store.Wanted("shop", "orders", chosen, f'"{days}" days', **settings))

    def tick(self) -> str:
        repository = self.definitions.get_repository_def()
        with dg.build_sensor_context(
            self.instance, repository_def=repository, resources={"warehouse": WarehouseResource()}
        ) as context:
            return run_backfills.evaluate_tick(context).skip_message or ""

    def submit(self, backfill_id: str, runs: int) -> list[str]:
        """The runs of a backfill, oldest first, as Dagster makes them."""
        made = self.instance.get_backfill(backfill_id)
        assert made is not None
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return [
            self.instance.create_run_for_job(
                job,
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=ORIGIN,
                tags={
                    **made.tags,
                    "dagster/backfill": backfill_id,
                    "dagster/asset_partition_range_start": str(START + timedelta(days=PER_RUN * number)),
                    "dagster/asset_partition_range_end": str(START + timedelta(days=PER_RUN * (number + 1) - 1)),
                },
            ).run_id
            for number in range(runs)
        ]

    def held(self, runs: list[str]) -> list[bool]:
        return [self.tags(run)[HELD] == "yes" for run in runs]

    def tags(self, run_id: str) -> Any:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags

    def read(self, first: date, days: int, *, failure: str | None = None) -> None:
        """The ledger after syncs of these windows."""
        self.connection.execute(
            """
            insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, window_start, window_end, finished_at,
                step, status, failure_class, message, rows_extracted, rows_loaded, requests)
            select gen_random_uuid(), 'shop', 'orders', 'rest', 'backfill', 1, day, day + interval '1 day', now(),
                'done', case when %(failure)s::text is null then 'succeeded' else 'failed' end, %(failure)s::text,
                'HTTP 401', 10, 10, 2
            from generate_series(%(first)s::timestamptz, %(first)s::timestamptz + make_interval(days => %(days)s - 1),
                interval '1 day') day
            """,
            {"first": f"{first}T00:00:00Z", "days": days, "failure": failure},
        )


@pytest.fixture
def steering(platform: Platform) -> Generator[Steering]:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        psycopg.connect(platform.warehouse.loader_dsn, autocommit=True) as connection,
    ):
        connection.execute("set time zone 'UTC'")
        yield Steering(platform, instance, connection, load(platform.root))


def test_one_dagster_backfill_is_made_and_its_newest_runs_go_first(steering: Steering) -> None:
    backfill = steering.ask(120)

    assert steering.tick() == f"{backfill.backfill_id} (shop.orders): asked for 120 windows"
    (made,) = steering.instance.get_backfills()
    assert (made.backfill_id, made.title) == (backfill.backfill_id, " 120  days")
    runs = steering.submit(backfill.backfill_id, 4)
    assert steering.held(runs) == [True] * 4

    assert steering.tick().endswith("0 of 120 windows done; runs: 0 read, 4 wait")
    assert steering.held(runs) == [True, True, False, False]
    steering.tick()
    assert steering.held(runs) == [True, True, False, False]
    assert len(steering.instance.get_backfills()) == 1


def test_a_paused_backfill_lets_nothing_begin_until_it_is_resumed(steering: Steering) -> None:
    backfill = steering.ask(90)
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 3)
    steering.tick()
    running = store.move(steering.connection, store.one(steering.connection, backfill.backfill_id), "paused",
                         "by hand", since=["running"])  # fmt: skip

    assert "paused, 0 of 90 windows done. by hand" in steering.tick()
    assert steering.held(runs) == [True] * 3

    store.move(steering.connection, running, "running", since=["paused"])
    steering.tick()
    assert steering.held(runs) == [True, False, False]


def test_a_days_budget_holds_the_rest_back_until_tomorrow(steering: Steering) -> None:
    backfill = steering.ask(90, budget=store.Budget(windows=30))
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 3)

    assert "today's budget is spent, 3 runs wait for tomorrow" in steering.tick()
    assert steering.held(runs) == [True, True, False]

    steering.read(START + timedelta(days=60), 30)
    steering.instance.report_run_canceled(steering.instance.get_run_by_id(runs[2]))  # pyright: ignore[reportArgumentType]  it exists
    assert "30 of 90 windows done; today's budget is spent, 2 runs wait" in steering.tick()
    assert steering.held(runs[:2]) == [True, True]

    steering.connection.execute("update ops.syncs set started_at = started_at - interval '1 day'")
    steering.connection.execute("update ops.backfills set created_at = created_at - interval '2 days'")
    steering.tick()
    assert steering.held(runs[:2]) == [True, False]


@pytest.mark.parametrize("budget", [store.Budget(rows=300), store.Budget(requests=60)])
def test_a_budget_of_rows_or_requests_counts_what_windows_cost(steering: Steering, budget: store.Budget) -> None:
    steering.read(START + timedelta(days=200), 5)
    backfill = steering.ask(90, budget=budget)
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 3)
    steering.tick()
    # a window has 10 rows and 2 requests, so one run of 30 windows is a day's
    assert steering.held(runs) == [True, True, False]


@pytest.mark.parametrize("budget", [store.Budget(rows=300), store.Budget(requests=60)])
def test_a_budget_of_unknown_cost_is_measured_on_one_run(steering: Steering, budget: store.Budget) -> None:
    backfill = steering.ask(90, budget=budget)
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 3)

    # 30 windows might have a row each, or ten
    assert steering.tick().endswith("0 of 90 windows done; runs: 0 read, 3 wait until one has told what a window costs")
    assert steering.held(runs) == [True, True, False]
    steering.tick()
    assert steering.held(runs) == [True, True, False]

    steering.read(START + timedelta(days=60), 10)
    steering.tick()
    # 20 windows of 10 rows and 2 requests fill what is left of the day
    assert steering.held(runs) == [True, True, False]


def test_a_refused_credential_pauses_the_backfill_with_its_reason(steering: Steering) -> None:
    backfill = steering.ask(90)
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 3)
    steering.tick()
    steering.read(START + timedelta(days=89), 1, failure="auth")

    assert "paused, 0 of 90 windows done. auth error at 2023-03-31: HTTP 401" in steering.tick()
    assert steering.held(runs) == [True] * 3

    found = store.one(steering.connection, backfill.backfill_id)
    store.move(steering.connection, found, "running", since=["paused"])
    assert "0 of 90 windows done; runs" in steering.tick()


def test_a_priority_reaches_the_runs_in_the_queue(steering: Steering) -> None:
    backfill = steering.ask(60)
    steering.tick()
    runs = steering.submit(backfill.backfill_id, 2)
    steering.tick()
    assert {steering.tags(run)["dagster/priority"] for run in runs} == {"-10"}

    store.prioritize(steering.connection, backfill, 5)
    steering.tick()
    assert {steering.tags(run)["dagster/priority"] for run in runs} == {"5"}


def test_cancelling_on_either_side_ends_both(steering: Steering) -> None:
    ours, theirs = steering.ask(10), None
    steering.tick()
    store.move(steering.connection, store.one(steering.connection, ours.backfill_id), "cancelling", since=["running"])
    steering.tick()
    theirs = steering.instance.get_backfill(ours.backfill_id)
    assert theirs is not None
    assert theirs.status == BulkActionStatus.CANCELING

    steering.instance.update_backfill(theirs.with_status(BulkActionStatus.CANCELED))
    assert "cancelled. 10 of 10 windows are not read" in steering.tick()
    assert store.one(steering.connection, ours.backfill_id).state == "cancelled"
    assert steering.tick() == "no backfill is open"


def test_what_is_left_of_a_failed_backfill_goes_on_in_a_new_one(steering: Steering) -> None:
    backfill = steering.ask(10)
    steering.tick()
    steering.read(START + timedelta(days=3), 7)
    steering.read(START, 3, failure="source")
    theirs = steering.instance.get_backfill(backfill.backfill_id)
    assert theirs is not None
    steering.instance.update_backfill(theirs.with_status(BulkActionStatus.COMPLETED_FAILED))
    assert "failed. 3 of 10 windows are not read: HTTP 401" in steering.tick()

    ended = store.one(steering.connection, backfill.backfill_id)
    again = store.create(steering.connection, store.again(ended, store.rest(steering.connection, ended)))
    assert [window.partition for window in store.windows(steering.connection, again)] == [
        "2023-01-03", "2023-01-02", "2023-01-01",
    ]  # fmt: skip


def test_the_queue_of_this_repository_starts_nothing_that_is_held(steering: Steering) -> None:
    """The tag is worth nothing without the limit in dagster.yaml."""
    with dg.DagsterInstance.get() as configured:
        queue = configured.get_concurrency_config().run_queue_config
        assert queue is not None
        limits = {(limit["key"], limit.get("value")): limit["limit"] for limit in queue.tag_concurrency_limits if
                  not isinstance(limit.get("value"), dict)}  # fmt: skip
    assert limits[HELD, "yes"] == 0


def test_a_backfill_whose_stream_is_gone_fails_alone(steering: Steering) -> None:
    other = store.Wanted("gone", "stream", dict(list(plan.all_windows(
        steering.platform.source.streams[0], "shop.orders").items())[:2]), "gone")  # fmt: skip
    gone = store.create(steering.connection, other)
    backfill = steering.ask(10)

    first, second = steering.tick().split("; ")

    assert first == (
        f"{gone.backfill_id} (gone.stream): failed. The stream is gone from the source file, "
        "or has no partitions any more."
    )
    assert second == f"{backfill.backfill_id} (shop.orders): asked for 10 windows"


def click(steering: Steering, days: int) -> str:
    """What the button "Launch backfill" of the UI makes."""
    partitions = [f"{START + timedelta(days=number)}" for number in range(days)]
    backfill_id = f"click{days}"
    steering.instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill_id,
            asset_graph=steering.definitions.get_repository_def().asset_graph,
            partition_names=partitions,
            asset_selection=[KEY],
            backfill_timestamp=datetime.now(UTC).timestamp(),
            tags={},
            dynamic_partitions_store=steering.instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
    )
    return backfill_id


def test_a_backfill_of_the_ui_is_taken_over(steering: Steering) -> None:
    backfill_id = click(steering, 120)
    runs = steering.submit(backfill_id, 4)

    assert "0 of 120 windows done; runs: 0 read, 4 wait" in steering.tick()
    ours = store.one(steering.connection, backfill_id)
    assert (ours.title, ours.state) == ("120 windows of shop.orders, started in the UI", "running")
    assert steering.held(runs) == [True, True, False, False]
    assert {steering.tags(run)[STREAM] for run in runs} == {"shop.orders"}

    store.move(steering.connection, ours, "paused", since=["running"])
    steering.tick()
    assert steering.held(runs) == [True] * 4
    assert len(steering.instance.get_backfills()) == 1


def test_a_backfill_of_the_ui_over_windows_that_are_held_stays_dagsters_own(steering: Steering) -> None:
    ours = steering.ask(3)
    steering.tick()
    click(steering, 5)

    assert steering.tick().count("shop.orders") == 1
    assert [one.backfill_id for one in store.several(steering.connection, is_open=True)] == [ours.backfill_id]
