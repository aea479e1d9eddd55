"""From what reasons find to what is launched: once a cause, after a cool-down, within the day's bound."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from connectors.contract import Window
from connectors.errors import HeadwaterError
from connectors.specs import SourceSpec, StreamSpec
from platform_assets.backfills import causes, plan, store
from platform_assets.backfills.marks import Asks, bound, read_mark, write_mark
from platform_assets.backfills.reasons import NAMES, reasons
from platform_assets.backfills.reasons.contract import TRIES, Finding, Found, Look, Reason

log = logging.getLogger(__name__)
Connection = psycopg.Connection[Any]
NAMED = 3
"""So many windows, or whys, stand in a title one by one."""
STARTS_OVER = "it starts over; at worst windows are read twice, which changes nothing"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One finding and what became of it.

    partitions: to be read, after everything that was taken off. action: what was done, or why nothing was.
    backfill_id: when one was launched. is_due: nothing but somebody's word is missing. run_key: of the run to be asked
    for, another one each time.
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
    run_key: str = ""
    held: int = 0
    is_live: bool = False

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    def __str__(self) -> str:
        what = f"{len(self.partitions)} windows, " if self.partitions else ""
        return f"{self.label}: {what}{self.why}: {self.action}"


def suggest(
    connection: Connection,
    sources: Iterable[SourceSpec],
    *,
    names: Sequence[str] = NAMES,
    launch: bool = False,
    busy: Collection[str] = (),
) -> list[Suggestion]:
    """Everything that the reasons of these names find in these sources.

    launch: do it, where `backfill.reasons` of a stream allows it, and look at no other. Without it nothing changes.
    busy: streams whose run was asked for and has not ended.
    """
    return [
        suggestion
        for source in sources
        for stream in source.streams
        for reason in reasons(names)
        if reason.applies(stream) and (not launch or reason.name in stream.backfill.reasons)
        for suggestion in _looked(connection, source, stream, reason, busy, launch=launch)
    ]


def _looked(
    connection: Connection, source: SourceSpec, stream: StreamSpec, reason: Reason, busy: Collection[str],
    *, launch: bool,
) -> Iterator[Suggestion]:  # fmt: skip
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
            if broken and launch:
                write_mark(connection, reason.name, source.source, stream.name, {})
            made = _Case(connection, source, stream, reason, windows, launch, label in busy).decided(found)
    except (HeadwaterError, psycopg.Error, ValueError, KeyError, TypeError) as error:
        # one stream that cannot be looked at keeps no other one from it
        said = str(error).strip() or type(error).__name__
        yield told("could not look", said.splitlines()[0])
    else:
        yield from made


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left of a finding's windows, or why nothing is. is_settled: the next look need not find it again."""

    partitions: tuple[str, ...] = ()
    action: str = ""
    is_settled: bool = False


