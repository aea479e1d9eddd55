"""What the ledger still holds against a stream: checks that its newest sync failed, or that of one of its partitions.

A live sync judges all that a stream has; a partition's sync says nothing of the others, so each has a word of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from connectors.contract import Window
from connectors.errors import LoaderError
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync import SyncRequest, past
from platform_assets.checks.contract import Observation, StreamCheck
from platform_assets.checks.history import read_history
from platform_assets.checks.types import quarantine

_LOOKED_AT = 50
_WINDOWS = """
with failed as (
    select s.window_start, s.window_end, s.started_at, asked.name, said ->> 'explanation' as explanation
    from ops.syncs s, unnest(%(names)s::text[]) as asked (name), jsonb_array_elements(s.verdicts) said
    where s.source = %(source)s and s.stream = %(stream)s and s.window_end > %(since)s and s.finished_at is not null
        and s.verdicts @? '$[*] ? (@.passed == false && @.severity == "error")'
        and said ->> 'name' = asked.name and not (said ->> 'passed')::boolean and said ->> 'severity' = 'error'
)
select distinct on (window_start, name) window_start, started_at, name, explanation from failed
where not exists (
    select 1 from ops.syncs later
    where later.source = %(source)s and later.stream = %(stream)s and later.started_at > failed.started_at
        and later.window_start <= failed.window_start and later.window_end >= failed.window_end
        and case when later.verdicts @> jsonb_build_array(jsonb_build_object('name', failed.name))
            then not later.verdicts @> jsonb_build_array(
                jsonb_build_object('name', failed.name, 'passed', false, 'severity', 'error'))
            else later.status like 'succeeded%%' end
)
order by window_start desc, name, started_at desc
"""
"""Each window's newest word on a check, where that is a failure: a later sync of the window, or of a wider one, takes
it back when the check passed, only warned, or had nothing to say of what was published."""
_HELD = """
select distinct on (s.window_start) s.window_start, s.started_at, s.rows_extracted, (
    select count(*) from ops.quarantine q where q.sync_id = s.sync_id and q.status = 'held'
)
from ops.syncs s
where s.source = %(source)s and s.stream = %(stream)s and s.window_end > %(since)s and s.rows_quarantined > 0
    and s.status like 'succeeded%%' and not exists (
        select 1 from ops.syncs later
        where later.source = s.source and later.stream = s.stream and later.started_at > s.started_at
            and later.window_start <= s.window_start and later.window_end >= s.window_end
            and later.status like 'succeeded%%' and later.trigger <> 'replay'
    )
order by s.window_start desc, s.started_at desc
"""
_LIVE = """
select started_at, said ->> 'explanation', (said ->> 'passed')::boolean or said ->> 'severity' <> 'error'
from ops.syncs s left join lateral (
    select said from jsonb_array_elements(verdicts) said where said ->> 'name' = %(name)s
) as verdict on true
where source = %(source)s and stream = %(stream)s and window_start is null and finished_at is not null
    and trigger <> 'replay' and (status like 'succeeded%%' or said is not null)
    and not exists (
        select 1 from ops.syncs later where later.source = s.source and later.stream = s.stream
            and later.started_at > s.started_at and later.window_start is not null and later.status like 'succeeded%%'
    )
order by started_at desc limit 1
"""


@dataclass(frozen=True, slots=True)
class Failing:
    """check: its name. at: when the sync began that failed it, aware UTC. window_start: of that sync's partition; None
    when the check judges the stream as a whole."""

    check: str
    said: str
    at: datetime
    window_start: datetime | None = None


def judges_windows(check: StreamCheck) -> bool:
    """It judges what one sync read, not the stream as a whole: each partition has an answer of its own."""
    return check.type.is_audit or isinstance(check.options, quarantine.QuarantineOptions)


def failing_windows(
    connection: psycopg.Connection[Any], source: SourceSpec, stream: StreamSpec, checks: Sequence[StreamCheck]
) -> list[Failing]:
    """Partitions whose newest word on one of these checks is a failure of severity `error`, newest first.

    What broke off or was cancelled before the check says nothing; a window before `partitions.start` is none any more.
    Nothing is asked for a stream without partitions.
    """
    if stream.partitions is None:
        return []
    given = {
        "source": source.source,
        "stream": stream.name,
        "since": datetime.combine(stream.partitions.start, time(), ZoneInfo(stream.partitions.timezone)),
        "names": [check.name for check in checks if judges_windows(check)],
    }
    found: list[Failing] = []
    if given["names"]:
        rows = connection.execute(_WINDOWS, given).fetchall()
        found += [Failing(name, said, at, start.astimezone(UTC)) for start, at, name, said in rows]
    for check in checks:
        if isinstance(check.options, quarantine.QuarantineOptions):
            rows = connection.execute(_HELD, given).fetchall()
            found += [
                Failing(check.name, f"{held} of {count} records are in quarantine", at, start.astimezone(UTC))
                for start, at, count, held in rows
                if held > count * check.options.max_share
            ]
    return found


def failing_checks(dsn: str, source: SourceSpec, stream: StreamSpec, checks: Sequence[StreamCheck]) -> list[Failing]:
    """Which of these checks the stream fails now, from the ledger alone: whoever ran its syncs, and whether Dagster was
    there. Checks that judge a finished sync are asked again, of the newest good one.

    A check that was declared since the last sync has said nothing yet, so it is not among them.

    Raises:
        LoaderError: the warehouse did not answer.
    """
    if not checks:
        return []
    has_windows = stream.partitions is not None
    after = [check for check in checks if not check.type.is_audit and not (has_windows and judges_windows(check))]
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            found = failing_windows(connection, source, stream, checks)
            found += _failing_live(connection, source, stream, [check for check in checks if check.type.is_audit])
            syncs = past.recent(connection, source.source, stream.name, limit=_LOOKED_AT) if after else []
    except psycopg.Error as error:
        raise LoaderError(
            f"{source.source}.{stream.name}",
            f"the ledger could not be read: {str(error).strip().splitlines()[0]}",
            "Run `headwater doctor`.",
        ) from error
    newest = next((one for one in syncs if one.status.startswith("succeeded") and one.trigger != "replay"), None)
    if newest is None:
        return found
    request = SyncRequest(source, stream, window=_window(newest))
    observation = Observation(stream, past.result_of(newest, ""), read_history(dsn, request, newest.sync_id))
    judged = ((check.name, check.judge(observation)) for check in after)
    return [
        *found,
        *(
            Failing(name, verdict.explanation, newest.started_at.astimezone(UTC))
            for name, verdict in judged
            if not verdict.passed and verdict.severity == "error"
        ),
    ]


def _failing_live(
    connection: psycopg.Connection[Any], source: SourceSpec, stream: StreamSpec, checks: Sequence[StreamCheck]
) -> list[Failing]:
    found: list[Failing] = []
    for check in checks:
        given = {"source": source.source, "stream": stream.name, "name": check.name}
        row = connection.execute(_LIVE, given).fetchone()
        if row is not None and row[2] is False:
            found.append(Failing(check.name, row[1], row[0].astimezone(UTC)))
    return found


def _window(sync: past.PastSync) -> Window | None:
    return None if sync.window_start is None or sync.window_end is None else Window(sync.window_start, sync.window_end)
