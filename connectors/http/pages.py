"""The pages of one read: fetched in order, judged, and taken apart into raw records."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.contract import Usage
from connectors.http.client import Call, HttpClient, Response
from connectors.http.conditional import NO_VALIDATORS, NOT_MODIFIED, Validators
from connectors.http.errors import Fault, FaultError, excerpt
from connectors.http.formats import Layout, page_of
from connectors.http.hooks import NO_HOOKS, Hooks
from connectors.http.limits import RatePool
from connectors.http.pagination import LoopGuard, PageView, PagingError, Step, paginator, says_more
from connectors.http.records import SELF, JsonPage, MalformedPageError, Slice, join
from connectors.http.requests import Plan
from connectors.http.spooled import SpooledAnswer
from connectors.measures import number_text, sum_of

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec

_REPORTING_KEYS = ("error", "errors", "message", "detail", "error_description", "reason")


@dataclass(frozen=True, slots=True)
class Part:
    """Records of a page, a newline between them; odd: elements that are no objects, by index."""

    body: bytes
    rows: int
    odd: tuple[tuple[int, bytes], ...]


@dataclass(slots=True)
class Page:
    """One page.

    parts: its records, read once; one part, or several of an answer too large for memory. total: the source's own count
    of the whole read, complete when the parts are read. rows: of the first part. validators: what the answer says of
    its version. is_unchanged: the source says that there is nothing newer. is_absent: its status says
    that there are no records. following: the step after it, None at the end. more: what says that others follow, of a
    stream that declares no pagination; complete when the parts are read.
    """

    number: int
    parts: Iterator[Part]
    rows: int
    total: int | None
    following: Step | None
    seconds: float
    validators: Validators = NO_VALIDATORS
    is_unchanged: bool = False
    is_absent: bool = False
    sums: Mapping[str, str] = field(default_factory=dict[str, str])
    more: str = ""


class PageFetcher:
    """Fetches page after page; used by one thread at a time."""

    def __init__(
        self,
        client: HttpClient,
        reading: Plan,
        label: str,
        usage: Usage,
        pool: RatePool,
        is_stopped: Callable[[], bool],
        hooks: Hooks = NO_HOOKS,
    ) -> None:
        self._client = client
        self._hooks = hooks
        self._reading = reading
        self._label = label
        self._usage = usage
        self._pool = pool
        self._is_stopped = is_stopped
        self._stream: HttpStreamSpec = reading.stream
        self._paginator = paginator(reading.stream.pagination, reading.stream.primary_key)
        self._absent = reading.accepted
        self._loops = LoopGuard()
        self._records_path = reading.stream.records
        self._number = 0
        self.place = ""
        self.first = self._paginator.first()

    def page(self, step: Step) -> Page:
        """Raises HeadwaterError, classified."""
        self._number += 1
        call = Call(self._label, f"{self.place}page {self._number}", self._usage, self._pool, self._is_stopped)
        return self._client.fetch(self._reading.request(step), call, lambda answer: self._accept(step, answer))

    def _accept(self, step: Step, answer: Response) -> Page:
        """The page, or a FaultError; only a truncated one may be tried again."""
        if answer.status == NOT_MODIFIED:
            return Page(self._number, iter(()), 0, None, None, answer.seconds, is_unchanged=True)
        validators = Validators.of(answer.headers)
        if answer.spooled is not None:
            page = Page(self._number, iter(()), 0, None, None, answer.seconds, validators)
            page.parts = self._spooled(answer, answer.spooled, page)
            return page
        try:
            page = None if answer.status in self._absent else page_of(*self._laid_out(answer))
            records = self._paginator.fresh(self._records(page)) if page is not None else ()
            body, odd = join(records)
            self._loops.check(step, body)
            following = self._following(page, records, answer)
            total = self._total(page, answer) if page is not None else None
        except MalformedPageError as error:
            raise FaultError(_malformed(error, answer)) from error
        except PagingError as error:
            raise FaultError(Fault("source", str(error), "Compare the stream's pagination with the source.")) from error
        part = Part(body, len(records) - len(odd), tuple(odd))
        absent = page is None
        return Page(
            self._number, iter((part,)), part.rows, total, following, answer.seconds, validators, is_absent=absent,
            sums=self._sums(page), more=self._more(page, len(records), answer),
        )  # fmt: skip

    def _spooled(self, answer: Response, path: Path, page: Page) -> Generator[Part]:
        """The parts of an answer that is in a file. Raises HeadwaterError, classified."""
        layout = replace(self._layout, charset=charset_of(answer))
        found = SpooledAnswer(path, layout)
        size, rows = path.stat().st_size, 0
        try:
            for records in found.pieces():
                body, odd = join(records)
                rows += len(records)
                yield Part(body, len(records) - len(odd), tuple(odd))
            page.total, page.sums = self._total(found.page, answer), self._sums(found.page)
            page.more = self._more(found.page, rows, answer)
        except MalformedPageError as error:
            fault = _malformed(error, answer, size)
        except FaultError as error:
            fault = error.fault
        else:
            return
        mask = self._client.mask
        what = mask(f"{fault.what} on {self.place}page {page.number}") + fault.shown_detail(mask)
        raise fault.as_error(self._label, what)

    @property
    def _layout(self) -> Layout:
        stream = self._stream
        return Layout(stream.format, self._records_path, stream.delimiter, stream.max_record_bytes)

    def _laid_out(self, answer: Response) -> tuple[bytes, Layout]:
        """The body as the format's reader takes it; an XML document says its charset itself."""
        return answer.body if self._stream.format == "xml" else _utf8(answer), self._layout

    def _following(self, page: JsonPage | None, records: Sequence[Slice], answer: Response) -> Step | None:
        if self._hooks.following is not None:
            return self._hooks.step(self._hooks.following, self._stream, page) if page is not None else None
        return self._paginator.following(PageView(page, records, answer.link_next))

    def _more(self, page: JsonPage | None, rows: int, answer: Response) -> str:
        stream = self._stream
        if stream.pagination.type != "none" or "pagination" in stream.model_fields_set or stream.single:
            return ""
        is_counted = stream.total is not None or self._hooks.following is not None
        return "" if is_counted else says_more(PageView(page, (), answer.link_next), rows)

    def _records(self, page: JsonPage) -> Sequence[Slice]:
        """Raises FaultError when the page has no records where it should."""
        if self._hooks.rows is not None:
            return self._hooks.cut(self._hooks.rows, self._stream, page)
        if self._stream.format in ("jsonl", "csv"):
            return page.records_at(SELF) or ()
        if self._records_path is None:
            # what the first page shows is what every page must have
            self._records_path = page.guess()
            if self._records_path is None:
                raise _missing(page, "no array of records")
        path = self._records_path
        if self._stream.single and (whole := page.slice_at(path)) is not None:
            return (whole,)
        records = page.records_at(path)
        if records is not None:
            return records
        found = page.slice_at(path)
        if found is not None and self._stream.null_is_empty and bytes(memoryview(found)) == b"null":
            return ()
        raise _missing(page, "no array at its top" if path == SELF else f"no array at {path!r}")

    def _total(self, page: JsonPage | None, answer: Response) -> int | None:
        path = self._stream.total
        if path is None:
            return None
        if path.startswith("header:"):
            said: object = answer.headers.get(path.removeprefix("header:").strip().lower())
        else:
            said = page.value_at(path) if page is not None else None
        if isinstance(said, str) and said.isdecimal():
            said = int(said)
        if isinstance(said, int) and not isinstance(said, bool):
            return said
        if self._number == 1:
            raise FaultError(Fault("source", f"total: no number at {path!r}", "Correct the stream's `total`."))
        return None

    def _sums(self, page: JsonPage | None) -> Mapping[str, str]:
        if page is None:
            return {}
        said = ((sum_of(column), number_text(page.value_at(path))) for column, path in self._stream.sums.items())
        return {measure: text for measure, text in said if text is not None}


