"""Windows that failed a check of volume, drift or anything else, once that is fixed or accepted."""

from collections import defaultdict
from datetime import UTC, datetime

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_FAILED = """
with latest as (
    select distinct on (window_start) window_start, started_at, verdicts from ops.syncs
    where source = %(source)s and stream = %(stream)s and window_start is not null and finished_at is not null
    order by window_start, started_at desc
), failed as (
    select window_start, started_at, verdict ->> 'name' as name from latest, jsonb_array_elements(verdicts) verdict
    where not (verdict ->> 'passed')::boolean and verdict ->> 'name' not like 'reconcile%%'
)
select failed.window_start, failed.name, cleared.how from failed
cross join lateral (
    select format('passed again in sync %%s', s.sync_id) as how, s.started_at as at from ops.syncs s,
        jsonb_array_elements(s.verdicts) verdict
    where s.source = %(source)s and s.stream = %(stream)s and s.started_at > failed.started_at
        and verdict ->> 'name' = failed.name and (verdict ->> 'passed')::boolean
    union all
    select format('version %%s accepted', v.version), v.decided_at from ops.schema_versions v
    where failed.name = 'schema_drift' and v.source = %(source)s and v.stream = %(stream)s
        and v.decision = 'accepted' and v.decided_at > failed.started_at
    order by at limit 1
) cleared
"""


def find(look: Look) -> Found:
    """The first thing that cleared the check is the cause, so that it is acted on once."""
    rows = look.connection.execute(
        _FAILED.encode(), {"source": look.source.source, "stream": look.stream.name}
    ).fetchall()
    starts: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for start, name, how in rows:
        starts[name, how].append(start.astimezone(UTC))
    found = [
        Finding(tuple(partitions), f"{name} had failed, {how}", f"{name}: {how}")
        for (name, how), moments in starts.items()
        if (partitions := look.at(moments))
    ]
    return Found(tuple(found))


REASON = Reason("failed_checks", "Windows that failed a check which is fixed or accepted now.", find)
