"""The pages of one read: fetched in order, judged, and taken apart into raw records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from connectors.contract import Usage
from connectors.http.client import Call, HttpClient, Response
from connectors.http.errors import Fault, FaultError, excerpt
from connectors.http.hooks import NO_HOOKS, Hooks
from connectors.http.limits import RatePool
from connectors.http.pagination import LoopGuard, PageView, PagingError, Step, paginator
from connectors.http.records import SELF, JsonPage, MalformedPageError, Slice, join
from connectors.http.requests import Plan

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec

_REPORTING_KEYS = ("error", "errors", "message", "detail", "error_description", "reason")


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    body: the records, a newline between them. odd: elements that are no objects, by index.
    total: the source's own count of the whole read. following: the step after this page, None at the end.
    """

    number: int
    body: bytes
    rows: int
    odd: tuple[tuple[int, bytes], ...]
    total: int | None
    following: Step | None
    seconds: float


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
        self._paginator = paginator(reading.stream.pagination)
        self._loops = LoopGuard()
        self._records_path = reading.stream.records
        self._number = 0
        self.first = self._paginator.first()

    def page(self, step: Step) -> Page:
        """Raises HeadwaterError, classified."""
        self._number += 1
        call = Call(self._label, f"page {self._number}", self._usage, self._pool, self._is_stopped)
        return self._client.fetch(self._reading.request(step), call, lambda answer: self._accept(step, answer))

    def _accept(self, step: Step, answer: Response) -> Page:
        """The page, or a FaultError; only a truncated one may be tried again."""
        try:
            page = None if answer.status in self._stream.empty_statuses else JsonPage(_utf8(answer))
            records = self._records(page) if page is not None else ()
            body, odd = join(records)
            self._loops.check(step, body)
            following = self._following(page, records, answer)
            total = self._total(page, answer) if page is not None else None
        except MalformedPageError as error:
            raise FaultError(_malformed(error, answer)) from error
        except PagingError as error:
            raise FaultError(Fault("source", str(error), "Compare the stream's pagination with the source.")) from error
        rows = len(records) - len(odd)
        return Page(self._number, body, rows, tuple(odd), total, following, answer.seconds)

    def _following(self, page: JsonPage | None, records: Sequence[Slice], answer: Response) -> Step | None:
        if self._hooks.following is not None:
            return self._hooks.step(self._hooks.following, self._stream, page) if page is not None else None
        return self._paginator.following(PageView(page, records, answer.link_next))

    def _records(self, page: JsonPage) -> Sequence[Slice]:
        """Raises FaultError when the page has no records where it should."""
        if self._hooks.rows is not None:
            return self._hooks.cut(self._hooks.rows, self._stream, page)
        if self._records_path is None:
            # what the first page shows is what every page must have
            self._records_path = page.guess()
            if self._records_path is None:
                raise _missing(page, "no array of records")
        path = self._records_path
        found = page.slice_at(path)
        if found is not None and self._stream.single:
            return (found,)
        records = page.records_at(path)
        if records is not None:
            return records
        if found is not None and self._stream.null_is_empty and bytes(memoryview(found)) == b"null":
            return ()
        raise _missing(page, "no array at its top" if path == SELF else f"no array at {path!r}")

    def _total(self, page: JsonPage, answer: Response) -> int | None:
        path = self._stream.total
        if path is None:
            return None
        if path.startswith("header:"):
            said: object = answer.headers.get(path.removeprefix("header:").strip().lower())
        else:
            said = page.value_at(path)
        if isinstance(said, str) and said.isdecimal():
            said = int(said)
        if isinstance(said, int) and not isinstance(said, bool):
            return said
        if self._number == 1:
            raise FaultError(Fault("source", f"total: no number at {path!r}", "Correct the stream's `total`."))
        return None


def _missing(page: JsonPage, what: str) -> FaultError:
    said = ""
    for key in _REPORTING_KEYS:
        if (reported := page.slice_at(key)) is not None:
            said = f"; it says {key}{excerpt(bytes(memoryview(reported)), '')}"
            break
    keys = f"; its keys are {', '.join(page.keys[:8])}" if page.keys and not said else ""
    hint = "If the records are elsewhere, set the stream's `records`; an error may be classed in connector.errors."
    return FaultError(Fault("source", f"HTTP 200 with {what}", hint, detail=f"{keys}{said}"))


def _utf8(answer: Response) -> bytes:
    """The body as UTF-8; sources that declare another charset are rare, but exist."""
    charset = answer.headers.get("content-type", "").lower().partition("charset=")[2].partition(";")[0].strip(' "')
    if charset in ("", "utf-8", "utf8", "us-ascii", "ascii"):
        return answer.body
    try:
        return answer.body.decode(charset).encode()
    except (LookupError, UnicodeDecodeError) as error:
        raise MalformedPageError(f"not the {charset[:20]} text that it declares", is_truncated=False) from error


def _malformed(error: MalformedPageError, answer: Response) -> Fault:
    size = f"{len(answer.body):,} bytes"
    if error.is_truncated:
        what, hint = f"HTTP {answer.status} with {error}", "The answer was cut; sync again."
        return Fault("transient", what, hint, detail=f" ({size})")
    kind = answer.headers.get("content-type", "no content type")
    said = excerpt(answer.body, kind) if "html" in kind or answer.body.lstrip()[:1] == b"<" else ""
    hint = "Check base_url and path; a login or maintenance page may stand before the source."
    return Fault("source", f"HTTP {answer.status} with {error}", hint, detail=f" ({kind}, {size}){said}")
