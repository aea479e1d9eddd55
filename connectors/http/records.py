"""A page taken apart: the records as slices of the answer's own bytes, none of them decoded.

msgspec finds the slices at about 1 GB/s. A page that msgspec refuses (NaN, a control character, nesting deeper than
its stack) still has well separated records as a rule, so it is cut by its brackets alone: one bad record must not
cost the page, the engine quarantines it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import Any, cast

import msgspec

GUESSED_KEYS = ("data", "results", "items", "records", "value", "values")
SELF = "."

# a text that never ends matches up to the end of the body: the cut stays linear for hostile pages too
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{},:]', re.DOTALL)
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")

Slice = bytes | msgspec.Raw


class MalformedPageError(Exception):
    """The body is no JSON. is_truncated: it began well and ended early."""

    def __init__(self, what: str, *, is_truncated: bool) -> None:
        super().__init__(what)
        self.is_truncated = is_truncated


class JsonPage:
    """One answer's JSON, opened only along the paths that are asked for.

    records: where they are, if that is known: a page that has them there is read once instead of twice.

    Raises:
        MalformedPageError: the body is empty, truncated, or no JSON array or object at all.
    """

    def __init__(self, body: bytes, records: str | None = None) -> None:
        body = body.removeprefix(b"\xef\xbb\xbf").strip()
        # JSON text has no raw line ends inside strings: those left are layout, and would tear a record in two
        self._body = body.translate(_LINE_ENDS) if b"\n" in body or b"\r" in body else body
        self._objects: dict[str, dict[str, Slice]] = {}
        if not self._body:
            raise MalformedPageError("an empty body", is_truncated=True)
        if self._body[:1] not in (b"{", b"["):
            raise MalformedPageError("neither a JSON object nor a JSON array", is_truncated=False)
        self.is_array = self._body[:1] == b"["
        self._found: tuple[str, list[Slice]] | None = None
        if self.is_array:
            self._found = SELF, _elements(self._body)
        elif records is None or (found := _records_under(records, self._body)) is None:
            self._objects[SELF] = _members(self._body)
        else:
            self._found = records, found

    @property
    def keys(self) -> tuple[str, ...]:
        """The top object's keys; none for an array."""
        return () if self.is_array else tuple(self._top)

    @property
    def _top(self) -> dict[str, Slice]:
        if SELF not in self._objects:
            self._objects[SELF] = _members(self._body)
        return self._objects[SELF]

    def slice_at(self, path: str) -> Slice | None:
        """The raw value at a dotted path; None when a key on the way is missing."""
        if path == SELF:
            return self._body
        return None if self.is_array else self._walk(self._top, SELF, path)

    def value_at(self, path: str) -> object:
        """The decoded value at a dotted path; None when it is missing or null."""
        found = self.slice_at(path)
        return None if found is None else decode(found)

    def records_at(self, path: str) -> list[Slice] | None:
        """The elements of the array at a dotted path; None when there is no array."""
        if self._found is not None and self._found[0] == path:
            return self._found[1]
        found = self.slice_at(path)
        if found is None or bytes(memoryview(found)[:1]) != b"[":
            return None
        return _elements(found)

    def guess(self) -> str | None:
        """Where the records most likely are: the body, a usual key, else the only array; None when nothing fits."""
        if self.is_array:
            return SELF
        arrays = [key for key, value in self._top.items() if bytes(memoryview(value)[:1]) == b"["]
        for key in GUESSED_KEYS:
            if key in arrays:
                return key
        return arrays[0] if len(arrays) == 1 else None

    def _walk(self, members: dict[str, Slice], at: str, path: str) -> Slice | None:
        if path in members:
            return members[path]
        key, dot, rest = path.partition(".")
        if not dot or key not in members:
            return None
        below = f"{at}\n{key}"
        if below not in self._objects:
            if bytes(memoryview(members[key])[:1]) != b"{":
                return None
            self._objects[below] = _members(members[key])
        return self._walk(self._objects[below], below, rest)


def decode(value: Slice) -> object:
    """One small value. Raises MalformedPageError."""
    try:
        return cast("object", msgspec.json.decode(value))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPageError(str(error), is_truncated=False) from error


def join(records: Sequence[Slice]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The objects with a newline between them, and what is no object as (index, payload)."""
    body = b"\n".join(records)
    if all(records):
        # each record's first byte, without a step of Python for each
        begins = map(add, accumulate(map(len, records), initial=0), range(len(records)))
        if bytes(map(body.__getitem__, begins)).count(b"{") == len(records):
            return body, []
    plain = [bytes(memoryview(record)) for record in records]
    odd = [(index, record) for index, record in enumerate(plain) if not record.startswith(b"{")]
    return b"\n".join(record for record in plain if record.startswith(b"{")), odd


def _records_under(key: str, body: bytes) -> list[Slice] | None:
    """The elements of the array at a key of the top object; None where it takes a closer look."""
    decoder = _decoder_of(key)
    if decoder is None:
        return None
    try:
        return decoder.decode(body).records
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=64)
def _decoder_of(key: str) -> Any:
    """None for a dotted path, and for names that a struct's field cannot have."""
    if not key.isidentifier():
        return None
    page = msgspec.defstruct("Page", [("records", list[msgspec.Raw])], rename={"records": key})
    return msgspec.json.Decoder(page)


def _members(body: Slice) -> dict[str, Slice]:
    try:
        return cast("dict[str, Slice]", msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        plain = bytes(memoryview(body))
        members: dict[str, Slice] = {}
        for key, value in _cut(plain):
            name = decode(key) if key is not None else None
            if not isinstance(name, str):
                raise MalformedPageError("an object without keys", is_truncated=False) from None
            members[name] = value
        return members


def _elements(body: Slice) -> list[Slice]:
    try:
        return cast("list[Slice]", msgspec.json.decode(body, type=list[msgspec.Raw]))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return [value for _, value in _cut(bytes(memoryview(body)))]


def _cut(body: bytes) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, value) of one object, (None, value) of one array, found by strings, brackets and commas alone."""
    depth, start = 0, 0
    key: bytes | None = None
    for token in TOKEN.finditer(body):
        sign = body[token.start() : token.start() + 1]
        if sign in (b"{", b"["):
            depth += 1
            if depth == 1:
                start = token.end()
        elif sign in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                last = body[start : token.start()].strip()
                if last or key is not None:
                    yield key, last
                if body[token.end() :].strip():
                    raise MalformedPageError("text after the end of the JSON value", is_truncated=False)
                return
        elif depth == 1 and sign == b",":
            yield key, body[start : token.start()].strip()
            start, key = token.end(), None
        elif depth == 1 and sign == b":" and key is None:
            key, start = body[start : token.start()].strip(), token.end()
    raise MalformedPageError("the JSON ends early", is_truncated=True)