def _missing(page: JsonPage, what: str) -> FaultError:
    said = ""
    for key in _REPORTING_KEYS:
        if (reported := page.slice_at(key)) is not None:
            said = f"; it says {key}{excerpt(bytes(memoryview(reported)), '')}"
            break
    keys = f"; its keys are {', '.join(page.keys[:8])}" if page.keys and not said else ""
    hint = "If the records are elsewhere, set the stream's `records`; an error may be classed in connector.errors."
    return FaultError(Fault("source", f"HTTP 200 with {what}", hint, detail=f"{keys}{said}"))


def charset_of(answer: Response) -> str:
    """What the answer declares; UTF-8 when it says nothing."""
    kind = answer.headers.get("content-type", "").lower()
    charset = kind.partition("charset=")[2].partition(";")[0].strip(' "')
    return "utf-8" if charset in ("", "utf-8", "utf8", "us-ascii", "ascii") else charset


def _utf8(answer: Response) -> bytes:
    """The body as UTF-8; sources that declare another charset are rare, but exist."""
    charset = charset_of(answer)
    if charset == "utf-8":
        return answer.body
    try:
        return answer.body.decode(charset).encode()
    except (LookupError, UnicodeDecodeError) as error:
        raise MalformedPageError(f"not the {charset[:20]} text that it declares", is_truncated=False) from error


def _malformed(error: MalformedPageError, answer: Response, size_bytes: int | None = None) -> Fault:
    size = f"{len(answer.body) if size_bytes is None else size_bytes:,} bytes"
    if error.is_truncated:
        what, hint = f"HTTP {answer.status} with {error}", "The answer was cut; sync again."
        return Fault("transient", what, hint, detail=f" ({size})")
    kind = answer.headers.get("content-type", "no content type")
    said = excerpt(answer.body, kind) if "html" in kind or answer.body.lstrip()[:1] == b"<" else ""
    hint = "Check base_url and path; a login or maintenance page may stand before the source."
    return Fault("source", f"HTTP {answer.status} with {error}", hint, detail=f" ({kind}, {size}){said}")
