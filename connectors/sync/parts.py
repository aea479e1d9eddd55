"""Typed tables to headerless CSV part files that COPY takes, written as they come: memory stays flat."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from connectors.sync.package import Origin, Part

_OPTIONS = pa_csv.WriteOptions(include_header=False, batch_size=16_384, quoting_style="needed")


def csv_reading(names: Sequence[str], block_bytes: int) -> dict[str, Any]:
    """Options of pyarrow's CSV readers for such a file: every value its text, NULL where nothing stands."""
    return {
        "read_options": pa_csv.ReadOptions(column_names=list(names), block_size=block_bytes),
        "parse_options": pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        "convert_options": pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    }


class PartWriter:
    """Writes tables to part files, a new file whenever the set of columns changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self._writer: Any = None
        self._columns: tuple[str, ...] = ()
        self._path = folder
        self._rows = 0
        self._origins: list[Origin] = []
        self._sealed: list[Part] = []

    def write(self, table: pa.Table, position: str = "", numbers: Sequence[int] | None = None) -> None:
        """position: where the rows came from; numbers: their places there, where they are not 1, 2, 3, ..."""
        columns = tuple(table.column_names)
        if self._writer is None or columns != self._columns:
            self._close()
            self._path = self.new_path()
            self._columns = columns
            self._writer = pa_csv.CSVWriter(str(self._path), _csv_schema(table.schema), write_options=_OPTIONS)
        self._writer.write_table(_csv_table(table))
        self._origins.append(Origin(self._rows, position, numbers))
        self._rows += table.num_rows

    def add(self, part: Part) -> None:
        """Take over a finished file, in order with the others."""
        self._close()
        self._sealed.append(part)

    def new_path(self) -> Path:
        self._number += 1
        return self._folder / f"part_{self._number:05d}.csv"

    @property
    def size_bytes(self) -> int:
        """Of what is not sealed yet, without what its last writer still holds back."""
        parts = sum(part.path.stat().st_size for part in self._sealed)
        return parts + (self._path.stat().st_size if self._writer is not None else 0)

    def seal(self) -> list[Part]:
        """Everything written so far as closed files; the writer starts anew."""
        self._close()
        sealed, self._sealed = self._sealed, []
        return sealed

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            ends = (self._origins[0].position, self._origins[-1].position)
            position = " to ".join(dict.fromkeys(ends))
            self._sealed.append(Part(self._path, self._rows, self._columns, position, tuple(self._origins)))
        self._writer, self._rows, self._origins = None, 0, []


def _as_text(kind: pa.DataType) -> bool:
    """Types that pyarrow's CSV writer does not know, or does not write as PostgreSQL reads them."""
    return pa.types.is_binary(kind) or pa.types.is_time(kind) or pa.types.is_decimal(kind)


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(item.name, pa.string() if _as_text(item.type) else item.type) for item in schema])


def _csv_table(table: pa.Table) -> pa.Table:
    if not any(_as_text(item.type) for item in table.schema):
        return table
    arrays: Mapping[str, Any] = {
        name: _texts(table.column(name)) if _as_text(table.schema.field(name).type) else table.column(name)
        for name in table.column_names
    }
    return pa.table(dict(arrays))


def _texts(column: Any) -> Any:
    if pa.types.is_binary(column.type):
        cells = [None if value is None else f"\\x{value.hex()}" for value in column.to_pylist()]
        return pa.chunked_array([pa.array(cells, pa.string())])
    return pc.cast(column, pa.string())
