"""How pyarrow reads the headerless CSV files that COPY takes."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv


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
