"""`ops.backfill_marks`: how far a reason has looked, and what it has asked Dagster for."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import psycopg
from pydantic import TypeAdapter

from connectors.specs import BackfillSpec
from platform_assets.backfills.reasons.contract import TRIES, Mark, clock, has_synced

Connection = psycopg.Connection[Any]
_MARK = TypeAdapter(dict[str, Any])


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


def bound(policy: BackfillSpec, wait: datetime | None, room: int) -> str:
    """Why a reason launches nothing now; empty when it may."""
    if wait:
        return f"cools down until {wait:%Y-%m-%d %H:%M} UTC"
    return "" if room > 0 else f"today's {policy.daily_windows} windows are launched already (daily_windows)"


@dataclass(frozen=True, slots=True)
class Asks:
    """Live syncs or replays that a reason asked Dagster for: no backfill tells of them, so the ledger has to.

    last: of the newest; today: how many, UTC; in_vain: how many since one has succeeded.
    """

    last: datetime | None = None
    today: int = 0
    in_vain: int = 0

    @classmethod
    def read(cls, connection: Connection, reason: str, source: str, stream: str, *, is_replay: bool) -> Self:
        mark, _ = read_mark(connection, f"{reason}: asked", source, stream)
        if "last" not in mark:
            return cls()
        last = datetime.fromisoformat(str(mark["last"]))
        is_today = last.date() == datetime.now(UTC).date()
        is_done = has_synced(connection, source, stream, last, is_replay=is_replay)
        return cls(last, int(mark["today"]) if is_today else 0, 0 if is_done else int(mark.get("in_vain", 1)))

    def bound(self, policy: BackfillSpec) -> str:
        """Why nothing is asked for now. What failed TRIES times is asked for once a day."""
        is_daily = self.in_vain >= TRIES
        pause = max(policy.cool_down, timedelta(days=1)) if is_daily else policy.cool_down
        until = self.last + pause if self.last else None
        wait = until if until and until > datetime.now(UTC) else None
        said = bound(policy, wait, policy.daily_windows - self.today)
        return f"asked for {self.in_vain} times in vain, once a day from now on; {said}" if said and is_daily else said

    def add(self, connection: Connection, reason: str, source: str, stream: str) -> datetime:
        """One more, at this moment."""
        at = clock(connection)
        mark: Mapping[str, Any] = {"last": at.isoformat(), "today": self.today + 1, "in_vain": self.in_vain + 1}
        write_mark(connection, f"{reason}: asked", source, stream, mark)
        return at
