"""A stream's declaration turned into requests: address, parameters, position and window."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from connectors.contract import StreamState, Window
from connectors.errors import ConfigError
from connectors.http.client import Request
from connectors.http.conditional import NOT_MODIFIED
from connectors.http.hooks import NO_HOOKS, Hooks
from connectors.http.pagination import Step
from connectors.secrets import resolve

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec
    from connectors.http.specs import IncrementalSpec, Scalar


_ACCEPT: Final = {
    "jsonl": (("Accept", "application/x-ndjson, application/jsonl, */*;q=0.5"),),
    "csv": (("Accept", "text/csv, */*;q=0.5"),),
    "xml": (("Accept", "application/xml, text/xml, */*;q=0.5"),),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Every request of one read, but for its paging.

    params: name and text; is_filtered: the position narrows this read.
    headers: beside those of the source. spool: where a large answer may go; None when it must fit into memory.
    """

    stream: "HttpStreamSpec"
    url: str
    params: tuple[tuple[str, str], ...]
    is_filtered: bool
    headers: tuple[tuple[str, str], ...] = ()
    spool: Path | None = None

    @property
    def accepted(self) -> frozenset[int]:
        """Statuses that are an answer, whatever the table of classes says."""
        parent = self.stream.parent.gone if self.stream.parent is not None else ()
        is_conditional = any(name.startswith("If-") for name, _ in self.headers)
        return frozenset({*self.stream.empty_statuses, *parent, *((NOT_MODIFIED,) if is_conditional else ())})

    def request(self, step: Step) -> Request:
        """The request of one page; paging wins over a parameter of the same name."""
        url, params, added = step.url or self.url, {**dict(self.params), **step.params}, dict[str, str]()
        if step.url is not None:
            params = {}
        elif self.stream.send_in == "body":
            params, added = added, params
        return Request(
            self.stream.method,
            url,
            tuple(params.items()),
            self._content(added),
            self.accepted,
            (*_ACCEPT.get(self.stream.format, ()), *self.headers),
            self.spool,
        )

    def _content(self, added: Mapping[str, str]) -> bytes | None:
        if self.stream.method != "POST":
            return None
        body: dict[str, Any] = dict(self.stream.body or {})
        for name, value in added.items():
            _put(body, name.split("."), value)
        return msgspec.json.encode(body)


def plan(
    stream: "HttpStreamSpec",
    base_url: str,
    state: StreamState,
    window: Window | None,
    label: str,
    hooks: Hooks = NO_HOOKS,
) -> Plan:
    """The read of a stream after `state`, or inside `window`.

    Raises:
        ConfigError: a parameter's variable is not set, or the cursor does not fit incremental.format.
    """
    params = {name: text(value, f"{label}: params.{name}") for name, value in stream.params.items()}
    incremental = stream.incremental
    is_filtered = False
    if hooks.parameters is not None:
        since, until = (_iso(window.start), _iso(window.end)) if window else (state.cursor or _start(stream), None)
        params |= hooks.bounds(hooks.parameters, stream, since, until, label)
        is_filtered = window is None and state.cursor is not None
    elif window is not None:
        if incremental is None or incremental.end_param is None:
            raise ConfigError(
                label,
                "a partition was asked for, but the stream cannot be bounded",
                "Set incremental.param and incremental.end_param.",
            )
        params[incremental.param] = _position(incremental, _iso(window.start), label)
        params[incremental.end_param] = _position(incremental, _iso(window.end), label)
    elif incremental is not None and stream.cursor is not None:
        position = state.cursor if state.cursor is not None else _start(stream)
        if position is not None:
            params[incremental.param] = _position(incremental, position, label)
        is_filtered = state.cursor is not None
    return Plan(stream, address(base_url, stream.path), tuple(params.items()), is_filtered)


def address(base_url: str, path: str) -> str:
    return f"{base_url.rstrip('/')}/{path.lstrip('/')}" if path.strip("/") else base_url


def _start(stream: "HttpStreamSpec") -> str | None:
    return stream.cursor.start if stream.cursor is not None else None


def text(value: "Scalar", where: str) -> str:
    """A parameter as it goes into an address; references are resolved."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return resolve(value, where) if isinstance(value, str) else str(value)


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _position(incremental: "IncrementalSpec", value: str, label: str) -> str:
    """A cursor as the source wants it. Its own text goes through unchanged for iso and raw."""
    form = incremental.format
    if form in ("iso", "raw"):
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise ConfigError(
            f"{label}: incremental.format",
            f"{form} needs a time, but the position is {value[:40]!r}",
            "Set format: raw for cursors that are no times.",
        ) from error
    at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    if form == "date":
        return at.date().isoformat()
    if form == "epoch":
        return str(int(at.timestamp()))
    if form == "epoch_ms":
        return str(int(at.timestamp() * 1_000))
    return at.strftime(form)


def _put(body: dict[str, Any], path: list[str], value: str) -> None:
    """Sets a dotted key; the mappings on the way are copied, never changed in place."""
    head, *rest = path
    if not rest:
        body[head] = value
        return
    below = body.get(head)
    nested = dict(cast("Mapping[str, Any]", below)) if isinstance(below, Mapping) else {}
    _put(nested, rest, value)
    body[head] = nested
