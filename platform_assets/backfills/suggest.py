"""From what reasons find to what is launched: once a cause, after a cool-down, within the day's bound."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from pydantic import TypeAdapter

from connectors.errors import HeadwaterError
from connectors.specs import BackfillSpec, SourceSpec, StreamSpec
from platform_assets.backfills import plan, store
from platform_assets.backfills.reasons import NAMES, reasons
from platform_assets.backfills.reasons.contract import TRIES, Finding, Found, Look, Mark, Reason

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]
_MARK = TypeAdapter(dict[str, Any])
STARTS_OVER = "it starts over; at worst windows are read twice, which changes nothing"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One finding and what became of it.

    partitions: to be read, after everything that was taken off. action: what was done, or why nothing was.
    backfill_id: when one was launched. is_due: nothing but somebody's word is missing.
    """

    source: str
    stream: str
    reason: str
    why: str
    partitions: tuple[str, ...]
    action: str
    is_due: bool = False
    backfill_id: str | None = None
    cause: str = ""
    held: int = 0
    is_live: bool = False

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    def __str__(self) -> str:
        what = f"{len(self.partitions)} windows, " if self.partitions else ""
        return f"{self.label}: {what}{self.why}: {self.action}"


def suggest(
    connection: Connection, sources: Iterable[SourceSpec], *, names: Sequence[str] = NAMES, launch: bool = False
) -> list[Suggestion]:
    """Everything that the reasons of these names find in these sources.

    launch: do it, where `backfill.reasons` of a stream allows it, and look at no other. Without it nothing changes.
    """
    return [
        suggestion
        for source in sources
        for stream in source.streams
        for reason in reasons(names)
        if reason.applies(stream) and (not launch or reason.name in stream.backfill.reasons)
        for suggestion in _looked(connection, source, stream, reason, launch=launch)
    ]


def _looked(
    connection: Connection, source: SourceSpec, stream: StreamSpec, reason: Reason, *, launch: bool
) -> Iterator[Suggestion]:
    label = f"{source.source}.{stream.name}"

    def told(why: str, action: str) -> Suggestion:
        log.warning("%s %s: %s: %s", label, reason.name, why, action)
        return Suggestion(source.source, stream.name, reason.name, why, (), action)

    try:
        windows = plan.all_windows(stream, label) if stream.partitions else {}
        mark, broken = read_mark(connection, reason.name, source.source, stream.name)
        try:
            found = reason.find(Look(connection, source, stream, windows, mark))
        except (ValueError, KeyError, TypeError) as error:
            if not mark:
                raise
            broken = f"the cursor of {reason.name} means nothing ({error}): {dict(mark)}"
            found = reason.find(Look(connection, source, stream, windows, {}))
        if broken:
            yield told(broken[:300], STARTS_OVER)
        with connection.transaction():
            made = _decided(connection, source, stream, reason, windows, found, launch=launch)
    except (HeadwaterError, psycopg.Error, ValueError, KeyError, TypeError) as error:
        # one stream that cannot be looked at keeps no other one from it
        said = str(error).strip() or type(error).__name__
        yield told("could not look", said.splitlines()[0])
    else:
        yield from made


def _decided(
    connection: Connection,
    source: SourceSpec,
    stream: StreamSpec,
    reason: Reason,
    windows: Mapping[str, Any],
    found: Found,
    *,
    launch: bool,
) -> list[Suggestion]:
    policy = stream.backfill
    wait = _cooling(connection, source.source, stream.name, reason.name, policy.cool_down)
    asks = _Asks.read(connection, reason.name, source.source, stream.name)
    room = policy.daily_windows - _launched_today(connection, source.source, stream.name)
    made: list[Suggestion] = []
    is_whole = True
    for finding in found.findings:
        partitions, action = finding.partitions, ""
        if finding.is_hopeless:
            partitions, action = (), f"given up: {TRIES} reads mended nothing; {', '.join(finding.partitions)[:100]}"
        elif partitions:
            partitions, action = _left(connection, source, stream, reason, finding)
        if not partitions and not finding.held and not finding.is_live:
            made.append(_suggestion(source, stream, reason, finding, (), action))
            continue
        bound = _bound(policy, wait, room) if partitions else asks.bound(policy)
        is_whole = is_whole and not bound
        if action := action or bound:
            made.append(_suggestion(source, stream, reason, finding, partitions, action))
            continue
        if partitions:
            is_whole = is_whole and len(partitions) <= room
            partitions = partitions[:room]
            room -= len(partitions)
        elif launch:
            asks.add(connection, reason.name, source.source, stream.name)
        made.append(_launched(connection, source, stream, reason, windows, finding, partitions, launch=launch))
    if launch and found.mark and (is_whole or not found.finds_once):
        write_mark(connection, reason.name, source.source, stream.name, found.mark)
    return made


