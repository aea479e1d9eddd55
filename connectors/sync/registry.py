"""The schema registry: every observed schema of every stream, in `ops.schema_versions`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.sql import Identifier
from psycopg.types.json import Jsonb

from connectors.column_spec import ColumnSpec
from connectors.specs import StreamSpec
from connectors.sync import on_record
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
    def unique_by(self) -> tuple[str, ...] | None:
        """The key that the table's rows are told apart by; None when nobody knows. A version that is older than the
        promise of a disposition counts as one of a key."""
        if "key" not in self.contract:
            return None
        return () if self.contract.get("write") == "append" else tuple(self.contract["key"])

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
    before = last.unique_by if last else None
    if not before or before == stream.primary_key or stream.write == "replace":
        return
    if stream.drift.key == "freeze" and ("key", "primary_key") not in released:
        was, now = words(before), words(stream.primary_key)
        then = "its values must be unique" if stream.write != "append" else "rows may then have one more than once"
        raise FrozenDriftError(
            f"{request.label}: primary_key",
            f"is {now}, but the raw table was loaded by {was}",
            f"Restore the key, or set drift.key: evolve to go over to the new one; {then}.",
            [Drift("key", "primary_key", was, now, BLOCKED)],
        )


def contract_of(stream: StreamSpec) -> dict[str, Any]:
    """What a version keeps of the source file."""
    columns = stream.columns.items()
    return {
        "write": stream.write or "append",
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
    """(change, column) that a policy `freeze` has stopped, that a person has accepted, and that has not ended since."""
    return on_record.read(connection, source, stream).released


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


@dataclass(frozen=True, slots=True)
class Seen:
    """What a sync that speaks of now has read. missing: columns that none of its `records` records had."""

    missing: Sequence[Drift]
    records: int
    raw: Identifier
    load_id: str


def record(
    connection: psycopg.Connection[Any],
    source: str,
    stream: str,
    sync_id: str,
    schema: StreamSchema,
    seen: Seen | None,
) -> int | None:
    """Write a new version when columns, promises or open differences changed; the version now in force.

    Decision `evolved` when the stream's policy settled every difference, or a person has accepted it before; `pending`
    when somebody must look; `first` when nothing declared contradicts the first sync.

    seen: None while the sync goes on, or of one that does not speak of now.
    """
    last = newest(connection, source, stream)
    columns = [column.to_json() for column in schema.columns]
    contract = contract_of(schema.spec)
    missing = seen.missing if seen else ()
    drift = [*schema.drift, *schema.broken, *missing, *(_declared_drift(last, contract) if last else ())]
    diff = list({str(item): item for item in (one.to_json() for one in drift)}.values())
    if last is None:
        if not columns:
            return None
        decision, version = ("pending" if _contradicts(schema, diff) else "first"), 1
    else:
        known = on_record.read(connection, source, stream)
        if seen is not None:
            returned = _returned(connection, known, schema, seen)
            diff = [*returned, *(item for item in diff if not known.may_be_chance(item, seen.records))]
        same_columns = columns == [column.to_json() for column in last.columns]
        if same_columns and all(known.has(item) for item in diff):
            _remember_contract(connection, source, stream, last, contract)
            return last.version
        is_settled = all(
            _is_settled(item) or item in known.settled or (item["change"], item["column"]) in schema.released
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


def _is_settled(item: on_record.Item) -> bool:
    """By the policy alone."""
    return item["action"].startswith(_SETTLED_ACTIONS)


def _contradicts(schema: StreamSchema, diff: Sequence[on_record.Item]) -> bool:
    """Whether a first sync differs from declared columns in what the policy leaves open.

    Types that nobody declared are observed in the same sync: they contradict nothing.
    """
    spec = {column.name: schema.spec.columns.get(column.source_name) for column in schema.columns}
    return any(
        (declared := spec.get(item["column"])) is not None
        and (item["change"] != "retyped" or declared.type is not None)
        and not _is_settled(item)
        for item in diff
    )


def _returned(
    connection: psycopg.Connection[Any], known: on_record.OnRecord, schema: StreamSchema, seen: Seen
) -> list[dict[str, Any]]:
    """A difference for each lost column that is back; none where the policy says that records may lack one."""
    back = {
        column.name: column
        for column in schema.table_columns
        if column.variant_of is None and column.name in known.lost and column.source_name in schema.seen
    }
    if not back or schema.spec.drift.missing == "ignore":
        return []
    shares = on_record.shares_of(connection, seen.raw, back, seen.load_id)
    return [
        Drift("returned", name, None, None, "loaded").to_json() | {"share": round(share, 4)}
        for name, share in shares.items()
    ]


def _remember_contract(
    connection: psycopg.Connection[Any], source: str, stream: str, last: SchemaVersion, contract: Mapping[str, Any]
) -> None:
    """A version that is older than the promise learns it."""
    if last.contract != contract:
        connection.execute(
            "update ops.schema_versions set contract = %s where source = %s and stream = %s and version = %s",
            [Jsonb(contract), source, stream, last.version],
        )
