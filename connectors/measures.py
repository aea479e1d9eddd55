"""What a source can be asked for beside its records, so that a read is reconciled: a count, sums, a checksum of keys.

A measure has a name: `count`, `sum(<column>)` or `keys`. Its value is a decimal text, of the rows of this read; one
with an exponent was added up from floats, whose last digits say nothing.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.specs import StreamSpec

COUNT, KEYS = "count", "keys"
_SUM = re.compile(r"^sum\(\s*(\S.*?)\s*\)$")

SEPARATOR = "\x1f"
DIGEST_SQL = "('x' || left(md5(concat_ws(chr(31), {})), 15))::bit(60)::bigint"
"""The number of one key in PostgreSQL, from the texts of its columns; `key_digest` is the same in Python."""

_ISO = '\'YYYY-MM-DD"T"HH24:MI:SS.US"Z"\''
DECIMAL_SQL, INSTANT_SQL = "trim_scale({})::text", f"to_char({{}} at time zone 'UTC', {_ISO})"
NAIVE_SQL, TEXT_SQL = f"to_char({{}}, {_ISO})", "{}::text"


def text_sql(pg_type: str) -> str:
    """How PostgreSQL writes a key column of that type (`numeric(12,2)`, ...), as every source can write it."""
    if pg_type.startswith("numeric"):
        return DECIMAL_SQL
    if pg_type.startswith("timestamp"):
        return INSTANT_SQL if pg_type.endswith("with time zone") else NAIVE_SQL
    return TEXT_SQL


def sum_of(column: str) -> str:
    return f"sum({column})"


def summed_column(measure: str) -> str | None:
    """The column of `sum(<column>)`; None for another measure."""
    found = _SUM.match(measure)
    return found[1] if found else None


def measure_named(text: str) -> str:
    """The measure as every side writes it.

    Raises:
        ValueError: there is no such measure.
    """
    column = summed_column(text)
    if column is None and text not in (COUNT, KEYS):
        raise ValueError("is count, sum(<column>) or keys")
    return text if column is None else sum_of(column)


def asked(stream: "StreamSpec") -> tuple[str, ...]:
    """The measures that the stream's `reconcile` checks want of the source, each once."""
    named = (str(check.options.get("against", COUNT)) for check in stream.checks if check.type == "reconcile")
    return tuple(dict.fromkeys(measure_named(name) for name in named))


def number_text(value: object) -> str | None:
    """A number, or a text that is one, as the value of a measure; None for everything else, also NaN."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    if isinstance(value, float):
        return f"{value:.17e}" if math.isfinite(value) else None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return f"{number:f}" if number.is_finite() else None


def key_checksum(keys: Iterable[Sequence[object]]) -> str | None:
    """The sum over the keys' numbers; None when a value is neither text nor whole number nor decimal, which databases
    write in different ways."""
    total = 0
    for key in keys:
        if not all(isinstance(value, str | int | Decimal) and not isinstance(value, bool) for value in key):
            return None
        total += key_digest([_text(value) for value in key])
    return str(total)


def key_digest(texts: Sequence[str]) -> int:
    """The first 60 bits of the MD5 of a key's texts."""
    return int(hashlib.md5(SEPARATOR.join(texts).encode(), usedforsecurity=False).hexdigest()[:15], 16)


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        plain = f"{value:f}"
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return str(value)
