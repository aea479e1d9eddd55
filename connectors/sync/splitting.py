"""Raw JSON bodies to single records, also where a body is partly broken."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

_SHOWN_BYTES = 2_000
_raw_lines = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True)
class GoodRecord:
    value: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class BadRecord:
    """text: the record, cut to 2,000 bytes when it is larger than the limit."""

    text: str
    reason: str


def split_json(body: bytes, max_record_bytes: int) -> Iterator[GoodRecord | BadRecord]:
    """Each record of a newline-delimited body, numbers with a fraction as Decimal.

    A record that is no JSON object, is nested too deeply, or is larger than the limit comes out as BadRecord.
    """
    try:
        pieces = [bytes(raw) for raw in _raw_lines.decode_lines(body)]
    except (msgspec.MsgspecError, RecursionError):
        pieces = [line for line in body.split(b"\n") if line.strip()]
    for piece in pieces:
        if len(piece) > max_record_bytes:
            yield BadRecord(_shown(piece), f"record of {len(piece):,} bytes, limit {max_record_bytes:,}")
            continue
        try:
            value = json.loads(piece, parse_float=Decimal, parse_constant=_constant)
        except RecursionError:
            yield BadRecord(_shown(piece), "nested deeper than the parser goes")
        except ValueError as error:
            yield BadRecord(_shown(piece), f"no valid JSON: {error}")
        else:
            if isinstance(value, dict):
                yield GoodRecord(value, piece)
            else:
                yield BadRecord(_shown(piece), f"a JSON {type(value).__name__}, not an object")


def _constant(text: str) -> float:
    """NaN and the infinities: no JSON, but sent by real sources; only a double can hold them."""
    return float(text)


def _shown(piece: bytes) -> str:
    return piece[:_SHOWN_BYTES].decode("utf-8", "replace").replace("\x00", "")
