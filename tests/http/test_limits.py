"""Rate pools keep their quota for every window; what servers say about theirs is obeyed, counted and bounded."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import RateLimited
from connectors.http.limits import Bucket, LocalPool, Quota, Rules, Slots, enter, hold, take
from connectors.http.server_limits import ServerLimit, server_limit
from tests.http.reading import context, ids, read, source
from tests.http.serving import Exchange, records, serving

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
TICK = 1e-6

periods = st.sampled_from([0.5, 1.0, 60.0, 3_600.0])
quotas = st.builds(Quota, st.integers(1, 200), periods)
fixed_quotas = st.builds(Quota, st.integers(1, 50), periods, st.just(True))
# (seconds that pass, pause that the source asks for then, or None for a request)
moves = st.lists(
    st.tuples(st.floats(0, 30), st.one_of(st.none(), st.none(), st.none(), st.floats(0, 60))), max_size=120
)


def most_in_any_window(times: list[float], seconds: float) -> int:
    """The greatest number of times in a half-open window; every maximum starts at one of the times."""
    times = sorted(times)
    most, end = 0, 0
    for start, at in enumerate(times):
        while end < len(times) and times[end] < at + seconds - TICK:
            end += 1
        most = max(most, end - start)
    return most


def sent(quota: Quota, steps: list[tuple[float, float | None]], turned_back: list[float] | None = None) -> list[float]:
    """The true times of the requests. turned_back: seconds that the pool's clock loses before each step."""
    bucket, now, behind = Bucket(float(quota.burst), 0.0), 0.0, 0.0
    times: list[float] = []
    for (passed, pause), lost in itertools.zip_longest(steps, (turned_back or [])[: len(steps)], fillvalue=0.0):
        now, behind = now + passed, behind + lost
        if pause is None:
            bucket, wait = take(bucket, quota, now - behind)
            times.append(now + wait)
        else:
            bucket = hold(bucket, quota, now - behind, pause)
    return times


@given(quotas, moves)
@settings(max_examples=300, deadline=None)
def test_no_window_is_ever_exceeded(quota: Quota, steps: list[tuple[float, float | None]]) -> None:
    assert most_in_any_window(sent(quota, steps), quota.seconds) <= quota.requests


@given(quotas, moves, st.lists(st.sampled_from([0.0, 0.0, 0.1, 45.0, 7_200.0]), max_size=120))
@settings(max_examples=50, deadline=None)
def test_no_window_is_exceeded_when_the_pools_clock_is_turned_back(
    quota: Quota, steps: list[tuple[float, float | None]], turned_back: list[float]
) -> None:
    assert most_in_any_window(sent(quota, steps, turned_back), quota.seconds) <= quota.requests


@given(fixed_quotas, moves)
@settings(max_examples=80, deadline=None)
def test_no_fixed_window_is_ever_exceeded(quota: Quota, steps: list[tuple[float, float | None]]) -> None:
    counted = Counter(quota.window(at) for at in sent(quota, steps))
    assert max(counted.values(), default=0) <= quota.requests


@given(fixed_quotas)
@settings(max_examples=30, deadline=None)
def test_all_of_a_fixed_window_may_be_used_at_once(quota: Quota) -> None:
    times = sent(quota, [(0.0, None)] * (quota.requests * 3))
    assert times[: quota.requests] == [0.0] * quota.requests
    assert max(times) <= 2 * quota.seconds + 0.01


# (process, what it does, seconds that pass before, seconds that the pool's clock loses)
deeds = st.lists(
    st.tuples(st.integers(0, 7), st.sampled_from(["ask", "ask", "end", "die"]), st.floats(0, 8), st.floats(0, 3)),
    max_size=80,
)


@given(st.integers(1, 4), deeds)
@settings(max_examples=80, deadline=None)
def test_no_more_requests_are_under_way_than_allowed_though_processes_are_killed(
    most: int, steps: list[tuple[int, str, float, float]]
) -> None:
    longest = 10.0
    slots: Slots = {}
    alive: dict[int, tuple[str, float]] = {}
    now = behind = 0.0
    for number, (who, deed, passed, lost) in enumerate(steps):
        now, behind = now + passed, behind + lost
        # a request that is not killed ends by itself at its limit, on a clock of its own process
        alive = {one: (slot, until) for one, (slot, until) in alive.items() if until > now}
        if deed == "ask" and who not in alive:
            entered = enter(slots, most, now - behind, str(number), now - behind + longest)
            if entered is not None:
                slots, alive[who] = entered, (str(number), now + longest)
        elif deed == "end" and who in alive:
            slots = {name: end for name, end in slots.items() if name != alive[who][0]}
            del alive[who]
        elif deed == "die":
            alive.pop(who, None)
        assert len(alive) <= most
    # what the dead held is free again once it is over for sure
    assert enter(slots, most, now + longest, "last", 0.0) is not None


