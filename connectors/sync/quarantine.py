"""Records that break the contract or cannot be represented: kept with reason and position, never dropped."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from connectors.errors import ConfigError, LoaderError
from connectors.secrets import REFERENCE, mask, resolve
from connectors.sync import superseding
from connectors.sync.audit import Audit, RowRule
from connectors.sync.columns import DELETED
from connectors.sync.originals import decoded, original
from connectors.sync.promises import judge_promise
from connectors.sync.rejects import Reject
from connectors.sync.result import SyncRequest, Verdict
from connectors.sync.schema import StreamSchema
from connectors.sync.splitting import SHOWN_BYTES
from connectors.sync.superseding import PUT_BACK, is_whole
from connectors.sync.tables import PLATFORM, ROW_NUMBER, Tables, count

MAX_PAYLOAD_BYTES = 1 << 20
MAX_EXAMPLES = 20
"""Of refused records that a failed sync leaves behind."""


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


def masked(payload: str, secrets: Sequence[str]) -> str:
    """The payload without secrets, at most 1 MB, storable as text. Column rules were applied when it came."""
    text = mask(payload, secrets).replace("\x00", "")
    return text.encode("utf-8", "replace")[:MAX_PAYLOAD_BYTES].decode("utf-8", "ignore")


def hold(
    connection: psycopg.Connection[Any],
    request: SyncRequest,
    sync_id: str,
    rejects: Sequence[Reject],
    schema_version: int,
) -> None:
    """Keep the rejects, in the caller's transaction; what earlier syncs hold of the same records is superseded.

    schema_version: the contract that they broke.
    """
    if not rejects:
        return
    secrets = secret_values(request)
    is_replay = request.trigger == "replay"
    rows: list[tuple[Any, ...]] = []
    digests: list[str] = []
    for reject in rejects:
        payload = masked(reject.payload, secrets)
        digest = hashlib.sha256(reject.payload.encode("utf-8", "replace")).hexdigest()
        put_back = PUT_BACK.match(reject.position) if is_replay else None
        if is_whole(reject):
            digests.append(digest)
        rows.append(
            (
                request.source.source, request.stream.name, sync_id, mask(reject.reason, secrets), reject.field,
                payload, digest, reject.position, schema_version, put_back and int(put_back[1]),
            )
        )  # fmt: skip
    with connection.cursor() as cursor:
        # what a replay puts back is known by the payload that the source sent, not by what was kept of it
        cursor.executemany(
            """
            insert into ops.quarantine (
                source, stream, sync_id, reason, field, payload, payload_sha256, position, schema_version, read_by
            )
            select r.source, r.stream, r.sync_id, r.reason, r.field, r.payload, coalesce(o.payload_sha256, r.digest),
                r.position, r.schema_version, coalesce(o.read_by, o.sync_id)
            from (values (
                %s::text, %s::text, %s::uuid, %s::text, %s::text, %s::text, %s::text, %s::text, %s::integer, %s::bigint
            )) as r (
                source, stream, sync_id, reason, field, payload, digest, position, schema_version, put_back
            )
            left join ops.quarantine o on o.quarantine_id = r.put_back
            """,
            rows,
        )
    if digests and not is_replay:
        superseding.by_payload(connection, request, sync_id, digests)


def release(connection: psycopg.Connection[Any], label: str, sync_id: str, ids: Sequence[int]) -> None:
    """Let the records leave quarantine, in the transaction that loads them.

    Raises:
        LoaderError: one of them is held no more: it was loaded by another replay, superseded or discarded meanwhile.
    """
    resolved = connection.execute(
        """
        update ops.quarantine set status = 'replayed', resolved_by = %s, resolved_at = now()
        where quarantine_id = any (%s) and status = 'held'
        """,
        [sync_id, list(ids)],
    ).rowcount
    if resolved < len(ids):
        raise LoaderError(
            label,
            f"{len(ids) - resolved:,} of {len(ids):,} records left quarantine while they were replayed",
            "Nothing was loaded; replay what is still held.",
        )


def take_staged(
    connection: psycopg.Connection[Any],
    tables: Tables,
    rules: Sequence[RowRule],
    schema: StreamSchema,
    audit: Audit,
    place: Callable[[int], str],
    rejects: list[Reject],
) -> None:
    """Move the staged rows that break a rule to `rejects`, as the source sent them, for the first rule they break.

    What `drift.nullability` and `drift.enum` let pass stays staged and is noted in the schema.
    place: the source's place of a staged row's number.

    Raises:
        AuditFailedError: they are more than `max_quarantined.rows`; then a few of them are moved, as examples.
        ContractError: a rule is broken whose drift policy is `freeze`.
    """
    violations = [
        rule.violation if all(field in tables.columns for field in rule.fields) else rule.when_absent for rule in rules
    ]
    if not _is_any(connection, tables, violations):
        return
    for rule, violation in zip(rules, violations, strict=True):
        broken = count(connection, SQL("select 1 from {} s where {}").format(tables.staged, violation))
        if not broken:
            continue
        if rule.promise is not None and judge_promise(connection, tables, rule, violation, schema) == "evolve":
            continue
        total = len(rejects) + broken
        limit = MAX_EXAMPLES if total > audit.quarantine_left else None
        moved = connection.execute(
            SQL(
                "delete from {staged} s where ctid in (select ctid from {staged} s where {violation} limit %s) "
                "returning {number}, (to_jsonb(s) - %s::text[])::text"
            ).format(staged=tables.staged, violation=violation, number=Identifier("s", ROW_NUMBER)),
            [limit, [name for name in PLATFORM if name != DELETED]],
        ).fetchall()
        for number, text in sorted(moved):
            payload = original(decoded(text), schema.columns)
            rejects.append(Reject(payload, rule.reason, rule.fields[0], place(number)))
        audit.refuse_flood(total)


def _is_any(connection: psycopg.Connection[Any], tables: Tables, violations: Sequence[Composable]) -> bool:
    """One pass for all the rules, which most windows keep."""
    if not violations:
        return False
    one_of = SQL(" or ").join(SQL("({})").format(violation) for violation in violations)
    probe = SQL("select 1 from {} s where {} limit 1").format(tables.staged, one_of)
    return connection.execute(probe).fetchone() is not None


def with_examples(verdicts: Sequence[Verdict], refused: Sequence[Reject], request: SyncRequest) -> list[Verdict]:
    """The verdicts of a failed sync, the one on quarantine with examples of the records that it would have held.

    They are shown and never replayed: nothing of the sync's last windows was published, so the source sends them again.
    """
    if not refused:
        return list(verdicts)
    secrets = secret_values(request)
    examples = [
        {
            "reason": mask(reject.reason, secrets),
            "field": reject.field,
            "position": reject.position,
            "payload": masked(reject.payload, secrets)[:SHOWN_BYTES],
        }
        for reject in refused[:MAX_EXAMPLES]
    ]
    found = next((verdict for verdict in verdicts if verdict.name == "quarantine"), None) or Verdict(
        "quarantine",
        passed=False,
        severity="warn",
        blocking=False,
        explanation=f"{len(refused):,} records were refused and are not held, for the sync failed",
        measured={"quarantined": len(refused)},
    )
    shown = replace(found, measured={**found.measured, "examples": examples})
    return [*(verdict for verdict in verdicts if verdict.name != "quarantine"), shown]
