"""Column rules: block, hash, truncate, mask, applied to what a connector yields before anything else sees it.

Whatever comes later (parts, quarantine, messages, the ledger) holds protected values alone.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from connectors.column_spec import ColumnSpec
from connectors.contract import Frame, JsonRecords, Message, Rejected
from connectors.secrets import MASK, resolve
from connectors.sync.rejects import Reject
from connectors.sync.splitting import pieces
from connectors.sync.values import Cleaning, Unreadable, is_clean_text

Protect = Callable[[str], str]
_SEAL = "headwater-hash:"
_HASHED = re.compile(r"[0-9a-f]{64}")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_values = json.JSONDecoder(parse_float=len, parse_int=len)
_QUOTED = 40
"""Characters of a value that a connector quotes when it refuses it."""
_SPACE = re.compile(r"[ \t\n\r]*")


class Protector:
    """The rules of one stream. A name counts as the column also with the NUL characters that PostgreSQL cannot store.

    is_replay: records come from quarantine, where values are hashed already; 64 hexadecimal digits stay as they are.
    is_sealing: records are kept to be read again through another Protector. A hash is sealed with its key, so that
        it is known for one then, and a line that is no record is withheld.

    Raises:
        ConfigError: the key of a hash is not set.
    """

    def __init__(
        self,
        columns: Mapping[str, ColumnSpec],
        where: str,
        null_values: Iterable[str] = (),
        *,
        is_replay: bool = False,
        is_sealing: bool = False,
    ) -> None:
        self._nulls = frozenset(null_values)
        self._is_sealing = is_sealing
        self._rules: dict[str, Protect | None] = {}
        for name, column in columns.items():
            if column.rule == "block":
                self._rules[name] = None
            elif column.rule != "keep":
                place = f"{where}: columns.{name}.key"
                self._rules[name] = _rule(column, place, is_replay=is_replay, is_sealing=is_sealing)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def touches(self, names: Iterable[str]) -> bool:
        return any(self._name(name) in self._rules for name in names)

    def message(self, message: Message) -> Message:
        """Any message but a file, which has to be read first."""
        match message:
            case JsonRecords():
                return self.json(message)
            case Frame():
                return self.frame(message)
            case Rejected():
                return self.rejected(message)
            case _:
                return message

    def json(self, payload: JsonRecords) -> JsonRecords:
        """Every record that can be read is protected; one that cannot is rejected by the decoder, see `withheld`."""
        return replace(payload, body=b"\n".join(self._record(bytes(piece)) for piece in pieces(payload.body)))

    def frame(self, payload: Frame) -> Frame:
        table = payload.table
        for index, name in enumerate(table.column_names):
            if (known := self._name(name)) in self._rules:
                table = table.set_column(index, name, self._array(table.column(index), self._rules[known]))
        return replace(payload, table=table)

    def rejected(self, message: Rejected) -> Rejected:
        """Its reason may quote a value, whole or its beginning."""
        reason = message.reason
        for name, value in (_fields_of(message.payload) or {}).items():
            text = value.decode("utf-8", "replace").strip('" ')
            if self._name(name) in self._rules and text:
                reason = reason.replace(text, MASK).replace(text[:_QUOTED], MASK)
        return replace(message, payload=self._record(message.payload), reason=reason)

    def withheld(self, reject: Reject) -> Reject:
        """The reject without its payload where that is no record: the protected values in it cannot be told apart."""
        try:
            if isinstance(json.loads(reject.payload), dict):
                return reject
        except (ValueError, RecursionError):
            pass
        return replace(reject, payload=_withheld(len(reject.payload)))

    def _name(self, name: str) -> str:
        return name if is_clean_text(name) else Cleaning().text(name)

    def _record(self, raw: bytes) -> bytes:
        fields = _fields_of(raw)
        if fields is None and self._is_sealing:
            return raw if _WITHHELD.fullmatch(raw) else json.dumps(_withheld(len(raw))).encode()
        if fields is None or not self.touches(fields):
            return raw
        kept: list[bytes] = []
        for name, value in fields.items():
            if (known := self._name(name)) in self._rules:
                if (rule := self._rules[known]) is None:
                    continue
                value = self._json_value(value, rule)
            kept.append(json.dumps(name).encode() + b":" + value)
        return b"{" + b",".join(kept) + b"}"

    def _json_value(self, raw: bytes, rule: Protect) -> bytes:
        text = raw.decode("utf-8", "surrogatepass").strip()
        if text == "null":
            return b"null"
        if text[0] == '"':
            text = json.loads(text)
            if text in self._nulls:
                return b"null"
        elif text[0] in "{[":
            text = _sorted_json(json.loads(text, parse_float=Decimal))
        return json.dumps(rule(text)).encode()

    def _array(self, array: Any, rule: Protect | None) -> Any:
        import pyarrow as pa

        from connectors.sync.casting import python_values  # Arrow loads with the first frame

        if rule is None:
            return pa.nulls(len(array))
        found: list[str | None] = []
        for value in python_values(array, Cleaning()):
            text = None if value is None else _text(value)
            found.append(None if text is None or text in self._nulls else rule(text))
        return pa.array(found, pa.string())


def _withheld(size: int) -> str:
    return f"{MASK} ({size:,} characters, withheld: the stream has protected columns)"


_WITHHELD = re.compile(re.escape(json.dumps(_withheld(0))).replace(r"\(0", r"\([0-9,]+").encode())
"""What was withheld before says so still."""


def _fields_of(raw: bytes) -> Mapping[str, bytes] | None:
    """The fields of a record, each value as it is spelt; None when it is no record."""
    try:
        return {name: bytes(value) for name, value in _fields.decode(raw).items()}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return _spans(raw)


def _spans(raw: bytes) -> dict[str, bytes] | None:
    """The fields of a record that only Python's parser takes, each value as it is spelt; None when it is no record."""
    try:
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
        at = _after_space(text, 0)
        if text[at] != "{":
            return None
        found: dict[str, bytes] = {}
        at = _after_space(text, at + 1)
        while text[at] != "}":
            name, at = _values.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)
            _, end = _values.raw_decode(text, at)
            found[name] = text[at:end].encode("utf-8", "surrogatepass")
            at = _after_space(text, end)
            if text[at] == ",":
                at = _after_space(text, at + 1)
    except (ValueError, IndexError, TypeError, RecursionError):
        return None
    return found


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _text(value: Any) -> str:
    """One text for one value, whatever kind of source it came through: numbers and truths as JSON writes them."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return f"{value:f}"
        case datetime():
            moment = value if value.tzinfo else value.replace(tzinfo=UTC)
            return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict() | list():
            return _sorted_json(value)
        case Unreadable():
            return value.text
        case _:
            return str(value)


def _sorted_json(value: Any) -> str:
    return json.dumps(value, default=str, sort_keys=True, separators=(",", ":"))


def _rule(column: ColumnSpec, where: str, *, is_replay: bool, is_sealing: bool) -> Protect:
    match column.rule:
        case "hash":
            key = resolve(column.key or "", where).encode()
            return partial(_sealed, key) if is_sealing else partial(_hash, key, is_replay=is_replay)
        case "truncate":
            return lambda text: text[: column.length]
        case _:
            pattern = re.compile(column.keep_pattern) if column.keep_pattern else None
            return lambda text: _masked(text, column.keep_last or 0, pattern)


def _sealed(key: bytes, text: str) -> str:
    """The hash with a proof that whoever made it knew the key: no value of a source looks like it."""
    digest = _hash(key, text, is_replay=False)
    return f"{_SEAL}{digest}:{_proof(key, digest)}"


def _proof(key: bytes, digest: str) -> str:
    return hmac.digest(key, f"{_SEAL}{digest}".encode(), "sha256").hex()


def _hash(key: bytes, text: str, *, is_replay: bool) -> str:
    if is_replay and _HASHED.fullmatch(text):
        return text
    if text.startswith(_SEAL):
        digest, _, proof = text.removeprefix(_SEAL).partition(":")
        if hmac.compare_digest(proof.encode("utf-8", "replace"), _proof(key, digest).encode()):
            return digest
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def _masked(text: str, keep_last: int, pattern: re.Pattern[str] | None) -> str:
    """A text no longer than what may be kept is masked whole, or masking would show it."""
    kept: set[int] = set()
    if pattern is not None:
        kept.update(place for match in pattern.finditer(text) for place in range(*match.span()))
    elif keep_last < len(text):
        kept.update(range(len(text) - keep_last, len(text)))
    return "".join(character if place in kept else "*" for place, character in enumerate(text))
