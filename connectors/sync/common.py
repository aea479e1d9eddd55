"""What streams that are read together share: a folder, each other's positions, and a position between them.

Records that one position covers for several streams are kept with it in `ops.pieces`, in one transaction; each stream
loads its own from there at its own pace: docs/decisions/0007-shared-states.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from connectors.contract import Json, JsonRecords
from connectors.errors import ResourceError
from connectors.specs import SourceSpec
from connectors.sync.lease import connect
from connectors.sync.protect import Protector
from connectors.sync.registry import ruled_columns
from connectors.sync.state import MAX_FOREIGN_STATE_BYTES, append_version

SHARED = "_shared"
"""The stream name of the common position in `ops.stream_state`; no real stream can have it."""
MAX_BACKLOG_BYTES = 2 << 30

_NEWEST = """
    select distinct on (stream) stream, version, state -> 'connector'
    from ops.stream_state where source = %s order by stream, version desc
"""


class EngineCommon:
    """See `connectors.contract.Common`. Used by the thread that reads the program; `backlog` by any."""

    def __init__(self, source: SourceSpec, dsn: str, folder: Path, log: Callable[[str], None]) -> None:
        self.folder = folder
        self.log = log
        self.connect_shared: Callable[[], psycopg.Connection[Any]] | None = self._connected
        self._source = source
        self._declared = [stream.name for stream in source.streams]
        self._dsn = dsn
        self._version = 0
        self._position: Json = {}
        self._afterwards: Json | None = None
        self._others: dict[str, Json] = {}
        with self._connected() as connection:
            self._refuse_backlog(connection)
            for stream, version, position in connection.execute(_NEWEST, [source.source]):
                if stream == SHARED:
                    self._version, self._position = version, self._of_declared(position or {})
                else:
                    self._others[stream] = position or {}

    def _of_declared(self, position: Json) -> Json:
        """Without the streams that were taken out of the source file: nobody can read them any more."""
        streams = [name for name in position.get("streams", ()) if name in self._declared]
        return {**position, "streams": streams} if position else position

    def _connected(self) -> "psycopg.Connection[Any]":
        return connect(self._dsn, self._source.source, autocommit=True)

    def _refuse_backlog(self, connection: "psycopg.Connection[Any]") -> None:
        """A stream that fails again and again must not fill the warehouse with what it never loads."""
        worst = connection.execute(
            "select stream, sum(length(body)) from ops.pieces where source = %s and stream = any (%s) "
            "group by 1 order by 2 desc limit 1",
            [self._source.source, self._declared],
        ).fetchone()
        if worst is not None and worst[1] > MAX_BACKLOG_BYTES:
            raise ResourceError(
                f"{self._source.source}.{worst[0]}",
                f"{worst[1] / 2**30:.1f} GB of its records wait in ops.pieces, limit {MAX_BACKLOG_BYTES >> 30} GB",
                "Mend the stream: `headwater syncs` shows why it fails; or take it out of the source file.",
            )

    def positions(self) -> Mapping[str, Json]:
        return self._others

    def position(self) -> Json:
        return self._position

    def commit(self, segments: Mapping[str, Iterable[bytes]], position: Json) -> int:
        source = self._source.source
        with self._connected() as connection, connection.transaction():
            protectors = {stream: self._protecting(connection, stream) for stream in segments}
            with (
                connection.cursor() as cursor,
                cursor.copy("copy ops.pieces (source, stream, body) from stdin (format binary)") as copy,
            ):
                copy.set_types(["text", "text", "bytea"])
                for stream, pieces in segments.items():
                    for piece in pieces:
                        copy.write_row((source, stream, protectors[stream](piece)))
            if position != self._position or not self._version:
                self._version = append_version(
                    connection, source, SHARED, self._version, {"connector": dict(position)},
                    engine=self._source.connector.kind, sync_id=None, reason="sync", limit=MAX_FOREIGN_STATE_BYTES,
                )  # fmt: skip
            row = connection.execute("select max(piece) from ops.pieces where source = %s", [source]).fetchone()
        self._position = position
        return row[0] or 0 if row else 0

    def _protecting(self, connection: "psycopg.Connection[Any]", stream: str) -> Callable[[bytes], bytes]:
        """What applies the stream's column rules to records that are kept here in between."""
        spec = self._source.stream(stream)
        columns = ruled_columns(connection, self._source.source, spec)
        where = f"{self._source.source}.{stream}"
        protector = Protector(columns, where, spec.null_values, is_sealing=True)
        if not protector:
            return lambda piece: piece
        return lambda piece: protector.json(JsonRecords(piece, "")).body + b"\n"

    def commit_afterwards(self, position: Json) -> None:
        self._afterwards = position

    def backlog(self, stream: str, after: int) -> Iterator[tuple[int, bytes]]:
        with self._connected() as connection:
            while row := connection.execute(
                "select piece, body from ops.pieces where source = %s and stream = %s and piece > %s "
                "order by piece limit 1",
                [self._source.source, stream, after],
            ).fetchone():
                yield row[0], row[1]
                after = row[0]

    def finish(self, *, is_whole: bool) -> None:
        """Forget what has been loaded. is_whole: every stream of the run succeeded."""
        if is_whole and self._afterwards is not None:
            self.commit({}, self._afterwards)
        with self._connected() as connection:
            connection.execute(
                f"""
                delete from ops.pieces p using ({_NEWEST}) as s (stream, version, connector)
                where p.source = %s and p.stream = s.stream and p.piece <= (s.connector ->> 'piece')::bigint
                """.encode(),
                [self._source.source, self._source.source],
            )
