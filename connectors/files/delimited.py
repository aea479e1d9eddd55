"""CSV: pyarrow's streaming parser over columns of bytes, then text, then types.

Columns are parsed as bytes so that one bad byte costs a row and not the file, and no column is typed by one block.
"""

import csv
import io
import re
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from connectors.contract import Frame, Rejected
from connectors.errors import ConfigError, ResourceError, SourceError
from connectors.files.columns import ColumnTypes
from connectors.files.naming import unique_names
from connectors.texts import decoded

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.kinds.files import FilesStreamSpec

HEAD_BYTES = 1 << 18
_BLOCK_BYTES = 2 << 20
AHEAD_BYTES = 8 << 20
"""The parser would read 32 blocks ahead; it is held near its consumer."""
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_RIVALS = ",;\t|"


class DelimitedReader:
    """One CSV file. where: the stream, for messages. name: the file, for positions. null_values: the stream's own."""

    def __init__(self, where: str, name: str, stream: "FilesStreamSpec", types: ColumnTypes) -> None:
        self._where = where
        self._name = name
        self._stream = stream
        self._types = types
        self._bad: deque[Any] = deque()
        self._last_bad: Any = None
        self._quotes = 0
        self._before = 0
        self._brake = _Brake()
        self.names: tuple[str, ...] = ()
        self.line = 1 + stream.skip_rows + int(stream.header)

    def read(self, source: io.BufferedReader, line: int | None = None) -> Iterator[Frame | Rejected]:
        """Frames and rejected lines, in file order. line: of the first record, where other readers read before.

        Afterwards `names` are the columns', and `line` is that of the record that would follow.

        Raises:
            ConfigError: the delimiter, encoding or header does not fit the file. SourceError: it ends inside quotes,
            or is no CSV. ResourceError: a record longer than max_record_bytes.
        """
        import pyarrow as pa
        import pyarrow.csv as pcsv

        head = source.read(HEAD_BYTES)
        if not head.strip():
            return
        encoding = self._encoding(head)
        names = self._names(head, encoding)
        self.names = tuple(names)
        self._before = line - 1 if line else 0
        self.line = line or self.line
        stream = self._stream
        block = max(_BLOCK_BYTES, stream.max_record_bytes)
        # one more line end does no harm where lines end so; in UTF-16 and its like it would
        end = b"\n" if "\n".encode(encoding) == b"\n" else b""
        watched: Any = io.BufferedReader(_Watched(head, source, self._watch, end), 1 << 20)
        try:
            batches = pcsv.open_csv(
                pa.PythonFile(watched, mode="r"),
                # one thread: with several the parser does not know the numbers of bad lines
                read_options=pcsv.ReadOptions(
                    use_threads=False,
                    block_size=block,
                    skip_rows=stream.skip_rows,
                    column_names=names,
                    skip_rows_after_names=1 if stream.header else 0,
                    encoding=encoding,
                ),
                parse_options=pcsv.ParseOptions(
                    delimiter=stream.delimiter,
                    quote_char=stream.quote or False,
                    escape_char=stream.escape or False,
                    newlines_in_values=True,
                    invalid_row_handler=self._set_aside,
                ),
                convert_options=pcsv.ConvertOptions(
                    column_types={name: pa.binary() for name in names},
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    null_values=["", *stream.null_values],
                ),
            )
            yield from self._frames(batches)
        except (pa.ArrowException, UnicodeError) as error:
            raise self._failure(error) from error

    def _frames(self, batches: Any) -> Iterator[Frame | Rejected]:
        """The parser reads ahead: bad lines wait until the rows before them have passed."""
        import pyarrow as pa

        line = self.line
        last: Any = None
        for batch in self._brake.each(batches):
            table = pa.Table.from_batches([batch])
            if table.num_rows:
                first = line
                line, rejected, numbers = self._pass_bad(line, table.num_rows)
                yield from rejected
                yield from self._typed(table, first, numbers)
                last = table.slice(table.num_rows - 1)
        yield from (self._rejected(row) for row in self._bad)
        self.line = line + len(self._bad)
        self._bad.clear()
        texts = [value or b"" for value in (_values(last) if last is not None else ())]
        if self._last_bad is not None and self._last_bad.number >= line - 1:
            texts = [self._last_bad.text.encode()]
        if self._quotes % 2 and any(b"\n" in text for text in texts):
            raise SourceError(
                self._where,
                f"{self._name} ends inside quotes: its last record began at line {line - 1} or before",
                "It is cut off or has a stray quote; deliver it again, or set quote.",
            )

    def _pass_bad(self, line: int, rows: int) -> tuple[int, list[Rejected], Sequence[int]]:
        """The line after `rows` good ones from `line` on, the bad ones among them, and the places of the good ones."""
        first = line
        line += rows
        bad: list[Any] = []
        while self._bad and self._bad[0].number <= line:
            bad.append(self._bad.popleft())
            line += 1
        numbers: Sequence[int] = range(1, rows + 1)
        if bad:
            lines = {row.number for row in bad}
            numbers = [number - first + 1 for number in range(first, line) if number not in lines]
        return line, [self._rejected(row) for row in bad], numbers

    def _typed(self, table: "pa.Table", line: int, numbers: Sequence[int]) -> Iterator[Frame | Rejected]:
        import pyarrow as pa

        columns: list[Any] = []
        unreadable: dict[int, str] = {}
        for name in table.column_names:
            column, bad = decoded(table.column(name))
            columns.append(column)
            for row in bad:
                unreadable.setdefault(row, name)
        texts = pa.table(columns, names=table.column_names)
        position = f"{self._name} line {line}"
        for row, name in sorted(unreadable.items()):
            payload = self._stream.delimiter.encode().join(value or b"" for value in _values(table.slice(row, 1)))
            yield Rejected(
                payload,
                f"{name} is not {self._stream.encoding} text; set encoding if the whole file is in another",
                f"{self._name} line {line + numbers[row] - 1}",
            )
        if unreadable:
            texts = texts.filter(pa.array([row not in unreadable for row in range(texts.num_rows)]))
            numbers = [number for row, number in enumerate(numbers) if row not in unreadable]
        if texts.num_rows:
            yield Frame(self._types.typed(texts), position, numbers if numbers[-1] != len(numbers) else None)

    def _names(self, head: bytes, encoding: str) -> list[str]:
        """Column names, each once: of the contract's `names`, or of the header.

        An empty name becomes `column_<n>`, a repeated one gets a number: `total`, `total_2`.
        """
        if self._stream.names:
            return list(self._stream.names)
        lines = io.StringIO(head.decode(encoding, "replace").removeprefix("\ufeff"), newline="")
        for _ in range(self._stream.skip_rows):
            lines.readline()
        quote = self._stream.quote
        rows = csv.reader(
            lines,
            delimiter=self._stream.delimiter,
            quotechar=quote or None,
            quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
            escapechar=self._stream.escape or None,
        )
        header = next((row for row in rows if row), None)
        if header is None:
            raise SourceError(self._where, f"{self._name} has no header line", "Deliver it with one, or set names.")
        if len(header) == 1:
            self._suspect_delimiter(header[0])
        return unique_names(header)

    def _suspect_delimiter(self, header: str) -> None:
        rival = next((mark for mark in _RIVALS if mark != self._stream.delimiter and mark in header), None)
        if rival is not None:
            raise ConfigError(
                self._where,
                f"{self._name} has one column {header[:80]!r} with delimiter {self._stream.delimiter!r}",
                f"Set delimiter: {rival!r}, or names where the file really has one column.",
            )

    def _encoding(self, head: bytes) -> str:
        encoding = self._stream.encoding
        if head.startswith(_UTF16) and "utf-8" in encoding.lower().replace("utf8", "utf-8"):
            raise ConfigError(self._where, f"{self._name} is UTF-16, not {encoding}", "Set encoding: utf-16.")
        return encoding

    def _watch(self, data: bytes) -> None:
        self._brake.passed(len(data))
        if self._stream.quote:
            self._quotes += data.count(self._stream.quote.encode())

    def _set_aside(self, row: Any) -> str:
        self._last_bad = row._replace(number=row.number + self._before)
        self._bad.append(self._last_bad)
        return "skip"

    def _rejected(self, row: Any) -> Rejected:
        return Rejected(
            row.text.encode("utf-8", "replace"),
            f"{row.actual_columns} fields where the header has {row.expected_columns}",
            f"{self._name} line {row.number}",
        )

    def _failure(self, error: Exception) -> Exception:
        text = next(iter(str(error).splitlines()), "")
        if "straddles two block" in text:
            return ResourceError(
                self._where,
                f"{self._name} has a record longer than {max(_BLOCK_BYTES, self._stream.max_record_bytes):,} bytes",
                "Look for an unclosed quote; if the record is right, raise max_record_bytes.",
            )
        if isinstance(error, UnicodeError):
            return ConfigError(
                self._where, f"{self._name} is not {self._stream.encoding}: {text}", "Set encoding to the file's own."
            )
        text = re.sub(r"^CSV parse error: ", "", text)
        return SourceError(
            self._where, f"{self._name} is no CSV: {text}", "Look at the file; check delimiter and quote."
        )


