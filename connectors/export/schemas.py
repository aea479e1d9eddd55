"""A stream's JSON schema: what the source file declares, what discovery tells, and else what the first page has."""

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from connectors.contract import Connector, DiscoveredStream, ReadContext, StreamState
from connectors.export.rows import Rows
from connectors.http.discovery import guess_columns
from connectors.specs import SourceSpec, StreamSpec

Json = Mapping[str, Any]
_SAMPLE_ROWS = 1_000
_TYPES: Mapping[str, Json] = {
    "text": {"type": ["null", "string"]},
    "bigint": {"type": ["null", "integer"]},
    "double": {"type": ["null", "number"]},
    "decimal": {"type": ["null", "number"]},
    "bool": {"type": ["null", "boolean"]},
    "timestamp": {"type": ["null", "string"], "format": "date-time"},
    "date": {"type": ["null", "string"], "format": "date"},
    "time": {"type": ["null", "string"], "format": "time"},
    "json": {"type": ["null", "object", "array", "string", "number", "boolean"]},
    "binary": {"type": ["null", "string"], "contentEncoding": "base64"},
}
_AIRBYTE: Mapping[str, Json] = {
    "timestamp": {"airbyte_type": "timestamp_with_timezone"},
    "time": {"airbyte_type": "time_without_timezone"},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The columns that a stream delivers, by house type; a key is never null."""

    stream: StreamSpec
    types: Mapping[str, str]

    def schema(self, *, for_airbyte: bool) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        for name, kind in self.types.items():
            said: dict[str, Any] = dict(_TYPES.get(kind, _TYPES["json"]))
            if for_airbyte:
                said |= _AIRBYTE.get(kind, {})
            if name in self.stream.primary_key:
                said["type"] = [word for word in said["type"] if word != "null"]
            column = self.stream.columns.get(name)
            if column is not None and column.description:
                said["description"] = column.description
            properties[name] = said
        return {"type": "object", "properties": properties, "additionalProperties": True}


def shapes(source: SourceSpec, connector: Connector) -> tuple[Shape, ...]:
    """Of every stream that the source file declares.

    Raises:
        what the source answers.
    """
    try:
        offered = {stream.name: stream for stream in connector.discover()}
    except NotImplementedError:
        offered = {}
    return tuple(_shape(stream, offered, connector, f"{source.source}.{stream.name}") for stream in source.streams)


def _shape(stream: StreamSpec, offered: Mapping[str, DiscoveredStream], connector: Connector, where: str) -> Shape:
    found = _named(stream, offered)
    types = {column.name: column.type for column in found.columns} if found is not None else {}
    types |= {name: column.type for name, column in stream.columns.items() if column.type is not None}
    if found is None or not found.columns:
        types = _sampled(stream, connector, where) | types
    for name, column in stream.columns.items():
        if column.rewrites:
            types[name] = "text"
        elif column.rule == "block":
            types.pop(name, None)
    return Shape(stream, types)


def _named(stream: StreamSpec, offered: Mapping[str, DiscoveredStream]) -> DiscoveredStream | None:
    """A database offers `public.orders`, the stream is usually `orders`, or names its table."""
    wanted = getattr(stream, "table", None) or stream.name
    exact = offered.get(wanted)
    return exact or next((item for name, item in offered.items() if name.rpartition(".")[2] == wanted), None)


def _sampled(stream: StreamSpec, connector: Connector, where: str) -> dict[str, str]:
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory(prefix="headwater-export-") as folder:
        context = ReadContext(window=None, folder=Path(folder), page_limit=1)
        rows = Rows(stream, where)
        with closing(cast("Any", connector.read(stream, StreamState(), context))) as messages:
            for message in messages:
                lines += rows.of(message)
                if len(lines) >= _SAMPLE_ROWS:
                    break
    return {column.name: column.type for column in guess_columns(b"\n".join(lines))}


def is_incremental(stream: StreamSpec) -> bool:
    """It goes on from a saved position: by its cursor, or, as webhooks do, by one of the connector's own."""
    return stream.cursor is not None or hasattr(stream, "events")
