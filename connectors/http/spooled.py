"""An answer too large for memory, taken apart from a file: at most one piece of it is held at a time."""

import mmap
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from connectors.http.formats import Layout, XmlReader, lines_of
from connectors.http.records import SELF, TOKEN, JsonPage, MalformedPageError, Slice

_PIECE_BYTES: Final = 4 << 20
_TRIES: Final = 6
_BLANK: Final = b" \t\r\n"
_LINE_ENDS: Final = bytes.maketrans(b"\r\n", b"  ")


class SpooledAnswer:
    """The records of one answer in `path`. After the last piece `page` is what stands around them."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self._path = path
        self._layout = layout
        self.page: JsonPage | None = None

    def pieces(self) -> Generator[list[Slice]]:
        """Records, some megabytes of them at a time. The file is gone afterwards.

        Raises:
            MalformedPageError: at the place where the answer ceases to be what it should be.
        """
        try:
            with self._path.open("rb") as file:
                match self._layout.format:
                    case "json":
                        yield from self._json(file.fileno())
                    case "xml":
                        reader = XmlReader(self._layout)
                        yield from _gathered(reader.records(file))
                        if not reader.has_place:
                            raise MalformedPageError(f"nothing at {self._layout.records!r}", is_truncated=False)
                        self.page = JsonPage(reader.envelope)
                    case _:
                        yield from _gathered(lines_of(file, self._layout))
        finally:
            self._path.unlink(missing_ok=True)

    def _json(self, number: int) -> Generator[list[Slice]]:
        with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as body:
            start = _array_at(body, self._layout.records)
            at = start + 1
            while at is not None:
                end, elements, is_last = _next_piece(body, at)
                if elements:
                    yield elements
                at = None if is_last else end
                if is_last:
                    # the rest must be whole too, and holds the source's own count
                    self.page = JsonPage(body[:start] + b"[]" + body[end:])


def _gathered(records: Iterable[bytes]) -> Iterator[list[Slice]]:
    piece: list[Slice] = []
    size = 0
    for record in records:
        piece.append(record)
        size += len(record)
        if size >= _PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _array_at(body: mmap.mmap, path: str | None) -> int:
    """Where the array of records begins: the body itself, or along `path`. Raises MalformedPageError."""
    wanted = [] if path in (None, SELF) else str(path).split(".")
    keys: list[str] = []
    depth, text = 0, b""
    for token in TOKEN.finditer(body):
        sign = token[0]
        if sign == b"[":
            if keys == wanted and depth == len(wanted):
                return token.start()
            depth += 1
        elif sign == b"{":
            depth += 1
        elif sign in (b"}", b"]"):
            depth -= 1
            del keys[max(depth, 0) :]
            if depth <= 0:
                break
        elif sign == b":":
            # only keys of objects that lie on the way are of interest
            if depth == len(keys) + 1 and len(keys) < len(wanted) and text == msgspec.json.encode(wanted[len(keys)]):
                keys.append(wanted[len(keys)])
        elif sign == b",":
            del keys[max(depth - 1, 0) :]
        else:
            text = sign
    place = "at its top; a large answer needs the stream's `records`" if not wanted else f"at {path!r}"
    raise MalformedPageError(f"no array of records {place}", is_truncated=False)


def _next_piece(body: mmap.mmap, at: int) -> tuple[int, list[Slice], bool]:
    """(where the next one begins, records, whether the array ends there).

    A cut after `}` is right when what is before it is a whole array of values once it is closed: inside of a text or of
    another value it never is.
    """
    window = body[at : at + _PIECE_BYTES]
    begin = len(window) - len(window.lstrip(_BLANK + b","))
    cut = len(window)
    for _ in range(_TRIES):
        cut = window.rfind(b"}", begin, cut)
        if cut < 0:
            break
        following = _sign_after(body, at + cut + 1)
        if body[following : following + 1] != b",":
            continue
        text = b"[" + window[begin : cut + 1].translate(_LINE_ENDS) + b"]"
        try:
            return following + 1, list(msgspec.json.decode(text, type=list[msgspec.Raw])), False
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            continue
    return _by_brackets(body, at)


def _by_brackets(body: mmap.mmap, at: int) -> tuple[int, list[Slice], bool]:
    """The same by brackets and commas alone; slower, and right for what msgspec refuses."""
    elements: list[Slice] = []
    depth, start = 0, at
    take: Callable[[int], None] = lambda end: _append(elements, body[start:end])  # noqa: E731  start moves
    for token in TOKEN.finditer(body, at):
        sign = token[0][:1]
        if sign in (b"{", b"["):
            depth += 1
        elif sign in (b"}", b"]"):
            depth -= 1
            if depth < 0:
                take(token.start())
                return token.end(), elements, True
        elif sign == b"," and depth == 0:
            take(token.start())
            start = token.end()
            if start - at >= _PIECE_BYTES:
                return start, elements, False
    raise MalformedPageError("the JSON ends early", is_truncated=True)


def _append(elements: list[Slice], value: bytes) -> None:
    if stripped := value.strip():
        elements.append(stripped.translate(_LINE_ENDS))


def _sign_after(body: mmap.mmap, at: int) -> int:
    while body[at : at + 1] and body[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
        at += 1
    return at
