"""Where a stream stands, kept by whoever runs the export: the same JSON as in `ops.stream_state`."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, cast

from connectors.contract import Checkpoint, StreamState
from connectors.errors import ConfigError
from connectors.specs import CursorSpec, StreamSpec
from connectors.sync.state import cursor_kind, cursor_text, cursor_value, with_lag

Json = Mapping[str, Any]
_KINDS = ("timestamp", "date", "number", "text")
_HINT = "Give back what a read has sent, or run without that state to read from the start."


class Position:
    """The greatest cursor value passed on so far, and the connector's own position.

    saved: `{"cursor": {"field", "value", "kind"}, "connector": {...}}`, or empty.

    Raises:
        ConfigError: saved is none, or one of another cursor.
    """

    def __init__(self, stream: StreamSpec, saved: Json, where: str) -> None:
        self._stream = stream
        self._cursor = stream.cursor
        self._connector = _mapping(saved, "connector", where)
        self._greatest: Any = None
        self._start: str | None = None
        if self._cursor is not None:
            self._start = self._cursor.start
            if found := _mapping(saved, "cursor", where):
                self._greatest, self._start = _cursor(found, self._cursor, where)
        self._committed = self._greatest
        self._newest_allowed = None if self._cursor is None else datetime.now(UTC) + self._cursor.tolerance

    def for_read(self) -> StreamState:
        return StreamState(cursor=self._start, connector=self._connector)

    def saw(self, value: Any) -> None:
        """A cursor value of a record; one in the future never becomes the position."""
        found = _typed(value, self._stream)
        if found is None:
            return
        newest = self._newest_allowed
        if newest is not None and isinstance(found, datetime) and found > newest:
            return
        if self._greatest is None or (cursor_kind(found) == cursor_kind(self._greatest) and found > self._greatest):
            self._greatest = found

    def seal(self, checkpoint: Checkpoint) -> Json:
        """The state that covers everything passed on so far."""
        if checkpoint.connector is not None:
            self._connector = checkpoint.connector
        if checkpoint.is_ordered:
            self._committed = self._greatest
        state: dict[str, Any] = {}
        if self._cursor is not None and self._committed is not None:
            kind = cursor_kind(self._committed)
            state["cursor"] = {"field": self._cursor.field, "value": cursor_text(self._committed), "kind": kind}
        if self._connector:
            state["connector"] = dict(self._connector)
        return state


def _mapping(saved: Json, name: str, where: str) -> Json:
    found = saved.get(name) or {}
    if not isinstance(found, Mapping):
        raise ConfigError(where, f"the state's {name} is a {type(found).__name__}, not an object", _HINT)
    return cast("Json", found)


def _cursor(saved: Json, cursor: CursorSpec, where: str) -> tuple[Any, str]:
    """The value, and where a read begins for it: `lag` earlier."""
    if saved.get("field") != cursor.field:
        what = f"the state is of field {saved.get('field')}, the stream's cursor is {cursor.field}"
        raise ConfigError(where, what, "Run without that state to read from the start.")
    text, kind = saved.get("value"), saved.get("kind")
    if not isinstance(text, str) or kind not in _KINDS:
        what = "the state's cursor lacks its value, a text, or its kind, one of " + ", ".join(_KINDS)
        raise ConfigError(where, what, _HINT)
    wrong = f"the state's cursor value {text[:40]!r} is no {kind}"
    try:
        value = cursor_value(text, kind)
        start = with_lag(cursor_text(value), kind, cursor.lag)
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(where, wrong, _HINT) from error
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ConfigError(where, f"{wrong} with a zone", _HINT)
    if isinstance(value, Decimal) and not value.is_finite():
        raise ConfigError(where, wrong, _HINT)
    return value, start


def _typed(value: Any, stream: StreamSpec) -> Any:
    """As the engine orders it: times as aware moments, numbers as Decimal, else text."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float | Decimal):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
        return number if number.is_finite() else None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return value
    text = str(value)
    assert stream.cursor is not None
    column = stream.columns.get(stream.cursor.field)
    declared = column.type if column is not None else None
    if declared in (None, "timestamp", "date"):
        try:
            if len(text) == len("2024-01-01") and declared != "timestamp":
                return date.fromisoformat(text)
            moment = datetime.fromisoformat(text)
        except ValueError:
            return text
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return text
