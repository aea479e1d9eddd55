"""A rate pool in PostgreSQL: one row of `ops.rate_pools`, one quota and one breaker for every process and host.

Every turn is a short transaction that locks the row, so grants are one after the other; the clock is the database's,
the arithmetic that of connectors.http.limits. About 0.5 ms a request on one machine.

A live sync books ahead and keeps the right of way for two seconds; a backfill takes only what is free at once, and
nothing while a live sync has the right of way.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg

from connectors.errors import LoaderError
from connectors.http.limits import Bucket, Grant, Quota, ServerLimit, hold, take

_RIGHT_OF_WAY_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 1.0
"""How old what is known of a pool without quota, and of the breaker, may be."""
_NO_QUOTA: Final = Quota(1_000_000, 0.001)

_INSERT = "insert into ops.rate_pools (pool, tokens) values (%s, %s) on conflict do nothing"
_SELECT = """
    select
        extract(epoch from clock_timestamp())::float8, tokens, extract(epoch from refilled_at)::float8,
        coalesce(extract(epoch from live_until)::float8, 0), requests, per_seconds, failures,
        extract(epoch from opened_at)::float8
    from ops.rate_pools
    where pool = %s
"""
_UPDATE = """
    update ops.rate_pools
    set
        tokens = %(tokens)s,
        refilled_at = to_timestamp(%(at)s),
        live_until = to_timestamp(%(live_until)s),
        blocked_until = coalesce(to_timestamp(%(blocked_until)s), blocked_until),
        requests = %(requests)s,
        per_seconds = %(per_seconds)s,
        remaining = coalesce(%(remaining)s, remaining),
        resets_at = coalesce(clock_timestamp() + make_interval(secs => %(resets_in)s), resets_at),
        updated_at = clock_timestamp()
    where pool = %(pool)s
"""
_NOTE = """
    update ops.rate_pools
    set
        remaining = coalesce(%(remaining)s, remaining),
        resets_at = coalesce(clock_timestamp() + make_interval(secs => %(resets_in)s), resets_at)
    where pool = %(pool)s
"""
_PROBE = """
    update ops.rate_pools
    set opened_at = clock_timestamp(), breaker = 'half_open', updated_at = clock_timestamp()
    where pool = %(pool)s and failures >= %(failures)s
        and opened_at + make_interval(secs => %(pause)s) <= clock_timestamp()
    returning pool
"""
_FAILED = """
    update ops.rate_pools
    set
        failures = failures + 1,
        opened_at = case when failures + 1 >= %(failures)s then clock_timestamp() else opened_at end,
        breaker = case when failures + 1 >= %(failures)s then 'open' else breaker end,
        breaker_pause_seconds = %(pause)s,
        updated_at = clock_timestamp()
    where pool = %(pool)s
"""
_CLOSED = """
    update ops.rate_pools
    set failures = 0, opened_at = null, breaker = 'closed', updated_at = clock_timestamp()
    where pool = %(pool)s
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """now, at, live_until, opened_at: seconds of the database's clock since 1970."""

    now: float
    tokens: float
    at: float
    live_until: float
    requests: int | None
    per_seconds: float | None
    failures: int
    opened_at: float | None

    @property
    def quota(self) -> Quota | None:
        if self.requests is None or self.per_seconds is None:
            return None
        return Quota(self.requests, self.per_seconds)


