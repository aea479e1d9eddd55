"""What a reason is: it looks at one stream and says which windows should be read, and why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from connectors.contract import Window
from connectors.specs import SourceSpec, StreamSpec

if TYPE_CHECKING:
    import psycopg

Mark = Mapping[str, Any]
_LAST = """
select distinct on (window_start) window_start, started_at from ops.syncs
where source = %s and stream = %s and window_start is not null and status like 'succeeded%%'
order by window_start, started_at desc
"""

TRIES = 5
"""A window that so many reads have not mended is left to people."""
FAILING = """
with latest as (
    select distinct on (window_start) window_start, started_at, sync_id::text as sync_id, verdicts from ops.syncs
    where source = %(source)s and stream = %(stream)s and window_start is not null and finished_at is not null
        and (status like 'succeeded%%' or verdicts <> '[]')
    order by window_start, started_at desc
), failing as (
    select latest.*, verdict ->> 'name' as name, verdict ->> 'explanation' as said, (
        select count(*) from ops.backfill_windows w join ops.backfills b using (backfill_id)
        where b.source = %(source)s and b.stream = %(stream)s and b.reason = %(reason)s
            and w.window_start = latest.window_start and b.created_at > coalesce((
                select max(s.started_at) from ops.syncs s, jsonb_array_elements(s.verdicts) said
                where s.source = %(source)s and s.stream = %(stream)s and s.window_start = latest.window_start
                    and s.finished_at is not null
                    and said ->> 'name' = verdict ->> 'name' and (said ->> 'passed')::boolean
            ), '-infinity')
    ) >= %(tries)s as is_hopeless
    from latest, jsonb_array_elements(verdicts) verdict
    where not (verdict ->> 'passed')::boolean
)
"""
"""What the newest sync of each window failed; one that broke off before any check says nothing. is_hopeless: the reason
has had the window read TRIES times since the check last passed there."""


_SYNCED = """
select exists (
    select 1 from ops.syncs where source = %(source)s and stream = %(stream)s and started_at > %(since)s
        and status like 'succeeded%%' and window_start is null and (trigger = 'replay') = %(is_replay)s
)
"""


def has_synced(
    connection: "psycopg.Connection[Any]", source: str, stream: str, since: datetime, *, is_replay: bool
) -> bool:
    """Whether a live sync, or a replay, that began after that moment has succeeded."""
    given = {"source": source, "stream": stream, "since": since, "is_replay": is_replay}
    row = connection.execute(_SYNCED.encode(), given).fetchone()
    return bool(row and row[0])


def clock(connection: "psycopg.Connection[Any]") -> datetime:
    """Now, by the clock that the ledger goes by."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0].astimezone(UTC)


@dataclass(frozen=True)
class Look:
    """One stream, and how far the reason has looked before.

    windows: every window that is over, newest first; none for a stream without partitions.
    mark: what the reason left the last time, empty at first.
    """

    connection: "psycopg.Connection[Any]"
    source: SourceSpec
    stream: StreamSpec
    windows: Mapping[str, Window]
    mark: Mark

    @cached_property
    def read_at(self) -> Mapping[datetime, datetime]:
        """When each window was last read with success, by its start."""
        found = self.connection.execute(_LAST.encode(), [self.source.source, self.stream.name]).fetchall()
        return {start.astimezone(UTC): at.astimezone(UTC) for start, at in found}

    @cached_property
    def now(self) -> datetime:
        return clock(self.connection)

    def synced_since(self, moment: datetime) -> bool:
        """Whether a live sync that began after the moment has succeeded."""
        return has_synced(self.connection, self.source.source, self.stream.name, moment, is_replay=False)

    def names_of(self, type_: str) -> list[str]:
        """What the stream's checks of a type are called."""
        return [type_, *(check.options.get("name", type_) for check in self.stream.checks if check.type == type_)]

    def failing(self, reason: str, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query over the relation `failing`."""
        given = {
            "source": self.source.source, "stream": self.stream.name, "reason": reason, "tries": TRIES,
            "reconciling": self.names_of("reconcile"), "late": self.names_of("late_data"),
        }  # fmt: skip
        return self.connection.execute((FAILING + query).encode(), given).fetchall()

    def read_before(self, moment: datetime) -> list[str]:
        """Windows that were read, and last before that moment."""
        return [
            key
            for key, window in self.windows.items()
            if (at := self.read_at.get(window.start)) is not None and at < moment
        ]

    def touching(self, start: datetime, end: datetime) -> list[str]:
        """Windows that share a moment with [start, end)."""
        return [key for key, window in self.windows.items() if window.start < end and window.end > start]

    def at(self, moments: Iterable[datetime]) -> list[str]:
        """Windows that one of the moments lies in."""
        wanted = list(moments)
        return [key for key, window in self.windows.items() if any(window.start <= at < window.end for at in wanted)]


@dataclass(frozen=True, slots=True)
class Finding:
    """partitions: to be read, newest first. why: half a sentence for the title. cause: acted on once a window.

    An empty cause may come back: it is acted on again after the cool-down. held: records in quarantine to be replayed,
    instead of a read. is_live: the stream has no partitions, and one live sync will do. is_hopeless: another read would
    mend nothing, as TRIES have not, or not now. next_step: what is to come then. is_retry: other windows go first, for
    these have failed TRIES times.
    """

    partitions: tuple[str, ...]
    why: str
    cause: str = ""
    held: int = 0
    is_live: bool = False
    is_hopeless: bool = False
    next_step: str = ""
    is_retry: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """mark: how far the reason has looked now. With `finds_once` it is kept only when every finding is settled: a look
    from there would not find them again, should their reads fail."""

    findings: tuple[Finding, ...] = ()
    mark: Mark = field(default_factory=dict[str, Any])
    finds_once: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """name: as in the source file's `backfill.reasons`. applies: whether the stream has what it looks at."""

    name: str
    description: str
    find: Callable[[Look], Found]
    applies: Callable[[StreamSpec], bool] = lambda stream: stream.partitions is not None