def _launched(
    connection: Connection,
    source: SourceSpec,
    stream: StreamSpec,
    reason: Reason,
    windows: Mapping[str, Any],
    finding: Finding,
    partitions: tuple[str, ...],
    *,
    launch: bool,
) -> Suggestion:
    if not launch:
        is_on = reason.name in stream.backfill.reasons
        action = "its sensor launches it" if is_on else f"off: add {reason.name} to backfill.reasons"
        return _suggestion(source, stream, reason, finding, partitions, action, is_due=True)
    if not partitions:
        what = f"a replay of {finding.held} records" if finding.held else "a live sync"
        return _suggestion(source, stream, reason, finding, (), f"asked for {what}", is_due=True)
    label = f"{source.source}.{stream.name}"
    backfill = store.create(
        connection,
        store.Wanted(
            source.source,
            stream.name,
            {key: windows[key] for key in partitions},
            f"{label} {reason.name}: {finding.why}",
            reason.name,
            finding.cause,
        ),
    )
    done = f"launched as backfill {backfill.backfill_id}"
    return _suggestion(source, stream, reason, finding, partitions, done, backfill_id=backfill.backfill_id)


def _suggestion(
    source: SourceSpec,
    stream: StreamSpec,
    reason: Reason,
    finding: Finding,
    partitions: tuple[str, ...],
    action: str,
    *,
    is_due: bool = False,
    backfill_id: str | None = None,
) -> Suggestion:
    return Suggestion(
        source.source, stream.name, reason.name, finding.why, partitions, action, is_due, backfill_id, finding.cause,
        finding.held, finding.is_live,
    )  # fmt: skip


def _left(
    connection: Connection, source: SourceSpec, stream: StreamSpec, reason: Reason, finding: Finding
) -> tuple[tuple[str, ...], str]:
    """Without windows that were taken for this very cause, and those that an open backfill holds."""
    done = connection.execute(
        """
        select w.partition from ops.backfill_windows w join ops.backfills b using (backfill_id)
        where b.source = %s and b.stream = %s and b.reason = %s and b.cause = %s and b.cause <> ''
        """,
        [source.source, stream.name, reason.name, finding.cause],
    ).fetchall()
    acted = {row[0] for row in done}
    fresh = [key for key in finding.partitions if key not in acted]
    if not fresh:
        return (), "acted on before"
    held = store.held(connection, source.source, stream.name, fresh)
    free = tuple(key for key in fresh if key not in held)
    return free, "" if free else f"in backfill {', '.join(sorted(set(held.values())))} already"


def _cooling(connection: Connection, source: str, stream: str, reason: str, cool_down: timedelta) -> datetime | None:
    """Until when the reason waits on this stream."""
    row = connection.execute(
        """
        select max(created_at) + %s from ops.backfills where source = %s and stream = %s and reason = %s
        having max(created_at) + %s > now()
        """,
        [cool_down, source, stream, reason, cool_down],
    ).fetchone()
    return row[0].astimezone(UTC) if row else None


def _bound(policy: BackfillSpec, wait: datetime | None, room: int) -> str:
    """Why a reason launches nothing now; empty when it may."""
    if wait:
        return f"cools down until {wait:%Y-%m-%d %H:%M} UTC"
    return "" if room > 0 else f"today's {policy.daily_windows} windows are launched already (daily_windows)"


@dataclass(frozen=True, slots=True)
class _Asks:
    """Live syncs and replays that a reason asked Dagster for: no backfill tells of them. last: of the newest."""

    last: datetime | None = None
    today: int = 0

    @classmethod
    def read(cls, connection: Connection, reason: str, source: str, stream: str) -> "_Asks":
        mark, _ = read_mark(connection, f"{reason}: asked", source, stream)
        last = datetime.fromisoformat(str(mark["last"])) if "last" in mark else None
        is_today = last is not None and last.date() == datetime.now(UTC).date()
        return cls(last, int(mark["today"]) if is_today else 0)

    def bound(self, policy: BackfillSpec) -> str:
        until = self.last + policy.cool_down if self.last else None
        wait = until if until and until > datetime.now(UTC) else None
        return _bound(policy, wait, policy.daily_windows - self.today)

    def add(self, connection: Connection, reason: str, source: str, stream: str) -> None:
        mark = {"last": datetime.now(UTC).isoformat(), "today": self.today + 1}
        write_mark(connection, f"{reason}: asked", source, stream, mark)


def _launched_today(connection: Connection, source: str, stream: str) -> int:
    row = connection.execute(
        """
        select count(*) from ops.backfill_windows w join ops.backfills b using (backfill_id)
        where b.source = %s and b.stream = %s and b.reason <> 'manual'
            and b.created_at >= date_trunc('day', now(), 'UTC')
        """,
        [source, stream],
    ).fetchone()
    return row[0] if row else 0


def read_mark(connection: Connection, reason: str, source: str, stream: str) -> tuple[Mark, str]:
    """How far the reason has looked, and what to say when that cannot be read."""
    row = connection.execute(
        "select mark from ops.backfill_marks where reason = %s and source = %s and stream = %s",
        [reason, source, stream],
    ).fetchone()
    if row is None:
        return {}, ""
    try:
        mark = _MARK.validate_json(row[0])
    except ValueError:
        return {}, f"the cursor of {reason} on {source}.{stream} cannot be read: {row[0][:60]!r}"
    return mark, ""


def write_mark(connection: Connection, reason: str, source: str, stream: str, mark: Mark) -> None:
    connection.execute(
        """
        insert into ops.backfill_marks (reason, source, stream, mark) values (%s, %s, %s, %s)
        on conflict (reason, source, stream) do update set mark = excluded.mark, updated_at = now()
        """,
        [reason, source, stream, json.dumps(dict(mark))],
    )
