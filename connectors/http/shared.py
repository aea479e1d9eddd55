"""A rate pool in PostgreSQL: one row of `ops.rate_pools`, one quota and one breaker for every process and host.

Every turn is a short transaction that locks the row, so grants are one after the other; the clock is the database's,
the arithmetic that of connectors.http.limits. A turn costs a durable commit, 2 ms on one machine with a disk.

A live sync books ahead and keeps the right of way for two seconds; a backfill takes only what is free at once, and
nothing while a live sync has the right of way.
"""

import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import psycopg
from psycopg.types.json import Jsonb

from connectors.errors import LoaderError
from connectors.http.limits import (
    NO_QUOTA,
    SLOT_POLL_SECONDS,
    Bucket,
    Grant,
    Quota,
    Rules,
    Slots,
    enter,
    hold,
    take,
)
from connectors.http.server_limits import ServerLimit

RIGHT_OF_WAY_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 1.0
"""How old what is known of a pool without quota, and of the breaker, may be."""

_INSERT = "insert into ops.rate_pools (pool, tokens) values (%s, %s) on conflict do nothing"
_SELECT = """
    select
        extract(epoch from clock_timestamp())::float8, tokens, extract(epoch from refilled_at)::float8,
        coalesce(extract(epoch from live_until)::float8, 0), requests, per_seconds, failures,
        extract(epoch from opened_at)::float8, is_fixed, concurrent, slots, failing,
        set_config('synchronous_commit', 'on', true)
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
        is_fixed = %(is_fixed)s,
        concurrent = %(concurrent)s,
        slots = %(slots)s,
        remaining = coalesce(%(remaining)s, remaining),
        resets_at = coalesce(clock_timestamp() + make_interval(secs => %(resets_in)s), resets_at),
        updated_at = clock_timestamp()
    where pool = %(pool)s
"""
_RELEASE = "update ops.rate_pools set slots = slots - %s::text where pool = %s"
_WAITING = """
    update ops.rate_pools
    set live_until = greatest(live_until, clock_timestamp() + make_interval(secs => %s))
    where pool = %s
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
        failing = case
            when %(who)s = any(failing) or cardinality(failing) > 1 then failing else failing || %(who)s::text
        end,
        opened_at = case when failures + 1 >= %(failures)s then clock_timestamp() else opened_at end,
        breaker = case when failures + 1 >= %(failures)s then 'open' else breaker end,
        breaker_pause_seconds = %(pause)s,
        updated_at = clock_timestamp()
    where pool = %(pool)s
"""
_CLOSED = """
    update ops.rate_pools
    set failures = 0, failing = '{}', opened_at = null, breaker = 'closed', updated_at = clock_timestamp()
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
    is_fixed: bool
    concurrent: int | None
    slots: Slots
    failing: list[str]

    @property
    def quota(self) -> Quota | None:
        if self.requests is None or self.per_seconds is None:
            return None
        return Quota(self.requests, self.per_seconds, self.is_fixed)

    def may_try(self, who: str, failures: int) -> bool:
        """The breaker is closed, or open for another stream alone."""
        if self.failures < failures or self.opened_at is None:
            return True
        return len(self.failing) == 1 and who not in self.failing


class PostgresPool:
    """One reader's view of the shared pool; used by one thread.

    Every turn is durable before it is granted: after a crash of the server no window is exceeded by what it forgot.

    Args:
        rules: a bound that is None is what another source has declared for the pool, if any has.
        connect: a new session, autocommit, of a role that may write `ops.rate_pools`.

    Raises (every method):
        LoaderError: the warehouse does not answer.
    """

    def __init__(
        self, name: str, rules: Rules, connect: Callable[[], "psycopg.Connection[Any]"], *, is_backfill: bool
    ) -> None:
        self.name = name
        self._rules = rules
        self._connect = connect
        self._is_backfill = is_backfill
        self._session: psycopg.Connection[Any] | None = None
        self._row: _Row | None = None
        self._read_at = 0.0
        self._said = ServerLimit()

    def take(self, longest_wait: float) -> Grant:
        if not self._rules.is_bounded and self._is_fresh and (known := self._row) is not None and _is_free(known):
            return self._granted(known.at - known.now - (time.monotonic() - self._read_at), longest_wait)
        with self._answering() as session:
            if not self._rules.is_bounded:
                row = self._read(session)
                if _is_free(row):
                    return self._granted(row.at - row.now, longest_wait)
            with session.transaction():
                return self._booked(session, self._read(session, " for update"), longest_wait)

    def _booked(self, session: "psycopg.Connection[Any]", row: _Row, longest_wait: float) -> Grant:
        """One turn; the row is locked."""
        quota = self._rules.quota or row.quota or NO_QUOTA
        booked, wait = take(Bucket(min(row.tokens, quota.burst), row.at), quota, row.now)
        live_until = row.live_until
        if self._is_backfill:
            wait = max(wait, row.live_until - row.now)
            if wait > 0:
                return Grant(wait, is_booked=False, is_deferred=wait <= longest_wait)
        elif wait > longest_wait:
            return Grant(wait, is_booked=False)
        else:
            live_until = max(row.live_until, row.now + wait + RIGHT_OF_WAY_SECONDS)
        slot, slots = None, row.slots
        if (most := self._rules.concurrent or row.concurrent) is not None:
            slot = uuid.uuid4().hex
            entered = enter(row.slots, most, row.now, slot, row.now + wait + self._rules.request_seconds)
            if entered is None:
                if not self._is_backfill:
                    session.execute(_WAITING, [RIGHT_OF_WAY_SECONDS, self.name])
                return Grant(SLOT_POLL_SECONDS, is_booked=False, is_deferred=longest_wait >= SLOT_POLL_SECONDS)
            slots = entered
        self._write(session, booked, live_until, slots)
        return Grant(wait, is_booked=True, slot=slot)

    def release(self, grant: Grant) -> None:
        if grant.slot is not None:
            with self._answering() as session:
                session.execute(_RELEASE, [grant.slot, self.name])

    def hold(self, seconds: float) -> None:
        with self._answering() as session, session.transaction():
            row = self._read(session, " for update")
            held = hold(Bucket(row.tokens, row.at), self._rules.quota or row.quota or NO_QUOTA, row.now, seconds)
            self._write(session, held, row.live_until, row.slots, blocked_until=held.at)
            self._row = None

    def open_seconds(self, who: str) -> float:
        with self._answering() as session:
            row = self._row if self._is_fresh and self._row is not None else self._read(session)
            if row.may_try(who, self._rules.failures):
                return 0.0
            row = self._read(session)
            if row.may_try(who, self._rules.failures):
                return 0.0
            left = (row.opened_at or row.now) + self._rules.pause_seconds - row.now
            if left > 0:
                return left
            # of all who ask now, one gets the row
            return 0.0 if session.execute(_PROBE, self._breaker(who)).fetchone() else self._rules.pause_seconds

    def record(self, who: str, *, succeeded: bool) -> None:
        if succeeded and self._row is not None and not self._row.failures:
            return
        with self._answering() as session:
            session.execute(_CLOSED if succeeded else _FAILED, self._breaker(who))
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

    def _breaker(self, who: str) -> dict[str, object]:
        rules = self._rules
        return {"pool": self.name, "who": who, "failures": rules.failures, "pause": rules.pause_seconds}

    def _granted(self, wait: float, longest_wait: float) -> Grant:
        return Grant(max(0.0, wait), is_booked=wait <= longest_wait)

    @contextmanager
    def _answering(self) -> Generator["psycopg.Connection[Any]"]:
        try:
            if self._session is None or self._session.closed:
                self._session = self._connect()
                # but for turns and pauses: those are durable, by set_config in the query that locks the row
                self._session.execute("set synchronous_commit = off")
                self._session.execute(_INSERT, [self.name, float((self._rules.quota or NO_QUOTA).burst)])
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
        self._row = _Row(*cast("tuple[Any, ...]", found)[:-1])
        self._read_at = time.monotonic()
        return self._row

    def _write(
        self,
        session: "psycopg.Connection[Any]",
        bucket: Bucket,
        live_until: float,
        slots: Slots,
        blocked_until: float | None = None,
    ) -> None:
        known = self._rules.quota or (self._row.quota if self._row is not None else None)
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
                "is_fixed": known.is_fixed if known else False,
                "concurrent": self._rules.concurrent or (self._row.concurrent if self._row is not None else None),
                "slots": Jsonb(slots),
                **self._notes(),
            },
        )
        self._said = ServerLimit()

    def _notes(self) -> dict[str, object]:
        return {"remaining": self._said.remaining, "resets_in": self._said.resets_in}


def _is_free(row: _Row) -> bool:
    """Nobody has declared a bound for the pool."""
    return row.requests is None and row.concurrent is None
