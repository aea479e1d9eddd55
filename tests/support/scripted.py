"""A connector that says exactly what a test tells it to: the engine's other side of the contract."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredStream,
    Frame,
    JsonRecords,
    Message,
    ReadContext,
    StreamState,
)
from connectors.specs import SourceSpec, StreamSpec, parse_source
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.lifecycle import run

Script = Iterable[Message | Exception | Callable[[], None]]


class Scripted:
    """Yields the script's messages; raises an exception that stands in it; calls a function that stands in it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.state: StreamState | None = None

    def check(self) -> str:
        return "scripted"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return ()

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        self.state = state
        for item in self._script:
            if isinstance(item, Exception):
                raise item
            if callable(item):
                item()
            else:
                yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def source(**stream: Any) -> SourceSpec:
    """A source `unit` with one stream `things`."""
    attributes = {
        "source": "unit",
        "owner": "team:test",
        "connector": {"kind": "rest", "base_url": "http://127.0.0.1:9"},
        "streams": [{"name": "things", "path": "/things", **stream}],
    }
    return parse_source(attributes, "tests/unit.yaml")


def records(*rows: dict[str, Any], position: str = "page 1") -> JsonRecords:
    return JsonRecords(b"\n".join(json.dumps(row).encode() for row in rows), position)


def sync(
    dsn: str, script: Script, *, partition: Any = None, progress: Progress | None = None, **stream: Any
) -> SyncResult:
    """One sync of `unit.things` through the whole lifecycle."""
    spec = source(**stream)
    request = SyncRequest(spec, spec.streams[0], trigger="cli", window=partition)
    return run(request, dsn, progress or Progress(), Scripted(script))


__all__ = ["Attestation", "Checkpoint", "Frame", "Scripted", "Sequence", "records", "source", "sync"]
