"""A CSV whose bytes COPY may have as they are: parsed and checked here, block by block, but not written anew.

A block goes straight only when Arrow reads every value of it into the stream's types, and COPY is known to read the
same values from the same bytes. Any doubt sends the block to `DelimitedReader`, whose frames the engine takes; what is
odd about the file as a whole (a quote that does not close, a carriage return, a NUL) sends the rest of it there.
"""

import io
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from connectors.contract import CopyFile, Frame, ReadContext, Rejected
from connectors.copy_columns import copy_columns
from connectors.files.columns import ColumnTypes
from connectors.files.delimited import DelimitedReader
from connectors.texts import compute

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.kinds.files import FilesStreamSpec

BLOCK_BYTES = 4 << 20
PART_BYTES = 8 << 20
_QUOTED = re.compile(rb'(?<![^,\n])"[^"]*(?:""[^"]*)*"(?![^,\n])')
"""A field in quotes from delimiter to delimiter; PostgreSQL reads quotes inside a field otherwise than pyarrow does."""
_TIMESTAMP = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"
)
_DAY_ONE = -719_162
_EXACT = 2**53
_DIGITS = 38


def goes_straight(stream: "FilesStreamSpec", context: ReadContext) -> bool:
    """The file's form is COPY's own, and nothing but types has to be looked at: a part on disk has the plain values."""
    is_plain = (stream.delimiter, stream.quote, stream.escape) == (",", '"', "")
    is_utf8 = stream.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    is_whole = context.window is None and context.page_limit is None
    return is_plain and is_utf8 and is_whole and not stream.has_column_rules


