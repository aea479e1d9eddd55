"""Short ways to say what a source file says and to read it."""

import itertools
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from connectors.contract import JsonRecords, Message, ReadContext, StreamState, Window
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source

_numbers = itertools.count()

QUICK: Mapping[str, Any] = {
    "retries": {"attempts": 3, "initial": "PT0.01S", "longest": "PT0.02S"},
    "timeouts": {"connect": "PT1M", "read": "PT1M", "total": "PT3M"},
}


def source(url: str, stream: Mapping[str, Any] | None = None, **connector: Any) -> SourceSpec:
    """A source of one stream `things` at /things, with short waits and a rate pool of its own."""
    return parse_source(
        {
            "source": f"api_{next(_numbers)}",
            "owner": "team:data",
            "connector": {"kind": "rest", "base_url": url, **QUICK, **connector},
            "streams": [{"name": "things", "path": "/things", **(stream or {})}],
        },
        "defs.yaml",
    )


def context(window: Window | None = None, page_limit: int | None = None) -> ReadContext:
    return ReadContext(window=window, folder=Path(), page_limit=page_limit)


def read(spec: SourceSpec, state: StreamState | None = None, within: ReadContext | None = None) -> list[Message]:
    with kind("rest").open(spec) as connector:
        return list(connector.read(spec.streams[0], state or StreamState(), within or context()))


def ids(messages: list[Message]) -> list[Any]:
    """The id of every record, in order."""
    return [
        json.loads(line)["id"]
        for message in messages
        if isinstance(message, JsonRecords)
        for line in message.body.split(b"\n")
    ]


def readers() -> list[str]:
    """The threads that read for a connector now, by name."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("http-")]


def only(kind_of: type, messages: list[Message]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind_of)]
