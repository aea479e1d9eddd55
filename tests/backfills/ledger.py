"""The shop's orders as a ledger shows them, for the reasons to look at."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import yaml

from connectors.specs import SourceSpec, parse_source
from platform_assets.backfills import store
from platform_assets.backfills.reasons import NAMES
from platform_assets.backfills.suggest import Suggestion, suggest
from tests.ingest.shop import SOURCE

TODAY = datetime.now(UTC).date()
DAYS = 10
PARTITIONS = f"      partitions: {{by: day, start: {TODAY - timedelta(days=DAYS)}}}\n"
OK = {"name": "reconcile", "passed": True, "explanation": "", "severity": "warn", "blocking": False, "measured": {}}


def day(number: int) -> str:
    """The key of a partition, counted back: 1 is yesterday, the newest."""
    return str(TODAY - timedelta(days=number))


@dataclass(slots=True)
class Ledger:
    """The shop's orders as the ledger has them."""

    connection: psycopg.Connection[Any]
    text: str = PARTITIONS

    @property
    def source(self) -> SourceSpec:
        return parse_source(yaml.safe_load(SOURCE + self.text)["attributes"], "shop.yaml")

    def declare(self, **backfill: Any) -> None:
        self.text = PARTITIONS + f"      backfill: {json.dumps(backfill)}\n"

    def read(
        self, *numbers: int, failure: str | None = None, verdicts: Sequence[dict[str, Any]] = (), ago: str = "0 s",
        source: str = "shop", stream: str = "orders",
    ) -> None:  # fmt: skip
        """Syncs of these days."""
        for number in numbers:
            self.connection.execute(
                """
                insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, window_start, window_end,
                    started_at, finished_at, step, status, failure_class, message, verdicts)
                values (gen_random_uuid(), %(source)s, %(stream)s, 'rest', 'backfill', 1, %(day)s,
                    %(day)s + interval '1 day', clock_timestamp() - %(ago)s::interval, clock_timestamp(), 'done',
                    case when %(failure)s::text is null then 'succeeded' else 'failed' end, %(failure)s, 'HTTP 500',
                    %(verdicts)s::jsonb)
                """,
                {
                    "day": datetime.combine(date.fromisoformat(day(number)), datetime.min.time(), UTC),
                    "failure": failure, "verdicts": json.dumps(list(verdicts)), "ago": ago,
                    "source": source, "stream": stream,
                },
            )  # fmt: skip

    def sync(self, source: str, stream: str, *, failure: str | None = None, trigger: str = "sensor") -> None:
        """A sync of no window."""
        self.connection.execute(
            """
            insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, started_at, finished_at, step, status,
                failure_class)
            values (gen_random_uuid(), %(source)s, %(stream)s, 'files', %(trigger)s, 1, clock_timestamp(),
                clock_timestamp(), 'done', case when %(failure)s::text is null then 'succeeded' else 'failed' end,
                %(failure)s)
            """,
            {"source": source, "stream": stream, "failure": failure, "trigger": trigger},
        )

    def hold(self) -> None:
        """One record in quarantine, as some sync left it."""
        self.read(1)
        self.connection.execute(
            "insert into ops.quarantine (source, stream, sync_id, reason, payload, payload_sha256, position) "
            "select 'shop', 'orders', sync_id, 'bad', '{}', '', 'page 1' from ops.syncs limit 1"
        )

    def look(self, *names: str, launch: bool = False) -> list[Suggestion]:
        return suggest(self.connection, [self.source], names=names or NAMES, launch=launch)

    def launched(self) -> list[tuple[str, list[str]]]:
        """Title and partitions of every backfill, oldest first."""
        found = reversed(store.several(self.connection, is_open=False))
        return [(item.title, [window.partition for window in store.windows(self.connection, item)]) for item in found]

    def end(self) -> None:
        """Every backfill is over, and long ago."""
        self.connection.execute("update ops.backfill_windows set is_open = false")
        self.connection.execute(
            "update ops.backfills set state = 'finished', ended_at = now(), created_at = created_at - interval '2 days'"
        )


def found(suggestions: Sequence[Suggestion]) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.why, item.partitions) for item in suggestions]