@given(quotas)
@settings(max_examples=60, deadline=None)
def test_a_storm_uses_nine_tenths_of_the_quota_and_more(quota: Quota) -> None:
    times = sent(quota, [(0.0, None)] * (quota.requests * 4))
    assert most_in_any_window(times, quota.seconds) <= quota.requests
    # 4 n requests take at most 4.5 periods
    assert max(times) <= Fraction(9, 2) * Fraction(quota.seconds)


@given(quotas, moves, st.floats(0, 100))
@settings(max_examples=100, deadline=None)
def test_nobody_is_sent_while_the_source_asked_for_a_pause(
    quota: Quota, steps: list[tuple[float, float | None]], pause: float
) -> None:
    bucket = Bucket(float(quota.burst), 0.0)
    now = 0.0
    for passed, _ in steps:
        now += passed
        bucket, _wait = take(bucket, quota, now)
    _, wait = take(hold(bucket, quota, now, pause), quota, now)
    assert wait >= pause - TICK


def test_a_turn_that_comes_too_late_is_not_booked() -> None:
    clock = [0.0]
    pool = LocalPool("p", Rules(Quota(1, 10.0)), clock=lambda: clock[0])
    assert pool.take(0.0).is_booked
    refused = pool.take(5.0)
    assert (refused.is_booked, refused.wait_seconds) == (False, 10.0)
    clock[0] = 6.0
    assert pool.take(5.0).wait_seconds == 4.0


def test_the_breaker_opens_lets_one_through_and_closes() -> None:
    clock = [0.0]
    pool = LocalPool("p", Rules(failures=3, pause_seconds=30.0), clock=lambda: clock[0])
    pool.record("a", succeeded=False)
    pool.record("a", succeeded=False)
    pool.record("a", succeeded=True)
    for _ in range(3):
        assert pool.open_seconds("a") == 0.0
        pool.record("a", succeeded=False)
    assert (pool.breaker, pool.open_seconds("a")) == ("open", 30.0)
    clock[0] = 30.0
    assert pool.breaker == "half_open"
    assert [pool.open_seconds("a"), pool.open_seconds("a")] == [0.0, 30.0]
    pool.record("a", succeeded=False)
    assert pool.breaker == "open"
    clock[0] = 61.0
    assert pool.open_seconds("a") == 0.0
    pool.record("a", succeeded=True)
    assert (pool.breaker, pool.open_seconds("a")) == ("closed", 0.0)


def test_one_streams_failures_stop_that_stream_and_two_stop_everybody() -> None:
    clock = [0.0]
    pool = LocalPool("p", Rules(failures=3), clock=lambda: clock[0])
    for _ in range(5):
        pool.record("shop.orders", succeeded=False)
    assert (pool.open_seconds("shop.orders"), pool.open_seconds("shop.items")) == (30.0, 0.0)
    pool.record("shop.items", succeeded=False)
    assert [pool.open_seconds(who) for who in ("shop.orders", "shop.items", "shop.users")] == [30.0] * 3
    clock[0] = 31.0
    assert pool.open_seconds("shop.users") == 0.0
    pool.record("shop.users", succeeded=True)
    assert pool.open_seconds("shop.orders") == 0.0


def test_slots_of_this_process_are_given_back() -> None:
    pool = LocalPool("p", Rules(concurrent=2))
    one, two = pool.take(1.0), pool.take(1.0)
    third = pool.take(1.0)
    assert (one.is_booked, two.is_booked, third.is_booked, third.is_deferred) == (True, True, False, True)
    pool.release(one)
    assert pool.take(1.0).is_booked


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after": "30"}, 30.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, 90.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW.timestamp()) + 60)}, 60.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": str((int(NOW.timestamp()) + 60) * 1000)}, 60.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "7"}, 7.0),
        ({"x-rate-limit-remaining": "4", "x-rate-limit-reset": "12"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "99999999"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset-after": "0.5"}, 0.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": (NOW + timedelta(seconds=20)).isoformat()}, 20.0),
        ({"ratelimit": "limit=100, remaining=0, reset=30"}, 30.0),
        ({"ratelimit": "limit=100, remaining=1, reset=30"}, None),
        ({"ratelimit": '"burst";r=40;t=1, "daily";r=0;t=600'}, 600.0),
        ({"ratelimit": "nonsense, r=x"}, None),
        ({"x-ratelimit-remaining": "none", "x-ratelimit-reset": "x"}, None),
        ({}, None),
    ],
)
def test_what_a_server_says_about_its_limits_is_understood(headers: dict[str, str], pause: float | None) -> None:
    assert server_limit(headers, NOW).pause == pause


