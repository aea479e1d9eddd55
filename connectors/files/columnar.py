"""Parquet and Excel: files that know their types; read in batches, in any order of bytes."""

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import IO, TYPE_CHECKING, Any

from connectors.contract import Frame
from connectors.errors import ConfigError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData

BATCH_ROWS = 50_000
PIECE_BYTES = 16 << 20
"""Of a Parquet file's row groups, uncompressed, that are read at once; a single group may be larger."""


def read_parquet(source: IO[bytes], where: str, name: str) -> Iterator[Frame]:
    """Frames of up to 50,000 rows with the file's own types; dictionaries are decoded.

    Raises:
        SourceError: cut off, broken, or no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(pa.PythonFile(source, mode="r")) as file:
            row = 1
            for groups in _pieces(file.metadata):
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=groups):
                    yield Frame(_plain(pa.Table.from_batches([batch])), f"{name} row {row}")
                    row += batch.num_rows
    except pa.ArrowException as error:
        text = next(iter(str(error).splitlines()), "")
        raise SourceError(where, f"{name} is broken or no Parquet: {text}", "Deliver it again.") from error


def _pieces(metadata: "FileMetaData") -> Iterator[list[int]]:
    """Row groups to be read at once: in a read over all of them Arrow holds the whole file until its end."""
    groups: list[int] = []
    size = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        size += metadata.row_group(group).total_byte_size
        if size >= PIECE_BYTES:
            yield groups
            groups, size = [], 0
    if groups:
        yield groups


def _plain(table: "pa.Table") -> "pa.Table":
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(index, field.name, table.column(index).cast(field.type.value_type))
    return table


def read_excel(source: IO[bytes], where: str, name: str, sheet: str | None, names: tuple[str, ...]) -> Iterator[Frame]:
    """Frames of a sheet, every cell as text in its ISO form; the first row is the header unless `names` are given.

    Raises:
        ConfigError: openpyxl is not installed, or no such sheet. SourceError: no workbook.
    """
    try:
        from openpyxl import load_workbook  # pyright: ignore[reportMissingModuleSource] an optional extra
    except ImportError as error:
        raise ConfigError(where, "reading Excel needs openpyxl, which is not installed", "Install openpyxl.") from error
    try:
        book: Any = load_workbook(source, read_only=True, data_only=True)
    except Exception as error:
        raise SourceError(where, f"{name} is no workbook: {error}", "Deliver it as .xlsx.") from error
    if sheet is not None and sheet not in book.sheetnames:
        raise ConfigError(where, f"{name} has no sheet {sheet!r}", f"Sheets: {', '.join(book.sheetnames)}.")
    rows: Iterator[tuple[Any, ...]] = (book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True)
    header = list(names) or [
        str(cell).strip() if cell is not None else f"column_{index}" for index, cell in enumerate(next(rows, ()), 1)
    ]
    line, gathered = 1 + int(not names), list[list[str | None]]()
    first = line
    for row in rows:
        line += 1
        if any(cell is not None for cell in row):
            gathered.append([_cell(cell) for cell in (*row, *[None] * len(header))[: len(header)]])
        if len(gathered) == BATCH_ROWS:
            yield Frame(_of_rows(header, gathered), f"{name} row {first}")
            gathered, first = [], line
    if gathered:
        yield Frame(_of_rows(header, gathered), f"{name} row {first}")


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _of_rows(header: list[str], rows: list[list[str | None]]) -> "pa.Table":
    import pyarrow as pa

    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=header)
