"""The rows of a COPY to the client, into files. PostgreSQL sends a row a message, so a cut is always at a row's end."""

import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from connectors.database.shape import TableColumn, schema_of
from connectors.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Copy
    from psycopg.pq.abc import PGconn

Buffer = bytes | bytearray | memoryview
Write = Callable[[Buffer], object]
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"


class CsvRows:
    """A COPY's rows as CSV."""

    def __init__(self, copy: "Copy", connection: "PGconn", cancelled: threading.Event) -> None:
        self._copy = copy
        self._connection = connection
        self._cancelled = cancelled
        self._next: Buffer = b""

    def has_more(self) -> bool:
        """Waits for the next row, or the end."""
        self._next = self._next or self._copy.read()
        return bool(self._next)

    def fill(self, write: Write, limit_bytes: int) -> tuple[int, int]:
        """Rows and their bytes written: up to the first row that reaches the limit, the end, or a cancellation."""
        rows = size = 0
        while size < limit_bytes and self.has_more() and not self._cancelled.is_set():
            size += len(memoryview(self._next))
            write(self._next)
            self._next = b""
            rows += 1
        return rows, size


class BinaryRows(CsvRows):
    """A COPY's rows as they lie in PostgreSQL; each file gets a header and a trailer of its own."""

    def __init__(self, copy: "Copy", connection: "PGconn", cancelled: threading.Event) -> None:
        super().__init__(copy, connection, cancelled)
        first = bytes(copy.read())
        if not first.startswith(HEADER):
            raise SourceError("COPY", f"a header that is none: {first[: len(HEADER)].hex()}")
        self._take(first[len(HEADER) :])

    def _take(self, block: Buffer) -> None:
        self._next = block
        if block == TRAILER:
            # the command's own end, with its count of rows
            self._next = self._copy.read()

    def has_more(self) -> bool:
        if not self._next:
            self._take(self._copy.read())
        return bool(self._next)

    def fill(self, write: Write, limit_bytes: int) -> tuple[int, int]:
        rows = size = 0
        get = self._connection.get_copy_data
        write(HEADER)
        while size < limit_bytes and self.has_more() and not self._cancelled.is_set():
            block, length = self._next, len(memoryview(self._next))
            # what has arrived already is taken without psycopg's wait for each row, which costs as much again
            while length > len(TRAILER):
                write(block)
                size += length
                rows += 1
                if size >= limit_bytes:
                    length = 0
                    break
                length, block = get(1)
            self._next = b""
            if length:
                self._take(block)
        write(TRAILER)
        return rows, size


def in_memory(rows: CsvRows, columns: Sequence[TableColumn], limit_bytes: int) -> "tuple[pa.Table, int]":
    """The next rows as texts of exact types, and their bytes; for values that must not touch the disk as they are."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    schema = schema_of(columns)
    body = BytesIO()
    count, size = rows.fill(body.write, limit_bytes)
    if not count:
        return schema.empty_table(), size
    names: list[str] = schema.names
    texts: Any = pa_csv.read_csv(
        BytesIO(body.getvalue()),
        read_options=pa_csv.ReadOptions(column_names=names, block_size=max(size + 1, 1 << 16)),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    assert texts.num_rows == count
    arrays: list[Any] = []
    fields: list[Any] = []
    for index, field in enumerate(schema):
        array = texts.column(index)
        if pa.types.is_binary(field.type):
            array = pa.array([None if text is None else bytes.fromhex(text[2:]) for text in array.to_pylist()])
        arrays.append(array)
        fields.append(pa.field(field.name, array.type, metadata=field.metadata))
    return pa.table(arrays, schema=pa.schema(fields)), size
