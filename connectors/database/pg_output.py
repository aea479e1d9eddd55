"""PostgreSQL's `pgoutput`, protocol version 1: bytes of logical replication to messages. Nothing here asks a server.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final, Literal

_INT16, _INT32, _INT64 = Struct(">h"), Struct(">I"), Struct(">Q")
_KEY_FLAG = 1


class Unchanged:
    """A large value that an UPDATE left alone: PostgreSQL does not send it again."""


UNCHANGED: Final = Unchanged()
Value = bytes | Unchanged | None
"""A value as its type's text; None is NULL."""
Row = list[Value]


@dataclass(frozen=True, slots=True)
class Begin:
    """final_lsn: where the transaction's commit record begins."""

    final_lsn: int


@dataclass(frozen=True, slots=True)
class Commit:
    """end_lsn: where reading goes on after this transaction."""

    end_lsn: int


@dataclass(frozen=True, slots=True)
class RelationColumn:
    name: str
    type_id: int
    modifier: int
    is_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """A table as it was when the changes after it were made; sent before the first of them, and after each ALTER."""

    relation_id: int
    schema: str
    table: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    relation_id: int
    row: Row


@dataclass(frozen=True, slots=True)
class Update:
    """old: the row before, when the table has REPLICA IDENTITY FULL or its key changed; else None.

    is_key_only: of `old` only the columns of the replica identity are known.
    """

    relation_id: int
    old: Row | None
    is_key_only: bool
    row: Row


@dataclass(frozen=True, slots=True)
class Delete:
    """old: the whole row, or with is_key_only the columns of its replica identity."""

    relation_id: int
    old: Row
    is_key_only: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    relation_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that says nothing about rows: an origin, a type's name, a logical message."""

    kind: Literal["origin", "type", "message"]


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Ignored


class MalformedError(ValueError):
    """Bytes that are no pgoutput message of version 1."""


class _Reader:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 1

    def number(self, form: Struct) -> int:
        value = form.unpack_from(self._body, self._at)[0]
        self._at += form.size
        return value

    def take(self, size: int) -> bytes:
        found = self._body[self._at : self._at + size]
        if len(found) < size:
            raise MalformedError(f"{size:,} bytes announced, {len(found):,} there")
        self._at += size
        return found

    def text(self) -> str:
        end = self._body.index(b"\0", self._at)
        found = self._body[self._at : end]
        self._at = end + 1
        return found.decode()

    def row(self) -> Row:
        values: Row = []
        for _ in range(self.number(_INT16)):
            match self.take(1):
                case b"t":
                    values.append(self.take(self.number(_INT32)))
                case b"n":
                    values.append(None)
                case b"u":
                    values.append(UNCHANGED)
                case other:
                    raise MalformedError(f"a value of kind {other!r}")
        return values

    def end(self) -> None:
        if self._at != len(self._body):
            raise MalformedError(f"{len(self._body) - self._at:,} bytes too many")


def parse(body: bytes) -> Message:
    """One message.

    Raises:
        MalformedError: it is none, or one of a protocol version that was not asked for.
    """
    try:
        return _parse(body)
    except (struct.error, ValueError) as error:
        raise MalformedError(f"message {body[:1]!r} of {len(body):,} bytes: {error}") from error


def _parse(body: bytes) -> Message:
    kind = body[:1]
    if kind in _IGNORED:
        return Ignored(_IGNORED[kind])
    reader = _Reader(body)
    message = _PARSERS[kind](reader) if kind in _PARSERS else None
    if message is None:
        raise MalformedError(f"no message begins with {kind!r}")
    reader.end()
    return message


def _begin(reader: _Reader) -> Begin:
    message = Begin(reader.number(_INT64))
    reader.take(12)
    return message


def _commit(reader: _Reader) -> Commit:
    reader.take(9)
    message = Commit(reader.number(_INT64))
    reader.take(8)
    return message


def _insert(reader: _Reader) -> Insert:
    relation = reader.number(_INT32)
    _expect(reader, b"N")
    return Insert(relation, reader.row())


def _delete(reader: _Reader) -> Delete:
    relation, kind = reader.number(_INT32), _expect(reader, b"KO")
    return Delete(relation, reader.row(), kind == b"K")


def _truncate(reader: _Reader) -> Truncate:
    count, _ = reader.number(_INT32), reader.take(1)
    return Truncate(tuple(reader.number(_INT32) for _ in range(count)))


def _update(reader: _Reader) -> Update:
    relation = reader.number(_INT32)
    kind, old = _expect(reader, b"KON"), None
    if kind != b"N":
        old = reader.row()
        _expect(reader, b"N")
    return Update(relation, old, kind == b"K", reader.row())


def _relation(reader: _Reader) -> Relation:
    relation, schema, table = reader.number(_INT32), reader.text(), reader.text()
    reader.take(1)
    columns: list[RelationColumn] = []
    for _ in range(reader.number(_INT16)):
        is_key = bool(reader.take(1)[0] & _KEY_FLAG)
        name, type_id = reader.text(), reader.number(_INT32)
        modifier = reader.number(_INT32)
        columns.append(RelationColumn(name, type_id, modifier - (1 << 32) if modifier >> 31 else modifier, is_key))
    return Relation(relation, schema or "pg_catalog", table, tuple(columns))


def _expect(reader: _Reader, kinds: bytes) -> bytes:
    found = reader.take(1)
    if found not in kinds:
        raise MalformedError(f"{found!r} where one of {kinds!r} belongs")
    return found


_IGNORED: Final[Mapping[bytes, Literal["origin", "type", "message"]]] = {b"O": "origin", b"Y": "type", b"M": "message"}
_PARSERS: Final[Mapping[bytes, Callable[[_Reader], Message]]] = {
    b"B": _begin,
    b"C": _commit,
    b"R": _relation,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
}
