"""Excel: a sheet's rows, every cell as text in its ISO form."""

from collections.abc import Iterator
from datetime import date, datetime, time
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

from connectors.contract import Frame, Rejected
from connectors.errors import ConfigError, SourceError
from connectors.files.naming import unique_names
from connectors.files.seen import FileInfo
from connectors.files.stream import FREE_BYTES, too_large

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.kinds.files import FilesStreamSpec

BATCH_ROWS = 50_000


def read_excel(source: IO[bytes], where: str, file: FileInfo, stream: "FilesStreamSpec") -> Iterator[Frame | Rejected]:
    """Frames of the stream's sheet; the first row is the header unless `names` are given.

    `null_values` are NULL; rows without a value are left out; a row with more cells than the header is rejected.

    Raises:
        ConfigError: openpyxl is not installed, or no such sheet. SourceError: no workbook. ResourceError: it unpacks
        to more than `max_expansion` times its size.
    """
    rows = _rows(source, where, file, stream)
    header = list(stream.names) or unique_names(str(cell) if cell is not None else "" for cell in _header(rows))
    nulls = frozenset(stream.null_values)
    line, gathered = 1 + int(not stream.names), list[list[str | None]]()
    first, numbers = line, list[int]()
    for row in rows:
        line += 1
        cells = [None if (text := _cell(cell)) in nulls else text for cell in row]
        if any(text is not None for text in cells[len(header) :]):
            reason = f"{len(_trimmed(cells))} cells where the header has {len(header)}"
            payload = ",".join(text or "" for text in _trimmed(cells)).encode()
            yield Rejected(payload, reason, f"{file.path} row {line - 1}")
        elif any(cell is not None for cell in row):
            gathered.append([*cells, *[None] * len(header)][: len(header)])
            numbers.append(line - first)
        if len(gathered) == BATCH_ROWS:
            yield Frame(_table(header, gathered), f"{file.path} row {first}", numbers)
            gathered, first, numbers = [], line, []
    if gathered:
        yield Frame(_table(header, gathered), f"{file.path} row {first}", numbers)


def _rows(source: IO[bytes], where: str, file: FileInfo, stream: "FilesStreamSpec") -> Iterator[tuple[Any, ...]]:
    try:
        from openpyxl import load_workbook  # pyright: ignore[reportMissingModuleSource] an optional extra
    except ImportError as error:
        raise ConfigError(where, "reading Excel needs openpyxl, which is not installed", "Install openpyxl.") from error
    try:
        with ZipFile(source) as packed:
            # a part never unpacks to more than it says
            size = sum(part.file_size for part in packed.infolist())
    except BadZipFile as error:
        raise SourceError(where, f"{file.path} is no workbook: {error}", "Deliver it as .xlsx.") from error
    if size > max(FREE_BYTES, file.size_bytes * stream.max_expansion):
        raise too_large(where, file, size, stream.max_expansion)
    source.seek(0)
    try:
        book: Any = load_workbook(source, read_only=True, data_only=True)
    except Exception as error:
        raise SourceError(where, f"{file.path} is no workbook: {error}", "Deliver it as .xlsx.") from error
    if stream.sheet is not None and stream.sheet not in book.sheetnames:
        raise ConfigError(where, f"{file.path} has no sheet {stream.sheet!r}", f"Sheets: {', '.join(book.sheetnames)}.")
    return (book[stream.sheet] if stream.sheet else book.worksheets[0]).iter_rows(values_only=True)


def _header(rows: Iterator[tuple[Any, ...]]) -> list[Any]:
    """The first row, without the empty cells at its end."""
    return _trimmed(list(next(rows, ())))


def _trimmed(cells: list[Any]) -> list[Any]:
    end = next((index for index in range(len(cells), 0, -1) if cells[index - 1] is not None), 0)
    return cells[:end]


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _table(header: list[str], rows: list[list[str | None]]) -> "pa.Table":
    import pyarrow as pa

    return pa.table([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=header)
