"""How new a stream's data is, by its own cursor: from the ledger alone, in one statement for any number of streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

_LOOKED_AT = 50
_DATA_TIMES = """
select asked.source, asked.stream, live.cursors, sliced.newest_cursor, live.attested_at, live.has_rows
from unnest(%(sources)s::text[], %(streams)s::text[]) as asked (source, stream)
cross join lateral (
    select array_agg(newest_cursor) || array_agg(position) as cursors,
        max(finished_at) filter (where nothing_new) as attested_at,
        coalesce(bool_or(rows_loaded > 0), false) as has_rows
    from (
        select newest_cursor, state_after -> 'cursor' ->> 'value' as position, nothing_new, finished_at, rows_loaded
        from ops.syncs s
        where s.source = asked.source and s.stream = asked.stream and s.window_start is null
        order by s.started_at desc limit %(looked_at)s
    ) as recent
) as live
left join lateral (
    select s.newest_cursor from ops.syncs s
    where s.source = asked.source and s.stream = asked.stream
        and s.window_start is not null and s.newest_cursor is not null
    order by s.window_start desc, s.started_at desc limit 1
) as sliced on true
"""


@dataclass(frozen=True, slots=True)
class DataTime:
    """newest: greatest cursor value in the raw table; of partitions, that of the newest one that has rows, so an old
    one that is read again makes nothing fresh. None when nothing was read, or the cursor is no time.

    attested_at: when the source last said that nothing is newer. has_cursor: some cursor value was seen. has_rows: a
    live sync has loaded rows.
    """

    newest: datetime | None = None
    attested_at: datetime | None = None
    has_cursor: bool = False
    has_rows: bool = False

    def age(self, now: datetime) -> timedelta | None:
        """Since when the raw table may lack something: the newest value, or the source's word that it is the newest."""
        known = [moment for moment in (self.newest, self.attested_at) if moment is not None]
        return max(now - max(known), timedelta(0)) if known else None


NO_DATA = DataTime()


def read_data_times(
    connection: "psycopg.Connection[Any]", streams: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], DataTime]:
    """By (source, stream); every one that was asked for."""
    given = {
        "sources": [source for source, _ in streams],
        "streams": [stream for _, stream in streams],
        "looked_at": _LOOKED_AT,
    }
    return {
        (source, stream): _data_time([*(cursors or ()), sliced], attested_at, has_rows=has_rows)
        for source, stream, cursors, sliced, attested_at, has_rows in connection.execute(_DATA_TIMES, given).fetchall()
    }


def _data_time(cursors: Sequence[str | None], attested_at: datetime | None, *, has_rows: bool) -> DataTime:
    seen = [cursor for cursor in cursors if cursor is not None]
    moments = [moment for moment in map(moment_of, seen) if moment is not None]
    return DataTime(max(moments, default=None), attested_at, bool(seen), has_rows)


def moment_of(cursor: str) -> datetime | None:
    """A cursor's text as aware UTC; a date is as new as its end; None for numbers and other texts."""
    try:
        if len(cursor) == len("2024-01-01"):
            day = date.fromisoformat(cursor) + timedelta(days=1)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(cursor)
    except (ValueError, OverflowError):
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
