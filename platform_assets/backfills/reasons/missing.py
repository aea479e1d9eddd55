"""Windows that are over and were never read."""

from datetime import UTC

from platform_assets.backfills.reasons.contract import TRIES, Finding, Found, Look, Reason

_HOPELESS = """
with tried as (
    select window_start, count(*) as tries,
        (array_agg(failure_class order by started_at desc))[1] as failure_class, max(started_at) as last_at
    from ops.syncs
    where source = %(source)s and stream = %(stream)s and window_start is not null and failure_class is not null
    group by window_start
)
select window_start from tried
where tries >= %(tries)s or failure_class in ('config', 'auth', 'contract', 'source') and not exists (
    select 1 from ops.syncs s
    where s.source = %(source)s and s.stream = %(stream)s and s.status like 'succeeded%%'
        and s.started_at > tried.last_at
)
"""


def find(look: Look) -> Found:
    """Without the newest, which the schedule reads, and without those that would only fail again.

    A failure that no retry mends (config, auth, contract, source) counts until the stream has succeeded again.
    """
    parameters = {"source": look.source.source, "stream": look.stream.name, "tries": TRIES}
    hopeless = {row[0].astimezone(UTC) for row in look.connection.execute(_HOPELESS.encode(), parameters).fetchall()}
    partitions = [
        key
        for key, window in list(look.windows.items())[1:]
        if window.start not in look.read_at and window.start not in hopeless
    ]
    return Found((Finding(tuple(partitions), "never read"),) if partitions else ())


REASON = Reason("missing", "Windows that are over and were never read.", find)
