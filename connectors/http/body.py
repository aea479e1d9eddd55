"""An answer's body, read and decompressed up to a limit, before anything parses it."""

import itertools
import uuid
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_STEP: Final = 1 << 20
_IN_MEMORY: Final = 8 << 20
_HEAD: Final = 1 << 12
_GZIP: Final = b"\x1f\x8b\x08"


class TooLargeError(Exception):
    """The body is beyond the limit. size_bytes: what was known of it then."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


class BrokenEncodingError(Exception):
    """The body is not what its Content-Encoding says, or ends early (is_cut)."""

    def __init__(self, what: str, *, is_cut: bool) -> None:
        super().__init__(what)
        self.is_cut = is_cut


def read_body(chunks: Iterable[bytes], encoding: str, declared: int | None, limit: int) -> tuple[bytes, int]:
    """The decoded body and the bytes received for it; at most `limit` + 1 MiB is ever in memory.

    See Decoding. Raises TooLargeError, BrokenEncodingError.
    """
    decoding = Decoding(encoding, declared, limit)
    return b"".join(decoding.pieces(chunks)), decoding.received


class Decoding:
    """One body on its way. received: bytes so far, before decompression.

    A body that is itself a gzip file, whatever its headers say, is unpacked too: no format begins with gzip's magic.

    Args:
        encoding: Content-Encoding: identity, gzip or deflate.
        declared: Content-Length.
        limit: bytes, received and decoded alike, so that a small answer that grows without end is stopped.
    """

    def __init__(self, encoding: str, declared: int | None, limit: int) -> None:
        self._names = [name.strip() for name in encoding.lower().split(",") if name.strip() not in ("", "identity")]
        self._encoding, self._declared, self._limit = encoding, declared, limit
        self.received = 0

    def pieces(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Decoded pieces of at most a MiB or a chunk. Raises TooLargeError, BrokenEncodingError."""
        if self._declared is not None and self._declared > self._limit:
            raise TooLargeError(self._declared)
        if self._names and self._names not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise BrokenEncodingError(f"Content-Encoding {self._encoding!r}, which was not asked for", is_cut=False)
        plain = self._counted(chunks)
        if self._names:
            plain = _inflated(plain, self._limit, is_gzip=self._names != ["deflate"])
        head = b""
        for piece in plain:
            head += piece
            if len(head) >= len(_GZIP):
                break
        plain = itertools.chain((head,), plain) if head else plain
        if head.startswith(_GZIP):
            plain = _inflated(plain, self._limit, is_gzip=True)
        yield from plain

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.received += len(chunk)
            if self.received > self._limit:
                raise TooLargeError(self.received)
            yield chunk


def spool(pieces: Iterable[bytes], folder: Path | None) -> tuple[bytes, Path | None]:
    """The body; beyond 8 MiB, where there is a folder, its beginning and the file there that holds all of it."""
    parts: list[bytes] = []
    size = 0
    remaining = iter(pieces)
    for piece in remaining:
        parts.append(piece)
        size += len(piece)
        if folder is not None and size > _IN_MEMORY:
            return b"".join(parts)[:_HEAD], _filed(itertools.chain(parts, remaining), folder)
    return b"".join(parts), None


def _filed(pieces: Iterable[bytes], folder: Path) -> Path:
    path = folder / f"answer-{uuid.uuid4().hex}"
    try:
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _inflated(chunks: Iterable[bytes], limit: int, *, is_gzip: bool) -> Iterator[bytes]:
    received = size = 0
    window = zlib.MAX_WBITS | 16 if is_gzip else zlib.MAX_WBITS
    inflater = zlib.decompressobj(window)
    is_first = True
    for chunk in chunks:
        received += len(chunk)
        if is_first and not is_gzip and chunk:
            # "deflate" means zlib, but some servers send the bare stream
            inflater = zlib.decompressobj(window if chunk[0] & 0x0F == 8 else -zlib.MAX_WBITS)
        is_first = is_first and not chunk
        rest = chunk
        while rest:
            if inflater.eof:
                if not is_gzip:
                    break
                inflater = zlib.decompressobj(window)
            try:
                part = inflater.decompress(rest, _STEP)
            except zlib.error as error:
                raise BrokenEncodingError(f"the compressed body is damaged: {error}", is_cut=True) from error
            size += len(part)
            if size > limit:
                raise TooLargeError(size)
            yield part
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if received and not inflater.eof:
        raise BrokenEncodingError("the compressed body ends early", is_cut=True)
