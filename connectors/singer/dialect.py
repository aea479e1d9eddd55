"""The Singer protocol of one run: SCHEMA, RECORD, STATE, BATCH and ACTIVATE_VERSION lines to messages."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import msgspec

from connectors.contract import Common
from connectors.errors import ConfigError, HeadwaterError, SourceError
from connectors.process import messages
from connectors.process.child import Command, Ending, Workplace
from connectors.process.failures import failure, refuse_large_state
from connectors.process.session import Joined, is_whole
from connectors.secrets import mask
from connectors.singer import state
from connectors.singer.catalog import Catalog, Choice
from connectors.singer.shaping import VERSION, CollisionError, Shaping, with_deletion, with_version
from connectors.singer.types import column_types, fault

if TYPE_CHECKING:
    from connectors.kinds.singer import SingerStreamSpec
    from connectors.singer.program import TapProgram
    from connectors.specs import StreamSpec

_NOTHING = msgspec.Raw(b"")
_SHOWN = 300
_SHOWN_OF_BROKEN = 80
_VALUES = re.compile(rb'"(?:record|value)"')


class Line(msgspec.Struct):
    """The envelope of any message; bodies stay undecoded."""

    type: str = ""
    stream: str = ""
    record: msgspec.Raw = _NOTHING
    version: int | None = None
    schema: msgspec.Raw = _NOTHING
    key_properties: msgspec.Raw = _NOTHING
    value: msgspec.Raw = _NOTHING
    encoding: msgspec.Raw = _NOTHING
    manifest: msgspec.Raw = _NOTHING


class _Encoding(msgspec.Struct):
    """Of a BATCH."""

    format: str | None = None
    compression: str | None = None


@dataclass(slots=True)
class _Stream:
    """What the run knows of one stream. name: the tap's id. is_versioned: its table keeps the version of each row."""

    name: str
    spec: "SingerStreamSpec"
    shaping: Shaping
    is_versioned: bool
    bookmark: Any = None
    bookmark_name: str = ""
    has_schema: bool = False
    version: int | None = None
    keys: Sequence[str] = field(default_factory=tuple[str, ...])

    def body(self, body: bytes, version: int | None) -> bytes:
        """The record as it is loaded. Raises msgspec.DecodeError."""
        if self.shaping.is_needed:
            body = self.shaping.body(body)
        if self.is_versioned and version is not None:
            body = with_version(body, version)
        return with_deletion(body)


