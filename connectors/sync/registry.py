"""The schema registry: every observed schema of every stream, in `ops.schema_versions`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from connectors.column_spec import ColumnSpec
from connectors.specs import StreamSpec
from connectors.sync.columns import Column
from connectors.sync.differences import Field, Shape, diff, words
from connectors.sync.result import SyncRequest
from connectors.sync.schema import BLOCKED, Drift, FrozenDriftError, StreamSchema, columns_from_json

_SETTLED_ACTIONS = ("added", "ignored", "ignore", "named ", "kept as text", "declared", "loaded")
"""How the action of a settled difference begins."""


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """contract: what the source file promised beside the columns; empty in versions older than the promise."""

    version: int
    columns: tuple[Column, ...]
    diff: tuple[dict[str, Any], ...]
    decision: str
    contract: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def shape(self) -> Shape:
        """The columns that the table has, by the source's names, with what was promised of them."""
        key = tuple(self.contract.get("key", ()))
        not_null = {*self.contract.get("not_null", ()), *key}
        accepted: Mapping[str, Sequence[str]] = self.contract.get("accepted", {})
        return Shape(
            {
                column.source_name: Field(
                    column.pg_type, column.source_name not in not_null, tuple(accepted.get(column.source_name, ()))
                )
                for column in self.columns
                if column.place == "column" and column.variant_of is None
            },
            key,
        )


def newest(connection: psycopg.Connection[Any], source: str, stream: str) -> SchemaVersion | None:
    row = connection.execute(
        """
        select version, columns, diff, decision, contract from ops.schema_versions
        where source = %s and stream = %s order by version desc limit 1
        """,
        [source, stream],
    ).fetchone()
    return SchemaVersion(row[0], columns_from_json(row[1]), tuple(row[2]), row[3], row[4]) if row else None


def under_rules(connection: psycopg.Connection[Any], request: SyncRequest) -> SyncRequest:
    """The request with the columns blocked that an operator has blocked, whatever the source file says."""
    columns = ruled_columns(connection, request.source.source, request.stream)
    return replace(request, stream=request.stream.model_copy(update={"columns": columns}))


def ruled_columns(connection: psycopg.Connection[Any], source: str, stream: StreamSpec) -> Mapping[str, ColumnSpec]:
    """The stream's declared columns, with those blocked that an operator has blocked."""
    rows = connection.execute(
        "select column_name from ops.column_rules where source = %s and stream = %s and lifted_at is null",
        [source, stream.name],
    ).fetchall()
    return {**stream.columns, **{name: ColumnSpec(rule="block") for (name,) in rows}}


def refuse_other_key(last: SchemaVersion | None, request: SyncRequest, released: Collection[tuple[str, str]]) -> None:
    """Raises FrozenDriftError: the table's rows were loaded by another key, and `drift.key: freeze`."""
    stream = request.stream
    if last is None or "key" not in last.contract or stream.write not in ("merge", "scd2"):
        return
    before = tuple(last.contract["key"])
    is_released = ("key", "primary_key") in released
    if before and before != stream.primary_key and stream.drift.key == "freeze" and not is_released:
        was, now = words(before), words(stream.primary_key)
        raise FrozenDriftError(
            f"{request.label}: primary_key",
            f"is {now}, but the raw table was loaded by {was}",
            "Restore the key, or set drift.key: evolve to go over to the new one; its values must be unique.",
            [Drift("key", "primary_key", was, now, BLOCKED)],
        )


def contract_of(stream: StreamSpec) -> dict[str, Any]:
    """What a version keeps of the source file."""
    columns = stream.columns.items()
    return {
        "key": list(stream.primary_key),
        "not_null": [name for name, column in columns if not column.nullable],
        "accepted": {name: list(column.accepted_values) for name, column in columns if column.accepted_values},
    }


def _declared_drift(last: SchemaVersion, contract: Mapping[str, Any]) -> list[Drift]:
    """What the source file says otherwise than it did: decided where it was written.

    That a new key's columns are never NULL goes without saying.
    """
    if not last.contract:
        return []
    changes = diff(last.shape, replace(last, contract=contract).shape)
    in_key = {*last.contract["key"], *contract["key"]} if any(change.kind == "key" for change in changes) else set()
    return [
        Drift(change.kind, change.column or "primary_key", words(change.before), words(change.after), "declared")
        for change in changes
        if not (change.kind == "nullability" and change.column in in_key)
    ]


