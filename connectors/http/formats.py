"""Answers that are JSON lines, CSV or XML, as the JSON records that everything after this reads.

A value of CSV or XML is text, an empty one null; the stream's columns say what it is. Every reader is a generator over
a binary file, so that a large answer is never in memory as a whole.
"""

import csv
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal, cast
from xml.parsers import expat

import msgspec

from connectors.http.records import SELF, JsonPage, MalformedPageError, Slice

Format = Literal["json", "jsonl", "csv", "xml"]

_BOM: Final = b"\xef\xbb\xbf"
_XML_STEP: Final = 1 << 16
_XML_DEPTH: Final = 100
_CUT: Final = frozenset(
    expat.errors.codes[said]
    for said in (
        expat.errors.XML_ERROR_NO_ELEMENTS,
        expat.errors.XML_ERROR_UNCLOSED_TOKEN,
        expat.errors.XML_ERROR_PARTIAL_CHAR,
        expat.errors.XML_ERROR_UNCLOSED_CDATA_SECTION,
    )
)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Layout:
    """What a stream's file says of an answer's format.

    records: the path of the records. charset: of the answer, as Python names it. max_record_bytes: of one record.
    """

    format: Format
    records: str | None
    delimiter: str
    max_record_bytes: int
    charset: str = "utf-8"


class RecordsPage(JsonPage):
    """A page of records that were no JSON array. envelope: what stood around them, as a JSON object.

    path: where the records were; has_place is False when there is no such place.
    """

    def __init__(self, records: list[Slice], path: str, envelope: bytes = b"{}", *, has_place: bool = True) -> None:
        super().__init__(envelope)
        self._records = records
        self._path = path
        self._has_place = has_place

    def slice_at(self, path: str) -> Slice | None:
        if path == SELF:
            return b"[" + b",".join(self._records) + b"]"
        return super().slice_at(path)

    def records_at(self, path: str) -> list[Slice] | None:
        if path != self._path:
            return super().records_at(path)
        return self._records if self._has_place else None

    def guess(self) -> str | None:
        return self._path


def page_of(body: bytes, layout: Layout) -> JsonPage:
    """A whole answer in memory. Raises MalformedPageError."""
    if layout.format == "json":
        return JsonPage(body, layout.records)
    file = io.BytesIO(body)
    if layout.format == "xml":
        reader = XmlReader(layout)
        found = list(reader.records(file))
        return RecordsPage(cast("list[Slice]", found), str(layout.records), reader.envelope, has_place=reader.has_place)
    return RecordsPage(cast("list[Slice]", list(lines_of(file, layout))), SELF)


def lines_of(file: BinaryIO, layout: Layout) -> Iterator[bytes]:
    """The records of JSON lines or CSV; what is no record is not an object. Raises MalformedPageError."""
    return _json_lines(file, layout) if layout.format == "jsonl" else _rows(file, layout)


def _json_lines(file: BinaryIO, layout: Layout) -> Iterator[bytes]:
    last = b""
    for number, raw in enumerate(_bounded_lines(file, layout.max_record_bytes)):
        line = (raw.removeprefix(_BOM) if number == 0 else raw).strip()
        if number == 0 and line[:1] == b"<":
            raise MalformedPageError("no JSON lines", is_truncated=False)
        if line:
            last = raw
            yield line
    if last and not last.endswith(b"\n"):
        try:
            msgspec.json.decode(last.removeprefix(_BOM), type=msgspec.Raw)
        except msgspec.DecodeError as error:
            raise MalformedPageError("the last of its JSON lines ends early", is_truncated=True) from error


def _bounded_lines(file: BinaryIO, limit: int) -> Iterator[bytes]:
    """Lines; one beyond the limit comes in pieces, none of which is an object."""
    while line := file.readline(limit + 2):
        if len(line) <= limit + 1 or line.endswith(b"\n"):
            yield line
            continue
        yield b"beyond max_record_bytes: " + line[:200].replace(b"\n", b" ") + b"\n"
        while line and not line.endswith(b"\n"):
            line = file.readline(1 << 20)


