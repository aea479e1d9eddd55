"""Old deliveries leave the inbox, once every stream of their source has read them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from connectors.errors import ConfigError
from connectors.specs import SourceSpec
from platform_assets.webhooks.backlog import POSITION

if TYPE_CHECKING:
    import psycopg

    from connectors.kinds.webhook import WebhookStreamSpec

ROWS = 10_000
"""Of one transaction: receivers and readers go on beside it."""

_OLD = (
    "select count(*), min(received_at) from ops.webhook_inbox where source = %s and sequence <= %s and received_at < %s"
)
_UNREAD = "select count(*) from ops.webhook_inbox where source = %s and sequence > %s and received_at < %s"
_DELETE = """
    delete from ops.webhook_inbox where ctid = any(array(
        select ctid from ops.webhook_inbox
        where source = %s and sequence <= %s and received_at < %s order by sequence limit %s
    ))
"""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What may go: deliveries up to `until`, the position of the stream that has read least, stored before `before`.

    oldest: when the first of them was stored. unread: as old, and kept because `slowest` has not read them.
    """

    source: str
    before: datetime
    until: int
    deliveries: int
    oldest: datetime | None
    unread: int
    slowest: str


def plan_pruning(session: "psycopg.Connection[Any]", source: SourceSpec, before: datetime) -> Pruning:
    """Nothing is changed.

    Raises:
        ConfigError: a stream of the source reads the whole inbox again, so that nothing in it is ever done with.
    """
    positions: list[tuple[int, str]] = []
    for stream in cast("tuple[WebhookStreamSpec, ...]", source.streams):
        if stream.write == "replace" or stream.snapshot or stream.partitions is not None:
            raise ConfigError(
                f"{source.source}.{stream.name}",
                "reads the whole inbox again (write: replace, snapshot or partitions), so that nothing of it may go",
                "Use write: append or merge without partitions, or leave this source's inbox whole.",
            )
        row = session.execute(POSITION.encode(), [source.source, stream.name]).fetchone()
        positions.append((row[0] if row else 0, stream.name))
    until, slowest = min(positions)
    count, oldest = session.execute(_OLD.encode(), [source.source, until, before]).fetchone() or (0, None)
    unread = session.execute(_UNREAD.encode(), [source.source, until, before]).fetchone()
    return Pruning(source.source, before, until, count, oldest, unread[0] if unread else 0, slowest)


def prune(session: "psycopg.Connection[Any]", pruning: Pruning) -> int:
    """Deletes what was planned, and returns how much. session: of the owner of ops, in autocommit."""
    deleted = 0
    bounds = (pruning.source, pruning.until, pruning.before, ROWS)
    while found := session.execute(_DELETE.encode(), bounds).rowcount:
        deleted += found
    return deleted
