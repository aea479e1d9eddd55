"""`ops.backfills`: what was asked for, which windows it holds, and how far it is. No Dagster here.

A window is done when a sync of just that window has succeeded since the backfill was made: whoever ran it.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row

from connectors.contract import Window
from connectors.errors import ConfigError

State = Literal["requested", "running", "paused", "cancelling", "cancelled", "finished", "failed"]
ENDED: tuple[State, ...] = ("cancelled", "finished", "failed")
PRIORITY = -10
"""Of a backfill's runs; a live sync's is 0."""

_COLUMNS = """
    backfill_id, source, stream, reason, cause, title, state, message, priority, windows_per_day, rows_per_day,
    requests_per_day, actor, created_at, updated_at, ended_at
"""
_LATEST = """
select w.partition, w.window_start as start, w.window_end as "end", s.sync_id::text, s.status,
    s.failure_class, s.message, s.started_at, coalesce(s.rows_extracted, 0) as rows_read,
    coalesce(s.rows_loaded, 0) as rows
from ops.backfill_windows w
left join lateral (
    select * from ops.syncs s
    where s.source = w.source and s.stream = w.stream and s.window_start = w.window_start
        and s.window_end = w.window_end and s.started_at >= %(since)s
    order by s.status like 'succeeded%%' desc, s.started_at desc limit 1
) s on true
where w.backfill_id = %(id)s
order by w.window_start desc
"""
_SPENT = """
select count(distinct s.window_start) filter (where s.status like 'succeeded%%'), coalesce(sum(s.rows_extracted), 0),
    coalesce(sum(s.requests), 0)
from ops.backfill_windows w
join ops.syncs s using (source, stream, window_start, window_end)
where w.backfill_id = %(id)s and s.trigger = 'backfill' and s.started_at >= %(since)s
    and s.started_at >= date_trunc('day', now(), 'UTC')
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper bounds of one UTC day; None is no bound."""

    windows: int | None = None
    rows: int | None = None
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A backfill to be.

    windows: by partition key. reason: `manual`, or what found it; cause: see the table.
    """

    source: str
    stream: str
    windows: Mapping[str, Window]
    title: str
    reason: str = "manual"
    cause: str = ""
    priority: int = PRIORITY
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True, slots=True)
class Backfill:
    """One row of `ops.backfills`."""

    backfill_id: str
    source: str
    stream: str
    reason: str
    cause: str
    title: str
    state: State
    message: str
    priority: int
    windows_per_day: int | None
    rows_per_day: int | None
    requests_per_day: int | None
    actor: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    @property
    def budget(self) -> Budget:
        return Budget(self.windows_per_day, self.rows_per_day, self.requests_per_day)


@dataclass(frozen=True, slots=True)
class WindowStatus:
    """One window and the sync that decides about it: a succeeded one if there is any, else the last.

    rows_read: from the source; rows: those of them that were new or changed, and reached the table.
    """

    partition: str
    start: datetime
    end: datetime
    sync_id: str | None
    status: str | None
    failure_class: str | None
    message: str | None
    started_at: datetime | None
    rows_read: int
    rows: int

    @property
    def is_done(self) -> bool:
        return self.status is not None and self.status.startswith("succeeded")


@dataclass(frozen=True, slots=True)
class Spent:
    """Of today's budget, UTC."""

    windows: int
    rows: int
    requests: int


def create(
    connection: psycopg.Connection[Any],
    wanted: Wanted,
    *,
    backfill_id: str | None = None,
    created_at: datetime | None = None,
) -> Backfill:
    """Hold the windows that no open backfill holds, and ask for them.

    backfill_id, created_at: of one that Dagster has already.

    Two backfills never hold one window, also when both are made at once: an index of the table sees to it.

    Raises:
        ConfigError: every window is held by other backfills, which are named.
    """
    backfill_id = backfill_id or uuid.uuid4().hex[:8]
    with connection.transaction():
        connection.execute(
            """
            insert into ops.backfills (backfill_id, source, stream, reason, cause, title, priority, windows_per_day,
                rows_per_day, requests_per_day, created_at)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, now()))
            """,
            [
                backfill_id, wanted.source, wanted.stream, wanted.reason, wanted.cause, wanted.title, wanted.priority,
                wanted.budget.windows, wanted.budget.rows, wanted.budget.requests, created_at,
            ],
        )  # fmt: skip
        taken = connection.execute(
            """
            insert into ops.backfill_windows (backfill_id, source, stream, partition, window_start, window_end)
            select %s, %s, %s, * from unnest(%s::text[], %s::timestamptz[], %s::timestamptz[])
            on conflict (source, stream, partition) where is_open do nothing
            """,
            [
                backfill_id, wanted.source, wanted.stream, list(wanted.windows),
                [window.start for window in wanted.windows.values()],
                [window.end for window in wanted.windows.values()],
            ],
        ).rowcount  # fmt: skip
        if not taken:
            raise _all_held(connection, wanted)
    return one(connection, backfill_id)


