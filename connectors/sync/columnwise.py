"""Whole columns to the types that Arrow converts exactly: the fast path for exact decimals and dates.

Each function gives the same result as `values.convert` value by value, or raises: then the slow path names the value.
"""

from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pyarrow_compute

from connectors.sync.columns import Column
from connectors.sync.values import UnfitError

# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_PLAIN = r"^-?[0-9]+(\.[0-9]*)?$"
_NULLS = pa.array(["null", ""])
_MAX_TEXT = 500
"""Longer decimal texts are looked at one by one: PostgreSQL's numeric has an end too."""


def decimal_texts(array: Any, column: Column) -> Any:
    """Decimal texts that stand in the column's numeric without rounding.

    Arrow's own casts to decimal are not used: digits beyond 128 bits wrap there without a word (Arrow 26).

    Args:
        array: Array or ChunkedArray (decimal, integer or string).

    Raises:
        ArrowException, UnfitError: some value does not fit, or has a form that needs a look.
    """
    kind, bounds = array.type, column.decimal_bounds
    if not (pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise UnfitError("needs a look at each value")
    texts = array.cast(pa.string())
    if pa.types.is_decimal(kind) and (bounds is None or _holds(bounds, kind)):
        return texts
    fits = pc.all(pc.match_substring_regex(texts, _PLAIN if bounds is None else _within(*bounds))).as_py()
    if fits is False or (pc.max(pc.binary_length(texts)).as_py() or 0) > _MAX_TEXT:
        raise UnfitError("needs a look at each value")
    return texts


def _holds(bounds: tuple[int, int], kind: Any) -> bool:
    precision, scale = bounds
    return kind.scale <= scale and kind.precision - kind.scale <= precision - scale


def _within(precision: int, scale: int) -> str:
    """Plain decimal texts of numeric(precision, scale), with zeros before and behind."""
    whole = precision - scale
    if scale < 0 or whole < 0:
        raise UnfitError("needs a look at each value")
    digits = rf"(0+|0*[1-9][0-9]{{0,{whole - 1}}})" if whole else "0+"
    return rf"^-?{digits}(\.[0-9]{{0,{scale}}}0*)?$"


def raw_values(raws: Sequence[msgspec.Raw]) -> Any:
    """JSON values as they were sent, as texts; JSON null and nothing at all are NULL.

    Raises:
        OverflowError: more than 2 GB of them.
    """
    offsets = array("i", accumulate(map(len, raws), initial=0))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(raws))]
    texts = pa.Array.from_buffers(pa.binary(), len(raws), buffers).cast(pa.string())
    return pc.if_else(pc.is_in(texts, value_set=_NULLS), pa.scalar(None, pa.string()), texts)


def raw_numbers(raws: Sequence[msgspec.Raw]) -> Any:
    """JSON numbers as they were sent, or quoted, as texts; JSON null is NULL. Anything else stays what it is."""
    return pc.utf8_trim(raw_values(raws), '"')


def dates(array: Any) -> Any:
    """date32 of ISO dates from the year 1 on.

    Args:
        array: Array or ChunkedArray (string).
    """
    if pc.any(pc.starts_with(array, "0000")).as_py():
        raise UnfitError("before the year 1")
    return array.cast(pa.date32())
