"""Columns guessed from one page, for `headwater discover`; the sync types by contract, never by this."""

import re
from typing import Final

import msgspec

from connectors.contract import DiscoveredColumn

_SAMPLE: Final = 1_000
_BIGINT: Final = 2**63
_TIMESTAMP = re.compile(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?$")
_DATE = re.compile(r"^\d{4}-\d\d-\d\d$")
_WIDER: Final = {frozenset({"bigint", "double"}): "double", frozenset({"date", "timestamp"}): "timestamp"}


def guess_columns(body: bytes) -> tuple[DiscoveredColumn, ...]:
    """Names in order of appearance; a column is nullable when a record lacks it or has null there.

    Values of two types that no type holds make a text column.
    """
    types: dict[str, str | None] = {}
    present: dict[str, int] = {}
    rows = 0
    for line in body.split(b"\n")[:_SAMPLE]:
        try:
            record = msgspec.json.decode(line, type=dict[str, object])
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
        rows += 1
        for name, value in record.items():
            seen = types.setdefault(name, None)
            if value is None:
                continue
            present[name] = present.get(name, 0) + 1
            found = _type(value)
            if seen is None or seen == found:
                types[name] = found
            else:
                types[name] = _WIDER.get(frozenset({seen, found}), "text")
    return tuple(
        DiscoveredColumn(name, type_name or "text", is_nullable=present.get(name, 0) < rows)
        for name, type_name in types.items()
    )


def _type(value: object) -> str:
    match value:
        case bool():
            return "bool"
        case int():
            return "bigint" if -_BIGINT <= value < _BIGINT else "decimal"
        case float():
            return "double"
        case str() if _TIMESTAMP.match(value):
            return "timestamp"
        case str() if _DATE.match(value):
            return "date"
        case str():
            return "text"
        case _:
            return "json"
