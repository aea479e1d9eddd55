"""A stream's position: read at start, moved in the publication's transaction, every version kept."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Self

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from connectors.contract import StreamState
from connectors.errors import ConfigError, ContractError, LoaderError
from connectors.registry import kind
from connectors.specs import CursorSpec, StreamSpec
from connectors.sync.result import SyncRequest
from connectors.sync.tables import Tables

MAX_STATE_BYTES = 64 * 1024
MAX_FOREIGN_STATE_BYTES = 1024 * 1024
"""Of a program's state, whose size is not ours: Singer and Airbyte keep a position for every partition of a stream."""
State = dict[str, Any]
_NUMBER = r"^-?\d+(\.\d+)?$"


def cursor_text(value: Any) -> str:
    """The value as it stands in a state: ISO 8601 in UTC for moments, plain decimal text for numbers."""
    if isinstance(value, datetime):
        text = value.astimezone(UTC).isoformat(timespec="microseconds" if value.microsecond else "seconds")
        return text.replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def cursor_kind(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = ((datetime, "timestamp"), (date, "date"), (Decimal, "number"))
    return next((kind for python, kind in kinds if isinstance(value, python)), "text")


def _comparable(value: Any) -> Any:
    """A value of the warehouse as positions are compared: numbers as Decimal, what has no order of its own as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(repr(value))
    return value if isinstance(value, date | Decimal) else str(value)


def cursor_value(text: str, kind: str) -> Any:
    """The inverse of `cursor_text`."""
    match kind:
        case "timestamp":
            return datetime.fromisoformat(text)
        case "date":
            return date.fromisoformat(text)
        case "number":
            return Decimal(text)
        case _:
            return text


def with_lag(text: str, kind: str, lag: timedelta) -> str:
    """The position that goes into a request: `lag` earlier, so late rows are read again."""
    if not lag or kind not in ("timestamp", "date"):
        return text
    return cursor_text(cursor_value(text, kind) - lag)


@dataclass(slots=True)
class Position:
    """version: of the newest row of `ops.stream_state`, 0 without one. state: its JSON.

    started_from: the typed cursor value that this sync began at; None at first.
    """

    version: int
    state: State
    _cursor: CursorSpec | None
    _label: str
    _greatest: Any = None
    started_from: Any = None

    @classmethod
    def load(cls, connection: psycopg.Connection[Any], request: SyncRequest) -> Self:
        """Raises ConfigError when the saved cursor belongs to another field than the stream declares now."""
        row = connection.execute(
            """
            select version, state from ops.stream_state
            where source = %s and stream = %s order by version desc limit 1
            """,
            [request.source.source, request.stream.name],
        ).fetchone()
        version, state = (row[0], row[1]) if row else (0, {})
        cursor = request.stream.cursor
        saved: Mapping[str, str] = state.get("cursor") or {}
        if cursor is not None and saved and saved["field"] != cursor.field:
            raise ConfigError(
                request.label,
                f"the saved position is of field {saved['field']}, the stream's cursor is {cursor.field}",
                f"Run `headwater state reset {request.label}` to read from the start, or restore the field.",
            )
        position = cls(version, state, cursor, request.label)
        position._greatest = position.started_from = position.boundary
        return position

    @property
    def boundary(self) -> Any | None:
        """The committed cursor value, typed; None at first."""
        saved = self.state.get("cursor")
        return cursor_value(saved["value"], saved["kind"]) if saved else None

    def for_read(self, stream: StreamSpec) -> StreamState:
        saved = self.state.get("cursor")
        cursor = stream.cursor
        text = with_lag(saved["value"], saved["kind"], cursor.lag) if saved and cursor else cursor and cursor.start
        return StreamState(cursor=text, connector=self.state.get("connector") or {})

    def advance(self, connection: psycopg.Connection[Any], tables: Tables, *, is_live: bool) -> str | None:
        """Look at the staged rows' cursor; the greatest value among them that is not in the future, as text.

        Infinities, NaN and years before 1 never become a position: nothing would come after them.

        Raises:
            ContractError: a text cursor of numbers, which would order 9 after 10; a cursor that changed its type.
        """
        if self._cursor is None or tables.cursor is None:
            return None
        if tables.cursor_type.startswith(("text", "character")):
            self._refuse_numbers_as_text(connection, tables, Identifier(tables.cursor))
        condition = tables.becomes_position(self._cursor.tolerance) or SQL("true")
        row = connection.execute(
            SQL("select max({}) from {} where {}").format(tables.position, tables.staged, condition)
        ).fetchone()
        if row is None or row[0] is None:
            return None
        greatest = _comparable(row[0])
        if is_live:
            self._refuse_another_kind(greatest)
            if self._greatest is None or greatest > self._greatest:
                self._greatest = greatest
        return cursor_text(greatest)

    def _refuse_another_kind(self, greatest: Any) -> None:
        if self._greatest is not None and cursor_kind(self._greatest) != cursor_kind(greatest):
            raise ContractError(
                f"{self._label}: cursor",
                f"the saved position is a {cursor_kind(self._greatest)}, the column holds a {cursor_kind(greatest)}",
                f"Run `headwater state reset {self._label}` to read from the start, or restore the type.",
            )

    def _refuse_numbers_as_text(self, connection: psycopg.Connection[Any], tables: Tables, column: Identifier) -> None:
        row = connection.execute(
            SQL("select bool_and({c} ~ %s), min(length({c})), max(length({c})) from {t}").format(
                c=column, t=tables.staged
            ),
            [_NUMBER],
        ).fetchone()
        assert row is not None
        are_numbers, shortest, longest = row
        saved = str(self._greatest) if self._greatest is not None else ""
        if are_numbers and (shortest != longest or (re.match(_NUMBER, saved) and len(saved) != longest)):
            raise ContractError(
                f"{self._label}: cursor {tables.cursor}",
                "numbers of different length in a text column: as text, 9 comes after 10",
                f"Declare columns.{tables.cursor}.type: bigint (or decimal) in the source file.",
            )

    def commit(
        self,
        connection: psycopg.Connection[Any],
        request: SyncRequest,
        sync_id: str,
        connector: Mapping[str, Any] | None,
        *,
        advances: bool,
    ) -> State:
        """Write the new state in the caller's transaction; an unchanged state writes nothing.

        Raises:
            LoaderError: somebody else wrote a version meanwhile (a rewind, an import).
            ContractError: the state is larger than 64 KB.
        """
        state: State = dict(self.state)
        if connector is not None:
            state["connector"] = dict(connector)
        if advances and self._cursor is not None and self._greatest is not None:
            state["cursor"] = {
                "field": self._cursor.field,
                "value": cursor_text(self._greatest),
                "kind": cursor_kind(self._greatest),
            }
        if state == self.state and self.version:
            return state
        self.version = append_version(
            connection, request.source.source, request.stream.name, self.version, state,
            engine=request.source.connector.kind, sync_id=sync_id, reason="sync",
            limit=MAX_FOREIGN_STATE_BYTES if kind(request.source.connector.kind).reads_together else MAX_STATE_BYTES,
        )  # fmt: skip
        self.state = state
        return state


def append_version(
    connection: psycopg.Connection[Any],
    source: str,
    stream: str,
    expected_version: int,
    state: State,
    *,
    engine: str,
    sync_id: str | None,
    reason: str,
    limit: int = MAX_STATE_BYTES,
) -> int:
    """Add version expected + 1; the unique key refuses the second of two writers.

    Raises:
        LoaderError: the newest version is not the expected one.
        ContractError: the state is larger than `limit` bytes.
    """
    label = f"{source}.{stream}"
    size = len(json.dumps(state).encode())
    if size > limit:
        raise ContractError(
            label,
            f"a state of {size:,} bytes, limit {limit:,}",
            "Report it: a connector's state must not grow with the data.",
        )
    row = connection.execute(
        """
        insert into ops.stream_state (source, stream, version, state, engine, sync_id, reason, size_bytes)
        select %(source)s, %(stream)s, %(version)s + 1, %(state)s, %(engine)s, %(sync_id)s, %(reason)s, %(size)s
        where coalesce((
            select max(version) from ops.stream_state where source = %(source)s and stream = %(stream)s
        ), 0) = %(version)s
        on conflict (source, stream, version) do nothing
        returning version
        """,
        {
            "source": source, "stream": stream, "version": expected_version, "state": Jsonb(state), "engine": engine,
            "sync_id": sync_id, "reason": reason, "size": size,
        },
    ).fetchone()  # fmt: skip
    if row is None:
        raise LoaderError(
            label,
            f"the state was changed by somebody else since version {expected_version}",
            f"Look at `headwater state show {label}`, then run it again.",
        )
    return row[0]
