"""Personal values replaced by others, so that a recording may be kept."""

import re
import secrets
from decimal import Decimal
from hashlib import blake2b
from typing import Any, cast
from urllib.parse import quote, quote_plus

import msgspec

from connectors.specs import SourceSpec, StreamSpec

_DATE = re.compile(r"^\d{4}-\d\d-\d\d")
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


def shy_columns(source: SourceSpec, stream: StreamSpec) -> frozenset[str]:
    """Columns that are personal or not kept as they are; those of the parent too, for its records are read first."""
    parent = getattr(stream, "parent", None)
    read = [stream, *([source.stream(parent.stream)] if parent is not None else [])]
    return frozenset(
        name for one in read for name, column in one.columns.items() if column.pii != "none" or column.rule != "keep"
    )


class Masks:
    """Replaces values of personal columns; the same value by the same, within one recording."""

    def __init__(self, columns: frozenset[str]) -> None:
        self.columns = columns
        # kept nowhere, so nobody can find a value by trying
        self._key = secrets.token_bytes(32)
        self._texts: dict[str, str] = {}

    def json(self, body: bytes) -> bytes:
        """Raises msgspec.DecodeError."""
        return _ENCODER.encode(self._walk(_DECODER.decode(body))) if self.columns else body

    def text(self, text: str) -> str:
        """The text with every personal value that was seen replaced, also where it is quoted for an address."""
        for original in sorted(self._texts, key=len, reverse=True):
            for form in {original, quote(original, safe=""), quote_plus(original)}:
                text = text.replace(form, self._texts[original])
        return text

    def _walk(self, value: Any, *, is_personal: bool = False) -> Any:
        match value:
            case dict():
                items = cast("dict[str, Any]", value).items()
                return {name: self._walk(item, is_personal=is_personal or name in self.columns) for name, item in items}
            case list():
                return [self._walk(item, is_personal=is_personal) for item in cast("list[Any]", value)]
            case _:
                return self._masked(value) if is_personal else value

    def _masked(self, value: Any) -> Any:
        digest = blake2b(str(value).encode(), key=self._key, digest_size=8).digest()
        match value:
            case None:
                return None
            case bool():
                return False
            case int() | float() | Decimal():
                return int.from_bytes(digest[:4], "big")
            case _ if _DATE.match(str(value)):
                masked = f"{1970 + digest[0] % 30}-01-{1 + digest[1] % 28:02d}{str(value)[10:]}"
            case _:
                masked = f"masked-{digest.hex()}"
        if len(str(value)) >= 4:
            # it may come back in a link or as a parameter
            self._texts[str(value)] = masked
        return masked
