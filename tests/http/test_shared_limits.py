"""Rate pools in PostgreSQL: one quota, one pause, one breaker for all processes; live syncs go first."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connectors.contract import StreamState, Window
from connectors.errors import LoaderError, RateLimited, TransientError
from connectors.http.limits import Quota, Rules
from connectors.http.server_limits import ServerLimit
from connectors.http.shared import RIGHT_OF_WAY_SECONDS, PostgresPool
from connectors.registry import kind
from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.http.reading import context, source
from tests.http.serving import Exchange, records, serving
from tests.http.test_limits import most_in_any_window

__all__ = ["project"]

ROOT = Path(__file__).parents[2]
SLACK_SECONDS = 0.001
"""The database counts in microseconds."""
numbers = count()
HOUR = 3_600.0
"""What has to last while a test looks lasts an hour; when it has to be over, its row is moved back by one."""


@pytest.fixture
def dsn(warehouse: Warehouse) -> str:
    return warehouse.loader_dsn


@pytest.fixture
def pools(dsn: str) -> Iterator["Pools"]:
    made = Pools(dsn)
    yield made
    made.close()


class Pools:
    """Several processes' views of one pool."""

    def __init__(self, dsn: str, name: str = "shop") -> None:
        self._dsn = dsn
        self.name = name
        self.open: list[PostgresPool] = []

    def close(self) -> None:
        for pool in self.open:
            pool.close()

    def __call__(
        self, quota: Quota | None, concurrent: int | None = None, *, is_backfill: bool = False
    ) -> PostgresPool:
        rules = Rules(quota, concurrent, failures=3, pause_seconds=HOUR, request_seconds=HOUR)
        connect = lambda: psycopg.connect(self._dsn, autocommit=True)  # noqa: E731  it is handed on
        pool = PostgresPool(self.name, rules, connect, is_backfill=is_backfill)
        self.open.append(pool)
        return pool


def row(dsn: str, columns: str, name: str = "shop") -> Any:
    with psycopg.connect(dsn) as session:
        return session.execute(f"select {columns} from ops.rate_pools where pool = %s", [name]).fetchone()


AN_HOUR_LATER = "slots = (select jsonb_object_agg(key, value::float8 - 3600) from jsonb_each(slots))"
"""For the requests under way."""


def change(dsn: str, what: str) -> None:
    with psycopg.connect(dsn) as session:
        session.execute(f"update ops.rate_pools set {what}".encode())


def test_no_window_is_exceeded_by_several_processes(dsn: str) -> None:
    quota, turns = Quota(40, 0.5), 30
    words = [sys.executable, "-m", "tests.http.taker", dsn, "shop", str(quota.requests), str(quota.seconds), str(turns)]
    running = [
        subprocess.Popen([*words, role], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for role in ("live", "live", "live", "backfill")
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    times = [[float(line) for line in process.communicate(timeout=240)[0].splitlines()] for process in running]
    assert [len(own) for own in times] == [turns] * 4
    everybody = [at for own in times for at in own]
    assert most_in_any_window(everybody, quota.seconds - SLACK_SECONDS) <= quota.requests
    # what the backfill took, it took outside of the live syncs' right of way
    live = [at for own in times[:3] for at in own]
    right_of_way = RIGHT_OF_WAY_SECONDS - SLACK_SECONDS
    assert [at for at in times[3] for other in live if other <= at < other + right_of_way] == []


PASS = "update ops.rate_pools set refilled_at = refilled_at - %s, live_until = live_until - %s where pool = %s"
# (process, what it does, seconds that pass before)
deeds = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["take", "take", "take", "hold", "die"]), st.floats(0, 20)),
    min_size=10,
    max_size=40,
)


