"""Whole columns to the types that Arrow converts exactly: the fast path for exact decimals and dates.

Each function gives the same result as `values.convert` value by value, or raises: then the slow path names the value.
"""

from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pyarrow_compute

from connectors.sync.columns import Column
from connectors.sync.values import UnfitError

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_NUMBER = r"^-?[0-9]+(\.[0-9]+)?$"
_MAX_TEXT = 500
"""Longer decimal texts are looked at one by one: PostgreSQL's numeric has an end too."""
_MAX_PRECISION = 76


def decimal_texts(array: Any, column: Column) -> Any:
    """Decimal texts that stand in the column's numeric without rounding.

    Args:
        array: Array or ChunkedArray (decimal, integer or string).

    Raises:
        ArrowException, UnfitError: some value does not fit, or has a form that needs a look.
    """
    kind, bounds = array.type, column.decimal_bounds
    if bounds is not None and (bounds[0] > _MAX_PRECISION or bounds[1] < 0):
        raise UnfitError("bounds beyond Arrow's decimals")
    target = None if bounds is None else pa.decimal128(*bounds) if bounds[0] <= 38 else pa.decimal256(*bounds)
    if pa.types.is_decimal(kind):
        return (array if target is None or kind == target else array.cast(target)).cast(pa.string())
    if pa.types.is_integer(kind):
        # Arrow wants room for every int64 in the type, whatever the values are: their texts are judged instead
        array = array.cast(pa.string())
    elif not pa.types.is_string(kind):
        raise UnfitError("needs a look at each value")
    if target is not None:
        array.cast(target)
        return array
    is_plain = pc.all(pc.match_substring_regex(array, _NUMBER)).as_py()
    if is_plain is False or (pc.max(pc.binary_length(array)).as_py() or 0) > _MAX_TEXT:
        raise UnfitError("needs a look at each value")
    return array


def raw_numbers(raws: list[bytes | None]) -> Any:
    """JSON numbers as they were sent, or quoted, as texts; JSON null is NULL. Anything else stays what it is."""
    array = pa.array(raws, pa.binary()).cast(pa.string())
    array = pc.if_else(pc.equal(array, "null"), pa.scalar(None, pa.string()), array)
    return pc.utf8_trim(array, '"')


def dates(array: Any) -> Any:
    """date32 of ISO dates from the year 1 on.

    Args:
        array: Array or ChunkedArray (string).
    """
    found = array.cast(pa.date32())
    least = pc.min(found).as_py() if len(found) - found.null_count else None
    if least is not None and least < date(1, 1, 1):
        raise UnfitError("before the year 1")
    return found
