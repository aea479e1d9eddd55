"""One value at a time: the slow path for what the column-wise decoders could not take."""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec

from connectors.specs import ColumnType
from connectors.sync.columns import Column

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_OFFSET = r"(?:Z|z|[+-]\d{2}:?\d{2})"
_TIMESTAMP = re.compile(rf"^\d{{4}}-\d{{2}}-\d{{2}}[T ]\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d+)?)?{_OFFSET}$")
_CUT_FRACTION = re.compile(r"[.,]\d{6}\d*[1-9]")
_TRUTHS = {"true": True, "t": True, "false": False, "f": False}
MAX_NUMERIC_DIGITS = 1_000
"""Of a numeric, before and after the point together; PostgreSQL itself goes further, no number of a source does."""
_JSONB_POWERS = range(-16_000, 131_000)
"""Powers of ten that jsonb holds; a number of four characters may ask for a billion digits."""
MAX_EXACT_INTEGER = 2**53
"""Up to it a double holds every integer."""
_encoder = msgspec.json.Encoder(decimal_format="number")


class UnfitError(Exception):
    """The value cannot stand in its column without loss."""


@dataclass(slots=True)
class Cleaning:
    """Values that are stored otherwise than they came, counted so that it is never silent.

    nul: texts that lost NUL characters. surrogates: texts whose lone surrogates became U+FFFD.
    fractions: moments cut to microseconds. names: field names cleaned of NUL or lone surrogates.
    """

    nul: int = 0
    surrogates: int = 0
    fractions: int = 0
    names: int = 0

    def add(self, other: "Cleaning") -> None:
        self.nul += other.nul
        self.surrogates += other.surrogates
        self.fractions += other.fractions
        self.names += other.names

    def text(self, text: str) -> str:
        """The text as PostgreSQL stores it."""
        if is_clean_text(text):
            return text
        if "\x00" in text:
            self.nul += 1
            text = text.replace("\x00", "")
        fit = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.surrogates += fit != text
        return fit


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of a value that Arrow holds and Python cannot; it fits nowhere. text: what quarantine shows."""

    text: str
    reason: str


def json_text(value: Any, cleaning: Cleaning | None = None) -> str:
    """Compact JSON text of a decoded value as jsonb takes it: every digit of a number, text cleaned.

    Raises:
        UnfitError: NaN, infinity, a number beyond jsonb, or two keys that are one after cleaning.
    """
    _check_numbers(value)
    try:
        text = _encoder.encode(value).decode()
    except UnicodeEncodeError:
        text = ""
    if not text or "\\u0000" in text:
        text = _encoder.encode(_cleaned(value, cleaning or Cleaning())).decode()
    return text


def _check_numbers(value: Any) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(cast("dict[Any, Any]", item).values())
        elif isinstance(item, list | tuple):
            pending.extend(cast("list[Any]", item))
        elif isinstance(item, float) and (item != item or item in (float("inf"), float("-inf"))):
            raise UnfitError("NaN or infinity does not fit jsonb")
        elif isinstance(item, Decimal) and not (item.is_finite() and item.adjusted() in _JSONB_POWERS):
            raise UnfitError("number beyond jsonb")
        elif isinstance(item, Unreadable):
            raise UnfitError(item.reason)


def _cleaned(value: Any, cleaning: Cleaning) -> Any:
    if isinstance(value, str):
        return cleaning.text(value)
    if isinstance(value, list | tuple):
        return [_cleaned(item, cleaning) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return clean_names(
            {key: _cleaned(item, cleaning) for key, item in cast("dict[Any, Any]", value).items()}, cleaning
        )
    return value


def clean_names(record: dict[str, Any], cleaning: Cleaning) -> dict[str, Any]:
    """The record under names that PostgreSQL stores; the same object when they all are.

    Raises:
        UnfitError: two names are one after cleaning.
    """
    if all(map(is_clean_text, record)):
        return record
    counted = Cleaning()
    named = {counted.text(name): value for name, value in record.items()}
    if len(named) < len(record):
        raise UnfitError("two field names are one without NUL and lone surrogates")
    cleaning.names += counted.nul + counted.surrogates
    return named


def is_clean_text(text: str) -> bool:
    """True when PostgreSQL can store the text: no NUL, no lone surrogate."""
    if "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def infer(value: Any) -> ColumnType | None:
    """The house type of one decoded JSON value; None for null. A text is a timestamp only with date, time, offset."""
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "bigint" if INT64_MIN <= value <= INT64_MAX else "decimal"
        case Decimal():
            return "decimal" if len(value.as_tuple().digits) > MAX_NUMERIC_DIGITS else "double"
        case float():
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


def convert(value: Any, column: Column, cleaning: Cleaning | None = None) -> Any:
    """The value as pyarrow takes it for the column's Arrow type; what had to be cleaned is counted.

    Raises:
        UnfitError: with the reason, for quarantine.
    """
    if value is None:
        return None
    if isinstance(value, Unreadable):
        raise UnfitError(value.reason)
    return _CONVERTERS[column.type](value, column, cleaning or Cleaning())


def _kind(value: Any) -> str:
    """The JSON word for the value's type."""
    names: tuple[tuple[Any, str], ...] = (
        (bool, "bool"), (int | float | Decimal, "number"), (str, "text"), (dict, "object"), (list | tuple, "array"),
    )  # fmt: skip
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def _text(value: Any, _column: Column, cleaning: Cleaning) -> str:
    if isinstance(value, str):
        return cleaning.text(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value)
    text = json_text(value, cleaning)
    return json.loads(text) if text.startswith('"') else text


