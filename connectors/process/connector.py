"""The connector of every kind that runs a program: one dialect a run, one session for the streams read together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from connectors.contract import Common, Connector, DiscoveredStream, Json, Message, ReadContext, StreamState
from connectors.process.member import Member
from connectors.process.session import Dialect, Session
from connectors.specs import StreamSpec


class Program(Protocol):
    """What a kind gives: a fresh dialect for every run, and what the program says of itself."""

    def dialect(self) -> Dialect: ...

    def check(self) -> str: ...

    def discover(self) -> tuple[DiscoveredStream, ...]: ...


class ProcessConnector:
    """An open source whose streams come out of one process; see `connectors.contract.ReadsTogether`."""

    def __init__(self, source: str, program: Program) -> None:
        self._source = source
        self._program = program

    def check(self) -> str:
        return self._program.check()

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return self._program.discover()

    def together(self, streams: Sequence[StreamSpec], common: Common) -> Mapping[str, Connector]:
        session = Session(self._program.dialect(), self._source, streams, common)
        return {stream.name: Member(session, stream) for stream in streams}

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        """One stream alone, from its own state: a preview."""
        return self.together([stream], Alone(context))[stream.name].read(stream, state, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Alone:
    """A read that shares nothing: what has one state with others is handed on and forgotten."""

    def __init__(self, context: ReadContext) -> None:
        self.folder: Path = context.folder
        self.log: Callable[[str], None] = context.log
        self.connect_shared = context.connect_shared
        self._number = 0

    def positions(self) -> Mapping[str, Json]:
        return {}

    def position(self) -> Json:
        return {}

    def commit(self, segments: Mapping[str, Iterable[bytes]], position: Json) -> int:
        self._number += 1
        return self._number

    def commit_afterwards(self, position: Json) -> None: ...

    def backlog(self, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
        return iter(())
