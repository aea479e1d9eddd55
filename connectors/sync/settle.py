"""Give every sync whose process is gone its true final status."""

from datetime import timedelta
from typing import Any

import psycopg

_SETTLE = """
update ops.syncs set
    status = case
        when step = 'done' and rows_quarantined > 0 then 'succeeded_with_warnings'
        when step = 'done' and rows_extracted = 0 then 'succeeded_empty'
        when step = 'done' then 'succeeded'
        else 'failed'
    end,
    failure_class = case when step = 'done' then null else 'transient' end,
    message = case
        when step = 'done' then 'The process ended after the last publication; settled afterwards.'
        else format('The process ended in step %%s; %%s sealed windows are published, the next sync resumes there.',
                    step, windows)
    end,
    finished_at = now()
where status = 'running' and source = %(source)s and stream = %(stream)s
returning sync_id::text
"""


def settle_stream(connection: psycopg.Connection[Any], source: str, stream: str) -> list[str]:
    """Settle the stream's unfinished syncs; the caller holds the stream's lock, so no process of theirs lives.

    A publication that completes the sync sets step `done` in its own transaction, so a sync killed after it counts as
    succeeded. Returns the settled sync ids.
    """
    return [row[0] for row in connection.execute(_SETTLE, {"source": source, "stream": stream}).fetchall()]


def settle_lost(dsn: str, *, silent_for: timedelta = timedelta(seconds=20)) -> list[str]:
    """Settle every unfinished sync whose heartbeat stopped and whose lock is free; run it every half minute."""
    settled: list[str] = []
    with psycopg.connect(dsn, autocommit=True, application_name="headwater settle") as connection:
        lost = connection.execute(
            "select distinct source, stream from ops.syncs where status = 'running' and heartbeat_at < now() - %s",
            [silent_for],
        ).fetchall()
        for source, stream in lost:
            key = f"{source}.{stream}"
            free = connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 7))", [key]).fetchone()
            if free and free[0]:
                settled += settle_stream(connection, source, stream)
                connection.execute("select pg_advisory_unlock(hashtextextended(%s, 7))", [key])
    return settled
