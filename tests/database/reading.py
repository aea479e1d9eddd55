"""Reading a stream the way the engine does, and looking at what came."""

import csv
import io
import os
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from connectors.contract import Attestation, Checkpoint, Connector, CopyFile, Message, ReadContext, StreamState, Window
from connectors.kinds import database
from connectors.specs import SourceSpec, parse_source

URL_VARIABLE = "TEST_DATABASE_KIND_URL"


def source_spec(stream: dict[str, Any], **connector: Any) -> SourceSpec:
    return parse_source(
        {
            "source": "shop",
            "owner": "team:data",
            "connector": {"kind": "database", "url": f"env:{URL_VARIABLE}", **connector},
            "streams": [{"name": "orders", **stream}],
        },
        "shop.yaml",
    )


@dataclass
class Reader:
    """Opens the kind on one URL and reads streams of it."""

    url: str
    folder: Path
    connector: dict[str, Any] = field(default_factory=dict)

    def but(self, **connector: Any) -> "Reader":
        return replace(self, connector=self.connector | connector)

    def context(self, **more: Any) -> ReadContext:
        folder = self.folder / uuid4().hex[:8]
        folder.mkdir()
        return ReadContext(more.pop("window", None), folder, **more)

    def open(self, spec: SourceSpec) -> Connector:
        os.environ[URL_VARIABLE] = self.url
        try:
            return database.KIND.open(spec)
        finally:
            del os.environ[URL_VARIABLE]

    def messages(
        self,
        stream: dict[str, Any] | None = None,
        state: StreamState | None = None,
        context: ReadContext | None = None,
    ) -> Generator[Message]:
        spec = source_spec(stream or {}, **self.connector)
        with self.open(spec) as connector:
            yield from connector.read(spec.streams[0], state or StreamState(), context or self.context())

    def read(
        self,
        stream: dict[str, Any] | None = None,
        state: StreamState | None = None,
        *,
        window: Window | None = None,
        page_limit: int | None = None,
        cancelled: threading.Event | None = None,
    ) -> list[Message]:
        context = self.context(window=window, page_limit=page_limit, cancelled=cancelled or threading.Event())
        return list(self.messages(stream, state, context))


def rows_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The rows of all COPY files as texts."""
    found: list[dict[str, str]] = []
    for message in messages:
        if isinstance(message, CopyFile):
            rows = list(csv.reader(io.StringIO(message.path.read_bytes().decode(), newline="")))
            assert len(rows) == message.rows
            found += [dict(zip(message.names, row, strict=True)) for row in rows]
    return found


def column_of(messages: Sequence[Message], name: str) -> list[str]:
    return [row[name] for row in rows_of(messages)]


def checkpoints(messages: Sequence[Message]) -> list[Checkpoint]:
    return [message for message in messages if isinstance(message, Checkpoint)]


def attestations(messages: Sequence[Message]) -> list[Attestation]:
    return [message for message in messages if isinstance(message, Attestation)]
