"""Looking at the schema registry, and deciding: accept a version, block a column, lift the block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from connectors.column_spec import did_you_mean
from connectors.errors import ConfigError
from connectors.specs import StreamSpec
from connectors.sync.differences import Change, diff, likeness, name_likeness, with_renames
from connectors.sync.registry import SchemaVersion
from connectors.sync.schema import columns_from_json

Connection = psycopg.Connection[Any]
_WAITS = """
    decision in ('pending', 'blocked') and version > coalesce((
        select max(version) from ops.schema_versions as accepted
        where accepted.source = v.source and accepted.stream = v.stream and accepted.decision = 'accepted'
    ), 0)
"""
_COLUMNS = f"""
    source, stream, version, columns, diff, decision, contract, reason, actor, sync_id::text, first_seen_at,
    decided_at, {_WAITS}
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One row of `ops.schema_versions`. waits: somebody must decide. sync_id: the sync that saw it first."""

    source: str
    stream: str
    schema: SchemaVersion
    reason: str | None
    actor: str
    sync_id: str | None
    first_seen_at: datetime
    decided_at: datetime | None
    waits: bool

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    @property
    def version(self) -> int:
        return self.schema.version


@dataclass(frozen=True, slots=True)
class Rule:
    """A column that an operator has blocked."""

    column: str
    reason: str
    actor: str
    decided_at: datetime


def newest(connection: Connection, source: str | None = None) -> list[Recorded]:
    """The newest version of every stream; `waits` is true when any version of the stream does."""
    rows = connection.execute(
        f"""
        select distinct on (source, stream) {_COLUMNS}, bool_or({_WAITS}) over (partition by source, stream)
        from ops.schema_versions v where source = coalesce(%s, source)
        order by source, stream, version desc
        """,
        [source],
    ).fetchall()
    return [_recorded((*row[:-2], row[-1])) for row in rows]


def versions(connection: Connection, source: str, stream: str) -> list[Recorded]:
    """Every version of the stream, oldest first.

    Raises:
        ConfigError: it has none.
    """
    found = _versions(connection, source, stream)
    if not found:
        raise ConfigError(f"{source}.{stream}", "has no schema version", "Sync it first; see `headwater schema list`.")
    return found


def _versions(connection: Connection, source: str, stream: str) -> list[Recorded]:
    rows = connection.execute(
        f"select {_COLUMNS} from ops.schema_versions v where source = %s and stream = %s order by version",
        [source, stream],
    ).fetchall()
    return [_recorded(row) for row in rows]


def _recorded(row: Sequence[Any]) -> Recorded:
    source, stream, version, columns, changes, decision, contract, *rest = row
    schema = SchemaVersion(version, columns_from_json(columns), tuple(changes), decision, contract)
    return Recorded(source, stream, schema, *rest)


def between(before: SchemaVersion, after: SchemaVersion) -> tuple[Change, ...]:
    """What changed from one version to another; columns of like names count as renamed."""
    changes = diff(before.shape, after.shape)
    return with_renames(changes, lambda old, new: likeness(name_likeness(old, new), None))


def accept(connection: Connection, source: str, stream: str, version: int | None, reason: str, who: str) -> int:
    """Accept a version that waits, and with it all before it. version: None takes the newest that waits; which it was.

    Raises:
        ConfigError: no such version, or it waits for nothing.
    """
    known = versions(connection, source, stream)
    waiting = [one.version for one in known if one.waits]
    if version is None:
        version = max(waiting, default=None)
    if version is None or version not in waiting:
        what = "no version waits" if version is None else f"version {version} does not wait"
        listed = ", ".join(map(str, waiting)) or "none"
        raise ConfigError(f"{source}.{stream}", f"{what} for a decision", f"Waiting: {listed}.")
    connection.execute(
        """
        update ops.schema_versions set decision = 'accepted', reason = %s, actor = %s, decided_at = now()
        where source = %s and stream = %s and version = %s
        """,
        [reason, who, source, stream, version],
    )
    return version


def rules(connection: Connection, source: str, stream: str) -> list[Rule]:
    """Columns that operators have blocked, in force now."""
    rows = connection.execute(
        """
        select column_name, reason, actor, decided_at from ops.column_rules
        where source = %s and stream = %s and lifted_at is null order by column_name
        """,
        [source, stream],
    ).fetchall()
    return [Rule(*row) for row in rows]


def block(connection: Connection, source: str, stream: StreamSpec, column: str, reason: str, who: str) -> int | None:
    """Keep a column out from the next sync on. The version accepted by it, where nothing else waited.

    Raises:
        ConfigError: the column is a key or the cursor, is blocked already, or was never seen nor declared: a misspelt
            name would let the column through.
    """
    needed = {*stream.primary_key, *((stream.cursor.field,) if stream.cursor else ())}
    where = f"{source}.{stream.name}: {column}"
    if column in needed:
        raise ConfigError(where, "is a key or the cursor, so it must be read", "Use rule: hash in the source file.")
    seen = {name for one in _versions(connection, source, stream.name) for name in one.schema.shape.columns}
    known = sorted(seen | set(stream.columns))
    if seen and column not in known:
        hint = did_you_mean(column, known) or "One that is still to come is declared with rule: block."
        raise ConfigError(where, "no version of the stream has this column", hint)
    inserted = connection.execute(
        """
        insert into ops.column_rules (source, stream, column_name, reason, actor) values (%s, %s, %s, %s, %s)
        on conflict (source, stream, column_name) where lifted_at is null do nothing
        """,
        [source, stream.name, column, reason, who],
    ).rowcount
    if not inserted:
        raise ConfigError(where, "is blocked already", "`headwater schema show` says by whom.")
    return _settle(connection, source, stream.name, column, reason, who)


def _settle(connection: Connection, source: str, stream: str, column: str, reason: str, who: str) -> int | None:
    """Accept what waits when it is about the blocked column alone."""
    waiting = [one.schema for one in _versions(connection, source, stream) if one.waits]
    names = {c.name for version in waiting for c in version.columns if c.source_name == column} | {column}
    changes: list[Mapping[str, Any]] = [item for version in waiting for item in version.diff]
    if not waiting or any(item["column"] not in names for item in changes):
        return None
    return accept(connection, source, stream, waiting[-1].version, f"column {column} blocked: {reason}", who)


def lift(connection: Connection, source: str, stream: str, column: str, who: str) -> None:
    """Let a blocked column in again from the next sync on. Raises ConfigError: no operator has blocked it."""
    lifted = connection.execute(
        """
        update ops.column_rules set lifted_at = now(), lifted_by = %s
        where source = %s and stream = %s and column_name = %s and lifted_at is null
        """,
        [who, source, stream, column],
    ).rowcount
    if not lifted:
        raise ConfigError(
            f"{source}.{stream}: {column}", "no operator has blocked it", "A rule in the source file is edited there."
        )
