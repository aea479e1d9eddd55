"""Lines of an Airbyte source as messages; a record's data stays undecoded."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from connectors.airbyte.failures import ErrorTrace, of_trace
from connectors.errors import SourceError
from connectors.process import messages
from connectors.process.failures import refuse_large_state
from connectors.secrets import mask

_DELETED_AT = b'"_ab_cdc_deleted_at"'
_SHOWN_JUNK = 200
_KEPT_TOLD = 20
_STREAM = re.compile(rb'"stream"\s*:\s*"((?:[^"\\]|\\.)*)"')
_NO_STATE = ("__ab_no_cursor_state_message", "__ab_full_refresh_state_message", "__ab_full_refresh_sync_complete")
_LEVELS = ("FATAL", "ERROR", "WARN", "INFO")


_NOTHING = msgspec.Raw()


class _Record(msgspec.Struct):
    stream: str
    data: msgspec.Raw
    namespace: str | None = None


class Line(msgspec.Struct):
    """One message. Only what is needed of it; parts that records do not have stay raw."""

    type: str
    record: _Record | None = None
    state: msgspec.Raw = _NOTHING
    trace: msgspec.Raw = _NOTHING
    log: msgspec.Raw = _NOTHING
    spec: msgspec.Raw = _NOTHING
    catalog: msgspec.Raw = _NOTHING
    control: msgspec.Raw = _NOTHING
    connectionStatus: msgspec.Raw = _NOTHING  # noqa: N815  the protocol's own spelling


class _Deleted(msgspec.Struct):
    at: Any = msgspec.field(default=None, name="_ab_cdc_deleted_at")


class _Descriptor(msgspec.Struct):
    name: str
    namespace: str | None = None


class _StreamState(msgspec.Struct):
    stream_descriptor: _Descriptor
    stream_state: dict[str, Any] | None = None


class _State(msgspec.Struct):
    type: str | None = None
    stream: _StreamState | None = None
    global_: dict[str, Any] | None = msgspec.field(default=None, name="global")
    data: dict[str, Any] | None = None


class _Status(msgspec.Struct):
    stream_descriptor: _Descriptor
    status: str
    reasons: list[dict[str, Any]] | None = None


class _Trace(msgspec.Struct):
    type: str
    error: ErrorTrace | None = None
    stream_status: _Status | None = None


class _Changed(msgspec.Struct):
    config: dict[str, Any]


class _Control(msgspec.Struct):
    """connectorConfig: missing where the control is about something else."""

    connectorConfig: _Changed | None = None  # noqa: N815  the protocol's own spelling


class _Log(msgspec.Struct):
    level: str = "INFO"
    message: str = ""


_LINE = msgspec.json.Decoder(Line)
_STATE, _TRACE = msgspec.json.Decoder(_State), msgspec.json.Decoder(_Trace)
_LOG, _IS_DELETED = msgspec.json.Decoder(_Log), msgspec.json.Decoder(_Deleted)
_CONTROL = msgspec.json.Decoder(_Control)


class Reading:
    """The dialect of one read.

    secrets: masked in everything that is not a record.
    keep: keeps a configuration that the source has changed; what to tell of it.
    names: the session's name of a stream by (namespace, name). incremental: the names that resume from a state.
    told: the last errors that the source logged. incomplete: streams that it gave up.
    """

    def __init__(
        self,
        where: str,
        secrets: Sequence[str],
        keep: Callable[[Mapping[str, Any]], str],
        names: Mapping[tuple[str | None, str], str] | None = None,
        incremental: frozenset[str] = frozenset(),
    ) -> None:
        self._where = where
        self._secrets = secrets
        self._keep = keep
        self._names = names or {}
        self._incremental = incremental
        self._junk = 0
        self.told: deque[str] = deque(maxlen=_KEPT_TOLD)
        self.incomplete: list[str] = []
        self.complete: set[str] = set()

    def decode(self, line: bytes) -> messages.Message | Sequence[messages.Message] | None:
        """Raises SourceError for a broken message that may have been anything but a log line."""
        try:
            found = _LINE.decode(line)
        except msgspec.DecodeError as error:
            return self._undecoded(line, error)
        if found.record is not None:
            record = found.record
            body = bytes(record.data)
            if _DELETED_AT in body and body.startswith(b"{"):
                body = _with_deleted(body)
            return messages.Record(self._names.get((record.namespace, record.stream), record.stream), body)
        try:
            return self._other(found)
        except msgspec.DecodeError as error:
            raise SourceError(
                self._where,
                f"a {found.type} message breaks the protocol: {error}",
                "Look at the source's own release notes.",
            ) from error

    def _other(self, found: Line) -> messages.Message | Sequence[messages.Message] | None:
        match found.type:
            case "STATE":
                refuse_large_state(self._where, len(bytes(found.state)))
                return self._state(_STATE.decode(found.state))
            case "TRACE":
                return self._trace(_TRACE.decode(found.trace))
            case "LOG":
                return self._log(_LOG.decode(found.log))
            case "CONTROL":
                changed = _CONTROL.decode(found.control).connectorConfig
                return messages.Note(self._keep(changed.config)) if changed is not None else None
            case _:
                return None

    def _state(self, state: _State) -> messages.Message:
        if state.stream is not None:
            name = self._name(state.stream.stream_descriptor)
            value = state.stream.stream_state
            if name not in self._incremental:
                # every read is the whole collection, so no position concerns the next one
                return messages.State(name, {}, is_resumable=False)
            if not value or any(key in value for key in _NO_STATE):
                return messages.State(name, {}, is_resumable=False)
            return messages.State(name, {"stream_state": value})
        if state.global_ is not None:
            return messages.State(None, {"global": state.global_})
        return messages.State(None, {"legacy": state.data or {}})

    def _trace(self, trace: _Trace) -> messages.Message | None:
        if trace.error is not None:
            named = trace.error.stream_descriptor
            name = None
            if named and isinstance(named.get("name"), str):
                name = self._names.get((named.get("namespace"), named["name"]), named["name"])
            return messages.Failed(of_trace(self._where, trace.error, self._secrets), name)
        status = trace.stream_status
        if status is None:
            return None
        name = self._name(status.stream_descriptor)
        reasons = ", ".join(str(reason.get("type", "")) for reason in status.reasons or ())
        match status.status:
            case "COMPLETE":
                self.complete.add(name)
                return messages.Complete(name)
            case "INCOMPLETE":
                self.incomplete.append(name)
                return None
            case _:
                return messages.Note(f"{name}: {status.status}, {reasons}") if reasons else None

    def _log(self, log: _Log) -> messages.Message | None:
        if log.level not in _LEVELS:
            return None
        first = mask(log.message.strip().splitlines()[0], self._secrets) if log.message.strip() else ""
        if log.level in ("FATAL", "ERROR"):
            self.told.append(first)
        return messages.Note(f"{log.level}: {first}")

    def _name(self, descriptor: _Descriptor) -> str:
        return self._names.get((descriptor.namespace, descriptor.name), descriptor.name)

    def _undecoded(self, line: bytes, error: msgspec.DecodeError) -> messages.Message | None:
        """Not a message: a line of log, as some libraries print them; but a broken record is never passed over."""
        text = line.strip()
        if not text:
            return None
        if text.startswith(b"{") and b'"RECORD"' in text[:1000]:
            if match := _STREAM.search(text):
                stream = match[1].decode("utf-8", "replace")
                return messages.Broken(self._names.get((None, stream), stream), line, f"no JSON: {error}")
            raise SourceError(self._where, f"a record of no stream: {error}", "Look at the source's own release notes.")
        if text.startswith(b"{") and any(word in text[:200] for word in (b'"STATE"', b'"TRACE"')):
            raise SourceError(self._where, f"a broken STATE or TRACE message: {error}", "Look at the source's output.")
        self._junk += 1
        if self._junk > _SHOWN_JUNK:
            return None
        more = "; further such lines are not shown" if self._junk == _SHOWN_JUNK else ""
        shown = mask(text[:300].decode("utf-8", "replace"), self._secrets)
        return messages.Note(f"no message: {shown}{more}")


def _with_deleted(body: bytes) -> bytes:
    try:
        is_deleted = _IS_DELETED.decode(body).at is not None
    except msgspec.DecodeError:  # the engine refuses the record, with its reason
        return body
    return body.rstrip()[:-1] + (b',"_deleted":true}' if is_deleted else b',"_deleted":false}')
