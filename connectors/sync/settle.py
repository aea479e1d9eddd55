"""Give every sync whose process is gone its true final status."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg

from connectors.errors import HeadwaterError
from connectors.sync import ledger
from connectors.sync.result import Status

_SETTLE = """
update ops.syncs set
    status = case
        when step = 'done' and (rows_quarantined > 0 or verdicts @? '$[*] ? (@.passed == false)')
            then 'succeeded_with_warnings'
        when step = 'done' and rows_extracted = 0 then 'succeeded_empty'
        when step = 'done' then 'succeeded'
        when %(failure_class)s = 'cancelled' then 'cancelled'
        else 'failed'
    end,
    failure_class = case when step = 'done' then null else coalesce(%(failure_class)s, 'transient') end,
    message = case
        when step = 'done' then concat_ws(
            ' ', 'The process ended after the last publication; settled afterwards.',
            case when rows_quarantined > 0 then format('%%s records in quarantine.', rows_quarantined) end,
            (
                select string_agg(verdict ->> 'explanation', '; ')
                from jsonb_array_elements(verdicts) as verdict where not (verdict ->> 'passed')::boolean
            )
        )
        else coalesce(%(message)s, format('The process ended in step %%s; %%s sealed windows are published, '
                                          'the next sync resumes there.', step, windows))
    end,
    -- it lived until about then; how long nobody looked is no part of its duration
    finished_at = greatest(started_at, heartbeat_at)
where status = 'running' and source = %(source)s and stream = %(stream)s
returning sync_id::text, status, failure_class
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """A sync that got its final status afterwards. label: `source.stream`."""

    sync_id: str
    label: str
    status: Status
    failure_class: str | None

    def __str__(self) -> str:
        ending = f"{self.status} ({self.failure_class})" if self.failure_class else self.status
        return f"{self.label}: {ending}, sync {self.sync_id}"


def settle_stream(
    connection: psycopg.Connection[Any], source: str, stream: str, reason: HeadwaterError | None = None
) -> list[Settled]:
    """Settle the stream's unfinished syncs; the caller holds the stream's lock, so no process of theirs lives.

    A publication that completes the sync sets step `done`, with its verdicts, in its own transaction, so a sync killed
    after it has succeeded, with the warnings that it would have ended with.

    reason: why the process ended, where the caller knows.
    """
    with connection.transaction():
        rows = connection.execute(
            _SETTLE,
            {
                "source": source,
                "stream": stream,
                "failure_class": reason and reason.failure_class,
                "message": str(reason) if reason else None,
            },
        ).fetchall()
        for sync_id, *_ in rows:
            ledger.add_usage(connection, sync_id)
    return [Settled(sync_id, f"{source}.{stream}", status, kind) for sync_id, status, kind in rows]


def settle_lost(dsn: str, *, silent_for: timedelta = timedelta(seconds=10)) -> list[Settled]:
    """Settle every unfinished sync whose heartbeat (every 2 s) stopped and whose lock is free."""
    settled: list[Settled] = []
    with psycopg.connect(dsn, autocommit=True, application_name="headwater settle") as connection:
        lost = connection.execute(
            "select distinct source, stream from ops.syncs where status = 'running' and heartbeat_at < now() - %s",
            [silent_for],
        ).fetchall()
        for source, stream in lost:
            settled += settle_if_free(connection, source, stream)
    return settled


def settle_if_free(
    connection: psycopg.Connection[Any], source: str, stream: str, reason: HeadwaterError | None = None
) -> list[Settled]:
    """Like `settle_stream`, under the stream's lock; nothing while a process holds it."""
    key = f"{source}.{stream}"
    free = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 7))", [key]).fetchone()
    if not free or not free[0]:
        return []
    try:
        return settle_stream(connection, source, stream, reason)
    finally:
        connection.execute("select pg_advisory_unlock(hashtextextended(%s, 7))", [key])
