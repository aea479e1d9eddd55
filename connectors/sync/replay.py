"""Looking at quarantine, and giving its records another try through the same lifecycle."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import psycopg

from connectors.contract import DiscoveredStream, JsonRecords, Message, ReadContext, Rejected, StreamState
from connectors.errors import ConfigError
from connectors.secrets import MASK
from connectors.specs import CursorSpec, StreamSpec
from connectors.sync.result import Progress, SyncRequest, SyncResult

Connection = psycopg.Connection[Any]
RecordStatus = Literal["held", "superseded", "replayed", "discarded"]


@dataclass(frozen=True, slots=True)
class Held:
    """One row of `ops.quarantine`. resolved_by: the sync that loaded or superseded it; none of what was discarded."""

    quarantine_id: int
    source: str
    stream: str
    reason: str
    field: str | None
    position: str
    status: str
    payload: str
    sync_id: str
    schema_version: int | None
    created_at: datetime
    resolved_by: str | None
    resolved_at: datetime | None


_COLUMNS = (
    "quarantine_id, source, stream, reason, field, position, status, payload, sync_id::text, schema_version, "
    "created_at, resolved_by::text, resolved_at from ops.quarantine"
)


def held(
    connection: Connection, source: str, stream: str | None = None, *, status: RecordStatus = "held", limit: int = 100
) -> list[Held]:
    """Records of a source or a stream, oldest first."""
    rows = connection.execute(
        f"select {_COLUMNS} where source = %s and (%s::text is null or stream = %s) and status = %s "
        "order by quarantine_id limit %s",
        [source, stream, stream, status, limit],
    ).fetchall()
    return [Held(*row) for row in rows]


def one(connection: Connection, quarantine_id: int) -> Held:
    row = connection.execute(f"select {_COLUMNS} where quarantine_id = %s", [quarantine_id]).fetchone()
    if row is None:
        raise ConfigError("quarantine", f"no record {quarantine_id}", "`headwater quarantine list SOURCE` shows them.")
    return Held(*row)


def summary(connection: Connection, status: RecordStatus = "held") -> list[tuple[str, str, str, int, datetime]]:
    """(source, stream, reason, records, newest) over everything of that status."""
    return connection.execute(
        """
        select source, stream, reason, count(*), max(created_at) from ops.quarantine where status = %s
        group by source, stream, reason order by source, stream, count(*) desc
        """,
        [status],
    ).fetchall()


@dataclass(frozen=True, slots=True)
class Example:
    """A record that a failed sync refused. It is not held: the source sends it again with the next read."""

    source: str
    stream: str
    sync_id: str
    reason: str
    field: str | None
    position: str
    payload: str


def examples(connection: Connection, source: str | None = None, stream: str | None = None) -> list[Example]:
    """What the last sync of each stream refused, where it failed: a few records of each."""
    rows = connection.execute(
        """
        with newest as (
            select distinct on (source, stream) source, stream, sync_id, status, verdicts from ops.syncs
            where source = coalesce(%(source)s, source) and stream = coalesce(%(stream)s, stream)
                and status <> 'running' and trigger <> 'replay'
            order by source, stream, started_at desc
        )
        select source, stream, sync_id::text, item ->> 'reason', item ->> 'field', item ->> 'position',
            item ->> 'payload'
        from newest, jsonb_array_elements(verdicts) as verdict,
            jsonb_array_elements(verdict -> 'measured' -> 'examples') with ordinality as items (item, place)
        where status = 'failed' and verdict ->> 'name' = 'quarantine'
        order by source, stream, place
        """,
        {"source": source, "stream": stream},
    ).fetchall()
    return [Example(*row) for row in rows]


def discard(connection: Connection, source: str, stream: str, ids: Sequence[int] | None = None) -> int:
    """Give up held records of a stream (all, or those named); they stay on record as discarded. How many."""
    return connection.execute(
        """
        update ops.quarantine set status = 'discarded', resolved_at = now()
        where source = %s and stream = %s and status = 'held' and (%s::bigint[] is null or quarantine_id = any (%s))
        """,
        [source, stream, ids, ids],
    ).rowcount


def effect(stream: StreamSpec) -> str:
    """What a replay does where the table has a record's key already, or cannot know it."""
    match stream.write, bool(stream.primary_key), stream.cursor:
        case "merge" | "scd2", _, CursorSpec() as cursor:
            return f"A key that the table has with a greater {cursor.field} stays as it is."
        case "merge", _, _:
            return "There is no cursor to tell which is newer: a key that the table has takes the held record's values."
        case "scd2", _, _:
            return "There is no cursor to tell which is newer: the held record becomes the current version of its key."
        case "replace", True, _:
            return "A key that the table has stays as the last full read left it."
        case _:
            return "They are added beside what the table has, which is not searched for equal ones."


class _Replaying:
    """Reads held records in place of the source; the source itself is not asked."""

    def __init__(self, records: Sequence[Held]) -> None:
        self._records = records

    def check(self) -> str:
        return "quarantine"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return ()

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        for record in self._records:
            position = f"quarantine {record.quarantine_id}"
            if MASK in record.payload:
                yield Rejected(record.payload.encode(), "a secret was masked in it: read it from the source", position)
            elif record.payload.lstrip().startswith("{"):
                yield JsonRecords(record.payload.encode(), position)
            else:
                yield Rejected(record.payload.encode(), record.reason, position)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def replay(
    request: SyncRequest, dsn: str, ids: Sequence[int] | None = None, progress: Progress | None = None
) -> SyncResult | None:
    """Load the stream's held records (all, or those named) exactly once; None when nothing is held.

    The records leave quarantine in the transaction that loads them. One that still breaks the contract comes back as
    a new entry; one that is older than what the table has of its key counts as deduplicated, see `effect`. The live
    position is neither used nor moved; repeating a replay finds nothing to do.
    """
    from connectors.sync.lifecycle import run

    source, stream = request.source.source, request.stream.name
    with psycopg.connect(dsn, autocommit=True) as connection:
        records = [
            record
            for record in held(connection, source, stream, limit=1_000_000)
            if ids is None or record.quarantine_id in ids
        ]
    if not records:
        return None
    held_ids = [record.quarantine_id for record in records]
    return run(request, dsn, progress or Progress(), connector=_Replaying(records), resolves=held_ids)
