"""`headwater pools`: what is left of every quota that processes share, and which breakers are open."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from platform_assets.cli import output
from platform_assets.cli.context import warehouse_session

_QUERY = """
    select
        pool, requests, per_seconds, tokens, extract(epoch from refilled_at)::float8,
        extract(epoch from clock_timestamp())::float8,
        greatest(0, extract(epoch from blocked_until - clock_timestamp()))::float8,
        case
            when breaker = 'closed' then 'closed'
            when opened_at + make_interval(secs => coalesce(breaker_pause_seconds, 0)) <= clock_timestamp()
                then 'half open'
            else 'open'
        end,
        case when resets_at > clock_timestamp() then remaining end,
        case when resets_at > clock_timestamp()
            then extract(epoch from resets_at - clock_timestamp())::float8 end,
        is_fixed, concurrent,
        (
            select count(*) from jsonb_each_text(slots)
            where value::float8 > extract(epoch from clock_timestamp())
        ),
        case when cardinality(failing) = 1 then failing[1] end
    from ops.rate_pools
    order by pool
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """free: requests that may be sent at once; below zero, so many are booked ahead. None without a quota.

    held_seconds: how long the source has asked everybody to pause. remaining, resets_in_seconds: what the source
    itself said last, until its reset. under_way: requests of those that `concurrent` bounds. failing: the one stream
    that the breaker is about; None when it is about all.
    """

    pool: str
    requests: int | None
    per_seconds: float | None
    free: int | None
    held_seconds: float
    breaker: str
    remaining: int | None
    resets_in_seconds: float | None
    is_fixed: bool
    concurrent: int | None
    under_way: int
    failing: str | None


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
) -> None:
    """Show what is left of every quota that all processes share, what sources said of theirs, and open breakers."""
    from connectors.http.limits import Bucket, Quota, available

    found: list[Shown] = []
    with warehouse_session() as session:
        for pool, requests, per, tokens, at, now, held, breaker, remaining, resets, fixed, *more in session.execute(
            _QUERY
        ):
            free = None
            if requests is not None:
                quota = Quota(requests, per, fixed)
                free = int(available(Bucket(min(tokens, quota.burst), at), quota, now) // 1)
            found.append(Shown(pool, requests, per, free, held, breaker, remaining, resets, fixed, *more))
    if as_json:
        print(json.dumps([asdict(shown) for shown in found]))
        return
    if not found:
        print("no pool is on record: a pool appears with the first sync that uses it")
        return
    table = output.table("", "pool", "quota", "free now", "under way", "held", "breaker", "source says")
    for shown in found:
        quota_text = f"{shown.requests:,} in {shown.per_seconds:g} s" if shown.requests else "none"
        if shown.is_fixed:
            quota_text += ", fixed"
        said = ""
        if shown.remaining is not None:
            said = f"{shown.remaining:,} left, resets in {shown.resets_in_seconds:.0f} s"
        free = "" if shown.free is None else f"{shown.free:,}"
        way = "" if shown.concurrent is None else f"{shown.under_way} of {shown.concurrent}"
        held = f"{shown.held_seconds:.0f} s" if shown.held_seconds else ""
        breaker = shown.breaker
        if shown.failing is not None and breaker != "closed":
            breaker += f" for {shown.failing}"
        table.add_row(shown.pool, quota_text, free, way, held, breaker, said)
    output.console().print(table, markup=False)
