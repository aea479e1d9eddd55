"""The bytes of one file: unpacked on the way, bounded, and stopped when asked."""

import io
import lzma
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from connectors.contract import ReadContext
from connectors.errors import Cancelled, ResourceError, SourceError
from connectors.files.seen import FileInfo

if TYPE_CHECKING:
    from connectors.files.store import Store

CHUNK_BYTES = 1 << 20
FREE_BYTES = 256 << 20
"""A file may always unpack to so much, whatever its size."""


class _Counted(io.RawIOBase):
    """A reader that tells how much went through it. broken: makes of a failed read what the platform raises."""

    def __init__(
        self, source: Any, passed: Callable[[int], None], broken: Callable[[Exception], Exception] | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._passed = passed
        self._broken = broken

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(len(buffer))
        except (EOFError, OSError, lzma.LZMAError) as error:
            if self._broken is None:
                raise
            raise self._broken(error) from error
        buffer[: len(data)] = data
        self._passed(len(data))
        return len(data)


@contextmanager
def opened(
    store: "Store", file: FileInfo, compression: str, max_expansion: int, where: str, context: ReadContext
) -> Generator[io.BufferedReader]:
    """The file's unpacked bytes, in order.

    Raises (while it is read):
        SourceError: the packed stream is broken or cut off. ResourceError: it unpacks to more than `max_expansion`
        times its size. Cancelled. Whatever the store's errors are classified as.
    """

    def received(size: int) -> None:
        context.usage.received_bytes += size
        if context.cancelled.is_set():
            raise Cancelled(where, f"stopped in {file.path}", "Files read before stay; sync again.")

    unpacked = 0

    def unpacking(size: int) -> None:
        nonlocal unpacked
        unpacked += size
        if unpacked > max(FREE_BYTES, file.size_bytes * max_expansion):
            raise too_large(where, file, unpacked, max_expansion)

    def broken(error: Exception) -> SourceError:
        return SourceError(
            where,
            f"{file.path} is broken or cut off: {_first_line(error)}",
            "Deliver it again; the files read before it stay.",
        )

    context.usage.requests += 1
    with store.open(where, file) as raw:
        counted: Any = io.BufferedReader(_Counted(raw, received), CHUNK_BYTES)
        if compression == "none":
            yield counted
            return
        if not counted.peek(1):
            # the unpackers take it for a file of nothing; it is one that did not arrive
            raise broken(EOFError("it has no bytes"))
        packed: Any = _unpacker(counted, compression)
        yield io.BufferedReader(_Counted(packed, unpacking, broken), CHUNK_BYTES)


def too_large(where: str, file: FileInfo, unpacked_bytes: int, max_expansion: int) -> ResourceError:
    return ResourceError(
        where,
        f"{file.path} of {file.size_bytes:,} bytes unpacks to more than {unpacked_bytes:,}",
        f"It looks like a bomb; if it is none, raise max_expansion (now {max_expansion}).",
    )


def _unpacker(raw: IO[bytes], compression: str) -> Any:
    """A reader of the unpacked bytes; one that is cut off raises, it never ends early."""
    if compression == "xz":
        return lzma.open(raw)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