def _rows(file: BinaryIO, layout: Layout) -> Iterator[bytes]:
    text = _Counted(io.TextIOWrapper(file, layout.charset, errors="surrogateescape", newline=""))
    csv.field_size_limit(max(csv.field_size_limit(), layout.max_record_bytes))
    reader = csv.reader(text, delimiter=layout.delimiter, strict=True)
    try:
        header = next(reader, [])
        if not header:
            return
        header[0] = header[0].removeprefix("\ufeff")
        if header[0].lstrip().startswith("<") or (len(header) == 1 and header[0].lstrip().startswith("{")):
            raise MalformedPageError("no CSV", is_truncated=False)
        if twice := {name for name in header if not name or header.count(name) > 1}:
            raise MalformedPageError(f"a header with {sorted(twice)[0]!r} for two columns or none", is_truncated=False)
        for row in reader:
            if len(row) == len(header):
                yield _encoded(dict(zip(header, (cell or None for cell in row), strict=True)), row, layout)
            elif row:
                if not text.last.endswith(("\n", "\r")):
                    raise MalformedPageError("the last line of its CSV ends early", is_truncated=True)
                yield _odd(row, layout)
    except csv.Error as error:
        is_cut = "unexpected end of data" in str(error)
        raise MalformedPageError(f"broken CSV: {error}", is_truncated=is_cut) from error


class _Counted:
    """Lines of a text, the newest of them kept."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.last = ""

    def __iter__(self) -> Iterator[str]:
        for line in self._text:
            self.last = line
            yield line


def _encoded(record: dict[str, str | None], row: list[str], layout: Layout) -> bytes:
    try:
        return _ENCODER.encode(record)
    except UnicodeEncodeError:
        return _odd(row, layout)


def _odd(row: list[str], layout: Layout) -> bytes:
    """A row that is no record, in brackets so that nobody takes it for one."""
    return b"[" + layout.delimiter.join(row).encode("utf-8", "surrogateescape") + b"]"


class XmlReader:
    """One document: the elements at the records' path, and what stands around them.

    An element with attributes or children is an object: `@name` an attribute, `#text` its own text; children that come
    more than once are an array. Declared entities are refused: they are how a small document grows without end.
    """

    def __init__(self, layout: Layout) -> None:
        self._path = str(layout.records).split(".")
        self._limit = layout.max_record_bytes
        self._names: list[str] = []
        self._open: list[dict[str, Any]] = []
        self._texts: list[list[str]] = []
        self._ready: list[bytes] = []
        self._held = 0
        self._root: dict[str, Any] = {}
        self.has_place = False

    @property
    def envelope(self) -> bytes:
        """Complete once `records` has ended."""
        return _ENCODER.encode(self._root)

    def records(self, file: BinaryIO) -> Generator[bytes]:
        """Raises MalformedPageError."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.EntityDeclHandler = _refuse_entity
        try:
            while chunk := file.read(_XML_STEP):
                parser.Parse(chunk, False)
                yield from self._taken()
            parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise MalformedPageError(f"broken XML: {error}", is_truncated=error.code in _CUT) from error
        yield from self._taken()

    def _taken(self) -> list[bytes]:
        ready, self._ready = self._ready, []
        return ready

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._names) >= _XML_DEPTH:
            raise MalformedPageError(f"XML nested deeper than {_XML_DEPTH}", is_truncated=False)
        self._names.append(name)
        self._open.append({f"@{key}": value for key, value in attributes.items()})
        self._texts.append([])
        self._count(sum(map(len, attributes.values())) + len(name))
        self.has_place = self.has_place or self._names == self._path[:-1]

    def _text(self, text: str) -> None:
        if self._texts:
            self._texts[-1].append(text)
            self._count(len(text))

    def _count(self, size: int) -> None:
        self._held += size
        if self._held > self._limit:
            raise MalformedPageError(f"more than {self._limit:,} characters in one record", is_truncated=False)

    def _end(self, name: str) -> None:
        is_record = self._names == self._path
        self._names.pop()
        found, text = self._open.pop(), "".join(self._texts.pop())
        if is_record:
            self._ready.append(_ENCODER.encode({**found, "#text": text} if text.strip() else found))
            self._held = 0
            return
        value: Any = found
        if not found:
            value = text or None
        elif text.strip():
            found["#text"] = text
        into = self._open[-1] if self._open else self._root
        if name not in into:
            into[name] = value
        elif isinstance(into[name], list):
            into[name].append(value)
        else:
            into[name] = [into[name], value]


def _refuse_entity(*_: object) -> None:
    raise MalformedPageError("XML that declares entities, which is how a small document grows", is_truncated=False)
