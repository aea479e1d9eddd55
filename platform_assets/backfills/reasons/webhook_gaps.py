"""Hours without any delivery of a webhook source that usually delivers: the API is asked for them instead."""

from datetime import UTC

from platform_assets.backfills.reasons.contract import Finding, Found, Look, Reason

_GAPS = """
with deliveries as (
    select received_at, lag(received_at) over (order by received_at) as before from ops.webhook_inbox where source = %s
)
select before, received_at from deliveries where received_at - before > %s order by received_at
"""


def find(look: Look) -> Found:
    """A gap is known once deliveries have come again. Windows that were read after its end have what was missed."""
    spec = look.stream.backfill.webhook_gaps
    assert spec is not None
    rows = look.connection.execute(_GAPS.encode(), [spec.source, spec.longer_than]).fetchall()
    found: list[Finding] = []
    for before, after in ((start.astimezone(UTC), end.astimezone(UTC)) for start, end in rows):
        partitions = [
            key
            for key in look.touching(before, after)
            if (read := look.read_at.get(look.windows[key].start)) is None or read < after
        ]
        span = f"{before:%Y-%m-%d %H:%M} to {after:%Y-%m-%d %H:%M} UTC"
        if partitions:
            found.append(Finding(tuple(partitions), f"no delivery of {spec.source} from {span}", f"gap {span}"))
    return Found(tuple(found))


REASON = Reason(
    "webhook_gaps",
    "Hours without a delivery of a webhook source.",
    find,
    lambda stream: stream.partitions is not None and stream.backfill.webhook_gaps is not None,
)
