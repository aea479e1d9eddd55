"""What the streams have not read yet."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from connectors.specs import SourceSpec

if TYPE_CHECKING:
    import psycopg

    from connectors.kinds.webhook import WebhookStreamSpec

POSITION = """
    select case when said ~ '^[0-9]{1,18}$' then said::bigint else 0 end
    from ops.stream_state, lateral (select state -> 'connector' ->> 'sequence' as said) position
    where source = %s and stream = %s order by version desc limit 1
"""
"""(source, stream): everything up to this sequence number was read; nothing, where the state has no such number: the
stream's next sync says so, and no other stream waits for it."""
_UNREAD = """
    select count(*), min(received_at), max(sequence) from ops.webhook_inbox
    where source = %s and sequence > %s and event_type like any(%s)
"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """deliveries: after the stream's position; oldest: when the first of them was stored; newest: its sequence."""

    source: str
    stream: str
    deliveries: int
    oldest: datetime | None
    newest: int | None


def read_backlog(session: "psycopg.Connection[Any]", sources: Iterable[SourceSpec]) -> Iterator[Backlog]:
    """One line a stream of these sources, all of kind webhook."""
    from connectors.webhook.connector import like_pattern

    for source in sources:
        for stream in cast("Sequence[WebhookStreamSpec]", source.streams):
            position = session.execute(POSITION.encode(), [source.source, stream.name]).fetchone()
            patterns = [like_pattern(event) for event in stream.events]
            found = session.execute(_UNREAD.encode(), [source.source, position[0] if position else 0, patterns])
            count, oldest, newest = found.fetchone() or (0, None, None)
            yield Backlog(source.source, stream.name, count, oldest, newest)
