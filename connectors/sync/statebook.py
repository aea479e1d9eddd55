"""Looking at saved positions and moving them: each move is planned first, then applied once.

A move writes a new version on top; nothing is ever overwritten, so every move can be undone. The plan carries the
version it was made for, and applying it is refused when somebody (a sync, a colleague) has written since.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, cast

import psycopg

from connectors.errors import ConfigError
from connectors.sync.state import MAX_FOREIGN_STATE_BYTES, State, append_version, cursor_value

Reason = Literal["rewind", "reset", "undo", "import"]
Connection = psycopg.Connection[Any]
FORMAT = "headwater-state-1"


@dataclass(frozen=True, slots=True)
class StateVersion:
    """One row of `ops.stream_state`, decoded."""

    source: str
    stream: str
    version: int
    state: State
    engine: str
    reason: str
    actor: str
    sync_id: str | None
    size_bytes: int
    committed_at: datetime

    @property
    def label(self) -> str:
        return f"{self.source}.{self.stream}"

    @property
    def cursor(self) -> str | None:
        saved = self.state.get("cursor")
        return saved["value"] if saved else None


@dataclass(frozen=True, slots=True)
class Move:
    """A planned change. expected_version: what the stream's newest version must still be."""

    source: str
    stream: str
    expected_version: int
    before: State
    after: State
    reason: Reason
    engine: str

    @property
    def changes(self) -> list[tuple[str, str | None, str | None]]:
        """(path, before, after) of every leaf that differs."""
        return diff(self.before, self.after)


_COLUMNS = (
    "source, stream, version, state, engine, reason, actor, sync_id::text, size_bytes, committed_at "
    "from ops.stream_state"
)


def newest(connection: Connection, source: str | None = None) -> list[StateVersion]:
    """The current state of every stream, or of one source's streams."""
    rows = connection.execute(
        f"select distinct on (source, stream) {_COLUMNS} where %(source)s::text is null or source = %(source)s "
        "order by source, stream, version desc",
        {"source": source},
    ).fetchall()
    return [StateVersion(*row) for row in rows]


def history(connection: Connection, source: str, stream: str, limit: int = 20) -> list[StateVersion]:
    """Versions of one stream, newest first."""
    rows = connection.execute(
        f"select {_COLUMNS} where source = %s and stream = %s order by version desc limit %s", [source, stream, limit]
    ).fetchall()
    return [StateVersion(*row) for row in rows]


def current(connection: Connection, source: str, stream: str) -> StateVersion:
    """Raises ConfigError when the stream has no state."""
    found = history(connection, source, stream, 1)
    if not found:
        raise ConfigError(
            f"{source}.{stream}", "has no saved state", "Run a sync first; `headwater state list` shows what there is."
        )
    return found[0]


def version(connection: Connection, source: str, stream: str, number: int) -> StateVersion:
    """Raises ConfigError when the stream has no such version."""
    row = connection.execute(
        f"select {_COLUMNS} where source = %s and stream = %s and version = %s", [source, stream, number]
    ).fetchone()
    if row is None:
        label = f"{source}.{stream}"
        raise ConfigError(label, f"has no version {number}", f"`headwater state show {label}` lists them.")
    return StateVersion(*row)


def diff(before: State, after: State) -> list[tuple[str, str | None, str | None]]:
    """Leaves that differ, as (dotted path, before, after)."""
    left, right = _leaves(before), _leaves(after)
    paths = sorted(left.keys() | right.keys())
    return [(path, left.get(path), right.get(path)) for path in paths if left.get(path) != right.get(path)]


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for key, item in value.items():
            found |= _leaves(item, f"{path}.{key}" if path else str(key))
        return found
    return {path: json.dumps(value)} if path else {}