class _Brake:
    """Keeps the parser's own reading thread near its consumer: it reads on only while the consumer waits for a batch,
    or while less than AHEAD_BYTES were read since the last one.
    """

    def __init__(self) -> None:
        self._state = threading.Condition()
        self._is_awaited = True
        self._ahead = 0

    def passed(self, size: int) -> None:
        """Called by the reading thread, which may have to wait here."""
        with self._state:
            self._ahead += size
            self._state.wait_for(lambda: self._is_awaited or self._ahead < AHEAD_BYTES)

    def each(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches; the reading thread runs free while one is awaited, and when the consumer goes away."""
        try:
            for batch in batches:
                self._set(is_awaited=False)
                yield batch
                self._set(is_awaited=True)
        finally:
            self._set(is_awaited=True)

    def _set(self, *, is_awaited: bool) -> None:
        with self._state:
            self._is_awaited = is_awaited
            self._ahead = 0
            self._state.notify_all()


class _Watched(io.RawIOBase):
    """The head, then the rest, shown to a watcher as it passes."""

    def __init__(self, head: bytes, rest: io.BufferedReader, watch: Callable[[bytes], None], end: bytes) -> None:
        super().__init__()
        self._head = head
        self._rest = rest
        self._watch = watch
        self._end = end
        self._last = b"\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            data = self._rest.read1(len(buffer))
            if not data and self._last != b"\n":
                # the parser needs the last line's end
                data = self._end
        self._last = data[-1:] or b"\n"
        buffer[: len(data)] = data
        self._watch(data)
        return len(data)


def _values(row: "pa.Table") -> list[bytes | None]:
    return [column[0].as_py() for column in row.columns]
