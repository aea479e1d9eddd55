"""JSON Lines: raw bytes in pieces cut at line ends; the engine decodes them."""

import io
from collections.abc import Generator, Iterator

from connectors.contract import JsonRecords, Rejected
from connectors.errors import SourceError
from connectors.texts import has_longer_line

PIECE_BYTES = 4 << 20
KEPT_BYTES = 4_096
"""Of a line that is too long: its beginning, for quarantine."""
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class LinesReader:
    """One JSON Lines file. where: the stream, for messages. name: the file, for positions."""

    def __init__(self, where: str, name: str, max_record_bytes: int) -> None:
        self._where = where
        self._name = name
        self._max_record_bytes = max_record_bytes

    def read(self, source: io.BufferedReader) -> Iterator[JsonRecords | Rejected]:
        """Pieces of whole lines of about 4 MB; a line over the limit is rejected alone, unread.

        Raises:
            SourceError: one JSON array, or not UTF-8.
        """
        rest = b""
        line = 1
        is_first = True
        while piece := source.read(PIECE_BYTES):
            if is_first:
                piece, is_first = self._begun(piece), False
            body, newline, rest = (rest + piece).rpartition(b"\n")
            if newline:
                line = yield from self._lines(body, line)
            if len(rest) > self._max_record_bytes:
                rest = yield from self._skip_long(source, rest, line)
                line += 1
        if rest.strip():
            yield from self._lines(rest, line)

    def _lines(self, body: bytes, line: int) -> Generator[JsonRecords | Rejected, None, int]:
        """The lines as one piece, or as those between lines too long; returns the number of the line after them."""
        after = line + body.count(b"\n") + 1
        if has_longer_line(body, self._max_record_bytes):
            kept: list[bytes] = []
            for number, text in enumerate(body.split(b"\n"), line):
                if len(text) <= self._max_record_bytes:
                    kept.append(text)
                    continue
                yield from self._piece(b"\n".join(kept), line)
                yield self._too_long(text, len(text), number)
                kept, line = [], number + 1
            body = b"\n".join(kept)
        yield from self._piece(body, line)
        return after

    def _piece(self, body: bytes, line: int) -> Iterator[JsonRecords]:
        if body.strip():
            yield JsonRecords(body, f"{self._name} line {line}")

    def _skip_long(self, source: io.BufferedReader, begun: bytes, line: int) -> Generator[Rejected, None, bytes]:
        """Reads past a line without end; what follows it is handed back."""
        size = len(begun)
        rest = b""
        while piece := source.read(PIECE_BYTES):
            head, newline, rest = piece.partition(b"\n")
            size += len(head)
            if newline:
                break
        yield self._too_long(begun, size, line)
        return rest

    def _too_long(self, begun: bytes, size: int, line: int) -> Rejected:
        reason = f"a record of {size:,} bytes, more than max_record_bytes ({self._max_record_bytes:,}); its beginning"
        return Rejected(begun[:KEPT_BYTES], reason, f"{self._name} line {line}")

    def _begun(self, piece: bytes) -> bytes:
        piece = piece.removeprefix(_BOM)
        if piece.startswith(_UTF16):
            raise SourceError(self._where, f"{self._name} is UTF-16", "JSON Lines are UTF-8; deliver it so.")
        if piece.lstrip()[:1] == b"[":
            raise SourceError(
                self._where,
                f"{self._name} is one JSON array, not one object a line",
                "Deliver JSON Lines, e.g. with `jq -c '.[]'`.",
            )
        return piece