def test_an_hour_asked_for_is_not_waited_for() -> None:
    with (
        serving(lambda e: e.json({}, 429, retry_after="3600")) as server,
        pytest.raises(RateLimited, match=r"HTTP 429 on page 1; the server asked for 3600 s\nLower") as caught,
    ):
        read(source(server.url, rate_limit={"max_wait": "PT5S"}))
    assert caught.value.retry_after == 3600
    assert len(server.seen) == 1


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "HTTP date"])
def test_a_pause_that_the_source_asks_for_is_kept_and_counted(as_date: bool) -> None:
    times: list[float] = []

    def answer(exchange: Exchange) -> None:
        times.append(time.monotonic())
        if exchange.number == 1:
            at = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
            exchange.json({}, 429, retry_after=at if as_date else "1")
        else:
            exchange.json(records(0, 3))

    within = context()
    with serving(answer) as server:
        assert ids(read(source(server.url), within=within)) == [0, 1, 2]
    assert times[1] - times[0] >= 0.95
    assert within.usage.wait_seconds > 0


def test_no_requests_left_makes_the_next_one_wait() -> None:
    times: list[float] = []

    def answer(exchange: Exchange) -> None:
        times.append(time.monotonic())
        left = "0" if exchange.number == 1 else "9"
        body = {"data": records(0, 3) if exchange.number == 1 else []}
        exchange.json(body, x_ratelimit_remaining=left, x_ratelimit_reset="1")

    with serving(answer) as server:
        read(source(server.url, {"records": "data", "pagination": {"type": "page_number"}}))
    assert times[1] - times[0] >= 0.95


def test_a_declared_rate_is_kept_on_the_wire_and_shared_by_name() -> None:
    def answer(exchange: Exchange) -> None:
        number = int(exchange.query["page"])
        exchange.json({"data": records(number * 10, 3) if number <= 5 else []})

    stream: dict[str, Any] = {"records": "data", "pagination": {"type": "page_number"}}
    limit = {"pool": f"shared_{time.monotonic_ns()}", "requests": 8, "per": "PT0.8S"}
    with serving(answer) as server:
        started = time.monotonic()
        for _ in range(2):
            read(source(server.url, stream, rate_limit=limit))
        assert len(server.seen) == 12
    # one at a time, a tenth of a second apart: the quota's burst is one request
    assert time.monotonic() - started >= 1.1


def test_requests_under_way_are_bounded_on_the_wire_and_a_renewed_token_needs_no_second_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIENT_SECRET", "s3cret-value")
    lock, inside, most = threading.Lock(), [0], [0]

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/token":
            exchange.json({"access_token": f"t{exchange.number}"})
            return
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        exchange.gone.wait(0.02)
        with lock:
            inside[0] -= 1
        is_refused = exchange.headers["authorization"] == "Bearer t1"
        exchange.json({}, 401) if is_refused else exchange.json(records(0, 1))

    with serving(answer) as server:
        auth = {
            "type": "oauth2_client_credentials", "token_url": f"{server.url}/token",
            "client_id": "me", "client_secret": "env:CLIENT_SECRET",
        }  # fmt: skip
        limit = {"pool": f"slots_{time.monotonic_ns()}", "concurrent": 1}
        with ThreadPoolExecutor(4) as workers:
            list(workers.map(lambda _: read(source(server.url, auth=auth, rate_limit=limit)), range(4)))
    assert most[0] == 1


def test_a_pool_without_a_free_request_says_so() -> None:
    limit = {"pool": f"full_{time.monotonic_ns()}", "requests": 1, "per": "PT1H", "max_wait": "PT1S"}
    with serving(lambda e: e.json([])) as server:
        read(source(server.url, rate_limit=limit))
        with pytest.raises(RateLimited, match=r"pool full_\d+ has no free request for 3\d\d\d s on page 1"):
            read(source(server.url, rate_limit=limit))
        assert len(server.seen) == 1


def test_server_limits_are_plain_values() -> None:
    assert ServerLimit() == server_limit({}, NOW)
