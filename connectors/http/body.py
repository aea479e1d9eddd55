"""An answer's body, read and decompressed up to a limit, before anything parses it."""

import zlib
from collections.abc import Iterable
from typing import Final

_STEP: Final = 1 << 20


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
    """The decoded body and the bytes received for it.

    A small answer that grows without end is stopped at the limit: at most `limit` + 1 MiB is ever in memory.

    Args:
        encoding: Content-Encoding: identity, gzip or deflate.
        declared: Content-Length.
        limit: bytes, received and decoded alike.

    Raises:
        TooLargeError, BrokenEncodingError.
    """
    if declared is not None and declared > limit:
        raise TooLargeError(declared)
    names = [name.strip() for name in encoding.lower().split(",") if name.strip() not in ("", "identity")]
    if not names:
        return _plain(chunks, limit)
    if names not in (["gzip"], ["x-gzip"], ["deflate"]):
        raise BrokenEncodingError(f"Content-Encoding {encoding!r}, which was not asked for", is_cut=False)
    return _inflated(chunks, limit, is_gzip=names != ["deflate"])


def _plain(chunks: Iterable[bytes], limit: int) -> tuple[bytes, int]:
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise TooLargeError(size)
        parts.append(chunk)
    return b"".join(parts), size


def _inflated(chunks: Iterable[bytes], limit: int, *, is_gzip: bool) -> tuple[bytes, int]:
    parts: list[bytes] = []
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
            parts.append(part)
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
    if received and not inflater.eof:
        raise BrokenEncodingError("the compressed body ends early", is_cut=True)
    return b"".join(parts), received
