"""Windows that are over and were never read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from psycopg.rows import class_row

from platform_assets.backfills.reasons.contract import TRIES, Finding, Found, Look, Reason

PERMANENT = frozenset({"config", "auth", "contract", "source"})
"""Failures that no retry mends; the others may mend themselves, so they are tried for ever, in the end once a day."""
_FAILED = """
with tried as (
    select window_start, count(*) as tries, max(started_at) as last_at,
        (array_agg(failure_class order by started_at desc))[1] as failure_class,
        (array_agg(message order by started_at desc))[1] as message
    from ops.syncs
    where source = %(source)s and stream = %(stream)s and window_start is not null and failure_class is not null
    group by window_start
)
select tried.*, exists (
    select 1 from ops.syncs s
    where s.source = %(source)s and s.stream = %(stream)s and s.status like 'succeeded%%'
        and s.started_at > tried.last_at
) as works
from tried
"""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A window's failed reads. works: the stream has succeeded since the last one."""

    window_start: datetime
    tries: int
    last_at: datetime
    failure_class: str
    message: str | None
    works: bool

    @property
    def is_given_up(self) -> bool:
        return self.failure_class in PERMANENT and (not self.works or self.tries >= TRIES)


def find(look: Look) -> Found:
    """Without the newest, which the schedule reads.

    A failure that no retry mends (config, auth, contract, source) waits until the stream has succeeded again, and is
    given up after TRIES. Any other is tried once a day after TRIES. Both are told.
    """
    failed = _failed(look)
    soon, daily = list[str](), list[str]()
    waiting, given_up = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for key, window in list(look.windows.items())[1:]:
        if window.start in look.read_at:
            continue
        one = failed.get(window.start)
        if one is None or (one.tries < TRIES and not one.is_given_up):
            soon.append(key)
        elif one.is_given_up:
            given_up[one.failure_class].append(key)
        elif one.last_at > look.now - timedelta(days=1):
            waiting[one.failure_class].append(key)
        else:
            daily.append(key)

    def hopeless(name: str, keys: Sequence[str], next_step: str) -> Finding:
        ones = [failed[look.windows[key].start] for key in keys]
        most = max(one.tries for one in ones)
        said = (ones[0].message or "").partition("\n")[0][:120]
        number = f"{len(keys)} windows" if len(keys) > 1 else "1 window"
        why = f"never read: {number} failed with class {name} (tried {most} times at most), e.g. {keys[0]}: {said}"
        return Finding(tuple(keys), why, is_hopeless=True, next_step=next_step)

    found = [
        *([Finding(tuple(soon), "never read")] if soon else []),
        *([Finding(tuple(daily), f"never read, failed {TRIES} times or more", is_retry=True)] if daily else []),
        *(hopeless(name, keys, "tried once a day") for name, keys in waiting.items()),
        *(hopeless(name, keys, _next_step(look, keys, failed)) for name, keys in given_up.items()),
    ]
    return Found(tuple(found))


def _failed(look: Look) -> Mapping[datetime, _Failed]:
    parameters = {"source": look.source.source, "stream": look.stream.name}
    with look.connection.cursor(row_factory=class_row(_Failed)) as cursor:
        rows = cursor.execute(_FAILED.encode(), parameters).fetchall()
    return {row.window_start.astimezone(UTC): row for row in rows}


def _next_step(look: Look, keys: Sequence[str], failed: Mapping[datetime, _Failed]) -> str:
    """keys: newest first."""
    assert look.stream.partitions is not None
    zone = ZoneInfo(look.stream.partitions.timezone)
    last, first = (look.windows[key].start.astimezone(zone).date() for key in (keys[0], keys[-1]))
    is_for_good = any(failed[look.windows[key].start].works for key in keys)
    waits = "given up" if is_for_good else "given up until the stream succeeds again"
    run = f"headwater backfill run {look.source.source}.{look.stream.name} --from {first} --to {last} --missing"
    return f"{waits}; mend it, then `{run}`"


REASON = Reason("missing", "Windows that are over and were never read.", find)
