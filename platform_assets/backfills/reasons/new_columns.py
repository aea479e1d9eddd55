"""A column that turned up later: the windows read before it have none of its values."""

from datetime import UTC

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_ADDED = """
select v.version, coalesce(s.started_at, v.first_seen_at),
    string_agg(item ->> 'column', ', ' order by item ->> 'column')
from ops.schema_versions v
left join ops.syncs s using (sync_id)
cross join jsonb_array_elements(v.diff) item
where v.source = %s and v.stream = %s and v.decision in ('evolved', 'accepted')
    and item ->> 'change' = 'new' and item ->> 'action' like 'added%%'
group by 1, 2
order by 1
"""


def find(look: Look) -> Found:
    """Windows that were last read before the sync which met the column began: that sync's own window has it."""
    rows = look.connection.execute(_ADDED.encode(), [look.source.source, look.stream.name]).fetchall()
    found = [
        Finding(tuple(partitions), f"new in schema version {version}: {columns}", f"schema version {version}")
        for version, at, columns in rows
        if (partitions := look.read_before(at.astimezone(UTC)))
    ]
    return Found(tuple(found))


REASON = Reason("new_columns", "A column came later than the windows that should have it.", find)