class SingerDialect:
    """See `connectors.process.session.Dialect`."""

    def __init__(self, program: "TapProgram") -> None:
        self.where = program.source.source
        self.limits = program.spec.limits
        self.secrets = program.secrets
        self._program = program
        self._decode = msgspec.json.Decoder(Line).decode
        self._streams: dict[str, _Stream] = {}
        self._has_split = False

    def source_name(self, stream: "StreamSpec") -> str:
        return cast("SingerStreamSpec", stream).tap_stream

    def prepare(self, joined: Sequence[Joined], common: Common, place: Workplace) -> Command:
        program = self._program
        catalog = program.catalog(place)
        chosen = catalog.select([_choice(self.where, item) for item in joined])
        self._know(joined, catalog)
        arguments = program.command(place)
        arguments += [f"--{program.spec.catalog_flag}", str(place.file("catalog.json", json.dumps(chosen)))]
        if before := self._state(joined, common):
            arguments += ["--state", str(place.file("state.json", json.dumps(before)))]
        count = "1 stream" if len(joined) == 1 else f"{len(joined)} streams"
        return Command(arguments, f"reading {count}", program.environment)

    def _know(self, joined: Sequence[Joined], catalog: Catalog) -> None:
        for item in joined:
            spec = cast("SingerStreamSpec", item.stream)
            stream = _Stream(
                item.name,
                spec,
                Shaping(spec.rename, spec.flatten, spec.blocked),
                is_versioned=not is_whole(spec),
                bookmark=item.position.get("bookmark"),
                bookmark_name=item.position.get("stream", item.name),
            )
            for alias in (*catalog.aliases(item.name), *self._program.mapped_name(item.name)):
                # an id wins over another stream's alias
                if alias == item.name or alias not in self._streams:
                    self._streams[alias] = stream

    def _state(self, joined: Sequence[Joined], common: Common) -> dict[str, Any]:
        """The whole state: a run of some streams hands over the bookmarks of the others too."""
        others = {name: position for name, position in common.positions().items() if "bookmark" in position}
        for item in joined:
            others.pop(item.stream.name, None)
        own = [item.position for item in joined if not is_whole(item.stream)]
        return state.join([*others.values(), *own], cast("Mapping[str, Any]", common.position().get("data", {})))

    def decode(self, line: bytes) -> messages.Message | Sequence[messages.Message] | None:
        try:
            said = self._decode(line)
        except msgspec.DecodeError as error:
            return self._no_message(line, error)
        if said.type == "RECORD":
            stream = self._streams.get(said.stream)
            if stream is not None and stream.has_schema:
                return self._record(stream, said)
            return self._record_of_nobody(stream, said)
        return self._other(said)

    def _no_message(self, line: bytes, error: msgspec.DecodeError) -> messages.Message | None:
        """Taps print to stdout what belongs into their log; but half a message is a lost record."""
        if not line.strip():
            return None
        text = mask(line[:_SHOWN].decode("utf-8", "replace"), self.secrets)
        if line.lstrip().startswith(b"{"):
            raise SourceError(
                self.where,
                f"a line of {len(line):,} bytes is no Singer message ({error}): {_without_values(line)}",
                "What was sealed before is published. `headwater tap inspect` shows the tap's messages.",
            )
        return messages.Note(f"printed by the tap: {text}")

    def _record(self, stream: _Stream, said: Line) -> messages.Message:
        body = bytes(said.record)
        try:
            return messages.Record(stream.name, stream.body(body, said.version))
        except CollisionError as error:
            where = f"{self.where}.{stream.spec.name}"
            failed = SourceError(where, str(error), "Lower flatten, or exclude one of them.")
            return messages.Failed(failed, stream.name)
        except msgspec.DecodeError as error:
            return messages.Broken(stream.name, body, f"the record is no object: {error}")

    def _record_of_nobody(self, stream: _Stream | None, said: Line) -> messages.Message:
        if stream is None:
            return messages.Record(said.stream, b"")
        error = SourceError(
            f"{self.where}.{stream.spec.name}",
            "a record came before the stream's schema",
            "The tap breaks the protocol: report it; `headwater tap inspect` shows where.",
        )
        return messages.Failed(error, stream.name)

    def _other(self, said: Line) -> messages.Message | Sequence[messages.Message] | None:
        if said.type == "STATE":
            return list(self._on_state(bytes(said.value)))
        stream = self._streams.get(said.stream)
        match said.type:
            case "SCHEMA" if stream is not None:
                return list(self._on_schema(stream, said))
            case "ACTIVATE_VERSION" if stream is not None:
                if said.version is None or not stream.is_versioned:
                    return None
                return messages.Replaces(stream.name, VERSION, said.version)
            case "BATCH" if stream is not None:
                return self._on_batch(stream, said)
            case "SCHEMA" | "ACTIVATE_VERSION" | "BATCH":
                return None
            case _:
                return messages.Note(f"a message of unknown type {said.type!r} was dropped")

    def _on_schema(self, stream: _Stream, said: Line) -> Iterator[messages.Message]:
        try:
            schema: Any = msgspec.json.decode(said.schema or b"null")
        except msgspec.DecodeError:
            schema = None
        if wrong := fault(schema):
            error = SourceError(
                f"{self.where}.{stream.spec.name}",
                f"the tap's schema {wrong}",
                "Report it to the tap's author; exclude the column if it is one.",
            )
            yield messages.Failed(error, stream.name)
            return
        stream.has_schema = True
        properties = cast("Mapping[str, Any]", cast("Mapping[str, Any]", schema).get("properties") or {})
        if clash := [old for old, new in stream.spec.rename.items() if new in properties and old in properties]:
            what = f"rename of {clash[0]!r} to {stream.spec.rename[clash[0]]!r}, which the tap has already"
            error = ConfigError(f"{self.where}.{stream.spec.name}", what, "Choose another name.")
            yield messages.Failed(error, stream.name)
            return
        if types := column_types({"properties": stream.shaping.properties(properties)}):
            yield messages.Types(stream.name, types)
        yield from self._note_keys(stream, said)

    def _note_keys(self, stream: _Stream, said: Line) -> Iterator[messages.Message]:
        try:
            keys = msgspec.json.decode(said.key_properties or b"null", type=tuple[str, ...] | None) or ()
        except msgspec.DecodeError:
            keys = ()
        keys = tuple(stream.spec.rename.get(key, key) for key in keys)
        if keys and keys != tuple(stream.keys):
            stream.keys = keys
            if set(keys) != set(stream.spec.primary_key):
                yield messages.Note(f"{stream.spec.name}: the tap's own primary key is {', '.join(keys)}")

    def _on_state(self, raw: bytes) -> Iterator[messages.Message]:
        refuse_large_state(self.where, len(raw))
        value: Any = msgspec.json.decode(raw or b"null")
        if value is None:
            return
        if not isinstance(value, dict):
            raise SourceError(self.where, f"a state that is {type(value).__name__}, not an object", "Report it.")
        bookmarks, rest = state.split(cast("dict[str, Any]", value))
        if bookmarks is None:
            yield messages.State(None, rest)
            return
        for name in tuple(bookmarks):
            if (stream := self._streams.get(name)) is not None:
                yield from self._on_bookmark(stream, name, bookmarks.pop(name))
        yield from self._first_split()
        if bookmarks or rest:
            yield messages.Afterwards(rest | ({"bookmarks": bookmarks} if bookmarks else {}))

    def _on_bookmark(self, stream: _Stream, name: str, bookmark: Any) -> Iterator[messages.Message]:
        if is_whole(stream.spec) or bookmark == stream.bookmark:
            return
        moved = state.resumable(bookmark) != state.resumable(stream.bookmark)
        stream.bookmark, stream.bookmark_name = bookmark, name
        yield messages.State(stream.name, state.position(name, bookmark), is_resumable=moved)

    def _first_split(self) -> Iterator[messages.Message]:
        """The first state with bookmarks tells that each stream has a position of its own, also one without any yet."""
        if not self._has_split:
            self._has_split = True
            for stream in {id(stream): stream for stream in self._streams.values()}.values():
                position = {} if stream.bookmark is None else state.position(stream.bookmark_name, stream.bookmark)
                if not is_whole(stream.spec):
                    yield messages.State(stream.name, position, is_resumable=False)

    def _on_batch(self, stream: _Stream, said: Line) -> messages.Message:
        if not stream.has_schema:
            return self._record_of_nobody(stream, said)
        try:
            encoding = msgspec.json.decode(said.encoding or b"{}", type=_Encoding)
            manifest = msgspec.json.decode(said.manifest or b"[]", type=list[str])
        except msgspec.DecodeError as error:
            failed = SourceError(f"{self.where}.{stream.spec.name}", f"a batch that is none: {error}", "Report it.")
            return messages.Failed(failed, stream.name)
        if encoding.format != "jsonl" or encoding.compression not in (None, "none", "gzip"):
            raise SourceError(
                self.where,
                f"a batch in {encoding.format}, {encoding.compression}; jsonl and gzip can be read",
                "Set config.batch_config.encoding to {format: jsonl, compression: gzip}, or leave it out.",
            )
        paths = [_local_path(url, self.where) for url in manifest]
        version = said.version
        return messages.Batch(
            stream.name, paths, encoding.compression == "gzip", lambda body: stream.body(body, version)
        )

    def failure(self, ending: Ending) -> HeadwaterError | None:
        return failure(self.where, ending)