class StraightReader:
    """One CSV file. The arguments are those of DelimitedReader; context: its folder takes the parts."""

    def __init__(
        self,
        where: str,
        name: str,
        stream: "FilesStreamSpec",
        types: ColumnTypes,
        context: ReadContext,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._where = where
        self._name = name
        self._stream = stream
        self._types = types
        self._folder = context.folder
        self._block_bytes = block_bytes
        self._nulls = [text.encode() for text in stream.null_values]
        self._file: IO[bytes] | None = None
        self._path = Path()
        self._schema: pa.Schema | None = None
        self._first = self._rows = self._size = 0

    def read(self, source: io.BufferedReader) -> Iterator[CopyFile | Frame | Rejected]:
        """Frames, rejected lines and files for COPY, in file order; raises what DelimitedReader raises."""
        slow = DelimitedReader(self._where, self._name, self._stream, self._types)
        # the header, and the values that decide the types
        head, rest = _cut(source.read(self._block_bytes // 2))
        yield from slow.read(_buffered(head, None if head else source, rest))
        if not head:
            return
        rest_of = self._stream.model_copy(update={"header": False, "skip_rows": 0, "names": slow.names})
        while block := rest + source.read(self._block_bytes):
            if self._file is None:
                self._schema = _straight(self._types.schema(slow.names))
            block, rest = _cut(block)
            is_odd = not block or b"\r" in block or b"\x00" in block
            rows = None if is_odd else self._rows_of(block, slow.names)
            if rows is not None:
                self._put(block, rows, slow.line)
                slow.line += rows
                if self._size >= PART_BYTES:
                    yield self._part()
                continue
            if self._file is not None:
                yield self._part()
            line, slow = slow.line, DelimitedReader(self._where, self._name, rest_of, self._types)
            yield from slow.read(_buffered(block, source if is_odd else None, rest), line)
            if is_odd:
                return
        if self._file is not None:
            yield self._part()

    def _put(self, block: bytes, rows: int, line: int) -> None:
        if self._file is None:
            self._path = self._folder / f"line-{line}.csv"
            while self._path.exists():
                self._path = self._path.with_name(f"_{self._path.name}")
            self._file = self._path.open("wb", buffering=0)
            self._first, self._rows, self._size = line, 0, 0
        self._file.write(block)
        self._rows += rows
        self._size += len(block)

    def _part(self) -> CopyFile:
        assert self._file is not None
        assert self._schema is not None
        self._file.close()
        self._file = None
        return CopyFile(self._path, copy_columns(self._schema), self._rows, f"{self._name} line {self._first}")

    def _rows_of(self, block: bytes, names: tuple[str, ...]) -> int | None:
        """The block's rows; None when it must not go as it is."""
        import pyarrow as pa
        import pyarrow.csv as pcsv

        schema = self._schema
        if schema is None or len(names) < 2 or any(text in block for text in self._nulls):
            return None
        pairs = _Pairs(block)
        if pairs.has(b"\n", b"\n") or block.startswith(b"\n") or pairs.has(b"0", b"xX"):
            return None
        has_quotes = b'"' in block
        if has_quotes and b'"' in _QUOTED.sub(b"", block):
            return None
        # pyarrow drops spaces around a number, which the engine does not; texts keep theirs
        is_loose = block[:1] in b" \t" or pairs.has(b" \t", b",\n") or pairs.has(b",\n", b" \t")
        is_tight = not is_loose and not (has_quotes and pairs.has(b'"', b'"'))
        kinds = {field.name: field.type if is_tight else pa.string() for field in schema}
        try:
            table = pcsv.read_csv(
                pa.py_buffer(block),
                read_options=pcsv.ReadOptions(column_names=list(names), block_size=len(block) + 1, use_threads=False),
                parse_options=pcsv.ParseOptions(newlines_in_values=has_quotes),
                convert_options=pcsv.ConvertOptions(
                    column_types={
                        name: pa.string() if pa.types.is_timestamp(kind) else kind for name, kind in kinds.items()
                    },
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=[""],
                ),
            )
            is_fit = all(_is_fit(table.column(field.name), field.type, block) for field in schema)
        except pa.ArrowException:
            return None
        return table.num_rows if is_fit else None


def _straight(schema: "pa.Schema | None") -> "pa.Schema | None":
    """The schema where COPY and Arrow agree on all of its types; else None."""
    import pyarrow as pa

    kinds = pa.types
    for field in schema or ():
        kind = field.type
        is_exact = kinds.is_decimal128(kind) and kind.precision + kind.scale <= _DIGITS
        if not is_exact and not any(
            (kinds.is_int64(kind), kinds.is_float64(kind), kinds.is_boolean(kind), kinds.is_date32(kind),
             kinds.is_timestamp(kind), kinds.is_string(kind))
        ):  # fmt: skip
            return None
    return schema


def _is_fit(column: Any, kind: "pa.DataType", block: bytes) -> bool:
    """COPY reads the same values. Raises ArrowException when Arrow itself cannot read them."""
    import pyarrow as pa

    pc = compute()
    if pa.types.is_timestamp(kind):
        if pc.all(pc.match_substring_regex(column, _TIMESTAMP)).as_py() is False:
            return False
        days = column.cast(kind).cast(pa.int64())
        return (pc.min(days).as_py() or 0) >= _DAY_ONE * 86_400_000_000
    if column.type != kind:
        column = column.cast(kind)
    if pa.types.is_float64(kind):
        # an integer that lost digits, an infinity, NaN, a number too small: the engine has its own mind about each
        greatest = pc.max(pc.abs(column)).as_py() or 0.0
        is_small = b"e-" in block or b"E-" in block
        return not is_small and greatest < _EXACT and not pc.any(pc.is_nan(column)).as_py()
    if pa.types.is_decimal128(kind):
        # pyarrow counts the digits as they stand, before it adds those of the scale
        ends = [abs(end) for end in pc.min_max(column).as_py().values() if end is not None]
        return max(ends, default=0) < 10 ** (kind.precision - kind.scale)
    if pa.types.is_date32(kind):
        return (pc.min(column.cast(pa.int32())).as_py() or 0) >= _DAY_ONE
    return True


class _Pairs:
    """Two bytes beside each other, looked for by vector instructions: `in` takes five times as long."""

    def __init__(self, data: bytes) -> None:
        import pyarrow as pa

        self._pc = compute()
        self._bytes = data
        self._data = pa.Array.from_buffers(pa.uint8(), len(data), [None, pa.py_buffer(data)])
        self._found: dict[int, Any] = {}

    def has(self, first: bytes, second: bytes) -> bool:
        """One of the first, and one of the second after it."""
        left, right = self._where(first), self._where(second)
        return (
            left is not None
            and right is not None
            and bool(self._pc.any(self._pc.and_(left.slice(0, len(left) - 1), right.slice(1))).as_py())
        )

    def _where(self, members: bytes) -> Any:
        """Which of the bytes are one of these; None when none is."""
        import pyarrow as pa

        for byte in members:
            if byte not in self._found and byte in self._bytes:
                self._found[byte] = self._pc.equal(self._data, pa.scalar(byte, pa.uint8()))
        found = [self._found[byte] for byte in members if byte in self._found]
        return reduce(self._pc.or_, found) if found else None


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Whole records, and the beginning of the next; no record where none ends."""
    end = len(data)
    for _ in range(1_000):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            break
        if data.count(b'"', 0, end) % 2 == 0:
            return data[: end + 1], data[end + 1 :]
    return b"", data


def _buffered(head: bytes, source: io.BufferedReader | None, rest: bytes) -> io.BufferedReader:
    """The bytes, then the rest and the source where there is one."""
    return io.BufferedReader(_Chained([head, rest] if source is not None else [head], source), 1 << 20)


class _Chained(io.RawIOBase):
    def __init__(self, pieces: list[bytes], source: io.BufferedReader | None) -> None:
        super().__init__()
        self._pieces = [io.BytesIO(piece) for piece in pieces]
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._pieces:
            if size := self._pieces[0].readinto(buffer):
                return size
            del self._pieces[0]
        return self._source.readinto(buffer) if self._source is not None else 0
