"""Several tables of one moment: every stream of a run reads in one exported snapshot."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from connectors.contract import DiscoveredStream, Message, ReadContext, StreamState

if TYPE_CHECKING:
    from connectors.database.postgres import PostgresConnector
    from connectors.kinds.database import DatabaseStreamSpec


class SharedSnapshot:
    """Exported by the first stream that reads, held until the last of them has left."""

    def __init__(self, connector: "PostgresConnector", streams: Iterable[str]) -> None:
        self._connector = connector
        self._reading = set(streams)
        self._lock = threading.Lock()
        self._name: str | None = None
        self._ends = ExitStack()

    def name(self, where: str) -> str:
        """Raises what a connection raises; the next stream tries again."""
        with self._lock:
            if self._name is None:
                connection = self._ends.enter_context(self._connector.connected(where))
                row = connection.execute("select pg_export_snapshot()").fetchone()
                assert row is not None
                self._name = str(row[0])
            return self._name

    def leave(self, stream: str) -> None:
        with self._lock:
            self._reading.discard(stream)
            if not self._reading:
                self._ends.close()


class Member:
    """One stream of them; see `connectors.contract.Connector`."""

    def __init__(self, connector: "PostgresConnector", snapshot: SharedSnapshot, stream: str) -> None:
        self._connector = connector
        self._snapshot = snapshot
        self._stream = stream

    def check(self) -> str:
        return self._connector.check()

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return self._connector.discover()

    def read(self, stream: "DatabaseStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        snapshot: Callable[[str], str] = self._snapshot.name
        return self._connector.read_at(stream, state, context, snapshot)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._snapshot.leave(self._stream)
