"""The schema registry: every observed schema of every stream, in `ops.schema_versions`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from connectors.sync.columns import Column
from connectors.sync.schema import Drift, StreamSchema, columns_from_json

_SETTLED_ACTIONS = ("added", "ignored", "ignore", "named ", "kept as text")
"""How the action of a settled difference begins."""


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    version: int
    columns: tuple[Column, ...]
    diff: tuple[dict[str, Any], ...]
    decision: str


def newest(connection: psycopg.Connection[Any], source: str, stream: str) -> SchemaVersion | None:
    row = connection.execute(
        """
        select version, columns, diff, decision from ops.schema_versions
        where source = %s and stream = %s order by version desc limit 1
        """,
        [source, stream],
    ).fetchone()
    return SchemaVersion(row[0], columns_from_json(row[1]), tuple(row[2]), row[3]) if row else None


def undecided(connection: psycopg.Connection[Any], source: str, stream: str) -> list[SchemaVersion]:
    """Versions that wait for a decision, oldest first; accepting one settles all before it."""
    rows = connection.execute(
        """
        select version, columns, diff, decision from ops.schema_versions
        where source = %(source)s and stream = %(stream)s and decision in ('pending', 'blocked')
            and version > coalesce((
                select max(version) from ops.schema_versions
                where source = %(source)s and stream = %(stream)s and decision = 'accepted'
            ), 0)
        order by version
        """,
        {"source": source, "stream": stream},
    ).fetchall()
    return [SchemaVersion(row[0], columns_from_json(row[1]), tuple(row[2]), row[3]) for row in rows]


def record(
    connection: psycopg.Connection[Any],
    source: str,
    stream: str,
    sync_id: str,
    schema: StreamSchema,
    missing: Sequence[Drift],
) -> int | None:
    """Write a new version when the columns or the open differences changed; the version now in force.

    Decision `evolved` when the stream's policy settled every difference, `pending` when somebody must look.
    """
    last = newest(connection, source, stream)
    columns = [column.to_json() for column in schema.columns]
    diff = [drift.to_json() for drift in (*schema.drift, *missing)]
    if last is None:
        if not columns:
            return None
        decision, version = "first", 1
    else:
        same_columns = columns == [column.to_json() for column in last.columns]
        if same_columns and all(item in last.diff for item in diff):
            return last.version
        is_settled = all(item["action"].startswith(_SETTLED_ACTIONS) for item in diff)
        decision, version = ("evolved" if is_settled else "pending"), last.version + 1
    connection.execute(
        """
        insert into ops.schema_versions (source, stream, version, columns, diff, decision, sync_id, decided_at)
        values (%(source)s, %(stream)s, %(version)s, %(columns)s, %(diff)s, %(decision)s, %(sync_id)s,
            case when %(decision)s = 'pending' then null else now() end)
        """,
        {
            "source": source, "stream": stream, "version": version, "columns": Jsonb(columns), "diff": Jsonb(diff),
            "decision": decision, "sync_id": sync_id,
        },
    )  # fmt: skip
    return version
