"""Records that break the contract or cannot be represented: kept with reason and position, never dropped."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL

from connectors.errors import ConfigError
from connectors.secrets import MASK, REFERENCE, mask, resolve
from connectors.sync.audit import RowRule
from connectors.sync.decode import Reject
from connectors.sync.dispositions import ROW_NUMBER, Tables
from connectors.sync.result import SyncRequest

MAX_PAYLOAD_BYTES = 1 << 20
_PLATFORM = ["_synced_at", "_dlt_load_id", ROW_NUMBER, "_valid_from", "_valid_to"]


def secret_values(request: SyncRequest) -> list[str]:
    """The values behind the references of the source's connector, for masking; unset ones are left out."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)
        elif isinstance(value, str) and REFERENCE.match(value):
            try:
                found.append(resolve(value, request.label))
            except ConfigError:
                return

    walk(request.source.connector.model_dump())
    return found


def masked(payload: str, request: SyncRequest, secrets: Sequence[str]) -> str:
    """The payload without secrets and without the columns that the contract blocks, at most 1 MB, storable as text."""
    blocked = {name for name, spec in request.stream.columns.items() if spec.rule != "keep"}
    if blocked:
        try:
            record = json.loads(payload)
        except ValueError:
            # not readable as a record, so the blocked values in it cannot be told from the rest
            return f"{MASK} ({len(payload):,} characters, withheld: the stream has protected columns)"
        if isinstance(record, dict):
            payload = json.dumps({key: MASK if key in blocked else value for key, value in record.items()})
    text = mask(payload, secrets).replace("\x00", "")
    return text.encode("utf-8", "replace")[:MAX_PAYLOAD_BYTES].decode("utf-8", "ignore")


def hold(connection: psycopg.Connection[Any], request: SyncRequest, sync_id: str, rejects: Sequence[Reject]) -> None:
    """Keep the rejects, in the caller's transaction."""
    if not rejects:
        return
    secrets = secret_values(request)
    rows: list[tuple[Any, ...]] = []
    for reject in rejects:
        payload = masked(reject.payload, request, secrets)
        digest = hashlib.sha256(reject.payload.encode("utf-8", "replace")).hexdigest()
        rows.append(
            (
                request.source.source, request.stream.name, sync_id, mask(reject.reason, secrets), reject.field,
                payload, digest, reject.position,
            )
        )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.quarantine (source, stream, sync_id, reason, field, payload, payload_sha256, position)
            values (%s, %s, %s, %s, %s, %s, %s, %s)
            """,
            rows,
        )


def hold_staged(
    connection: psycopg.Connection[Any],
    request: SyncRequest,
    sync_id: str,
    tables: Tables,
    rules: Sequence[RowRule],
) -> int:
    """Move the staged rows that break a rule to quarantine; how many. A row is held once, for its first broken rule."""
    moved = 0
    protected = [name for name, spec in request.stream.columns.items() if spec.rule != "keep"]
    for rule in rules:
        is_absent = any(field not in tables.columns for field in rule.fields)
        violation = rule.when_absent if is_absent else rule.violation
        moved += connection.execute(
            SQL(
                """
                with moved as (
                    delete from {staged} s where {violation} returning to_jsonb(s) - %(ours)s::text[] as record
                )
                insert into ops.quarantine (source, stream, sync_id, reason, field, payload, payload_sha256, position)
                select %(source)s, %(stream)s, %(sync_id)s, %(reason)s, %(field)s, masked.record::text,
                    encode(sha256(convert_to(moved.record::text, 'UTF8')), 'hex'), 'staged row'
                from moved,
                lateral (
                    select moved.record || coalesce(
                        (select jsonb_object_agg(k, %(mask)s::text) from unnest(%(protected)s::text[]) as k
                         where moved.record ? k), '{{}}'
                    ) as record
                ) as masked
                """
            ).format(staged=tables.staged, violation=violation),
            {
                "ours": _PLATFORM, "source": request.source.source, "stream": request.stream.name,
                "sync_id": sync_id, "reason": rule.reason, "field": rule.fields[0], "mask": MASK,
                "protected": protected,
            },
        ).rowcount  # fmt: skip
    return moved
