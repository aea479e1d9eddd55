"""A source as a Singer tap: discover, and a sync by catalog and state."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError

from connectors.errors import ConfigError
from connectors.export.reading import Reading
from connectors.export.schemas import Shape, is_incremental
from connectors.export.settings import Setting, schema_of
from connectors.specs import SourceSpec, StreamSpec

Json = Mapping[str, Any]
Write = Callable[[bytes], object]
_HEAD = b'{"type":"RECORD","stream":%s,"time_extracted":%s,"record":'
_HINT = "Write one with --discover."


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
        raise ConfigError(source.source, "the catalog has no list of streams", _HINT)
    try:
        found = _Catalog.model_validate({"streams": entries})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place, why = ".".join(map(str, first["loc"])), first["msg"].partition(" or instance of ")[0]
        raise ConfigError(source.source, f"no catalog: {place}: {why}", _HINT) from error
    return tuple(_selected(source, entry) for entry in found.streams if entry.is_selected)


class _Said(BaseModel):
    """Of a stream, or of a column."""

    inclusion: str | None = None
    selected: bool | None = None
    by_default: Annotated[bool | None, Field(alias="selected-by-default")] = None


class _Metadata(BaseModel):
    breadcrumb: tuple[str, ...] | None = None
    metadata: _Said | None = None


class _Entry(BaseModel):
    """One stream of a catalog; what is not looked at may be anything."""

    tap_stream_id: str | None = None
    stream: str | None = None
    selected: bool | None = None
    declared: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    metadata: tuple[_Metadata, ...] | None = None

    @property
    def said(self) -> Mapping[tuple[str, ...], _Said]:
        """By breadcrumb."""
        return {item.breadcrumb or (): item.metadata or _Said() for item in self.metadata or ()}

    @property
    def is_selected(self) -> bool:
        root = self.said.get((), _Said())
        if root.inclusion == "unsupported":
            return False
        return bool(next((one for one in (root.selected, self.selected, root.by_default) if one is not None), False))


class _Catalog(BaseModel):
    streams: tuple[_Entry, ...]


def _selected(source: SourceSpec, entry: _Entry) -> Selected:
    stream = source.stream(str(entry.tap_stream_id or entry.stream))
    where = f"{source.source}.{stream.name}"
    if entry.declared is None:
        raise ConfigError(where, "the catalog has no schema for it", _HINT)
    properties = entry.declared.get("properties", {})
    if not isinstance(properties, Mapping):
        raise ConfigError(where, "the catalog's schema has no properties that are an object", _HINT)
    needed = {*stream.primary_key, *([stream.cursor.field] if stream.cursor else [])}
    left_out = {
        path[1]
        for path, said in entry.said.items()
        if len(path) == 2
        and path[0] == "properties"
        and path[1] not in needed
        and (said.selected is False or said.inclusion == "unsupported")
    }
    if left_out and not properties:
        what = f"the catalog deselects {', '.join(sorted(left_out))}, and its schema has no properties"
        raise ConfigError(where, what, _HINT)
    keep = frozenset(cast("Json", properties)) - left_out if left_out else None
    return Selected(stream, entry.declared, keep)


def sync(reading: Reading, streams: Sequence[Selected], state: Json, write: Write) -> None:
    """SCHEMA, RECORD and STATE messages of every selected stream, one after the other.

    A stream that is not incremental is read whole, whatever the state says of it.

    Raises:
        ConfigError: the state's bookmarks are none.
        Else what reading raises; the last STATE then covers what came before.
    """
    bookmarks = _bookmarks(state, streams, reading.source)
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
        goes_on = is_incremental(stream)
        for item in reading.lines(stream, (bookmarks.get(stream.name) or {}) if goes_on else {}, one.keep):
            if isinstance(item, bytes):
                write(head + item + b"}\n")
                continue
            bookmarks[stream.name] = _bookmark(item) if goes_on else {}
            _say(write, {"type": "STATE", "value": {**state, "bookmarks": bookmarks}})


def _bookmarks(state: Json, streams: Sequence[Selected], source: str) -> dict[str, Any]:
    found = state.get("bookmarks") or {}
    wrong = not isinstance(found, Mapping)
    kept: dict[str, Any] = {} if wrong else dict(cast("Json", found))
    named = {one.stream.name for one in streams if is_incremental(one.stream)}
    odd = sorted(name for name in named & kept.keys() if not isinstance(kept[name] or {}, Mapping))
    if wrong or odd:
        what = f"the bookmark of {odd[0]}" if odd else "bookmarks"
        raise ConfigError(source, f"in the state, {what} is no object", "Give --state the value of a STATE message.")
    return kept


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
