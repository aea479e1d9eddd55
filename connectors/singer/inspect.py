"""What a stream of Singer messages holds, and what is wrong with it; the messages themselves are not touched."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from connectors.singer.dialect import Line
from connectors.singer.state import resumable
from connectors.singer.types import fault

_SHOWN = 8


@dataclass(slots=True)
class StreamFindings:
    """Of one stream. unsealed: records since the last state. sent: fields that some record had."""

    records: int = 0
    bytes: int = 0
    largest_bytes: int = 0
    schemas: int = 0
    unsealed: int = 0
    batches: int = 0
    versions: list[int] = field(default_factory=list[int])
    declared: dict[str, Any] = field(default_factory=dict[str, Any])
    keys: tuple[str, ...] = ()
    sent: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class Anomaly:
    """first_line: number of the first message it was seen at, from 1."""

    what: str
    first_line: int
    count: int = 1


class Inspector:
    """`take` every line in order, then `report`."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()
        self.streams: dict[str, StreamFindings] = {}
        self.states = 0
        self.state: Any = None
        self.state_bytes = 0
        self._number = 0
        self._anomalies: dict[str, Anomaly] = {}
        self._decode = msgspec.json.Decoder(Line).decode
        self._fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    @property
    def anomalies(self) -> Sequence[Anomaly]:
        return sorted(self._anomalies.values(), key=lambda item: item.first_line)

    def take(self, line: bytes) -> None:
        self._number += 1
        if not line.strip():
            return
        try:
            said = self._decode(line)
        except msgspec.DecodeError:
            self.messages["(no message)"] += 1
            self._note(f"a line that is no message: {line[:60].decode('utf-8', 'replace').strip()!r}", key="no message")
            return
        self.messages[said.type] += 1
        if (said.type == "RECORD" and not said.stream) or (said.type == "STATE" and not bytes(said.value)):
            self._note("a message without what Singer's has: is this an Airbyte source?", key="airbyte")
            return
        match said.type:
            case "RECORD":
                self._record(said)
            case "SCHEMA":
                self._schema(said)
            case "STATE":
                self._state(bytes(said.value))
            case "ACTIVATE_VERSION":
                self._of(said.stream).versions.append(said.version or 0)
            case "BATCH":
                self._of(said.stream).batches += 1
            case _:
                self._note(f"unknown message type {said.type!r}")

    def _of(self, stream: str) -> StreamFindings:
        return self.streams.setdefault(stream, StreamFindings())

    def _note(self, what: str, key: str = "") -> None:
        known = self._anomalies.get(key or what)
        if known is None:
            self._anomalies[key or what] = Anomaly(what, self._number)
        else:
            known.count += 1

    def _record(self, said: Line) -> None:
        found, body = self._of(said.stream), bytes(said.record)
        found.records += 1
        found.unsealed += 1
        found.bytes += len(body)
        found.largest_bytes = max(found.largest_bytes, len(body))
        if not found.schemas:
            self._note(f"{said.stream}: a record before its schema")
        try:
            fields = self._fields(body)
        except msgspec.DecodeError:
            self._note(f"{said.stream}: a record that is no object")
            return
        found.sent |= fields.keys()
        if found.declared:
            for name in fields.keys() - found.declared.keys():
                self._note(f"{said.stream}: field {name!r} is not in the schema")
        for key in found.keys:
            if bytes(fields.get(key, b"null")) == b"null":
                self._note(f"{said.stream}: a record without its key {key!r}")

    def _schema(self, said: Line) -> None:
        found = self._of(said.stream)
        found.schemas += 1
        try:
            schema: Any = msgspec.json.decode(said.schema or b"null")
            keys: Any = msgspec.json.decode(said.key_properties or b"null")
        except msgspec.DecodeError:
            schema = keys = None
        if wrong := fault(schema):
            self._note(f"{said.stream}: the schema {wrong}")
            return
        properties = cast("dict[str, Any]", schema.get("properties") or {})
        if found.schemas > 1 and properties != found.declared:
            self._note(f"{said.stream}: the schema changed")
        if not properties:
            self._note(f"{said.stream}: a schema without properties")
        found.declared = properties
        found.keys = tuple(map(str, cast("list[Any]", keys))) if isinstance(keys, list) else ()

    def _state(self, raw: bytes) -> None:
        self.states += 1
        self.state_bytes = max(self.state_bytes, len(raw))
        for found in self.streams.values():
            found.unsealed = 0
        try:
            value = msgspec.json.decode(raw or b"null")
        except msgspec.DecodeError:
            value = None
        if not isinstance(value, dict):
            self._note("a state that is no object")
            return
        for path, before, after in backwards(resumable(self.state), resumable(value)):
            self._note(f"state {path} went backwards: {before!r} to {after!r}", key=f"back {path}")
        self.state = value

    def report(self) -> Iterator[str]:
        """Lines for a reader."""
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.messages.items()))
        yield f"{sum(self.messages.values()):,} messages: {counts or 'none'}"
        for name, found in self.streams.items():
            yield from _stream_report(name, found)
        yield f"state: {self.states:,} checkpoints, the largest of {self.state_bytes:,} bytes"
        if self.state is not None:
            yield f"last state: {msgspec.json.encode(self.state)[:400].decode('utf-8', 'replace')}"
        yield f"{len(self._anomalies)} anomalies" if self._anomalies else "no anomalies"
        for item in self.anomalies:
            times = f", {item.count:,} times" if item.count > 1 else ""
            yield f"  line {item.first_line:,}{times}: {item.what}"


def _stream_report(name: str, found: StreamFindings) -> Iterator[str]:
    average = found.bytes // found.records if found.records else 0
    yield f"{name}: {found.records:,} records of {average:,} bytes, the largest {found.largest_bytes:,}"
    yield f"  {found.schemas} schemas, {len(found.declared)} fields, key {', '.join(found.keys) or 'none'}"
    if found.batches or found.versions:
        yield f"  {found.batches} batches, versions {', '.join(map(str, found.versions)) or 'none'}"
    if silent := sorted(found.declared.keys() - found.sent):
        more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
        yield f"  declared, never sent: {', '.join(silent[:_SHOWN])}{more}"
    if found.unsealed:
        yield f"  {found.unsealed:,} records after the last state"


def backwards(before: Any, after: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Leaves of a state that became smaller: texts and numbers; anything else has no order."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        left, right = cast("Mapping[str, Any]", before), cast("Mapping[str, Any]", after)
        for key in left.keys() & right.keys():
            yield from backwards(left[key], right[key], f"{path}.{key}" if path else key)
    elif _is_number(before) and _is_number(after):
        if after < before:
            yield path, before, after
    elif isinstance(before, str) and isinstance(after, str) and len(before) == len(after) and after < before:
        # texts of one length: dates and padded numbers; of others the order says nothing
        yield path, before, after


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
