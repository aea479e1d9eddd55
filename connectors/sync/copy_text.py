"""Arrow tables and COPY's text format, both ways.

One row is one line, whatever is in it, and a quote is an ordinary character: JSON is copied as it came, where CSV would
double each of its quotes, and PostgreSQL halve them again.
"""

import re
from collections.abc import Iterator, Mapping
from struct import unpack_from
from typing import Any

import pyarrow as pa
import pyarrow.compute as pyarrow_compute

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_NULL = "\\N"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
"""The backslash first: the others bring one."""
_MEANT: Mapping[bytes, bytes] = {written.encode(): sign.encode() for sign, written in _ESCAPES.items()}
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_MAX_BYTES = 256 << 20
"""Arrow's texts end at 2 GB, and each of a row's bytes may become four."""


def lines(table: pa.Table, max_bytes: int = _MAX_BYTES) -> Iterator[memoryview]:
    """The table's rows, a line each, in blocks.

    Args:
        table: Table[n, at least one column].
        max_bytes: of what is written in one go, single rows aside.
    """
    if table.nbytes > max_bytes and table.num_rows > 1:
        middle = table.num_rows // 2
        yield from lines(table.slice(0, middle), max_bytes)
        yield from lines(table.slice(middle), max_bytes)
        return
    *columns, last = (_escaped(_texts(column)) for column in table.columns)
    last = pc.binary_join_element_wise(last, "\n", "", null_handling="replace", null_replacement=_NULL)
    joined = pc.binary_join_element_wise(*columns, last, "\t", null_handling="replace", null_replacement=_NULL)
    for chunk in joined.chunks:
        yield _data(chunk)


def values(line: bytes) -> list[str | None]:
    """The columns of one line as texts."""
    cells = line.removesuffix(b"\n").split(b"\t")
    return [None if cell == _NULL.encode() else _plain(cell).decode("utf-8", "replace") for cell in cells]


def _plain(cell: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: _MEANT.get(found[0], found[0]), cell) if b"\\" in cell else cell


def _escaped(column: Any) -> Any:
    data = [bytes(_data(chunk)) for chunk in column.chunks]
    for sign, written in _ESCAPES.items():
        if any(sign.encode() in part for part in data):
            column = pc.replace_substring(column, sign, written)
    return column


def _data(chunk: Any) -> memoryview:
    """The bytes of an array of texts, one after the other.

    Args:
        chunk: Array (string).
    """
    _, offsets, data = chunk.buffers()
    if data is None or not len(chunk):
        return memoryview(b"")
    first, end = (unpack_from("i", offsets, 4 * index)[0] for index in (chunk.offset, chunk.offset + len(chunk)))
    return memoryview(data)[first:end]


def _texts(column: Any) -> Any:
    """As PostgreSQL reads them; times with a zone are UTC."""
    kind = column.type
    if pa.types.is_binary(kind):
        cells = [None if value is None else f"\\x{value.hex()}" for value in column.to_pylist()]
        return pa.chunked_array([pa.array(cells, pa.string())])
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # their values are UTC already; with a zone Arrow looks into its calendar for each, which takes 20 times as long
        plain = column.cast(pa.timestamp(kind.unit)).cast(pa.string())
        return pc.binary_join_element_wise(plain, "Z", "")
    return column if pa.types.is_string(kind) else pc.cast(column, pa.string())
