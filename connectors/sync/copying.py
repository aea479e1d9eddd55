"""COPY of a part file, and what happens when PostgreSQL refuses one of its rows."""

import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from connectors.sync.decode import Reject
from connectors.sync.dispositions import names
from connectors.sync.package import Part

_CHUNK_BYTES = 1 << 18
_REFUSED = (psycopg.errors.DataError, psycopg.errors.IntegrityError, psycopg.errors.ProgramLimitExceeded)


def copy_part(
    connection: psycopg.Connection[Any], relation: Identifier, part: Part, *, may_refuse: int
) -> list[Reject]:
    """Append the part's rows to the relation; at most `may_refuse` rows may be refused and come back as rejects.

    Raises:
        psycopg.Error: more rows than that were refused, or the warehouse failed.
    """
    statement = SQL("copy {} ({}) from stdin (format csv)").format(relation, names(part.columns))
    try:
        with connection.transaction(), part.path.open("rb") as file, connection.cursor().copy(statement) as copy:
            while chunk := file.read(_CHUNK_BYTES):
                copy.write(chunk)
    except _REFUSED:
        return _bisect(connection, statement, part, may_refuse)
    return []


def _bisect(connection: psycopg.Connection[Any], statement: Composed, part: Part, may_refuse: int) -> list[Reject]:
    """Copy block by block, halving a refused block until the refused row stands alone."""
    rejects: list[Reject] = []

    def put(rows: Sequence[str], first: int) -> None:
        try:
            with connection.transaction(), connection.cursor().copy(statement) as copy:
                copy.write("".join(rows))
        except _REFUSED as error:
            if len(rows) == 1:
                if len(rejects) >= may_refuse:
                    raise
                reason = f"{error.diag.message_primary or error} ({error.diag.context or 'no place given'})"
                rejects.append(Reject(rows[0].rstrip("\n"), reason[:300], None, f"{part.path.name}, row {first + 1}"))
                return
            middle = len(rows) // 2
            put(rows[:middle], first)
            put(rows[middle:], first + middle)

    first = 0
    with part.path.open(encoding="utf-8", newline="") as file:
        lines = _records(file)
        while block := list(islice(lines, 2_000)):
            put(block, first)
            first += len(block)
    return rejects


def _records(file: io.TextIOBase) -> Iterator[str]:
    """Whole CSV records as text: a record goes on while a quote is open."""
    pending = ""
    for line in file:
        pending += line
        if pending.count('"') % 2 == 0:
            yield pending
            pending = ""
    if pending:
        yield pending
