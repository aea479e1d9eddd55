"""A warehouse row back to the record that the source sent: what quarantine keeps, and a replay reads again."""

import base64
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from connectors.sync.columns import DELETED, OVERFLOW, Column

_encoder = msgspec.json.Encoder(decimal_format="number")


def original(values: Mapping[str, Any], columns: Sequence[Column]) -> str:
    """JSON under the source's own names, NULLs left out; a value that JSON has no type for stands as its text.

    values: by warehouse name, JSON values as Python has them, bytea as PostgreSQL writes it.
    """
    by_name = {column.name: column for column in columns}
    record: dict[str, Any] = {}
    for name, value in values.items():
        column = by_name.get(name)
        if value is None or (name == DELETED and not value):
            continue
        if name == OVERFLOW and isinstance(value, dict):
            record |= {by_name[key].source_name if key in by_name else key: item for key, item in value.items()}
        elif column is not None and column.type == "binary":
            record[column.source_name] = _base64(value)
        else:
            record[column.source_name if column else name] = value
    return encoded(record)


def encoded(record: Mapping[str, Any]) -> str:
    """Compact JSON with every digit of a Decimal, lone surrogates aside, beside which decimals become texts."""
    try:
        return _encoder.encode(record).decode()
    except UnicodeEncodeError:
        return json.dumps(record, default=str)


def decoded(text: str) -> Any:
    """The inverse; NaN, infinities and numbers beyond every type come out as texts. Raises ValueError: no JSON."""
    return json.loads(text, parse_float=_fraction, parse_constant=str)


def _fraction(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except InvalidOperation:
        return text


def _base64(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("\\x"):
        return base64.b64encode(bytes.fromhex(value[2:])).decode()
    return value
