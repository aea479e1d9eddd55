"""Raw JSON bodies to single records, also where a body is partly broken."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

SHOWN_BYTES = 2_000
"""Of a record that is larger than the limit; every other record is kept as it came, up to KEPT_BYTES."""
KEPT_BYTES = 1 << 20
_LONGEST_INTEGER = 4_300
"""Digits that Python turns into an int."""
_raw_lines = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class GoodRecord:
    value: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class BadRecord:
    """text: the record, cut to 2,000 bytes when it is larger than the limit, else to 1 MB; the reason says so."""

    text: str
    reason: str


def split_json(body: bytes, max_record_bytes: int) -> Iterator[GoodRecord | BadRecord]:
    """Each record of a newline-delimited body, numbers with a fraction as Decimal.

    A record that is no JSON object, is nested too deeply, or is larger than the limit comes out as BadRecord.
    """
    for piece in pieces(body):
        if len(piece) > max_record_bytes:
            reason = f"record of {len(piece):,} bytes, limit {max_record_bytes:,}"
            yield bad_record(bytes(piece[:SHOWN_BYTES]), reason, len(piece))
            continue
        raw = bytes(piece)
        try:
            value = _parsed(raw)
        except RecursionError:
            yield bad_record(raw, "nested deeper than the parser goes")
        except ValueError as error:
            yield bad_record(raw, f"no valid JSON: {error}")
        else:
            if isinstance(value, dict):
                yield GoodRecord(value, raw)
            else:
                yield bad_record(raw, f"a JSON {type(value).__name__}, not an object")


def pieces(body: bytes) -> Iterable[bytes | memoryview]:
    """Each record of the body as it is spelt; each line of it when one of the records is broken."""
    try:
        return [memoryview(raw) for raw in _raw_lines.decode_lines(body)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return (line for line in body.split(b"\n") if line.strip())


def bad_record(raw: bytes, reason: str, size: int | None = None) -> BadRecord:
    """The record as quarantine keeps it. size: of the whole record, when raw is its beginning only."""
    kept = raw[:KEPT_BYTES]
    whole = size or len(raw)
    if len(kept) < whole:
        reason = f"{reason} (payload cut to {len(kept):,} of {whole:,} bytes)"
    return BadRecord(kept.decode("utf-8", "replace").replace("\x00", ""), reason)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw, parse_float=_fraction, parse_constant=_constant)
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeError):
            raise
        return json.loads(raw, parse_float=_fraction, parse_constant=_constant, parse_int=_integer)


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _LONGEST_INTEGER else Decimal(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"the exponent of {text[:40]} is beyond every number type") from None


def _constant(text: str) -> float:
    """NaN and the infinities: no JSON, but sent by real sources; only a double can hold them."""
    return float(text)
