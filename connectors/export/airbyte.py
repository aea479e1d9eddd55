"""A source as an Airbyte source: spec, check, discover, read."""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

from connectors.contract import Connector
from connectors.errors import AuthError, Cancelled, ConfigError, HeadwaterError
from connectors.export.reading import Reading
from connectors.export.schemas import Shape, is_incremental
from connectors.export.settings import Setting, schema_of
from connectors.specs import SourceSpec, StreamSpec

Json = Mapping[str, Any]
Write = Callable[[bytes], object]
Mask = Callable[[str], str]
Status = Literal["STARTED", "RUNNING", "COMPLETE", "INCOMPLETE"]
_HEAD = b'{"type":"RECORD","record":{"stream":%s,"emitted_at":%d,"data":'


def spec(settings: Sequence[Setting], write: Write) -> None:
    """The variables that the source file refers to, as the source's specification."""
    said = {"connectionSpecification": schema_of(settings), "supportsIncremental": True}
    _say(write, {"type": "SPEC", "spec": said})


def check(opened: Callable[[], AbstractContextManager[Connector]], write: Write) -> None:
    """A failure is an answer, too: the status says it."""
    status: dict[str, Any] = {"status": "SUCCEEDED"}
    try:
        with opened() as connector:
            connector.check()
    except Cancelled:
        raise
    except HeadwaterError as error:
        status = {"status": "FAILED", "message": f"{error.failure_class}: {error}"}
    _say(write, {"type": "CONNECTION_STATUS", "connectionStatus": status})


def discover(shapes: Sequence[Shape], write: Write) -> None:
    _say(write, {"type": "CATALOG", "catalog": {"streams": [_entry(shape) for shape in shapes]}})


def _entry(shape: Shape) -> dict[str, Any]:
    stream, goes_on = shape.stream, is_incremental(shape.stream)
    entry: dict[str, Any] = {
        "name": stream.name,
        "json_schema": {"$schema": "http://json-schema.org/draft-07/schema#", **shape.schema(for_airbyte=True)},
        "supported_sync_modes": ["full_refresh", *(["incremental"] if goes_on else [])],
        "source_defined_primary_key": [[key] for key in stream.primary_key],
        "is_resumable": goes_on,
    }
    if goes_on:
        entry["source_defined_cursor"] = True
        entry["default_cursor_field"] = [stream.cursor.field] if stream.cursor is not None else []
    return entry


