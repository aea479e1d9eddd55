"""One value at a time: the slow path for what the column-wise decoders could not take."""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from connectors.specs import ColumnType
from connectors.sync.columns import Column

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_OFFSET = r"(?:Z|z|[+-]\d{2}:?\d{2})"
_TIMESTAMP = re.compile(rf"^\d{{4}}-\d{{2}}-\d{{2}}[T ]\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d+)?)?{_OFFSET}$")
_NUL_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_MAX_NUMERIC_DIGITS = 1_000
_encoder = msgspec.json.Encoder(decimal_format="number")


class UnfitError(Exception):
    """The value cannot stand in its column without loss."""


def json_text(value: Any) -> str:
    """Compact JSON text of a decoded value, numbers with all their digits, NUL stripped, as jsonb takes it."""
    return strip_nul_escapes(_encoder.encode(value).decode())


def strip_nul_escapes(text: str) -> str:
    """JSON text without NUL escapes, which jsonb cannot hold; an escaped backslash before `u0000` stays."""
    return _NUL_ESCAPE.sub(r"\1", text) if "\\u0000" in text else text


def is_clean_text(text: str) -> bool:
    """True when PostgreSQL can store the text: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def clean_text(text: str) -> str:
    """The text without NUL and with lone surrogates replaced by U+FFFD."""
    return text.replace("\x00", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def infer(value: Any) -> ColumnType | None:
    """The house type of one decoded JSON value; None for null. A text is a timestamp only with date, time, offset."""
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "bigint" if INT64_MIN <= value <= INT64_MAX else "decimal"
        case Decimal() | float():
            return "double"
        case str():
            return "timestamp" if _TIMESTAMP.match(value) else "text"
        case _:
            return "json"


def widest(left: ColumnType | None, right: ColumnType | None) -> ColumnType | None:
    """The type that holds both without loss; text where nothing else does. Used while a type is first inferred."""
    if left is None or right is None or left == right:
        return left or right
    pair = {left, right}
    if pair == {"bigint", "double"}:
        return "double"
    if pair <= {"bigint", "decimal", "double"}:
        return "decimal"
    return "json" if "json" in pair else "text"


def convert(value: Any, column: Column) -> Any:
    """The value as pyarrow takes it for the column's Arrow type.

    Raises:
        UnfitError: with the reason, for quarantine.
    """
    if value is None:
        return None
    return _CONVERTERS[column.type](value, column)


def _text(value: Any, _column: Column) -> str:
    if isinstance(value, str):
        return value if is_clean_text(value) else clean_text(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return json_text(value)


def _bigint(value: Any, _column: Column) -> int:
    if isinstance(value, bool):
        raise UnfitError("bool does not fit bigint")
    if isinstance(value, str):
        if not re.fullmatch(r"-?\d{1,19}", value):
            raise UnfitError("text does not fit bigint")
        value = int(value)
    if isinstance(value, float | Decimal):
        if value != value or value in (Decimal("Infinity"), Decimal("-Infinity")) or value != int(value):
            raise UnfitError("a number with a fraction does not fit bigint")
        value = int(value)
    if not isinstance(value, int):
        raise UnfitError(f"{type(value).__name__} does not fit bigint")
    if not INT64_MIN <= value <= INT64_MAX:
        raise UnfitError("number beyond bigint")
    return value


def _double(value: Any, _column: Column) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise UnfitError(f"{type(value).__name__} does not fit double precision")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise UnfitError("not a number") from None
    if number in (float("inf"), float("-inf")) and not str(value).lower().lstrip("+-").startswith("inf"):
        raise UnfitError("number beyond double precision")
    return number


def _bool(value: Any, column: Column) -> bool:
    if isinstance(value, bool):
        return value
    raise UnfitError(f"{type(value).__name__} does not fit {column.pg_type}")


def _json(value: Any, _column: Column) -> str:
    return json_text(value)


def _decimal(value: Any, column: Column) -> str:
    """Decimal text, checked against numeric(p,s) without rounding."""
    bounds = column.decimal_bounds
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise UnfitError(f"{type(value).__name__} does not fit numeric")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, ValueError):
        raise UnfitError("not a number") from None
    if not number.is_finite():
        raise UnfitError("NaN or infinity does not fit numeric")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) + abs(exponent) > _MAX_NUMERIC_DIGITS:
        raise UnfitError(f"number of more than {_MAX_NUMERIC_DIGITS} digits")
    if bounds is not None:
        precision, scale = bounds
        fraction = max(-number.normalize().as_tuple().exponent, 0)  # pyright: ignore[reportOperatorIssue] finite
        if fraction > scale:
            raise UnfitError(f"{fraction} decimal places do not fit numeric({precision},{scale})")
        if number and number.adjusted() + 1 > precision - scale:
            raise UnfitError(f"number beyond numeric({precision},{scale})")
    return f"{number:f}"


def _timestamp(value: Any, _column: Column) -> datetime:
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001 made UTC below
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise UnfitError("not a timestamp PostgreSQL can hold") from None
    else:
        raise UnfitError(f"{type(value).__name__} does not fit timestamp")
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise UnfitError("timestamp out of range") from None


def _date_or_time(value: Any, column: Column) -> date | time:
    try:
        if column.type == "time":
            return value if isinstance(value, time) else time.fromisoformat(str(value))
        if isinstance(value, datetime):
            if value.time() != time(0) or value.utcoffset() not in (None, timedelta(0)):
                raise UnfitError("a moment of the day does not fit date")
            return value.date()
        return value if isinstance(value, date) else date.fromisoformat(str(value))
    except ValueError:
        raise UnfitError(f"not a {column.type}") from None


def _binary(value: Any, _column: Column) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raise UnfitError("not base64") from None


_CONVERTERS: Mapping[ColumnType, Callable[[Any, Column], Any]] = {
    "text": _text,
    "bigint": _bigint,
    "double": _double,
    "decimal": _decimal,
    "bool": _bool,
    "timestamp": _timestamp,
    "date": _date_or_time,
    "time": _date_or_time,
    "json": _json,
    "binary": _binary,
}