@given(st.integers(1, 25), st.sampled_from([1.0, 60.0]), deeds)
@settings(max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
def test_whatever_processes_do_no_window_of_the_shared_pool_is_exceeded(
    dsn: str, requests: int, seconds: float, steps: list[tuple[int, str, float]]
) -> None:
    """Seconds pass by moving the row back. Process 3 is a backfill; who dies comes back and knows nothing."""
    quota, passed, times = Quota(requests, seconds), 0.0, list[float]()
    pools = Pools(dsn, f"shop_{next(numbers)}")
    views = [pools(quota, is_backfill=who == 3) for who in range(4)]
    with psycopg.connect(dsn, autocommit=True) as session:
        for who, deed, pause in steps:
            shift = (
                "update ops.rate_pools set refilled_at = refilled_at - %s, live_until = live_until - %s where pool = %s"
            )
            session.execute(shift, [*[timedelta(seconds=pause)] * 2, pools.name])
            passed += pause
            if deed == "die":
                views[who] = pools(quota, is_backfill=who == 3)
            elif deed == "hold":
                views[who].hold(pause)
            elif (grant := views[who].take(4 * seconds)).is_booked:
                known = views[who]._row
                assert known is not None
                times.append(known.now + passed + grant.wait_seconds)
    pools.close()
    assert most_in_any_window(times, quota.seconds - SLACK_SECONDS) <= quota.requests


def test_a_turn_that_comes_too_late_is_not_booked(pools: Pools) -> None:
    one, other = pools(Quota(1, HOUR)), pools(Quota(1, HOUR))
    assert one.take(0.0).is_booked
    refused = other.take(5.0)
    assert (refused.is_booked, refused.is_deferred) == (False, False)
    assert HOUR / 2 < refused.wait_seconds <= HOUR
    assert other.take(HOUR + 1).is_booked


@pytest.mark.parametrize("quota", [Quota(100, 1.0), None])
def test_a_pause_that_one_was_asked_for_holds_all(quota: Quota | None, pools: Pools) -> None:
    one, other = pools(quota), pools(quota)
    assert other.take(0.0).is_booked
    one.hold(HOUR)
    other._read_at = 0.0
    refused = other.take(5.0)
    assert not refused.is_booked
    assert HOUR / 2 < refused.wait_seconds <= HOUR
    one.hold(1.0)
    assert other.take(5.0).wait_seconds > HOUR / 2


def test_a_source_without_a_quota_keeps_the_one_that_another_declared(pools: Pools) -> None:
    assert pools(Quota(1, HOUR)).take(0.0).is_booked
    assert not pools(None).take(5.0).is_booked


def test_a_backfill_waits_for_live_syncs_and_books_nothing_ahead(pools: Pools, dsn: str) -> None:
    live, backfill = pools(Quota(10, HOUR)), pools(Quota(10, HOUR), is_backfill=True)
    assert backfill.take(5.0).is_booked
    assert live.take(5.0).is_booked
    (right_of_way,) = row(dsn, "extract(epoch from live_until - updated_at)::float8")
    assert abs(right_of_way - RIGHT_OF_WAY_SECONDS) < 1
    change(dsn, "live_until = now() + interval '1 hour'")
    deferred = backfill.take(2 * HOUR)
    assert (deferred.is_booked, deferred.is_deferred) == (False, True)
    assert HOUR / 2 < deferred.wait_seconds <= HOUR
    assert not backfill.take(5.0).is_deferred
    # both are over: two turns at once, one more every 400 s
    change(dsn, "live_until = now() - interval '1 s', refilled_at = now() - interval '1 hour'")
    assert [backfill.take(5.0).is_booked for _ in range(3)] == [True, True, False]
    # nothing was booked ahead: the live sync has the next free turn
    assert live.take(HOUR).wait_seconds <= HOUR / 9


def test_the_breaker_is_one_for_all_and_lets_one_through(pools: Pools, dsn: str) -> None:
    one, other, third = (pools(None) for _ in range(3))
    for _ in range(3):
        assert other.open_seconds("a") == 0.0
        one.record("a", succeeded=False)
    other._read_at = third._read_at = 0.0
    assert HOUR / 2 < other.open_seconds("a") <= HOUR
    change(dsn, "opened_at = opened_at - interval '1 hour'")
    assert sorted([other.open_seconds("a") > 0, third.open_seconds("a") > 0]) == [False, True]
    assert row(dsn, "breaker, failures") == ("half_open", 3)
    other._row = None
    other.record("a", succeeded=True)
    assert row(dsn, "breaker, failures") == ("closed", 0)
    third._read_at = 0.0
    assert third.open_seconds("a") == 0.0


def test_slots_are_shared_and_those_of_a_killed_process_are_free_again(pools: Pools, dsn: str) -> None:
    one, other, backfill = pools(None, 2), pools(None), pools(None, 2, is_backfill=True)
    held = [one.take(1.0), one.take(1.0)]
    assert all(grant.is_booked for grant in held)
    other._read_at = 0.0
    refused = other.take(1.0)
    assert (refused.is_booked, refused.is_deferred) == (False, True)
    other.release(held[0])
    # a live sync is waiting, so the backfill lets it go first
    change(dsn, "live_until = now() + interval '1 hour'")
    assert not backfill.take(1.0).is_booked
    assert other.take(1.0).is_booked
    # the first process is killed: its request is over when it must be, here an hour from now
    change(dsn, AN_HOUR_LATER)
    assert one.take(1.0).is_booked
    assert row(dsn, "(select count(*) from jsonb_object_keys(slots))") == (1,)


def test_a_killed_process_gives_its_slot_back_in_time(dsn: str) -> None:
    rules = Rules(concurrent=1, request_seconds=HOUR)
    pool = PostgresPool("shop", rules, lambda: psycopg.connect(dsn, autocommit=True), is_backfill=False)
    words = [sys.executable, "-m", "tests.http.taker", dsn, "shop", "1", "0.01", "1", "slot"]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    assert not pool.take(1.0).is_booked
    change(dsn, AN_HOUR_LATER)
    assert pool.take(1.0).is_booked
    pool.close()


def test_a_fixed_window_is_shared(pools: Pools, dsn: str) -> None:
    one, other = pools(Quota(3, 3_600.0, is_fixed=True)), pools(None)
    assert [pool.take(5.0).is_booked for pool in (one, other, one, other)] == [True, True, True, False]
    # the hour is over
    change(dsn, "refilled_at = refilled_at - interval '1 hour'")
    assert other.take(5.0).is_booked


def test_a_turn_is_durable_before_it_is_granted(pools: Pools, dsn: str) -> None:
    """What a crash of the server forgets is what was not flushed: the log is flushed up to every turn."""
    pool = pools(Quota(1_000, 1.0))
    with psycopg.connect(dsn, autocommit=True) as session:
        for _ in range(3):
            (before,) = session.execute("select pg_current_wal_insert_lsn()").fetchone() or ("0/0",)
            assert pool.take(1.0).is_booked
            query = "select pg_current_wal_flush_lsn() > %s::pg_lsn"
            assert session.execute(query, [before]).fetchone() == (True,)


def test_one_streams_failures_leave_its_siblings_alone(pools: Pools, dsn: str) -> None:
    one, other = pools(None), pools(None)
    for _ in range(5):
        one.record("shop.orders", succeeded=False)
    other._read_at = 0.0
    assert other.open_seconds("shop.items") == 0.0
    assert other.open_seconds("shop.orders") > HOUR / 2
    other.record("shop.items", succeeded=False)
    assert row(dsn, "failing") == (["shop.orders", "shop.items"],)
    one._read_at = 0.0
    assert one.open_seconds("shop.users") > HOUR / 2
    other._row = None
    other.record("shop.items", succeeded=True)
    assert row(dsn, "failing, failures, breaker") == ([], 0, "closed")


def test_what_the_source_says_of_its_limits_is_kept(pools: Pools, dsn: str) -> None:
    pool = pools(None)
    pool.take(0.0)
    pool.note(ServerLimit(remaining=7, resets_in=HOUR))
    pool.close()
    remaining, seconds = row(dsn, "remaining, extract(epoch from resets_at - now())::float8")
    assert remaining == 7
    assert HOUR / 2 < seconds <= HOUR


def test_a_warehouse_that_is_gone_is_a_failure_of_the_loader(dsn: str) -> None:
    pool = PostgresPool(
        "shop",
        Rules(),
        lambda: psycopg.connect("host=127.0.0.1 port=1 dbname=x connect_timeout=2", autocommit=True),
        is_backfill=False,
    )
    with pytest.raises(LoaderError, match="rate pool shop: the warehouse does not answer"):
        pool.take(1.0)


def paged(exchange: Exchange) -> None:
    number = int(exchange.query["page"])
    body = {"data": records(number * 10, 3) if number <= 3 else []}
    exchange.json(body, x_ratelimit_remaining=str(100 - number), x_ratelimit_reset="60")


PAGED = {"records": "data", "pagination": {"type": "page_number"}}


def test_a_sync_takes_its_turns_in_the_shared_pool(dsn: str, project: Project, env: dict[str, str]) -> None:
    with serving(paged) as server:
        limit = {"pool": "shop", "requests": 1000, "per": "P1D", "concurrent": 2}
        spec = source(server.url, PAGED, rate_limit=limit)
        sync(SyncRequest(spec, spec.streams[0]), dsn)
    assert row(dsn, "requests, per_seconds, remaining, breaker") == (1000, 86400.0, 96, "closed")
    shown = project.run("pools", "--json", **env)
    assert shown.returncode == 0, shown.stderr
    (pool,) = json.loads(shown.stdout)
    assert (pool["pool"], pool["requests"], pool["free"], pool["remaining"]) == ("shop", 1000, 97, 96)
    assert (pool["concurrent"], pool["under_way"]) == (2, 0)
    change(dsn, "failures = 5, failing = '{shop.items}', opened_at = now(), breaker = 'open'")
    change(dsn, "slots = '{\"a\": 99999999999}', breaker_pause_seconds = 60")
    table = project.run("pools", **env).stdout
    assert "1 of 2" in table
    assert "open for shop.items" in table
    assert "1,000 in 86400 s" in table
    assert "96 left" in table


def test_a_sync_is_refused_what_others_have_used_up(dsn: str) -> None:
    limit = {"pool": "shop", "requests": 4, "per": "PT1H", "max_wait": "PT1S"}
    with serving(paged) as server:
        spec = source(server.url, PAGED, rate_limit=limit)
        with pytest.raises(RateLimited, match="pool shop has no free request"):
            sync(SyncRequest(spec, spec.streams[0]), dsn)
        first = len(server.seen)
        with pytest.raises(RateLimited, match=r"pool shop has no free request for \d+ s on page 1"):
            sync(SyncRequest(spec, spec.streams[0]), dsn)
        assert len(server.seen) == first == 1


def test_a_source_that_one_process_found_down_is_not_asked_by_another(dsn: str) -> None:
    with serving(lambda e: e.json({}, 503)) as server:
        breaker = {"failures": 1, "pause": "PT1H"}
        spec = source(server.url, rate_limit={"pool": "shop"}, breaker=breaker, retries={"attempts": 1})
        shared = replace(context(), connect_shared=lambda: psycopg.connect(dsn, autocommit=True))
        for message in ("HTTP 503", "pool shop is closed for 3[56]\\d\\d s more"):
            with kind("rest").open(spec) as connector, pytest.raises(TransientError, match=message):
                list(connector.read(spec.streams[0], StreamState(), shared))
        assert len(server.seen) == 1


def test_a_backfill_waits_for_live_syncs_and_a_scheduled_partition_does_not(dsn: str, pools: Pools) -> None:
    assert pools(Quota(10, 1.0)).take(1.0).is_booked
    change(dsn, "live_until = now() + interval '1 hour'")
    stream = {
        **PAGED,
        "cursor": {"field": "at"},
        "primary_key": "id",
        "incremental": {"param": "since", "end_param": "until"},
    }
    window = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    with serving(paged) as server:
        limit = {"pool": "shop", "requests": 10, "per": "PT1S", "max_wait": "PT1M"}
        spec = source(server.url, stream, rate_limit=limit)
        request = SyncRequest(spec, spec.streams[0], trigger="backfill", window=window)
        with pytest.raises(RateLimited, match="has no free request for 3"):
            sync(request, dsn)
        assert server.seen == []
        # the same day by its schedule is no backfill: it has the right of way
        assert sync(replace(request, trigger="schedule"), dsn).status == "succeeded"
        assert len(server.seen) == 4
