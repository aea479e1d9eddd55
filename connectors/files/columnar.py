"""Parquet: files that know their types; read in batches, in any order of bytes."""

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from connectors.contract import Frame
from connectors.errors import SourceError

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
    except (pa.ArrowException, OSError) as error:
        # of Arrow's: what the store raises has its class already
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
