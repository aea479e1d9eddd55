"""COPY of a part file, and what happens when PostgreSQL refuses one of its rows."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from connectors.errors import SourceError
from connectors.sync.columns import DELETED, OVERFLOW, Column
from connectors.sync.originals import decoded, original
from connectors.sync.package import Part, PartFormat
from connectors.sync.rejects import Reject
from connectors.sync.splitting import KEPT_BYTES
from connectors.sync.tables import names

_CHUNK_BYTES = 1 << 18
_BLOCK_ROWS, _BLOCK_BYTES = 2_000, 1 << 22
_REFUSED = (
    psycopg.errors.DataError,
    psycopg.errors.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
_COLUMN = re.compile(r", column ([^:]+)")


class Copier:
    """Appends part files to one relation, and knows afterwards where each of its rows came from.

    numbers: the sequence that numbers the relation's rows; without one `place` has nothing to look up.
    rejects: the rows that PostgreSQL refused.
    """

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        relation: Identifier,
        columns: Sequence[Column],
        numbers: str | None = None,
    ) -> None:
        self._connection = connection
        self._relation = relation
        self._columns = columns
        self._sequence = numbers
        self._runs: list[tuple[int, Part, int]] = []
        self.rejects: list[Reject] = []

    def place(self, number: int) -> str:
        """The source's place of the row with this number."""
        first, part, index = self._runs[bisect_right(self._runs, number, key=lambda run: run[0]) - 1]
        return part.place(index + number - first)

    def copy(self, part: Part, *, may_refuse: int) -> None:
        """Append the part's rows; at most `may_refuse` rows in all may be refused and become rejects.

        Raises:
            psycopg.Error: more rows than that were refused, or the warehouse failed.
            SourceError: the file has more or fewer rows than its connector counted.
        """
        statement = copy_in(self._relation, part.columns, part.format)
        try:
            with self._connection.transaction():
                first = self._next_number()
                _compare(part, self._send(statement, part.path))
        except _REFUSED:
            if part.format == "binary":
                part = self._as_text(part)
            self._bisect(copy_in(self._relation, part.columns, part.format), part, may_refuse)
        else:
            self._runs.append((first, part, 0))

    def _send(self, statement: Composed, path: Path) -> int:
        """Rows that PostgreSQL found in the file."""
        with path.open("rb", buffering=0) as file, self._connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                while chunk := file.read(_CHUNK_BYTES):
                    copy.write(chunk)
            return cursor.rowcount

    def _as_text(self, part: Part) -> Part:
        """A binary file's rows as text, by a table of its columns alone: there each row has the room that it had."""
        path = part.path.with_suffix(".text")
        unpacked = Identifier("unpacked")
        with self._connection.transaction(force_rollback=True), path.open("wb") as file:
            self._connection.execute(
                SQL("create temporary table {} as select {} from {} with no data").format(
                    unpacked, names(part.columns), self._relation
                )
            )
            self._send(copy_in(unpacked, part.columns, "binary"), part.path)
            with self._connection.cursor().copy(SQL("copy {} to stdout").format(unpacked)) as copy:
                for block in copy:
                    file.write(block)
        return replace(part, path=path, format="text")

    def _next_number(self) -> int:
        """The next row's; a refused block leaves a gap behind."""
        if self._sequence is None:
            return 0
        row = self._connection.execute("select nextval(%s::regclass) + 1", [self._sequence]).fetchone()
        assert row is not None
        return row[0]

    def _bisect(self, statement: Composed, part: Part, may_refuse: int) -> None:
        """Copy block by block, halving a refused block until the refused row stands alone."""

        def put(rows: Sequence[bytes], index: int) -> None:
            number = self._next_number()
            try:
                with self._connection.transaction(), self._connection.cursor().copy(statement) as copy:
                    copy.write(b"".join(rows))
            except _REFUSED as error:
                if len(rows) == 1:
                    if len(self.rejects) >= may_refuse:
                        raise
                    self.rejects.append(self._reject(rows[0], error, part, index))
                    return
                middle = len(rows) // 2
                put(rows[:middle], index)
                put(rows[middle:], index + middle)
            else:
                self._runs.append((number, part, index))

        index = 0
        with part.path.open("rb") as file:
            for block in _blocks(file if part.format == "text" else _records(file)):
                put(block, index)
                index += len(block)
        _compare(part, index)

    def _reject(self, row: bytes, error: psycopg.Error, part: Part, index: int) -> Reject:
        found = _COLUMN.search(error.diag.context or "")
        reason = f"PostgreSQL refused it: {error.diag.message_primary or error}"[:300]
        payload = self._record(row, part) or row.rstrip(b"\r\n").decode("utf-8", "replace")
        size = len(row)
        if size > KEPT_BYTES:
            reason += f" (payload cut to {KEPT_BYTES:,} of {size:,} bytes)"
            payload = payload[:KEPT_BYTES]
        return Reject(payload, reason, found[1] if found else None, part.place(index))

    def _record(self, row: bytes, part: Part) -> str | None:
        """The row as the record that it was, its values as texts; None when it cannot be read as one."""
        texts = _texts(row, part)
        if texts is None:
            return None
        json_names = {OVERFLOW, *(column.name for column in self._columns if column.type == "json")}
        values: dict[str, Any] = dict(texts)
        for name in json_names & {name for name, text in texts.items() if text is not None}:
            with suppress(ValueError, RecursionError):
                values[name] = decoded(values[name])
        if values.get(DELETED) is not None:
            values[DELETED] = values[DELETED].lower() in ("t", "true")
        return original(values, self._columns)


def copy_in(relation: Identifier, columns: Sequence[str], form: PartFormat) -> Composed:
    return SQL("copy {} ({}) from stdin (format {})").format(relation, names(columns), SQL(form))


def _texts(row: bytes, part: Part) -> Mapping[str, str | None] | None:
    """The row's values by column, as they stand in the file; None when it cannot be read."""
    if part.format == "text":
        from connectors.sync.copy_text import values

        found = values(row)
        return dict(zip(part.columns, found, strict=True)) if len(found) == len(part.columns) else None
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    from connectors.sync.arrow_csv import csv_reading

    try:
        (texts,) = pa_csv.read_csv(BytesIO(row), **csv_reading(part.columns, len(row) + 1)).to_pylist()
    except (pa.ArrowException, ValueError):
        return None
    return texts


def _compare(part: Part, rows: int) -> None:
    """The ledger counts what the connector says: it must be what PostgreSQL found."""
    if rows != part.rows:
        raise SourceError(
            part.position or part.path.name,
            f"the file has {rows:,} rows, its connector counted {part.rows:,}",
            "Nothing of this window was published. Report it: the connector's count must be right.",
        )


def _blocks(records: Iterable[bytes]) -> Iterator[list[bytes]]:
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