def undecided(connection: psycopg.Connection[Any], source: str, stream: str) -> list[SchemaVersion]:
    """Versions that wait for a decision, oldest first; accepting one settles all before it."""
    rows = connection.execute(
        """
        select version, columns, diff, decision, contract from ops.schema_versions
        where source = %(source)s and stream = %(stream)s and decision in ('pending', 'blocked')
            and version > coalesce((
                select max(version) from ops.schema_versions
                where source = %(source)s and stream = %(stream)s and decision = 'accepted'
            ), 0)
        order by version
        """,
        {"source": source, "stream": stream},
    ).fetchall()
    return [SchemaVersion(row[0], columns_from_json(row[1]), tuple(row[2]), row[3], row[4]) for row in rows]


def released(connection: psycopg.Connection[Any], source: str, stream: str) -> frozenset[tuple[str, str]]:
    """(change, column) that a policy `freeze` has stopped, and that a person has accepted since."""
    rows = connection.execute(
        """
        select item ->> 'change', item ->> 'column'
        from ops.schema_versions, jsonb_array_elements(diff) as item
        where source = %(source)s and stream = %(stream)s and item ->> 'action' = %(blocked)s and version <= (
            select max(version) from ops.schema_versions
            where source = %(source)s and stream = %(stream)s and decision = 'accepted'
        )
        """,
        {"source": source, "stream": stream, "blocked": BLOCKED},
    ).fetchall()
    return frozenset((change, column) for change, column in rows)


def record_blocked(
    connection: psycopg.Connection[Any], source: str, stream: str, sync_id: str, drift: Sequence[Drift]
) -> None:
    """Keep what a policy `freeze` has stopped a sync for: a version of the same columns, which waits for a decision."""
    last = newest(connection, source, stream)
    diff = [item.to_json() for item in drift]
    if last is None or (last.decision == BLOCKED and list(last.diff) == diff):
        return
    connection.execute(
        """
        insert into ops.schema_versions (source, stream, version, columns, contract, diff, decision, sync_id)
        select source, stream, version + 1, columns, contract, %s, %s, %s from ops.schema_versions
        where source = %s and stream = %s and version = %s
        """,
        [Jsonb(diff), BLOCKED, sync_id, source, stream, last.version],
    )


def record(
    connection: psycopg.Connection[Any],
    source: str,
    stream: str,
    sync_id: str,
    schema: StreamSchema,
    missing: Sequence[Drift],
) -> int | None:
    """Write a new version when columns, promises or open differences changed; the version now in force.

    Decision `evolved` when the stream's policy settled every difference, or a person has accepted it before; `pending`
    when somebody must look.
    """
    last = newest(connection, source, stream)
    columns = [column.to_json() for column in schema.columns]
    contract = contract_of(schema.spec)
    drift = [*schema.drift, *schema.broken, *missing, *(_declared_drift(last, contract) if last else ())]
    diff = list({str(item): item for item in (one.to_json() for one in drift)}.values())
    if last is None:
        if not columns:
            return None
        decision, version = "first", 1
    else:
        same_columns = columns == [column.to_json() for column in last.columns]
        if same_columns and all(item in last.diff for item in diff):
            _remember_contract(connection, source, stream, last, contract)
            return last.version
        known = last.diff if not undecided(connection, source, stream) else ()
        is_settled = all(
            item["action"].startswith(_SETTLED_ACTIONS)
            or item in known
            or (item["change"], item["column"]) in schema.released
            for item in diff
        )
        decision, version = ("evolved" if is_settled else "pending"), last.version + 1
    connection.execute(
        """
        insert into ops.schema_versions
            (source, stream, version, columns, contract, diff, decision, sync_id, decided_at)
        values (%(source)s, %(stream)s, %(version)s, %(columns)s, %(contract)s, %(diff)s, %(decision)s, %(sync_id)s,
            case when %(decision)s = 'pending' then null else now() end)
        """,
        {
            "source": source, "stream": stream, "version": version, "columns": Jsonb(columns), "diff": Jsonb(diff),
            "contract": Jsonb(contract), "decision": decision, "sync_id": sync_id,
        },
    )  # fmt: skip
    return version


def _remember_contract(
    connection: psycopg.Connection[Any], source: str, stream: str, last: SchemaVersion, contract: Mapping[str, Any]
) -> None:
    """A version that is older than the promise learns it."""
    if last.contract != contract:
        connection.execute(
            "update ops.schema_versions set contract = %s where source = %s and stream = %s and version = %s",
            [Jsonb(contract), source, stream, last.version],
        )
