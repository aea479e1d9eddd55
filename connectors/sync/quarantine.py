"""Records that break the contract or cannot be represented: kept with reason and position, never dropped."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ConfigError
from connectors.secrets import MASK, REFERENCE, mask, resolve
from connectors.sync.audit import Audit, RowRule
from connectors.sync.columns import DELETED
from connectors.sync.decode import Reject
from connectors.sync.dispositions import PLATFORM, ROW_NUMBER, Tables, count
from connectors.sync.originals import decoded, encoded, original
from connectors.sync.result import SyncRequest
from connectors.sync.schema import StreamSchema

MAX_PAYLOAD_BYTES = 1 << 20


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
            record = decoded(payload)
        except ValueError:
            # not readable as a record, so the blocked values in it cannot be told from the rest
            return f"{MASK} ({len(payload):,} characters, withheld: the stream has protected columns)"
        if isinstance(record, dict):
            payload = encoded({key: MASK if key in blocked else value for key, value in record.items()})
    text = mask(payload, secrets).replace("\x00", "")
    return text.encode("utf-8", "replace")[:MAX_PAYLOAD_BYTES].decode("utf-8", "ignore")


def hold(
    connection: psycopg.Connection[Any],
    request: SyncRequest,
    sync_id: str,
    rejects: Sequence[Reject],
    schema_version: int,
) -> None:
    """Keep the rejects, in the caller's transaction. schema_version: the contract that they broke."""
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
                payload, digest, reject.position, schema_version,
            )
        )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ops.quarantine
                (source, stream, sync_id, reason, field, payload, payload_sha256, position, schema_version)
            values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            """,
            rows,
        )


def take_staged(
    connection: psycopg.Connection[Any],
    tables: Tables,
    rules: Sequence[RowRule],
    schema: StreamSchema,
    audit: Audit,
    place: Callable[[int], str],
) -> list[Reject]:
    """Remove the staged rows that break a rule and return them as the source sent them, for the first broken rule.

    place: the source's place of a staged row's number.

    Raises:
        AuditFailedError: they are more than `max_quarantined.rows`.
    """
    rejects: list[Reject] = []
    for rule in rules:
        is_absent = any(field not in tables.columns for field in rule.fields)
        violation = rule.when_absent if is_absent else rule.violation
        broken = count(connection, SQL("select 1 from {} s where {}").format(tables.staged, violation))
        if not broken:
            continue
        audit.refuse_flood(len(rejects) + broken)
        moved = connection.execute(
            SQL("delete from {} s where {} returning {}, (to_jsonb(s) - %s::text[])::text").format(
                tables.staged, violation, Identifier("s", ROW_NUMBER)
            ),
            [[name for name in PLATFORM if name != DELETED]],
        ).fetchall()
        for number, text in sorted(moved):
            payload = original(decoded(text), schema.columns)
            rejects.append(Reject(payload, rule.reason, rule.fields[0], place(number)))
    return rejects
