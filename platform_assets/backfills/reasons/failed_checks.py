"""Windows that failed a check of volume, drift or anything else, once that is fixed or accepted."""

from collections import defaultdict
from datetime import UTC, datetime

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_CLEARED = """
select failing.window_start, failing.name, failing.is_hopeless, cleared.how from failing
cross join lateral (
    select format('passed again in sync %%s', s.sync_id) as how, s.started_at as at from ops.syncs s,
        jsonb_array_elements(s.verdicts) verdict
    where s.source = %(source)s and s.stream = %(stream)s and s.started_at > failing.started_at
        and s.finished_at is not null and verdict ->> 'name' = failing.name and (verdict ->> 'passed')::boolean
    union all
    select format('version %%s accepted', v.version), v.decided_at from ops.schema_versions v
    where failing.name = 'schema_drift' and v.source = %(source)s and v.stream = %(stream)s
        and v.decision = 'accepted' and v.decided_at > failing.started_at
    order by at limit 1
) cleared
where not failing.name = any(%(reconciling)s) and not failing.name = any(%(late)s)
"""


def find(look: Look) -> Found:
    """The first thing that cleared the check is the cause, so that it is acted on once.

    Late rows are in the table already: no other read makes them early.
    """
    starts: defaultdict[tuple[str, str, bool], list[datetime]] = defaultdict(list)
    for start, name, is_hopeless, how in look.failing("failed_checks", _CLEARED):
        starts[name, how, is_hopeless].append(start.astimezone(UTC))
    found = [
        Finding(tuple(partitions), f"{name} had failed, {how}", f"{name}: {how}", is_hopeless=is_hopeless)
        for (name, how, is_hopeless), moments in starts.items()
        if (partitions := look.at(moments))
    ]
    return Found(tuple(found))


REASON = Reason("failed_checks", "Windows that failed a check which is fixed or accepted now.", find)
