"""Rate pools: everybody who names one keeps its quota together.

The bucket is a pure function over two numbers, so that a pool held in a database row and one in this process grant
the same: at most `requests` in any half-open stretch of `per` seconds, whatever the stretch's start.
"""

import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from connectors.http.server_limits import ServerLimit
from connectors.http.specs import BreakerSpec, RateLimitSpec

SLOT_POLL_SECONDS = 0.1
_INTO_WINDOW = 0.001
"""A request that waits for a window is sent a little after its beginning: clocks have their edges."""


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `requests` in any `seconds`; is_fixed: in each of the windows that begin at multiples of `seconds`.

    A bucket of b tokens refilled at r a second grants at most b + r t in t seconds. With b = 1 + n // 10 and
    r = (n - n // 10) / seconds that is below n + 1 for every t < seconds, so at most n: a tenth may come at once, the
    rest comes evenly. In a fixed window all may come at once.
    """

    requests: int
    seconds: float
    is_fixed: bool = False

    @property
    def burst(self) -> int:
        return self.requests if self.is_fixed else 1 + self.requests // 10

    @property
    def rate(self) -> float:
        return (self.requests - self.requests // 10) / self.seconds

    def window(self, at: float) -> int:
        return math.floor(at / self.seconds)


NO_QUOTA = Quota(1_000_000, 0.001)


@dataclass(frozen=True, slots=True)
class Bucket:
    """tokens at the moment `at` (seconds of the pool's clock); below zero, requests are booked into the future.

    `at` in the future means that the source asked for a pause until then; nothing refills meanwhile. Of a fixed window
    the tokens are those left in the window that `at` is in; below zero they are taken from those after it.
    """

    tokens: float
    at: float


def take(bucket: Bucket, quota: Quota, now: float) -> tuple[Bucket, float]:
    """The bucket with one request booked, and the seconds from `now` until that request may be sent."""
    refilled = _refill(bucket, quota, now)
    tokens = refilled.tokens - 1.0
    due = refilled.at
    if tokens < 0 and quota.is_fixed:
        due = (quota.window(refilled.at) + math.ceil(-tokens / quota.requests)) * quota.seconds + _INTO_WINDOW
    elif tokens < 0:
        due = refilled.at - tokens / quota.rate
    return Bucket(tokens, refilled.at), max(0.0, due - now)


def hold(bucket: Bucket, quota: Quota, now: float, seconds: float) -> Bucket:
    """The bucket paused until now + seconds; a shorter pause never ends a longer one."""
    refilled = _refill(bucket, quota, now)
    until = max(refilled.at, now + seconds)
    return _refill(refilled, quota, until) if quota.is_fixed else replace(refilled, at=until)


def _refill(bucket: Bucket, quota: Quota, now: float) -> Bucket:
    if now <= bucket.at:
        return bucket
    if quota.is_fixed:
        more = (quota.window(now) - quota.window(bucket.at)) * quota.requests
    else:
        more = (now - bucket.at) * quota.rate
    return Bucket(min(float(quota.burst), bucket.tokens + more), now)


def available(bucket: Bucket, quota: Quota, now: float) -> float:
    """Requests that may be sent at once; below zero, so many are booked ahead. None while the pool is held."""
    refilled = _refill(bucket, quota, now)
    return refilled.tokens if refilled.at <= now else min(0.0, refilled.tokens)


Slots = Mapping[str, float]
"""Requests under way: id to the moment when each is over for sure, be its process killed."""


def enter(slots: Slots, most: int, now: float, slot: str, until: float) -> Slots | None:
    """The slots with one more, those that are over left out; None when all are taken."""
    held = {name: end for name, end in slots.items() if end > now}
    return {**held, slot: until} if len(held) < most else None


@dataclass(frozen=True, slots=True)
class Grant:
    """wait_seconds until the request may be sent; is_booked is False when that is longer than the asker may wait.

    is_deferred: nothing is booked, others go first; ask again after wait_seconds.
    slot: of a request that `release` must end; None where nobody counts those under way.
    """

    wait_seconds: float
    is_booked: bool
    is_deferred: bool = False
    slot: str | None = None


Breaker = Literal["closed", "open", "half_open"]


class RatePool(Protocol):
    """A quota and a breaker shared by all that hold the pool's name. who: the stream that asks, `source.stream`."""

    name: str

    def take(self, longest_wait: float) -> Grant:
        """Book one request, unless its turn comes later than in longest_wait seconds."""
        ...

    def release(self, grant: Grant) -> None:
        """The request of this grant is over; nothing where it has no slot."""
        ...

    def hold(self, seconds: float) -> None:
        """The source asked everybody to pause."""
        ...

    def open_seconds(self, who: str) -> float:
        """0 when a request may be tried; else the seconds until the breaker lets one through.

        Failures in a row of one stream alone stop that stream; of two, everybody.
        A half-open breaker answers 0 to one asker and the whole pause to the others."""
        ...

    def record(self, who: str, *, succeeded: bool) -> None:
        """A request ended for good; enough failures in a row open the breaker, a success closes it."""
        ...

    def note(self, limit: ServerLimit) -> None:
        """What the source said of its own limits; it is shown, and a pause in it is held by `hold`."""
        ...

    def close(self) -> None:
        """The reader is done with it."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What a pool allows. quota, concurrent: None for no such bound.

    failures, pause_seconds: of the breaker. request_seconds: longest time that one request is under way.
    """

    quota: Quota | None = None
    concurrent: int | None = None
    failures: int = 5
    pause_seconds: float = 30.0
    request_seconds: float = 300.0

    @property
    def is_bounded(self) -> bool:
        return self.quota is not None or self.concurrent is not None


class LocalPool:
    """A pool of this process, safe for its threads."""

    def __init__(self, name: str, rules: Rules, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self.configure(rules)
        self._bucket = Bucket(float(self._quota.burst), clock())
        self._slots: Slots = {}
        self._failed = 0
        self._failing: set[str] = set()
        self._opened_at: float | None = None

    def configure(self, rules: Rules) -> None:
        """The file that was read last says what the pool allows."""
        self._rules = rules
        # without a quota the bucket still keeps the pauses that the source asks for
        self._quota = rules.quota or NO_QUOTA

    def take(self, longest_wait: float) -> Grant:
        with self._lock:
            now, slot = self._clock(), None
            booked, wait = take(self._bucket, self._quota, now)
            if wait > longest_wait:
                return Grant(wait, is_booked=False)
            if self._rules.concurrent is not None:
                slot = uuid.uuid4().hex
                entered = enter(
                    self._slots, self._rules.concurrent, now, slot, now + wait + self._rules.request_seconds
                )
                if entered is None:
                    return Grant(SLOT_POLL_SECONDS, is_booked=False, is_deferred=longest_wait >= SLOT_POLL_SECONDS)
                self._slots = entered
            self._bucket = booked
            return Grant(wait, is_booked=True, slot=slot)

    def release(self, grant: Grant) -> None:
        with self._lock:
            self._slots = {name: end for name, end in self._slots.items() if name != grant.slot}

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._bucket = hold(self._bucket, self._quota, self._clock(), seconds)

    @property
    def breaker(self) -> Breaker:
        if self._failed < self._rules.failures or self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._rules.pause_seconds else "open"

    def open_seconds(self, who: str) -> float:
        with self._lock:
            state = self.breaker
            if state == "closed" or (len(self._failing) == 1 and who not in self._failing):
                return 0.0
            now = self._clock()
            if state == "half_open":
                self._opened_at = now
                return 0.0
            return self._rules.pause_seconds - (now - (self._opened_at or now))

    def record(self, who: str, *, succeeded: bool) -> None:
        with self._lock:
            if succeeded:
                self._failed, self._opened_at = 0, None
                self._failing.clear()
                return
            self._failed += 1
            self._failing.add(who)
            if self._failed >= self._rules.failures:
                self._opened_at = self._clock()

    def note(self, limit: ServerLimit) -> None:
        """Shown by nobody: this pool ends with its process."""

    def close(self) -> None:
        """Others in this process go on with it."""


_pools: dict[str, LocalPool] = {}
_pools_lock = threading.Lock()


def rules_of(limit: RateLimitSpec, breaker: BreakerSpec, request_seconds: float) -> Rules:
    quota = None
    if limit.requests is not None:
        quota = Quota(limit.requests, limit.per.total_seconds(), limit.window == "fixed")
    return Rules(quota, limit.concurrent, breaker.failures, breaker.pause.total_seconds(), request_seconds)


def local_pool(name: str, rules: Rules) -> RatePool:
    """The process's pool of that name."""
    with _pools_lock:
        pool = _pools.get(name)
        if pool is None:
            pool = _pools[name] = LocalPool(name, rules)
        elif rules.is_bounded:
            pool.configure(rules)
        return pool
