"""Whose turn it is on a partitioned stream, which has one writer.

Live syncs go before backfills, and two backfills of one stream take turns: both by advisory locks, so a process that
dies gives way at once.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_WRITER, _LIVE, _HISTORY = 7, 8, 9
"""Seeds of a stream's locks: its writer's (the engine's own), a live sync's that wants to write, a backfill's run's."""
_PATIENCE = "set lock_timeout = '120s'"
"""After so long a live sync tries anyway, and says who has the stream."""


@contextmanager
def live_turn(dsn: str, label: str) -> "Generator[psycopg.Connection[Any]]":
    """The block is a live sync: backfills stop before their next window, and the present one is waited for."""
    import psycopg

    with _session(dsn, label) as session:
        session.execute(_PATIENCE)
        try:
            session.execute("select pg_advisory_lock(hashtextextended(%s, %s))", [label, _LIVE])
            session.execute("select pg_advisory_lock(hashtextextended(%s, %s))", [label, _WRITER])
            session.execute("select pg_advisory_unlock(hashtextextended(%s, %s))", [label, _WRITER])
        except psycopg.errors.LockNotAvailable:
            pass  # the sync itself says so, in better words
        yield session


@contextmanager
def history_turn(dsn: str, label: str) -> "Generator[psycopg.Connection[Any]]":
    """The block reads windows of the past, one run of the stream at a time; waits as long as another one does."""
    with _session(dsn, label) as session:
        session.execute("select pg_advisory_lock(hashtextextended(%s, %s))", [label, _HISTORY])
        yield session


def give_way(session: "psycopg.Connection[Any]", label: str) -> None:
    """Between two windows: wait while a live sync wants the stream or has it."""
    session.execute("select pg_advisory_lock_shared(hashtextextended(%s, %s))", [label, _LIVE])
    session.execute("select pg_advisory_unlock_shared(hashtextextended(%s, %s))", [label, _LIVE])


@contextmanager
def _session(dsn: str, label: str) -> "Generator[psycopg.Connection[Any]]":
    from connectors.sync.lease import connect

    with connect(dsn, label, autocommit=True) as session:
        yield session
