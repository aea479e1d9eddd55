"""One stream of a session, as the engine sees it."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from connectors import contract
from connectors.contract import Checkpoint, DiscoveredStream, JsonRecords, ReadContext, StreamState
from connectors.process.session import Session
from connectors.specs import StreamSpec


class Member:
    """One stream of a session, as the engine sees it."""

    def __init__(self, session: Session, stream: StreamSpec) -> None:
        self._session = session
        self._stream = stream

    def check(self) -> str:
        return ""

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return ()

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[contract.Message]:
        """See `Connector.read`. What an earlier run has kept for the stream comes first."""
        session, is_preview = self._session, context.page_limit is not None
        pages = 0
        try:
            number = None
            # before the stream joins, so before the process starts: what this run keeps comes through the feed alone
            for number, body in session.backlog(stream.name, int(state.connector.get("piece", 0))):
                yield JsonRecords(body, f"piece {number} of an earlier run")
            if number is not None:
                yield Checkpoint(connector={"piece": number})
            feed = session.join(stream, state.connector, is_preview=is_preview)
            for message in feed.messages(context.cancelled):
                if isinstance(message, JsonRecords):
                    context.usage.received_bytes += len(message.body)
                    pages += 1
                yield message
                if context.page_limit is not None and pages >= context.page_limit:
                    return
        finally:
            session.leave(stream.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._session.leave(self._stream.name)
