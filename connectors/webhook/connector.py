"""The inbox as a connector: new deliveries of a stream's events, in the order in which they became safe to read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import psycopg
from psycopg.rows import class_row

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredColumn,
    DiscoveredStream,
    JsonRecords,
    Message,
    ReadContext,
    StreamState,
)
from connectors.errors import Cancelled, ConfigError, TransientError
from connectors.specs import SourceSpec
from connectors.webhook.order import readable_until
from connectors.webhook.records import Delivery, as_columns, as_envelope

if TYPE_CHECKING:
    from collections.abc import Generator

    from connectors.kinds.webhook import WebhookConnectorSpec, WebhookStreamSpec

SEQUENCE = "sequence"
"""The key of the stream's state: everything up to this number was read."""
PAGE_BYTES = 4 << 20
PAGE_ROWS = 2_000
FETCHED_ROWS = 100
"""Rows of one round trip: with bodies of a megabyte it holds so many megabytes."""

_CONDITIONS = """
    source = %(source)s and sequence > %(after)s and sequence <= %(until)s and event_type like any(%(events)s)
    and received_at >= coalesce(%(start)s, '-infinity'::timestamptz)
    and received_at < coalesce(%(end)s, 'infinity'::timestamptz)
"""
_COUNT = f"select count(*) from ops.webhook_inbox where {_CONDITIONS}"
_ROWS = f"""
    select sequence, delivery_id, event_type, received_at, body from ops.webhook_inbox
    where {_CONDITIONS} order by sequence
"""


class WebhookConnector:
    """One source's deliveries. The warehouse is its source: `use_warehouse` comes before everything else."""

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._dsn: str | None = None

    def use_warehouse(self, dsn: str) -> None:
        """dsn: libpq URL of the loader role."""
        self._dsn = dsn

    def check(self) -> str:
        """What was received so far; without a warehouse at hand, what the file says."""
        spec: WebhookConnectorSpec = self._source.connector  # pyright: ignore[reportAssignmentType]  of this kind
        secrets = f"{len(spec.secret)} secret{'s' if len(spec.secret) > 1 else ''}"
        offer = f"/hooks/{self._source.source}, scheme {spec.scheme}, {secrets}"
        if self._dsn is None:
            return offer
        with self._session(self._source.source) as session:
            row = session.execute(
                "select count(*), max(received_at) from ops.webhook_inbox where source = %s", [self._source.source]
            ).fetchone()
        count, newest = row if row else (0, None)
        return f"{offer}; {count:,} deliveries in the inbox" + (
            f", newest {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
        )

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """The event types that were received so far."""
        with self._session(self._source.source) as session:
            found = session.execute(
                "select event_type, count(*) from ops.webhook_inbox where source = %s group by 1 order by 1",
                [self._source.source],
            ).fetchall()
        columns = (
            DiscoveredColumn("_delivery_id", "text", is_nullable=False),
            DiscoveredColumn("_event_type", "text", is_nullable=False),
            DiscoveredColumn("_received_at", "timestamp", is_nullable=False),
        )
        streams = [cast("WebhookStreamSpec", stream) for stream in self._source.streams]
        return tuple(
            DiscoveredStream(
                event,
                columns,
                ("_delivery_id",),
                count,
                tuple(one.name for one in streams if any(means(pattern, event) for pattern in one.events)),
            )
            for event, count in found
        )

    def read(self, stream: "WebhookStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """Deliveries after the state's sequence number, in pages that are each a checkpoint.

        With write: replace, snapshot: true or a partition the whole inbox is read; a partition is of `_received_at`.

        Raises:
            ConfigError: the state's sequence number is none.
        """
        where = f"{self._source.source}.{stream.name}"
        window = context.window
        is_whole = window is not None or stream.write == "replace" or stream.snapshot
        after = 0 if is_whole else _position(state, where)
        with self._session(where) as session:
            until = readable_until(session)
            parameters = {
                "source": self._source.source, "after": after, "until": until,
                "events": [like_pattern(event) for event in stream.events],
                "start": window and window.start, "end": window and window.end,
            }  # fmt: skip
            with session.transaction():
                row = session.execute(_COUNT.encode(), parameters).fetchone()
                count = row[0] if row else 0
                yield Attestation(rows=None if context.page_limit else count, nothing_new=not count)
                context.usage.requests += 1
                yield from self._pages(session, stream, parameters, context, count, where, is_live=not is_whole)
        if window is None and context.page_limit is None:
            # also past deliveries of other streams, so that the next read starts here
            yield Checkpoint({SEQUENCE: max(after, until)})

    def _pages(
        self,
        session: "psycopg.Connection[Any]",
        stream: "WebhookStreamSpec",
        parameters: dict[str, Any],
        context: ReadContext,
        count: int,
        where: str,
        *,
        is_live: bool,
    ) -> Iterator[Message]:
        shape = as_envelope if stream.shape == "envelope" else as_columns
        lines: list[bytes] = []
        size, pages, read, last = 0, 0, 0, 0
        with session.cursor("inbox", binary=True, row_factory=class_row(Delivery)) as cursor:
            cursor.itersize = FETCHED_ROWS
            cursor.execute(_ROWS.encode(), parameters)
            for delivery in cursor:
                if context.cancelled.is_set():
                    raise Cancelled(where, f"stopped after delivery {last}", "Pages read before stay; sync again.")
                lines.append(shape(delivery))
                size += len(lines[-1])
                context.usage.received_bytes += len(delivery.body)
                last, read = delivery.sequence, read + 1
                if size < PAGE_BYTES and len(lines) < PAGE_ROWS:
                    continue
                yield JsonRecords(b"\n".join(lines), f"deliveries to {last}")
                context.log(f"{read:,} of {count:,} deliveries")
                lines, size, pages = [], 0, pages + 1
                if is_live:
                    yield Checkpoint({SEQUENCE: last})
                if context.page_limit is not None and pages >= context.page_limit:
                    return
            if lines:
                yield JsonRecords(b"\n".join(lines), f"deliveries to {last}")

    @contextmanager
    def _session(self, where: str) -> "Generator[psycopg.Connection[Any]]":
        if self._dsn is None:
            raise ConfigError(
                where, "the inbox is in the warehouse, and nobody said where that is", "Sync it with `headwater sync`."
            )
        try:
            with psycopg.connect(
                self._dsn, autocommit=True, application_name=f"headwater inbox {where}"[:63]
            ) as session:
                session.execute("set time zone 'UTC'")
                yield session
        except psycopg.OperationalError as error:
            said = (str(error).strip().splitlines() or ["no reason"])[0]
            raise TransientError(where, f"the inbox cannot be read: {said[:300]}", "Sync it again.") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open: every session ends with its read."""


def _position(state: StreamState, where: str) -> int:
    """Raises ConfigError: the state holds something else than a sequence number."""
    saved = state.connector.get(SEQUENCE, 0)
    if type(saved) is int and saved >= 0:
        return saved
    raise ConfigError(
        where,
        f"the state's {SEQUENCE} is {repr(saved)[:40]}, not a whole number from 0 on",
        f"Give back what a read has left, or read the whole inbox again: headwater state reset {where} --yes",
    )


def means(pattern: str, event: str) -> bool:
    """`*` in the pattern stands for any text."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), event, re.DOTALL) is not None


def like_pattern(event: str) -> str:
    """The SQL pattern of an event name in which `*` stands for any text."""
    literal = event.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return literal.replace("*", "%")
