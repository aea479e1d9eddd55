"""Windows whose data changed at the source after they were read: reconciliation says so, or the source's changes do."""

from datetime import UTC, datetime
from typing import Any

from psycopg import errors
from psycopg.sql import SQL, Identifier

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_UNEQUAL = """
select window_start, sync_id, said, is_hopeless from failing where name = any(%(reconciling)s)
order by window_start desc
"""


def find(look: Look) -> Found:
    changed = _changed(look)
    return Found((*_unequal(look), *changed.findings), changed.mark, finds_once=True)


def _unequal(look: Look) -> list[Finding]:
    """Windows whose last word is that they do not agree with the source."""
    return [
        Finding(
            tuple(partitions), f"reconciliation: {said}", f"reconciliation of sync {sync_id}", is_hopeless=is_hopeless
        )
        for start, sync_id, said, is_hopeless in look.failing("late", _UNEQUAL)
        if (partitions := look.at([start.astimezone(UTC)]))
    ]


def _changed(look: Look) -> Found:
    """Windows that rows of the stream of corrections name, as far as they came after the windows were read."""
    spec = look.stream.backfill.corrections
    if spec is None:
        return Found(mark=look.mark)
    since = datetime.fromisoformat(str(look.mark.get("synced_at", "0001-01-01T00:00:00+00:00")))
    query = SQL("select {field}::timestamptz, max(_synced_at) from {table} where _synced_at > %s group by 1").format(
        field=Identifier(spec.field), table=Identifier(look.source.schema_name, spec.stream)
    )
    try:
        rows: list[tuple[Any, ...]] = look.connection.execute(query, [since]).fetchall()
    except errors.UndefinedTable:
        rows = []
    told = [(moment, at) for moment, at in rows if moment is not None]
    if not told:
        return Found(mark=look.mark)
    newest = max(at for _, at in told)
    partitions = [
        key
        for key in look.at(moment for moment, _ in told)
        if (read := look.read_at.get(look.windows[key].start)) is not None
        and any(at > read and look.windows[key].start <= moment < look.windows[key].end for moment, at in told)
    ]
    why = f"{len(told)} changes in {spec.stream}"
    cause = f"{spec.stream} up to {newest.astimezone(UTC).isoformat()}"
    return Found((Finding(tuple(partitions), why, cause),) if partitions else (), {"synced_at": newest.isoformat()})


REASON = Reason("late", "Windows whose data changed at the source after they were read.", find)
