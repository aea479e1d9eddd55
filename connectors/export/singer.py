"""A source as a Singer tap: discover, and a sync by catalog and state."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from connectors.errors import ConfigError
from connectors.export.reading import Reading
from connectors.export.schemas import Shape, is_incremental
from connectors.export.settings import Setting, schema_of
from connectors.specs import SourceSpec, StreamSpec

Json = Mapping[str, Any]
Write = Callable[[bytes], object]
_HEAD = b'{"type":"RECORD","stream":%s,"time_extracted":%s,"record":'


def catalog(shapes: Sequence[Shape]) -> dict[str, Any]:
    """What `--discover` prints. Every stream and column is selected unless somebody says otherwise."""
    return {"streams": [_entry(shape) for shape in shapes]}


def _entry(shape: Shape) -> dict[str, Any]:
    stream = shape.stream
    cursor = stream.cursor.field if stream.cursor is not None else None
    keys = list(stream.primary_key)
    method = "INCREMENTAL" if is_incremental(stream) else "FULL_TABLE"
    root: dict[str, Any] = {
        "inclusion": "available",
        "selected": True,
        "selected-by-default": True,
        "table-key-properties": keys,
        "forced-replication-method": method,
        **({"valid-replication-keys": [cursor]} if cursor else {}),
    }
    automatic = {*keys, *([cursor] if cursor else [])}
    columns = [
        {
            "breadcrumb": ["properties", name],
            "metadata": {
                "inclusion": "automatic" if name in automatic else "available",
                "selected-by-default": True,
            },
        }
        for name in shape.types
    ]
    return {
        "tap_stream_id": stream.name,
        "stream": stream.name,
        "schema": shape.schema(for_airbyte=False),
        "key_properties": keys,
        "replication_method": method,
        **({"replication_key": cursor} if cursor else {}),
        "metadata": [{"breadcrumb": [], "metadata": root}, *columns],
    }


@dataclass(frozen=True, slots=True)
class Selected:
    """schema: what is declared for it. keep: the selected properties; None for all, unknown ones included."""

    stream: StreamSpec
    schema: Json
    keep: frozenset[str] | None


def selection(source: SourceSpec, given: Json | None, discover: Callable[[], Sequence[Shape]]) -> tuple[Selected, ...]:
    """The streams to read: all without a catalog, else the selected ones, with the catalog's schemas.

    discover: asked only without a catalog.

    Raises:
        ConfigError: the catalog selects a stream that the source does not have, or is none.
    """
    if given is None:
        return tuple(Selected(shape.stream, shape.schema(for_airbyte=False), None) for shape in discover())
    entries = given.get("streams")
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in cast("list[Any]", entries)):
        raise ConfigError(source.source, "the catalog has no list of streams", "Write one with --discover.")
    chosen: list[Selected] = []
    for entry in cast("list[Json]", entries):
        if _is_selected(entry):
            stream = source.stream(str(entry.get("tap_stream_id") or entry.get("stream")))
            schema = cast("Json", entry.get("schema") or {})
            chosen.append(Selected(stream, schema, _kept(stream, schema, entry)))
    return tuple(chosen)


def _metadata(entry: Json) -> Iterator[tuple[tuple[str, ...], Json]]:
    for item in cast("Iterable[Json]", entry.get("metadata") or ()):
        yield tuple(item.get("breadcrumb") or ()), cast("Json", item.get("metadata") or {})


def _is_selected(entry: Json) -> bool:
    root = next((said for path, said in _metadata(entry) if path == ()), {})
    if root.get("inclusion") == "unsupported":
        return False
    for said in (root.get("selected"), entry.get("selected"), root.get("selected-by-default")):
        if said is not None:
            return bool(said)
    return False


def _kept(stream: StreamSpec, schema: Json, entry: Json) -> frozenset[str] | None:
    needed = {*stream.primary_key, *([stream.cursor.field] if stream.cursor else [])}
    left_out = {
        path[1]
        for path, said in _metadata(entry)
        if len(path) == 2
        and path[0] == "properties"
        and path[1] not in needed
        and (said.get("selected") is False or said.get("inclusion") == "unsupported")
    }
    return frozenset(cast("Json", schema.get("properties") or {})) - left_out if left_out else None


def sync(reading: Reading, streams: Sequence[Selected], state: Json, write: Write) -> None:
    """SCHEMA, RECORD and STATE messages of every selected stream, one after the other.

    Raises: what reading raises; the last STATE then covers what came before.
    """
    bookmarks: dict[str, Any] = dict(cast("Json", state.get("bookmarks") or {}))
    for one in streams:
        stream, schema = one.stream, dict(one.schema)
        if one.keep is not None:
            schema["properties"] = {name: said for name, said in schema["properties"].items() if name in one.keep}
        _say(
            write,
            {
                "type": "SCHEMA",
                "stream": stream.name,
                "schema": schema,
                "key_properties": list(stream.primary_key),
                **({"bookmark_properties": [stream.cursor.field]} if stream.cursor is not None else {}),
            },
        )
        extracted = json.dumps(datetime.now(UTC).isoformat().replace("+00:00", "Z")).encode()
        head = _HEAD % (json.dumps(stream.name).encode(), extracted)
        for item in reading.lines(stream, bookmarks.get(stream.name) or {}, one.keep):
            if isinstance(item, bytes):
                write(head + item + b"}\n")
                continue
            bookmarks[stream.name] = _bookmark(item)
            _say(write, {"type": "STATE", "value": {**state, "bookmarks": bookmarks}})


def _bookmark(saved: Json) -> Json:
    """With what other tools look for in a bookmark."""
    cursor = saved.get("cursor")
    known = {"replication_key": cursor["field"], "replication_key_value": cursor["value"]} if cursor else {}
    return {**saved, **known}


def _say(write: Write, message: Json) -> None:
    write(json.dumps(message).encode() + b"\n")


def about(source: SourceSpec, settings: Sequence[Setting]) -> dict[str, Any]:
    """What `--about` prints: name, capabilities, settings."""
    return {
        "name": f"tap-{source.source.replace('_', '-')}",
        "description": source.description,
        "capabilities": ["catalog", "discover", "state", "about"],
        "settings": schema_of(settings),
    }