@dataclass(frozen=True, slots=True)
class _Case:
    """One reason and one stream. windows: every one that is over, newest first; is_busy: its own run has not ended."""

    connection: Connection
    source: SourceSpec
    stream: StreamSpec
    reason: Reason
    windows: Mapping[str, Window]
    launch: bool
    is_busy: bool

    def decided(self, found: Found) -> list[Suggestion]:
        """All windows that may go now go in one backfill; what the reason looked at is done with when nothing is left.

        A mark that went on at once would forget what then fails.
        """
        left = self._left(found.findings)
        policy, room = self.stream.backfill, self._room()
        limit = bound(policy, self._cooling(), room)
        chosen = () if limit else self._first(found.findings, left, room)
        launched = self._launched(found.findings, left, chosen) if chosen and self.launch else None
        made: list[Suggestion] = []
        for finding, rest in zip(found.findings, left, strict=True):
            if finding.held or finding.is_live:
                made.append(self._asked(finding))
            elif not rest.partitions:
                made.append(self._told(finding, rest.action))
            elif mine := tuple(key for key in rest.partitions if key in chosen):
                done = f"launched as backfill {launched}" if launched else self._waiting()
                made.append(self._told(finding, done, mine, is_due=launched is None, backfill_id=launched))
            else:
                made.append(self._told(finding, limit or bound(policy, None, 0), rest.partitions))
        is_settled = all(rest.is_settled for rest in left)
        if self.launch and found.mark and (is_settled or not found.finds_once):
            write_mark(self.connection, self.reason.name, self.source.source, self.stream.name, found.mark)
        return made

    def _told(self, finding: Finding, action: str, partitions: tuple[str, ...] = (), **more: Any) -> Suggestion:
        return Suggestion(
            self.source.source, self.stream.name, self.reason.name, finding.why, partitions, action,
            cause=finding.cause, held=finding.held, is_live=finding.is_live, **more,
        )  # fmt: skip

    def _waiting(self) -> str:
        is_on = self.reason.name in self.stream.backfill.reasons
        return "its sensor launches it" if is_on else f"off: add {self.reason.name} to backfill.reasons"

    def _asked(self, finding: Finding) -> Suggestion:
        """A live sync or a replay: Dagster is asked for its run, until the ledger has a sync that succeeded."""
        place = (self.reason.name, self.source.source, self.stream.name)
        asks = Asks.read(self.connection, *place, is_replay=finding.held > 0)
        if said := "the run that was asked for has not ended" if self.is_busy else asks.bound(self.stream.backfill):
            return self._told(finding, said)
        if not self.launch:
            return self._told(finding, self._waiting(), is_due=True)
        at = asks.add(self.connection, *place)
        what = f"a replay of {finding.held} records" if finding.held else "a live sync"
        again = f" again, after {asks.in_vain} in vain" if asks.in_vain else ""
        key = f"{self.source.source}.{self.stream.name}:{finding.cause}:{at.isoformat()}"
        return self._told(finding, f"asked for {what}{again}", is_due=True, run_key=key)

    def _left(self, findings: Sequence[Finding]) -> list[_Left]:
        """Without windows that were taken for this very cause, and those that an open backfill holds."""
        partitions = sorted({key for finding in findings for key in finding.partitions})
        taken = self.connection.execute(_TAKEN.encode(), [*self._place, partitions]).fetchall() if partitions else []
        held = store.held(self.connection, self.source.source, self.stream.name, partitions)

        def left(finding: Finding) -> _Left:
            if finding.is_hopeless:
                names = ", ".join(finding.partitions)[:100]
                said = finding.next_step or f"given up: {TRIES} reads mended nothing; {names}"
                return _Left(action=said, is_settled=True)
            ours = [row for row in taken if finding.cause and causes.is_cause(finding.cause, row[1], row[0])]
            done = {key for key, _, _, is_unread in ours if not is_unread}
            tries = Counter(key for key, _, _, is_unread in ours if is_unread)
            fresh = [key for key in finding.partitions if key not in done and tries[key] < TRIES]
            free = tuple(key for key in fresh if key not in held)
            if free:
                return _Left(free)
            if fresh:
                names = ", ".join(sorted({held[key] for key in fresh}))
                return _Left(action=f"in backfill {names} already")
            if lost := [key for key in finding.partitions if key not in done]:
                newest = next(row[2] for row in ours if row[0] in lost)
                # not settled: it is told until somebody has it read
                said = f"given up: {TRIES} backfills failed to read {', '.join(lost)[:100]}"
                return _Left(action=f"{said}; mend it, then `headwater backfill resume {newest}`")
            return _Left(action="acted on before", is_settled=True)

        return [left(finding) for finding in findings]

    @property
    def _place(self) -> tuple[str, str, str]:
        return self.source.source, self.stream.name, self.reason.name

    def _first(self, findings: Sequence[Finding], left: Sequence[_Left], room: int) -> tuple[str, ...]:
        """The newest windows of them all that there is room for; those that failed often come after the others."""
        late = {
            key for finding, rest in zip(findings, left, strict=True) if finding.is_retry for key in rest.partitions
        }
        soon = {key for rest in left for key in rest.partitions} - late
        return tuple(
            [*(key for key in self.windows if key in soon), *(key for key in self.windows if key in late)][:room]
        )

    def _launched(self, findings: Sequence[Finding], left: Sequence[_Left], chosen: Collection[str]) -> str:
        why: dict[str, None] = {}
        by_cause: dict[str, list[str]] = {}
        for finding, rest in zip(findings, left, strict=True):
            if mine := [key for key in rest.partitions if key in chosen]:
                why[finding.why] = None
                by_cause.setdefault(finding.cause, []).extend(mine)
        windows = {key: window for key, window in self.windows.items() if key in chosen}
        title = (
            f"{self.source.source}.{self.stream.name} {self.reason.name}: {_span(list(windows))}: {_several(list(why))}"
        )
        wanted = store.Wanted(
            self.source.source, self.stream.name, windows, title, self.reason.name, causes.pack(by_cause)
        )
        return store.create(self.connection, wanted).backfill_id

    def _cooling(self) -> datetime | None:
        """Until when the reason waits on this stream."""
        pause = self.stream.backfill.cool_down
        row = self.connection.execute(_COOLING.encode(), [pause, *self._place, pause]).fetchone()
        return row[0].astimezone(UTC) if row else None

    def _room(self) -> int:
        """How many windows may be launched today."""
        row = self.connection.execute(_TODAY.encode(), [self.source.source, self.stream.name]).fetchone()
        return self.stream.backfill.daily_windows - (row[0] if row else 0)


_TAKEN = """
select w.partition, b.cause, b.backfill_id, b.state = 'failed' and not exists (
    select 1 from ops.syncs s
    where s.source = w.source and s.stream = w.stream and s.window_start = w.window_start
        and s.window_end = w.window_end and s.started_at >= b.created_at and s.status like 'succeeded%%'
) as is_unread
from ops.backfill_windows w join ops.backfills b using (backfill_id)
where b.source = %s and b.stream = %s and b.reason = %s and b.cause <> '' and b.ended_at is not null
    and w.partition = any(%s)
order by b.created_at desc
"""
"""Of backfills that are over. A window that its backfill has failed to read is not acted on."""
_COOLING = """
select max(created_at) + %s from ops.backfills where source = %s and stream = %s and reason = %s
having max(created_at) + %s > now()
"""
_TODAY = """
select count(*) from ops.backfill_windows w join ops.backfills b using (backfill_id)
where b.source = %s and b.stream = %s and b.reason <> 'manual' and b.created_at >= date_trunc('day', now(), 'UTC')
"""


def _span(partitions: Sequence[str]) -> str:
    """Which windows, newest first, in few words."""
    if len(partitions) <= NAMED:
        return ", ".join(partitions)
    return f"{len(partitions)} windows, {partitions[-1]} to {partitions[0]}"


def _several(whys: Sequence[str]) -> str:
    more = f"; and {len(whys) - NAMED} more" if len(whys) > NAMED else ""
    return "; ".join(whys[:NAMED]) + more
