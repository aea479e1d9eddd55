"""Rate pools: everybody who names one keeps its quota together; and what a server says about its own limits.

The bucket is a pure function over two numbers, so that a pool held in a database row and one in this process grant
the same: at most `requests` in any half-open stretch of `per` seconds, whatever the stretch's start.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol

from connectors.http.specs import RateLimitSpec

_EPOCH = 1_000_000_000
_LONGEST_PAUSE = 31 * 86_400.0


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `requests` in any `seconds`.

    A bucket of b tokens refilled at r a second grants at most b + r t in t seconds. With b = 1 + n // 10 and
    r = (n - n // 10) / seconds that is below n + 1 for every t < seconds, so at most n: a tenth may come at once, the
    rest comes evenly.
    """

    requests: int
    seconds: float

    @property
    def burst(self) -> int:
        return 1 + self.requests // 10

    @property
    def rate(self) -> float:
        return (self.requests - self.requests // 10) / self.seconds


@dataclass(frozen=True, slots=True)
class Bucket:
    """tokens at the moment `at` (seconds of the pool's clock); below zero, requests are booked into the future.

    `at` in the future means that the source asked for a pause until then; nothing refills meanwhile.
    """

    tokens: float
    at: float


def take(bucket: Bucket, quota: Quota, now: float) -> tuple[Bucket, float]:
    """The bucket with one request booked, and the seconds from `now` until that request may be sent."""
    refilled = _refill(bucket, quota, now)
    tokens = refilled.tokens - 1.0
    due = refilled.at if tokens >= 0 else refilled.at - tokens / quota.rate
    return Bucket(tokens, refilled.at), max(0.0, due - now)


def hold(bucket: Bucket, quota: Quota, now: float, seconds: float) -> Bucket:
    """The bucket paused until now + seconds; a shorter pause never ends a longer one."""
    refilled = _refill(bucket, quota, now)
    return replace(refilled, at=max(refilled.at, now + seconds))


def _refill(bucket: Bucket, quota: Quota, now: float) -> Bucket:
    if now <= bucket.at:
        return bucket
    return Bucket(min(float(quota.burst), bucket.tokens + (now - bucket.at) * quota.rate), now)


def available(bucket: Bucket, quota: Quota, now: float) -> float:
    """Requests that may be sent at once; below zero, so many are booked ahead. None while the pool is held."""
    refilled = _refill(bucket, quota, now)
    return refilled.tokens if refilled.at <= now else min(0.0, refilled.tokens)


@dataclass(frozen=True, slots=True)
class Grant:
    """wait_seconds until the request may be sent; is_booked is False when that is longer than the asker may wait.

    is_deferred: nothing is booked, others go first; ask again after wait_seconds.
    """

    wait_seconds: float
    is_booked: bool
    is_deferred: bool = False


Breaker = Literal["closed", "open", "half_open"]


class RatePool(Protocol):
    """A quota and a breaker shared by all that hold the pool's name."""

    name: str

    def take(self, longest_wait: float) -> Grant:
        """Book one request, unless its turn comes later than in longest_wait seconds."""
        ...

    def hold(self, seconds: float) -> None:
        """The source asked everybody to pause."""
        ...

    def open_seconds(self) -> float:
        """0 when a request may be tried; else the seconds until the breaker lets one through.

        A half-open breaker answers 0 to one asker and the whole pause to the others."""
        ...

    def record(self, *, succeeded: bool) -> None:
        """A request ended for good; enough failures in a row open the breaker, a success closes it."""
        ...

    def note(self, limit: "ServerLimit") -> None:
        """What the source said of its own limits; it is shown, and a pause in it is held by `hold`."""
        ...

    def close(self) -> None:
        """The reader is done with it."""
        ...


class LocalPool:
    """A pool of this process, safe for its threads."""

    def __init__(
        self,
        name: str,
        quota: Quota | None,
        *,
        failures: int = 5,
        pause_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._clock = clock
        self._lock = threading.Lock()
        self.configure(quota, failures, pause_seconds)
        self._bucket = Bucket(float(self._quota.burst), clock())
        self._failed = 0
        self._opened_at: float | None = None

    def configure(self, quota: Quota | None, failures: int, pause_seconds: float) -> None:
        """The file that was read last says what the pool allows."""
        # without a quota the bucket still keeps the pauses that the source asks for
        self._quota = quota or Quota(1_000_000, 0.001)
        self._failures, self._pause_seconds = failures, pause_seconds

    def take(self, longest_wait: float) -> Grant:
        with self._lock:
            booked, wait = take(self._bucket, self._quota, self._clock())
            if wait > longest_wait:
                return Grant(wait, is_booked=False)
            self._bucket = booked
            return Grant(wait, is_booked=True)

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._bucket = hold(self._bucket, self._quota, self._clock(), seconds)

    @property
    def breaker(self) -> Breaker:
        if self._failed < self._failures or self._opened_at is None:
            return "closed"
        return "half_open" if self._clock() - self._opened_at >= self._pause_seconds else "open"

    def open_seconds(self) -> float:
        with self._lock:
            state = self.breaker
            if state == "closed":
                return 0.0
            now = self._clock()
            if state == "half_open":
                self._opened_at = now
                return 0.0
            return self._pause_seconds - (now - (self._opened_at or now))

    def record(self, *, succeeded: bool) -> None:
        with self._lock:
            if succeeded:
                self._failed, self._opened_at = 0, None
                return
            self._failed += 1
            if self._failed >= self._failures:
                self._opened_at = self._clock()

    def note(self, limit: "ServerLimit") -> None:
        """Shown by nobody: this pool ends with its process."""

    def close(self) -> None:
        """Others in this process go on with it."""


_pools: dict[str, LocalPool] = {}
_pools_lock = threading.Lock()


def quota_of(limit: RateLimitSpec) -> Quota | None:
    return Quota(limit.requests, limit.per.total_seconds()) if limit.requests is not None else None


def local_pool(name: str, limit: RateLimitSpec, *, failures: int, pause_seconds: float) -> RatePool:
    """The process's pool of that name."""
    quota = quota_of(limit)
    with _pools_lock:
        pool = _pools.get(name)
        if pool is None:
            pool = _pools[name] = LocalPool(name, quota, failures=failures, pause_seconds=pause_seconds)
        elif quota is not None:
            pool.configure(quota, failures, pause_seconds)
        return pool


@dataclass(frozen=True, slots=True)
class ServerLimit:
    """What an answer's headers say: a pause asked for, requests left, seconds until they are full again."""

    retry_after: float | None = None
    remaining: int | None = None
    resets_in: float | None = None

    @property
    def pause(self) -> float | None:
        """Seconds to wait before the next request; None when nothing was said."""
        if self.retry_after is not None:
            return self.retry_after
        return self.resets_in if self.remaining == 0 else None


def server_limit(headers: Mapping[str, str], now: datetime) -> ServerLimit:
    """Retry-After in seconds or as an HTTP date; X-RateLimit-*, X-Rate-Limit-* and RateLimit-*.

    A reset is seconds from now, or a Unix time in seconds or milliseconds; what is in the past or further away than a
    month is ignored. Header names are lower case.
    """
    remaining = resets = None
    for prefix in ("x-ratelimit-", "x-rate-limit-", "ratelimit-"):
        remaining = remaining if remaining is not None else _number(headers.get(f"{prefix}remaining"))
        resets = resets if resets is not None else _number(headers.get(f"{prefix}reset"))
    if resets is not None and resets >= _EPOCH * 1_000:
        resets /= 1_000
    if resets is not None and resets >= _EPOCH:
        resets -= now.timestamp()
    if resets is not None and not 0 <= resets <= _LONGEST_PAUSE:
        resets = None
    return ServerLimit(
        retry_after=_retry_after(headers.get("retry-after"), now),
        remaining=int(remaining) if remaining is not None else None,
        resets_in=resets,
    )


def _retry_after(text: str | None, now: datetime) -> float | None:
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None:
        try:
            at = parsedate_to_datetime(text)
        except ValueError:
            return None
        # "-0000" gives a naive time, which HTTP means as UTC
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return max(0.0, seconds)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and math.isfinite(value) else None
