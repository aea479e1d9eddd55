"""Rate pools keep their quota for every window; what servers say about theirs is obeyed, counted and bounded."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import RateLimited
from connectors.http.limits import Bucket, LocalPool, Quota, ServerLimit, hold, server_limit, take
from tests.http.reading import context, ids, read, source
from tests.http.serving import Exchange, records, serving

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
TICK = 1e-6

quotas = st.builds(Quota, st.integers(1, 200), st.sampled_from([0.5, 1.0, 60.0, 3_600.0]))
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


def sent(quota: Quota, steps: list[tuple[float, float | None]]) -> list[float]:
    bucket, now = Bucket(float(quota.burst), 0.0), 0.0
    times: list[float] = []
    for passed, pause in steps:
        now += passed
        if pause is None:
            bucket, wait = take(bucket, quota, now)
            times.append(now + wait)
        else:
            bucket = hold(bucket, quota, now, pause)
    return times


@given(quotas, moves)
@settings(max_examples=300, deadline=None)
def test_no_window_is_ever_exceeded(quota: Quota, steps: list[tuple[float, float | None]]) -> None:
    assert most_in_any_window(sent(quota, steps), quota.seconds) <= quota.requests


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
    pool = LocalPool("p", Quota(1, 10.0), clock=lambda: clock[0])
    assert pool.take(0.0).is_booked
    refused = pool.take(5.0)
    assert (refused.is_booked, refused.wait_seconds) == (False, 10.0)
    clock[0] = 6.0
    assert pool.take(5.0).wait_seconds == 4.0


def test_the_breaker_opens_lets_one_through_and_closes() -> None:
    clock = [0.0]
    pool = LocalPool("p", None, failures=3, pause_seconds=30.0, clock=lambda: clock[0])
    pool.record(succeeded=False)
    pool.record(succeeded=False)
    pool.record(succeeded=True)
    for _ in range(3):
        assert pool.open_seconds() == 0.0
        pool.record(succeeded=False)
    assert (pool.breaker, pool.open_seconds()) == ("open", 30.0)
    clock[0] = 30.0
    assert pool.breaker == "half_open"
    assert [pool.open_seconds(), pool.open_seconds()] == [0.0, 30.0]
    pool.record(succeeded=False)
    assert pool.breaker == "open"
    clock[0] = 61.0
    assert pool.open_seconds() == 0.0
    pool.record(succeeded=True)
    assert (pool.breaker, pool.open_seconds()) == ("closed", 0.0)


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


def test_a_pool_without_a_free_request_says_so() -> None:
    limit = {"pool": f"full_{time.monotonic_ns()}", "requests": 1, "per": "PT1H", "max_wait": "PT1S"}
    with serving(lambda e: e.json([])) as server:
        read(source(server.url, rate_limit=limit))
        with pytest.raises(RateLimited, match=r"pool full_\d+ has no free request for 3\d\d\d s on page 1"):
            read(source(server.url, rate_limit=limit))
        assert len(server.seen) == 1


def test_server_limits_are_plain_values() -> None:
    assert ServerLimit() == server_limit({}, NOW)
