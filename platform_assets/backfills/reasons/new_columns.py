"""A column that turned up later: the windows read before it have none of its values."""

from datetime import UTC

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_ADDED = """
select version, first_seen_at, string_agg(item ->> 'column', ', ' order by item ->> 'column')
from ops.schema_versions, jsonb_array_elements(diff) item
where source = %s and stream = %s and decision in ('evolved', 'accepted')
    and item ->> 'change' = 'new' and item ->> 'action' like 'added%%'
group by version, first_seen_at
order by version
"""


def find(look: Look) -> Found:
    rows = look.connection.execute(_ADDED.encode(), [look.source.source, look.stream.name]).fetchall()
    found = [
        Finding(tuple(partitions), f"new in schema version {version}: {columns}", f"schema version {version}")
        for version, at, columns in rows
        if (partitions := look.read_before(at.astimezone(UTC)))
    ]
    return Found(tuple(found))


REASON = Reason("new_columns", "A column came later than the windows that should have it.", find)