def _bigint(value: Any, _column: Column, _cleaning: Cleaning) -> int:
    if isinstance(value, bool):
        raise UnfitError("bool does not fit bigint")
    if isinstance(value, str):
        if not re.fullmatch(r"-?[0-9]{1,19}", value):
            raise UnfitError("text does not fit bigint")
        value = int(value)
    if isinstance(value, float):
        value = Decimal(value)
    if isinstance(value, Decimal):
        # the power first: int() of 1e999999999 would write a billion digits
        if not value.is_finite() or value.adjusted() > 18 or value != value.to_integral_value():
            raise UnfitError("a number with a fraction, or beyond bigint, does not fit bigint")
        value = int(value)
    if not isinstance(value, int):
        raise UnfitError(f"{_kind(value)} does not fit bigint")
    if not INT64_MIN <= value <= INT64_MAX:
        raise UnfitError("number beyond bigint")
    return value


def _double(value: Any, _column: Column, _cleaning: Cleaning) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise UnfitError(f"{_kind(value)} does not fit double precision")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise UnfitError("not a number") from None
    if number in (float("inf"), float("-inf")) and not str(value).strip().lower().lstrip("+-").startswith("inf"):
        raise UnfitError("number beyond double precision")
    if isinstance(value, int) and int(number) != value:
        raise UnfitError("an integer of more than 53 bits does not fit double precision without loss")
    return number


def _bool(value: Any, column: Column, _cleaning: Cleaning) -> bool:
    """true and false alone, as JSON or as text; yes, no, 0 and 1 may mean anything."""
    found = value if isinstance(value, bool) else _TRUTHS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise UnfitError(f"{_kind(value)} does not fit {column.pg_type}")
    return found


def _json(value: Any, _column: Column, cleaning: Cleaning) -> str:
    try:
        return json_text(value, cleaning)
    except RecursionError:
        raise UnfitError("nested deeper than the parser goes") from None


def _decimal(value: Any, column: Column, _cleaning: Cleaning) -> str:
    """Decimal text, checked against numeric(p,s) without rounding."""
    bounds = column.decimal_bounds
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise UnfitError(f"{_kind(value)} does not fit numeric")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else value)
    except (InvalidOperation, ValueError):
        raise UnfitError("not a number") from None
    if not number.is_finite():
        raise UnfitError("NaN or infinity does not fit numeric")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) + max(exponent, 0) > MAX_NUMERIC_DIGITS or -exponent > MAX_NUMERIC_DIGITS:
        raise UnfitError(f"number of more than {MAX_NUMERIC_DIGITS:,} digits")
    if bounds is not None:
        precision, scale = bounds
        significant = len("".join(map(str, digits)).rstrip("0"))
        fraction = max(significant - len(digits) - exponent, 0)
        if fraction > scale:
            raise UnfitError(f"{fraction} decimal places do not fit numeric({precision},{scale})")
        if number and number.adjusted() + 1 > precision - scale:
            raise UnfitError(f"number beyond numeric({precision},{scale})")
    return f"{number:f}"


def _timestamp(value: Any, _column: Column, cleaning: Cleaning) -> datetime:
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001 made UTC below
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise UnfitError("not a timestamp, or out of range") from None
        cleaning.fractions += bool(_CUT_FRACTION.search(value))
    else:
        raise UnfitError(f"{_kind(value)} does not fit timestamp")
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise UnfitError("timestamp out of range") from None


def _date(value: Any, _column: Column, _cleaning: Cleaning) -> date:
    if isinstance(value, datetime):
        if value.time() != time(0) or value.utcoffset() not in (None, timedelta(0)):
            raise UnfitError("a moment of the day does not fit date")
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise UnfitError(f"{_kind(value)} is no date, or out of range") from None


def _time(value: Any, _column: Column, cleaning: Cleaning) -> time:
    try:
        moment = value if isinstance(value, time) else time.fromisoformat(value)
    except (TypeError, ValueError):
        raise UnfitError(f"{_kind(value)} is no time of day") from None
    if moment.utcoffset() not in (None, timedelta(0)):
        raise UnfitError("a time with an offset does not fit time, which has none")
    cleaning.fractions += isinstance(value, str) and bool(_CUT_FRACTION.search(value))
    return moment.replace(tzinfo=None)


def _binary(value: Any, _column: Column, _cleaning: Cleaning) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode(str(value), validate=True)
    except (binascii.Error, ValueError):
        raise UnfitError("not base64") from None


_CONVERTERS: Mapping[ColumnType, Callable[[Any, Column, Cleaning], Any]] = {
    "text": _text,
    "bigint": _bigint,
    "double": _double,
    "decimal": _decimal,
    "bool": _bool,
    "timestamp": _timestamp,
    "date": _date,
    "time": _time,
    "json": _json,
    "binary": _binary,
}