def plan_rewind(
    connection: Connection,
    source: str,
    stream: str,
    *,
    to_time: datetime | None = None,
    to_sync: str | None = None,
    to_version: int | None = None,
    to_value: str | None = None,
) -> Move:
    """Back to the state as of a moment, as a sync left it, as a version was, or to a cursor value of one's own.

    Raises:
        ConfigError: there is no such state, or the value is not of the cursor's kind.
    """
    now = current(connection, source, stream)
    if to_value is not None:
        return _move(now, _with_cursor(now, to_value), "rewind")
    row = connection.execute(
        f"""
        select {_COLUMNS} where source = %(source)s and stream = %(stream)s
            and (%(time)s::timestamptz is null or committed_at <= %(time)s)
            and (%(sync)s::uuid is null or sync_id = %(sync)s)
            and (%(version)s::bigint is null or version = %(version)s)
        order by version desc limit 1
        """,
        {"source": source, "stream": stream, "time": to_time, "sync": to_sync, "version": to_version},
    ).fetchone()
    if row is None:
        asked = to_time or to_sync or to_version
        raise ConfigError(
            f"{source}.{stream}",
            f"no state of {asked} is kept",
            f"`headwater state show {source}.{stream}` lists the versions; reset goes back to the start.",
        )
    return _move(now, StateVersion(*row).state, "rewind")


def _with_cursor(now: StateVersion, text: str) -> State:
    saved = now.state.get("cursor")
    if saved is None:
        raise ConfigError(
            now.label, "keeps no cursor, so no value can be set", "Rewind to a time, a sync or a version."
        )
    try:
        cursor_value(text, saved["kind"])
    except (ValueError, ArithmeticError) as error:
        raise ConfigError(
            now.label,
            f"{text!r} is no {saved['kind']} (the cursor {saved['field']} stands at {saved['value']})",
            "Write a timestamp like 2013-01-07T00:00:00Z, a date like 2013-01-07, or a number.",
        ) from error
    return {**now.state, "cursor": {**saved, "value": text}}


def plan_reset(connection: Connection, source: str, stream: str) -> Move:
    """To no state at all: the next sync reads from the start."""
    return _move(current(connection, source, stream), {}, "reset")


def plan_undo(connection: Connection, source: str, stream: str) -> Move:
    """To the state before the newest version; undoing twice returns.

    Raises:
        ConfigError: there is no version before it.
    """
    versions = history(connection, source, stream, 2)
    if len(versions) < 2:
        raise ConfigError(
            f"{source}.{stream}", "has no earlier state to return to", "Use reset to read from the start."
        )
    return _move(versions[0], versions[1].state, "undo")


def _move(now: StateVersion, after: State, reason: Reason) -> Move:
    return Move(now.source, now.stream, now.version, now.state, after, reason, now.engine)


def apply(connection: Connection, move: Move) -> int:
    """Write the planned state; the new version.

    Raises:
        LoaderError: the stream's state has changed since the plan was made.
    """
    return append_version(
        connection, move.source, move.stream, move.expected_version, move.after,
        engine=move.engine, sync_id=None, reason=move.reason,
        # what a program once committed can be put back
        limit=MAX_FOREIGN_STATE_BYTES,
    )  # fmt: skip


def export(versions: Sequence[StateVersion]) -> str:
    """JSON text of current states, for a file that `plan_import` reads."""
    states = [
        {"source": item.source, "stream": item.stream, "engine": item.engine, "state": item.state} for item in versions
    ]
    return json.dumps({"format": FORMAT, "states": states}, indent=2)


def plan_import(connection: Connection, text: str) -> list[Move]:
    """One move for every state in an exported file that differs from what is saved.

    Raises:
        ConfigError: the text is no such file.
    """
    try:
        document = json.loads(text)
        entries = document["states"] if document["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        entries = None
    if not isinstance(entries, list):
        raise ConfigError("state import", f"not a {FORMAT} file", "Write one with `headwater state export`.")
    moves: list[Move] = []
    for number, entry in enumerate(cast("list[Any]", entries)):
        match entry:
            case {"source": str(source), "stream": str(stream), "engine": str(engine), "state": dict(after)}:
                known = history(connection, source, stream, 1)
            case _:
                raise ConfigError(
                    f"state import: states[{number}]",
                    "needs the texts source, stream and engine, and the object state",
                    "Write such a file with `headwater state export`.",
                )
        before, version = (known[0].state, known[0].version) if known else ({}, 0)
        if before != after:
            moves.append(Move(source, stream, version, before, cast("State", after), "import", engine))
    return moves