def _all_held(connection: psycopg.Connection[Any], wanted: Wanted) -> ConfigError:
    holders = held(connection, wanted.source, wanted.stream, list(wanted.windows))
    names = ", ".join(sorted(set(holders.values())))
    return ConfigError(
        f"{wanted.source}.{wanted.stream}",
        f"all {len(wanted.windows)} windows are in backfill {names} already" if holders else "no window is asked for",
        f"See `headwater backfill status {names.partition(',')[0]}`, or cancel it." if holders else "",
    )


def held(connection: psycopg.Connection[Any], source: str, stream: str, partitions: Sequence[str]) -> Mapping[str, str]:
    """Which open backfill holds which of these partitions."""
    rows = connection.execute(
        """
        select partition, backfill_id from ops.backfill_windows
        where is_open and source = %s and stream = %s and partition = any(%s)
        """,
        [source, stream, list(partitions)],
    ).fetchall()
    return dict(rows)


def one(connection: psycopg.Connection[Any], backfill_id: str) -> Backfill:
    """Raises ConfigError when there is none of that id."""
    with connection.cursor(row_factory=class_row(Backfill)) as cursor:
        found = cursor.execute(f"select {_COLUMNS} from ops.backfills where backfill_id = %s", [backfill_id]).fetchone()
    if found is None:
        raise ConfigError(f"backfill {backfill_id}", "there is none", "`headwater backfill status` lists them.")
    return found


def several(connection: psycopg.Connection[Any], *, is_open: bool, limit: int = 50) -> list[Backfill]:
    """Open ones by priority, then by age; or all, newest first."""
    order = "priority desc, created_at" if is_open else "created_at desc"
    where = "where ended_at is null" if is_open else ""
    with connection.cursor(row_factory=class_row(Backfill)) as cursor:
        return cursor.execute(
            f"select {_COLUMNS} from ops.backfills {where} order by {order}, backfill_id limit %s".encode(), [limit]
        ).fetchall()


def windows(connection: psycopg.Connection[Any], backfill: Backfill) -> list[WindowStatus]:
    """Every window of the backfill, newest first."""
    with connection.cursor(row_factory=class_row(WindowStatus)) as cursor:
        return cursor.execute(_LATEST.encode(), {"id": backfill.backfill_id, "since": backfill.created_at}).fetchall()


def spent(connection: psycopg.Connection[Any], backfill: Backfill) -> Spent:
    """What the backfill's own syncs have cost today."""
    row = connection.execute(_SPENT.encode(), {"id": backfill.backfill_id, "since": backfill.created_at}).fetchone()
    assert row is not None
    return Spent(*map(int, row))


def move(
    connection: psycopg.Connection[Any], backfill: Backfill, to: State, message: str = "", *, since: Sequence[State]
) -> Backfill:
    """Change the state; an ended backfill gives its windows free.

    since: states in which that makes sense.

    Raises:
        ConfigError: it is in another state, which is named.
    """
    with connection.transaction():
        changed = connection.execute(
            """
            update ops.backfills set state = %(to)s, message = %(message)s, updated_at = now(),
                ended_at = case when %(to)s = any(%(ended)s) then now() end
            where backfill_id = %(id)s and state = any(%(since)s)
            """,
            {
                "id": backfill.backfill_id, "to": to, "message": message, "since": list(since), "ended": list(ENDED),
            },
        ).rowcount  # fmt: skip
        if changed and to in ENDED:
            connection.execute(
                "update ops.backfill_windows set is_open = false where backfill_id = %s", [backfill.backfill_id]
            )
    found = one(connection, backfill.backfill_id)
    if not changed:
        raise ConfigError(f"backfill {backfill.backfill_id}", f"is {found.state}", f"It must be {' or '.join(since)}.")
    return found


def prioritize(connection: psycopg.Connection[Any], backfill: Backfill, priority: int) -> None:
    """Raises ConfigError when it has ended: no run of it is to come."""
    changed = connection.execute(
        "update ops.backfills set priority = %s where backfill_id = %s and ended_at is null",
        [priority, backfill.backfill_id],
    ).rowcount
    if not changed:
        state = one(connection, backfill.backfill_id).state
        raise ConfigError(
            f"backfill {backfill.backfill_id}",
            f"is {state}, so it has no place in the queue",
            "`headwater backfill status` lists those that are open.",
        )


def rest(connection: psycopg.Connection[Any], backfill: Backfill) -> dict[str, Window]:
    """The windows that are not done, newest first."""
    return {
        window.partition: Window(window.start, window.end)
        for window in windows(connection, backfill)
        if not window.is_done
    }


def again(backfill: Backfill, windows: Mapping[str, Window]) -> Wanted:
    """The same backfill for these windows."""
    return Wanted(
        backfill.source,
        backfill.stream,
        windows,
        f"{backfill.title} (resumes {backfill.backfill_id})",
        backfill.reason,
        backfill.cause,
        backfill.priority,
        backfill.budget,
    )
