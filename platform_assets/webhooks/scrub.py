"""What is blocked since: taken out of the bodies that wait in the inbox."""

from typing import TYPE_CHECKING, Any

from psycopg import errors

from connectors.errors import ResourceError
from connectors.specs import SourceSpec
from platform_assets.webhooks.blocked import Blocks, read_blocks

if TYPE_CHECKING:
    import psycopg

WAIT_SECONDS = 5
PAGE_BYTES = 16 << 20
PAGE_ROWS = 2_000

_LOCK = "lock table ops.webhook_inbox in share mode"
_NEWEST = "select coalesce(max(sequence), 0) from ops.webhook_inbox where source = %s"
_PAGE = """
    select sequence, event_type, body from (
        select sequence, event_type, body, sum(length(body)) over (order by sequence) - length(body) as before_bytes
        from (
            select sequence, event_type, body from ops.webhook_inbox
            where source = %s and sequence > %s and sequence <= %s order by sequence limit %s
        ) as next
    ) as page
    where before_bytes < %s order by sequence
"""
_UPDATE = """
    update ops.webhook_inbox as inbox set body = kept.body
    from unnest(%b::bigint[], %b::bytea[]) as kept (sequence, body) where inbox.sequence = kept.sequence
"""


def scrub(
    session: "psycopg.Connection[Any]",
    source: SourceSpec,
    *,
    wait_seconds: int = WAIT_SECONDS,
    page_bytes: int = PAGE_BYTES,
) -> int:
    """Takes out of the source's bodies what every stream of their event blocks now; how many bodies had something.

    Each page is a transaction of its own; ids and sequence numbers stay, so receivers and syncs go on beside it.
    session: of the owner of ops, in autocommit.

    Raises:
        ResourceError: another session keeps the inbox locked.
    """
    _await_writers(session, source, wait_seconds)
    blocks = read_blocks(session, source)
    if not blocks:
        return 0
    row = session.execute(_NEWEST.encode(), [source.source]).fetchone()
    after, until, changed = 0, row[0] if row else 0, 0
    while page := _page(session, source, after, until, page_bytes):
        changed += _scrub(session, source, blocks, page)
        after = page[-1][0]
    return changed


def _await_writers(session: "psycopg.Connection[Any]", source: SourceSpec, seconds: int) -> None:
    """From here on every body that was stored by the rules of before can be seen, and no other is stored by them."""
    try:
        with session.transaction():
            session.execute(f"set local lock_timeout = '{seconds}s'".encode())
            session.execute(_LOCK.encode())
    except errors.LockNotAvailable as error:
        raise ResourceError(
            f"{source.source}: ops.webhook_inbox",
            f"another session has kept it locked for {seconds} s, so that nothing was taken out of bodies",
            f"Run `headwater webhooks scrub {source.source}` when it is done.",
        ) from error


def _page(
    session: "psycopg.Connection[Any]", source: SourceSpec, after: int, until: int, page_bytes: int
) -> list[tuple[int, str, bytes]]:
    bounds = (source.source, after, until, PAGE_ROWS, page_bytes)
    return session.execute(_PAGE.encode(), bounds, binary=True).fetchall()


def _scrub(
    session: "psycopg.Connection[Any]", source: SourceSpec, blocks: Blocks, page: list[tuple[int, str, bytes]]
) -> int:
    kept = [(sequence, body, blocks.kept(source.source, event, body)) for sequence, event, body in page]
    changed = [(sequence, new) for sequence, old, new in kept if new != old]
    if changed:
        session.execute(_UPDATE.encode(), [[sequence for sequence, _ in changed], [new for _, new in changed]])
    return len(changed)
