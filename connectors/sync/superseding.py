"""Records in quarantine that are out of date, because the source has said anew what they say.

They become `superseded`, in the transaction that publishes what is newer, and no replay loads them. A replay supersedes
nothing: it says nothing that the source had not said before.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from connectors.secrets import MASK
from connectors.sync.columns import DELETED
from connectors.sync.originals import decoded
from connectors.sync.rejects import Reject
from connectors.sync.result import SyncRequest
from connectors.sync.sifting import drop_outdated
from connectors.sync.tables import Tables

Connection = psycopg.Connection[Any]
PUT_BACK = re.compile(r"quarantine (\d+)\b")
"""The place of a record that a replay read."""
_LARGEST = 64 * 1024
"""Characters of a payload that is looked at for its key."""


def by_payload(connection: Connection, request: SyncRequest, sync_id: str, digests: Sequence[str]) -> None:
    """What other syncs hold of these payloads: this sync holds the same records, so the source sent them again."""
    _supersede(
        connection, request, sync_id, SQL("q.payload_sha256 = any ({}::text[])").format(list(digests)),
    )  # fmt: skip


def is_whole(reject: Reject) -> bool:
    """Its payload is all of the record; a piece may be that of another one."""
    return "(payload cut to " not in reject.reason and not reject.payload.startswith(MASK)


def by_read(connection: Connection, request: SyncRequest, sync_id: str, *, is_full: bool) -> None:
    """All that earlier syncs hold, when this one read all there is; of a window what reads of the very same hold."""
    if is_full:
        _supersede(connection, request, sync_id, SQL("true"))
    elif (window := request.window) is not None:
        same = SQL("(r.window_start, r.window_end) = ({}, {})").format(window.start, window.end)
        _supersede(connection, request, sync_id, same)


def settle_keys(connection: Connection, request: SyncRequest, sync_id: str, tables: Tables) -> int:
    """The key's newest record stays: rows dropped of a replay's stage; other syncs put what is held out of date."""
    stream = request.stream
    if not tables.keys or stream.write in (None, "append"):
        return 0
    if request.trigger != "replay":
        if stream.write != "replace":
            _by_key(connection, request, sync_id, tables)
        return 0
    if stream.write == "replace":
        return drop_outdated(connection, tables, by_cursor=False)
    return drop_outdated(connection, tables, by_cursor=True) if tables.cursor else 0


def _by_key(connection: Connection, request: SyncRequest, sync_id: str, tables: Tables) -> None:
    """What earlier syncs hold of the staged rows' keys, unless its cursor is the greater one.

    A key or a cursor that cannot be read from the payload supersedes nothing; a delete mark may come without a cursor.
    """
    found = {number: (key, at) for number, key, at in _keys_held(connection, request, sync_id)}
    if not found:
        return
    names = [f"k{number}" for number in range(len(tables.keys))]
    keys = zip(*(key for key, _ in found.values()), strict=True)
    loaded = connection.execute(
        SQL(
            "select h.number, {cursor}::text, s.{deleted} "
            "from {staged} s join unnest(%s::bigint[], {texts}) as h (number, {names}) on {match}"
        ).format(
            cursor=Identifier("s", tables.cursor) if tables.cursor else SQL("null"),
            deleted=Identifier(DELETED),
            staged=tables.staged,
            texts=SQL(", ").join(SQL("%s::text[]") for _ in names),
            names=SQL(", ").join(map(Identifier, names)),
            match=SQL(" and ").join(
                SQL("{}::text = {}").format(Identifier("s", key), Identifier("h", name))
                for key, name in zip(tables.keys, names, strict=True)
            ),
        ),
        [list(found), *map(list, keys)],
    ).fetchall()
    old = [
        number
        for number, at, is_deleted in loaded
        if request.stream.cursor is None
        or (is_deleted if at is None else _is_reached(found[number][1], at, tables.cursor_type))
    ]
    if old:
        _supersede(connection, request, sync_id, SQL("q.quarantine_id = any ({}::bigint[])").format(old))


def _supersede(connection: Connection, request: SyncRequest, sync_id: str, which: Composable) -> None:
    """which: of the records `q`, read from the source by another sync `r`."""
    connection.execute(
        SQL(
            """
            update ops.quarantine q set status = 'superseded', resolved_by = %(sync_id)s, resolved_at = now()
            from ops.syncs r
            where q.source = %(source)s and q.stream = %(stream)s and q.status = 'held'
                and r.sync_id = coalesce(q.read_by, q.sync_id) and r.sync_id <> %(sync_id)s and {which}
            """
        ).format(which=which),
        {"source": request.source.source, "stream": request.stream.name, "sync_id": sync_id},
    )


def _keys_held(connection: Connection, request: SyncRequest, sync_id: str) -> Iterator[tuple[int, list[str], Any]]:
    """(id, key as texts, cursor) of every record that other syncs hold and whose key can be read."""
    rows = connection.execute(
        """
        select quarantine_id, payload from ops.quarantine
        where source = %s and stream = %s and status = 'held' and sync_id <> %s
            and starts_with(payload, '{') and length(payload) <= %s
        """,
        [request.source.source, request.stream.name, sync_id, _LARGEST],
    ).fetchall()
    stream = request.stream
    for number, payload in rows:
        try:
            record = decoded(payload)
        except (ValueError, RecursionError):
            continue
        key = [str(value) for name in stream.primary_key if type(value := record.get(name)) in (str, int)]
        if len(key) == len(stream.primary_key):
            yield number, key, record.get(stream.cursor.field) if stream.cursor else None


def _is_reached(held: Any, loaded: str, kind: str) -> bool:
    """Whether the cursor value of a payload is at most one that PostgreSQL wrote; False when that cannot be told."""
    try:
        if kind == "date":
            return date.fromisoformat(held) <= date.fromisoformat(loaded)
        if kind.startswith("timestamp"):
            return _moment(held) <= _moment(loaded)
        if kind.startswith(("text", "character")):
            return isinstance(held, str) and held <= loaded
        return Decimal(held) <= Decimal(loaded)
    except (TypeError, ValueError, InvalidOperation):
        return False


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
