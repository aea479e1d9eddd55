"""Arrow tables and headerless CSV files that COPY takes, both ways."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pyarrow_compute
import pyarrow.csv as pa_csv

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute

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


def _as_text(kind: pa.DataType) -> bool:
    """Types that pyarrow's CSV writer does not know, writes slowly, or not as PostgreSQL reads them."""
    return pa.types.is_binary(kind) or pa.types.is_time(kind) or pa.types.is_decimal(kind) or _has_zone(kind)


def _has_zone(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(item.name, pa.string() if _as_text(item.type) else item.type) for item in schema])


def csv_writer(path: Path, schema: pa.Schema) -> pa_csv.CSVWriter:
    """A writer of such a file. It takes what `csv_table` gives."""
    return pa_csv.CSVWriter(str(path), _csv_schema(schema), write_options=_OPTIONS)


def csv_table(table: pa.Table) -> pa.Table:
    """Types that the writer is not for as their texts."""
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
    if _has_zone(column.type):
        # their values are UTC already; with a zone Arrow looks into its calendar for each, which takes 20 times as long
        plain = column.cast(pa.timestamp(column.type.unit)).cast(pa.string())
        return pc.binary_join_element_wise(plain, "Z", "")
    return pc.cast(column, pa.string())