def read(reading: Reading, source: SourceSpec, catalog: Json, state: object, write: Write, mask: Mask = str) -> None:
    """The streams of the configured catalog, one after the other; a failing one does not stop the others.

    mask: takes secrets out of what is said of errors.

    Raises:
        ConfigError: the catalog or the state is none, or of a stream that the source does not have.
        Else the first stream's failure, after all have been read.
    """
    modes = _configured(catalog, source)
    states = _states(state, source.source)
    first: Exception | None = None
    for stream, mode in modes:
        goes_on = mode == "incremental" and is_incremental(stream)
        _status(write, stream.name, "STARTED")
        try:
            if goes_on:
                _read_onwards(reading, stream, states.get(stream.name, {}), write)
            else:
                _read_all(reading, stream, write)
        except (Cancelled, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  whoever reads the messages is told of every failure
            first = first or error
            trace(error, write, stream.name, mask)
            _status(write, stream.name, "INCOMPLETE")
            continue
        _status(write, stream.name, "COMPLETE")
    if first is not None:
        raise first


def _read_onwards(reading: Reading, stream: StreamSpec, saved: Json, write: Write) -> None:
    records = _Records(stream.name, write)
    for item in reading.lines(stream, saved):
        if isinstance(item, bytes):
            records.add(item)
        else:
            records.seal(item)


def _read_all(reading: Reading, stream: StreamSpec, write: Write) -> None:
    records = _Records(stream.name, write)
    for item in reading.lines(stream, {}):
        if isinstance(item, bytes):
            records.add(item)
    records.seal({"__ab_no_cursor_state_message": True})


class _Records:
    """The records of one stream since its last state."""

    def __init__(self, name: str, write: Write) -> None:
        self._name, self._write = name, write
        self._head = _HEAD % (json.dumps(name).encode(), _now())
        self._count = 0
        self._has_begun = False

    def add(self, line: bytes) -> None:
        if not self._has_begun:
            self._has_begun = True
            _status(self._write, self._name, "RUNNING")
        self._count += 1
        self._write(self._head + line + b"}}\n")

    def seal(self, position: Json) -> None:
        inner = {"stream_descriptor": {"name": self._name}, "stream_state": position}
        state = {"type": "STREAM", "stream": inner, "sourceStats": {"recordCount": float(self._count)}}
        _say(self._write, {"type": "STATE", "state": state})
        self._count = 0


def trace(error: Exception, write: Write, stream: str | None = None, mask: Mask = str) -> None:
    """An error trace; the class decides its failure_type. mask: takes secrets out of it."""
    kind = "system_error"
    if isinstance(error, ConfigError | AuthError):
        kind = "config_error"
    elif isinstance(error, HeadwaterError) and error.is_retryable:
        kind = "transient_error"
    said: dict[str, Any] = {"message": mask(str(error)), "failure_type": kind}
    if not isinstance(error, HeadwaterError):
        said["message"] = mask(f"unexpected {type(error).__name__}: {error}")
        said["stack_trace"] = mask("".join(traceback.format_exception(error)))[-4_000:]
    if stream is not None:
        said["stream_descriptor"] = {"name": stream}
    _say(write, {"type": "TRACE", "trace": {"type": "ERROR", "emitted_at": _now(), "error": said}})


def _configured(catalog: Json, source: SourceSpec) -> list[tuple[StreamSpec, str]]:
    """The streams with their sync modes."""
    wanted: list[tuple[StreamSpec, str]] = []
    items = catalog.get("streams") or []
    if not isinstance(items, list):
        raise ConfigError(source.source, "no configured catalog: streams is no list", "Give --catalog one.")
    for item in cast("list[Any]", items):
        try:
            name, mode = str(item["stream"]["name"]), str(item.get("sync_mode", "full_refresh"))
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(source.source, f"no configured catalog: {error!r}", "Give --catalog one.") from error
        if mode not in ("full_refresh", "incremental"):
            what = f"stream {name!r} has sync_mode {mode!r}"
            raise ConfigError(source.source, what, "Use full_refresh or incremental.")
        wanted.append((source.stream(name), mode))
    if not wanted:
        raise ConfigError(source.source, "the configured catalog has no streams", "Give --catalog one with streams.")
    return wanted


def _states(state: object, where: str) -> dict[str, Json]:
    """By stream. Raises ConfigError for anything but a list of messages of type STREAM."""
    hint = "Give back what a read has sent."
    found: dict[str, Json] = {}
    for item in cast("Iterable[Any]", state if isinstance(state, list) else [state] if state else []):
        try:
            inner = item["stream"]
            name, position = str(inner["stream_descriptor"]["name"]), inner.get("stream_state") or {}
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(where, "--state is no list of state messages of type STREAM", hint) from error
        if not isinstance(position, Mapping):
            what = f"--state is no list of state messages: the stream_state of {name} is a {type(position).__name__}"
            raise ConfigError(where, what, hint)
        found[name] = cast("Json", position)
    return found


def _status(write: Write, name: str, status: Status) -> None:
    said = {"stream_descriptor": {"name": name}, "status": status}
    _say(write, {"type": "TRACE", "trace": {"type": "STREAM_STATUS", "emitted_at": _now(), "stream_status": said}})


def _now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _say(write: Write, message: Json) -> None:
    write(json.dumps(message).encode() + b"\n")
