"""COPY of a part file, and what happens when PostgreSQL refuses one of its rows."""

import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from connectors.errors import SourceError
from connectors.sync.decode import Reject
from connectors.sync.dispositions import names
from connectors.sync.package import Part
from connectors.sync.splitting import KEPT_BYTES

_CHUNK_BYTES = 1 << 18
_BLOCK_ROWS, _BLOCK_BYTES = 2_000, 1 << 22
_REFUSED = (
    psycopg.errors.DataError,
    psycopg.errors.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
_COLUMN = re.compile(r", column ([^:]+)")


def copy_part(
    connection: psycopg.Connection[Any], relation: Identifier, part: Part, *, may_refuse: int
) -> list[Reject]:
    """Append the part's rows to the relation; at most `may_refuse` rows may be refused and come back as rejects.

    Raises:
        psycopg.Error: more rows than that were refused, or the warehouse failed.
        SourceError: the file has more or fewer rows than its connector counted.
    """
    statement = SQL("copy {} ({}) from stdin (format csv)").format(relation, names(part.columns))
    try:
        with connection.transaction(), part.path.open("rb") as file, connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                while chunk := file.read(_CHUNK_BYTES):
                    copy.write(chunk)
            _compare(part, cursor.rowcount)
    except _REFUSED:
        return _bisect(connection, statement, part, may_refuse)
    return []


def _compare(part: Part, rows: int) -> None:
    """The ledger counts what the connector says: it must be what PostgreSQL found."""
    if rows != part.rows:
        raise SourceError(
            part.position or part.path.name,
            f"the file has {rows:,} rows, its connector counted {part.rows:,}",
            "Nothing of this window was published. Report it: the connector's count must be right.",
        )


def _bisect(connection: psycopg.Connection[Any], statement: Composed, part: Part, may_refuse: int) -> list[Reject]:
    """Copy block by block, halving a refused block until the refused row stands alone."""
    rejects: list[Reject] = []

    def put(rows: Sequence[bytes], first: int) -> None:
        try:
            with connection.transaction(), connection.cursor().copy(statement) as copy:
                copy.write(b"".join(rows))
        except _REFUSED as error:
            if len(rows) == 1:
                if len(rejects) >= may_refuse:
                    raise
                rejects.append(_reject(rows[0], error, f"{part.position or part.path.name}, row {first + 1}"))
                return
            middle = len(rows) // 2
            put(rows[:middle], first)
            put(rows[middle:], first + middle)

    first = 0
    with part.path.open("rb") as file:
        for block in _blocks(_records(file)):
            put(block, first)
            first += len(block)
    _compare(part, first)
    return rejects


def _blocks(records: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Blocks of at most 2,000 records and, single records aside, 4 MB."""
    block: list[bytes] = []
    size = 0
    for record in records:
        block.append(record)
        size += len(record)
        if len(block) >= _BLOCK_ROWS or size >= _BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


def _reject(row: bytes, error: psycopg.Error, position: str) -> Reject:
    found = _COLUMN.search(error.diag.context or "")
    size = len(row)
    reason = f"PostgreSQL refused it: {error.diag.message_primary or error}"[:300]
    if size > KEPT_BYTES:
        reason += f" (payload cut to {KEPT_BYTES:,} of {size:,} bytes)"
    payload = row[:KEPT_BYTES].rstrip(b"\r\n").decode("utf-8", "replace")
    return Reject(payload, reason, found[1] if found else None, position)


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Whole CSV records: a record goes on while a quote is open."""
    pending: list[bytes] = []
    quotes = 0
    for line in file:
        pending.append(line)
        quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield b"".join(pending)
            pending, quotes = [], 0
    if pending:
        yield b"".join(pending)