def _choice(source: str, item: Joined) -> Choice:
    spec = cast("SingerStreamSpec", item.stream)
    ours = {new: old for old, new in spec.rename.items()}
    key = spec.replication_key
    if key is None and spec.cursor is not None and spec.replication_method != "full_table":
        key = ours.get(spec.cursor.field, spec.cursor.field)
    method = spec.replication_method or ("incremental" if key else None)
    return Choice(
        label=f"{source}.{spec.name}",
        tap_stream=spec.tap_stream,
        select=spec.select,
        exclude=spec.exclude,
        blocked=frozenset(ours.get(name, name) for name in spec.blocked),
        method=method.upper() if method else None,
        key=key,
        metadata=spec.metadata,
        columns=spec.column_metadata,
    )


def _local_path(url: str, where: str) -> Path:
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        raise SourceError(where, f"a batch at {parts.scheme}://, not in a local file", "Set batch: true instead.")
    return Path(unquote(parts.path))


def _without_values(line: bytes) -> str:
    """The beginning of a broken line, as far as it says what it was meant to be and no value of a record."""
    shown = _VALUES.split(line, maxsplit=1)[0][:_SHOWN_OF_BROKEN]
    return shown.decode("utf-8", "replace") + (" ..." if len(line) > len(shown) else "")