class PostgresPool:
    """One reader's view of the shared pool; used by one thread.

    Args:
        quota: None takes what another source has declared for the pool, if any has.
        connect: a new session, autocommit, of a role that may write `ops.rate_pools`.

    Raises (every method):
        LoaderError: the warehouse does not answer.
    """

    def __init__(
        self,
        name: str,
        quota: Quota | None,
        connect: Callable[[], "psycopg.Connection[Any]"],
        *,
        failures: int,
        pause_seconds: float,
        is_backfill: bool,
    ) -> None:
        self.name = name
        self._quota = quota
        self._connect = connect
        self._failures, self._pause_seconds = failures, pause_seconds
        self._is_backfill = is_backfill
        self._session: psycopg.Connection[Any] | None = None
        self._row: _Row | None = None
        self._read_at = 0.0
        self._said = ServerLimit()

    def take(self, longest_wait: float) -> Grant:
        if self._quota is None and self._is_fresh and (known := self._row) is not None and known.requests is None:
            return self._granted(known.at - known.now - (time.monotonic() - self._read_at), longest_wait)
        with self._answering() as session:
            if self._quota is None:
                row = self._read(session)
                if row.quota is None:
                    return self._granted(row.at - row.now, longest_wait)
            with session.transaction():
                row = self._read(session, " for update")
                quota = self._quota or row.quota or _NO_QUOTA
                booked, wait = take(Bucket(min(row.tokens, quota.burst), row.at), quota, row.now)
                if self._is_backfill:
                    wait = max(wait, row.live_until - row.now)
                    if wait > 0:
                        return Grant(wait, is_booked=False, is_deferred=wait <= longest_wait)
                    self._write(session, booked, row.live_until)
                    return Grant(0.0, is_booked=True)
                if wait > longest_wait:
                    return Grant(wait, is_booked=False)
                self._write(session, booked, max(row.live_until, row.now + wait + _RIGHT_OF_WAY_SECONDS))
                return Grant(wait, is_booked=True)

    def hold(self, seconds: float) -> None:
        with self._answering() as session, session.transaction():
            row = self._read(session, " for update")
            held = hold(Bucket(row.tokens, row.at), self._quota or row.quota or _NO_QUOTA, row.now, seconds)
            self._write(session, held, row.live_until, blocked_until=held.at)
            self._row = None

    def open_seconds(self) -> float:
        with self._answering() as session:
            row = self._row if self._is_fresh and self._row is not None else self._read(session)
            if row.failures < self._failures or row.opened_at is None:
                return 0.0
            row = self._read(session)
            if row.failures < self._failures or row.opened_at is None:
                return 0.0
            left = row.opened_at + self._pause_seconds - row.now
            if left > 0:
                return left
            # of all who ask now, one gets the row
            return 0.0 if session.execute(_PROBE, self._breaker).fetchone() else self._pause_seconds

    def record(self, *, succeeded: bool) -> None:
        if succeeded and self._row is not None and not self._row.failures:
            return
        with self._answering() as session:
            session.execute(_CLOSED if succeeded else _FAILED, self._breaker)
            self._row = None

    def note(self, limit: ServerLimit) -> None:
        """Kept until the pool is written next, or closed."""
        if limit.remaining is not None or limit.resets_in is not None:
            self._said = limit

    def close(self) -> None:
        if self._session is None:
            return
        with suppress(psycopg.Error):
            if self._said != ServerLimit():
                self._session.execute(_NOTE, {"pool": self.name, **self._notes()})
        self._session.close()
        self._session = None

    @property
    def _is_fresh(self) -> bool:
        return time.monotonic() - self._read_at < _FRESH_SECONDS

    @property
    def _breaker(self) -> dict[str, object]:
        return {"pool": self.name, "failures": self._failures, "pause": self._pause_seconds}

    def _granted(self, wait: float, longest_wait: float) -> Grant:
        return Grant(max(0.0, wait), is_booked=wait <= longest_wait)

    @contextmanager
    def _answering(self) -> Generator["psycopg.Connection[Any]"]:
        try:
            if self._session is None or self._session.closed:
                self._session = self._connect()
                # a crash of the server may forget the grants of its last moments; a sync on every request costs more
                self._session.execute("set synchronous_commit = off")
                self._session.execute(_INSERT, [self.name, float((self._quota or _NO_QUOTA).burst)])
            yield self._session
        except psycopg.Error as error:
            what = f"the warehouse does not answer: {str(error).strip().splitlines()[0]}"
            raise LoaderError(f"rate pool {self.name}", what, "Run `headwater doctor`.") from error

    def _read(self, session: "psycopg.Connection[Any]", suffix: str = "") -> _Row:
        query = _SELECT + suffix
        found = session.execute(query.encode(), [self.name]).fetchone()
        if found is None:
            session.execute(_INSERT, [self.name, 0.0])
            found = session.execute(query.encode(), [self.name]).fetchone()
        self._row = _Row(*cast("tuple[Any, ...]", found))
        self._read_at = time.monotonic()
        return self._row

    def _write(
        self, session: "psycopg.Connection[Any]", bucket: Bucket, live_until: float, blocked_until: float | None = None
    ) -> None:
        known = self._quota or (self._row.quota if self._row is not None else None)
        session.execute(
            _UPDATE,
            {
                "pool": self.name,
                "tokens": bucket.tokens,
                "at": bucket.at,
                "live_until": live_until,
                "blocked_until": blocked_until,
                "requests": known.requests if known else None,
                "per_seconds": known.seconds if known else None,
                **self._notes(),
            },
        )
        self._said = ServerLimit()

    def _notes(self) -> dict[str, object]:
        return {"remaining": self._said.remaining, "resets_in": self._said.resets_in}
