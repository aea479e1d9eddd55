"""Sling's batches as files for COPY: the source's own texts, row by row, with their exact types beside them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.contract import CopyFile, Frame, Rejected
from connectors.copy_columns import copy_columns
from connectors.sling.types import plain_text
from connectors.texts import TextType, arrow_field, arrow_field_of, compute, convert, decoded

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS = 50_000
PART_BYTES = 32 << 20


def gathered(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.Table]":
    """Sling's batches of up to 10,000 rows, several at a time; one empty table when there was not a row."""
    import pyarrow as pa

    found: list[pa.RecordBatch] = []
    rows, size, has_any = 0, 0, False
    empty: pa.RecordBatch | None = None
    for batch in batches:
        if batch.num_rows == 0:
            empty = batch
            continue
        found.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= PART_ROWS or size >= PART_BYTES:
            yield pa.Table.from_batches(found)
            found, rows, size, has_any = [], 0, 0, True
    if found:
        yield pa.Table.from_batches(found)
    elif not has_any and empty is not None:
        yield pa.Table.from_batches([empty])


def cleaned(
    table: "pa.Table",
    types: Mapping[str, TextType],
    null_values: Sequence[str],
    position: str,
    *,
    has_loose_times: bool = False,
) -> "tuple[pa.Table, list[Rejected]]":
    """The texts as PostgreSQL reads them, and the rows whose text is no text.

    Dates and times lose Sling's wrapping, bytes become hexadecimal, `null_values` become NULL.

    has_loose_times: the source keeps any text in a column of times (SQLite), and what Sling cannot read of them comes
    as the year 1: those rows are rejected.
    """
    import pyarrow as pa

    columns: list[Any] = []
    unreadable: dict[int, tuple[str, str]] = {}
    for field in table.schema:
        column: Any = table.column(field.name)
        wanted = types.get(field.name, TextType("text"))
        if wanted.name == "binary":
            column = _hexadecimal(column)
        elif pa.types.is_string(field.type):
            column, bad = decoded(column)
            for row in bad:
                unreadable[row] = (field.name, "is not UTF-8 text")
            column = _without(plain_text(column, wanted), null_values)
            if has_loose_times and wanted.name in ("timestamp", "date"):
                for row in _in_year_one(column):
                    unreadable[row] = (field.name, f"is no {wanted.name} that Sling could read: it made it the year 1")
        elif pa.types.is_temporal(field.type):
            for row in _unread(column):
                unreadable[row] = (field.name, "could not be read by datetime_format: Sling made it the year 1")
        columns.append(column)
    clean = pa.table(columns, names=table.column_names)
    if not unreadable:
        return clean, []
    rejected = [
        Rejected(
            json.dumps(clean.slice(row, 1).to_pylist()[0], default=str).encode(),
            f"{name} {why}",
            f"{position}, record {row + 1}",
        )
        for row, (name, why) in sorted(unreadable.items())
    ]
    return clean.filter(pa.array([row not in unreadable for row in range(clean.num_rows)])), rejected


def written(table: "pa.Table", types: Mapping[str, TextType], path: Path, position: str) -> CopyFile | Frame:
    """The table as a file that COPY reads; a table without rows as a frame, which still says its types."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    unknown = TextType("text")
    fields = [arrow_field_of(field, types.get(field.name, unknown)) for field in table.schema]
    if table.num_rows == 0:
        return Frame(pa.schema(fields).empty_table(), position)
    # NULL is written as nothing, empty text as "": every text is quoted
    pa_csv.write_csv(table, str(path), pa_csv.WriteOptions(include_header=False, quoting_style="needed"))
    return CopyFile(path, copy_columns(fields), table.num_rows, position)


def typed(table: "pa.Table", types: Mapping[str, TextType], position: str) -> Frame:
    """The table as a frame of exact types; a column with a value that does not convert stays text."""
    import pyarrow as pa

    unknown = TextType("text")
    columns: dict[str, Any] = {}
    for name in table.column_names:
        wanted = types.get(name, unknown)
        column = table.column(name)
        if wanted.name == "binary" and pa.types.is_string(column.type):
            texts: list[str | None] = column.to_pylist()
            column = pa.array([None if text is None else bytes.fromhex(text[2:]) for text in texts], pa.binary())
        columns[name] = convert(column, wanted) if pa.types.is_string(column.type) else column
    fields = [arrow_field(name, column, types.get(name, unknown)) for name, column in columns.items()]
    return Frame(pa.table(list(columns.values()), schema=pa.schema(fields)), position)


def _unread(column: Any) -> list[int]:
    """Rows of a time that Sling parsed by a format, where it could not."""
    import pyarrow as pa

    pc = compute()
    return pc.indices_nonzero(pc.fill_null(pc.equal(pc.year(column.cast(pa.date32())), 1), False)).to_pylist()


def _in_year_one(column: Any) -> list[int]:
    pc = compute()
    return pc.indices_nonzero(pc.fill_null(pc.starts_with(column, "0001-01-01"), False)).to_pylist()


def _hexadecimal(column: Any) -> Any:
    import pyarrow as pa

    values: list[bytes | None] = column.cast(pa.binary()).to_pylist()
    return pa.array([None if value is None else f"\\x{value.hex()}" for value in values], pa.string())


def _without(column: Any, null_values: Sequence[str]) -> Any:
    if not null_values:
        return column
    import pyarrow as pa

    pc = compute()
    is_null = pc.is_in(column, value_set=pa.array(null_values, pa.string()))
    return pc.if_else(is_null, pa.scalar(None, pa.string()), column)
