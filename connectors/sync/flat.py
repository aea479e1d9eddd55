"""JSON records of plain values to Arrow columns in one go: no Python object a field.

Arrow's reader is looser than JSON Lines in some places (several objects in a line, bytes that are no UTF-8) and its
decimals are not checked to their bounds; what it may have taken otherwise than the decoder of structs is refused here,
and read by that one. So it is only faster, but for the sign of a double's `-0`, which Arrow keeps.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pyarrow_compute

from connectors.sync.columns import DELETED, Column
from connectors.sync.values import MAX_EXACT_INTEGER, UnfitError

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_DIGITS = 38


class FlatReader:
    """Reads bodies whose records have some of these columns, fields that are always null, and `_deleted`."""

    def __init__(self, columns: Sequence[Column], null_fields: Iterable[str]) -> None:
        """Raises UnfitError when a column holds what Arrow's reader cannot give as it was sent."""
        import pyarrow.json as pa_json

        fields = [pa.field(column.source_name, _arrow_type(column)) for column in columns]
        fields += [pa.field(name, pa.null()) for name in null_fields]
        fields.append(pa.field(DELETED, pa.bool_()))
        self._columns = columns
        options = pa_json.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="error")
        self._read = partial(pa_json.read_json, parse_options=options)
        self._options = partial(pa_json.ReadOptions, use_threads=False)

    def arrays(self, body: bytes) -> tuple[dict[str, Any], int]:
        """Arrays by source name, `_deleted` where a record has it, and the number of records.

        body: has no escaped NUL.

        Raises:
            ArrowException, UnfitError, UnicodeDecodeError: a record does not fit, or is spelt in a way to look at.
        """
        body = body.rstrip(b"\n")
        if not body.isascii():
            body.decode()
        table = self._read(pa.BufferReader(body), read_options=self._options(block_size=len(body) + 1))
        if not body.startswith(b"{") or body.count(b"}\n{") != table.num_rows - 1:
            raise UnfitError("not one record a line")
        arrays = {column.source_name: table.column(column.source_name) for column in self._columns}
        for column in self._columns:
            _refuse_inexact(arrays[column.source_name])
        deleted = table.column(DELETED)
        if deleted.null_count < table.num_rows and pc.any(deleted).as_py():
            arrays[DELETED] = deleted.fill_null(False)
        return arrays, table.num_rows


def _arrow_type(column: Column) -> pa.DataType:
    match column.type:
        case "text" | "timestamp" | "date":
            return pa.string()
        case "bigint" | "double" | "bool":
            return column.arrow_type
        case "decimal":
            precision, scale = column.decimal_bounds or (_DIGITS, _DIGITS)
            # beyond it Arrow's conversion wraps without a word (Arrow 26)
            if scale >= 0 and precision + scale <= _DIGITS:
                return pa.decimal128(precision, scale)
        case _:
            pass
    raise UnfitError(f"{column.type} is not read in one go")


def _refuse_inexact(array: Any) -> None:
    """A double that may have lost digits, or a decimal beyond its precision, which Arrow lets pass."""
    kind = array.type
    if pa.types.is_floating(kind):
        bound: Any = MAX_EXACT_INTEGER
    elif pa.types.is_decimal(kind):
        bound = 10 ** (kind.precision - kind.scale)
    else:
        return
    ends = [abs(end) for end in pc.min_max(array).as_py().values() if end is not None]
    if max(ends, default=0) >= bound:
        raise UnfitError("needs a look at each value")
