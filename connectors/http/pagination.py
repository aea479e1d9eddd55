"""Which request follows a page, for each flavour of paging.

A paginator is asked once for each page, in order. It answers None at the end and raises PagingError when the page
cannot say how to go on: a read that ends early must never look like one that is complete.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from connectors.http.records import JsonPage, Slice, decode
from connectors.http.specs import (
    CursorPaging,
    KeysetPaging,
    NextLinkPaging,
    NoPaging,
    OffsetPaging,
    PageNumberPaging,
    PagingSpec,
)


class PagingError(Exception):
    """The source's answer contradicts the declared paging."""


@dataclass(frozen=True, slots=True)
class Step:
    """What changes from page to page: parameters, or the whole address."""

    params: Mapping[str, str] = field(default_factory=dict[str, str])
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PageView:
    """A page as a paginator sees it.

    link_next: the address in the Link header with rel=next.
    page: None when the status alone says that there are no records.
    """

    page: JsonPage | None
    records: Sequence[Slice]
    link_next: str | None = None


class Paginator(Protocol):
    def first(self) -> Step: ...

    def fresh(self, records: Sequence[Slice]) -> Sequence[Slice]:
        """The page's records without those that were asked for a second time. Raises PagingError."""
        ...

    def following(self, view: PageView) -> Step | None:
        """The next request, or None at the end. Raises PagingError."""
        ...


def paginator(spec: PagingSpec, key: Sequence[str] = ()) -> Paginator:
    """key: the fields that tell one record from another; without any, all of them do."""
    match spec:
        case NoPaging():
            return _Single()
        case PageNumberPaging():
            return _PageNumber(spec)
        case OffsetPaging():
            return _Offset(spec, key)
        case CursorPaging():
            return _Cursor(spec)
        case NextLinkPaging():
            return _NextLink(spec)
        case KeysetPaging():
            return _Keyset(spec)


_MORE_IF_TRUE = ("has_more", "hasMore", "has_next", "hasNext", "hasNextPage")
_MORE_IF_TEXT = (
    "next", "next_page", "nextPage", "next_url", "next_link", "nextLink", "@odata.nextLink", "next_cursor",
    "nextCursor", "next_page_token", "nextPageToken",
)  # fmt: skip
_MORE_IF_GREATER = ("total", "total_count", "totalCount", "total_results", "count")
_MORE_WORDS = frozenset((*_MORE_IF_TRUE, *_MORE_IF_TEXT, *_MORE_IF_GREATER))


def says_more(view: PageView, rows: int) -> str:
    """What in an answer of `rows` records says that others follow it; nothing where nothing does.

    For streams that declare no pagination: the words that sources use for it, at the top of the answer.
    """
    if view.link_next is not None:
        return "a Link header with rel=next"
    page = view.page
    for key in page.keys if page is not None else ():
        value = page.value_at(key) if page is not None and key in _MORE_WORDS else None
        is_more = (
            (key in _MORE_IF_TRUE and value is True)
            or (key in _MORE_IF_TEXT and isinstance(value, str) and value != "")
            or (key in _MORE_IF_GREATER and isinstance(value, int) and not isinstance(value, bool) and value > rows)
        )
        if is_more:
            return f"{key}: {str(value)[:100]}"
    return ""


_KEPT_BYTES = 4 << 20
"""Two pages differ at their first bytes as a rule, so that to compare them takes nothing; to hash them takes long."""


class LoopGuard:
    """Finds that a read goes round: the same page twice in a row, or a cycle of any length, in constant memory.

    Brent's method: one earlier page is remembered and replaced at every power of two; a cycle of n pages is found
    after fewer than 3 n pages beyond its start.
    """

    def __init__(self) -> None:
        self._pages = 0
        self._remembered: tuple[bytes, bytes] | None = None
        self._last = b""

    def check(self, step: Step, body: bytes) -> None:
        """`body` is the page's records. Raises PagingError when this page was seen before."""
        request = hashlib.blake2b(repr((sorted(step.params.items()), step.url)).encode(), digest_size=16).digest()
        mark = body if len(body) <= _KEPT_BYTES else hashlib.blake2b(body, digest_size=16).digest()
        if mark and mark == self._last:
            raise PagingError("the same records came twice in a row; the source ignores the paging parameter")
        if self._remembered is not None:
            if request == self._remembered[0]:
                raise PagingError("the source leads back to a page that was already read")
            if mark and mark == self._remembered[1]:
                raise PagingError("records came that were already read; the source starts over")
        self._last = mark
        self._pages += 1
        if self._pages & (self._pages - 1) == 0:
            self._remembered = (request, mark)


class _Single:
    def first(self) -> Step:
        return Step()

    def fresh(self, records: Sequence[Slice]) -> Sequence[Slice]:
        return records

    def following(self, view: PageView) -> Step | None:
        return None


class _Sized:
    def __init__(self, spec: PageNumberPaging | OffsetPaging | CursorPaging | NextLinkPaging | KeysetPaging) -> None:
        self._has_more = spec.has_more
        self._size = {spec.size_param: str(spec.size)} if spec.size_param is not None else {}

    def fresh(self, records: Sequence[Slice]) -> Sequence[Slice]:
        return records

    def _says_end(self, view: PageView) -> bool | None:
        """What has_more says; None when it is not declared."""
        if self._has_more is None:
            return None
        if view.page is None:
            return True
        said = view.page.value_at(self._has_more)
        if not isinstance(said, bool):
            raise PagingError(f"{self._has_more} is {_shape(said)}, not true or false")
        if said and not view.records:
            raise PagingError(f"{self._has_more} is true on a page without records")
        return not said


class _PageNumber(_Sized):
    def __init__(self, spec: PageNumberPaging) -> None:
        super().__init__(spec)
        self._spec = spec
        self._number = spec.start

    def first(self) -> Step:
        return Step({**self._size, self._spec.param: str(self._number)})

    def following(self, view: PageView) -> Step | None:
        ended = self._says_end(view)
        if self._spec.total_pages is not None and view.page is not None:
            pages = view.page.value_at(self._spec.total_pages)
            if not isinstance(pages, int) or isinstance(pages, bool):
                raise PagingError(f"{self._spec.total_pages} is {_shape(pages)}, not a number of pages")
            ended = self._number - self._spec.start + 1 >= pages
            if not ended and not view.records:
                raise PagingError(f"{self._spec.total_pages} says {pages} pages, but this one has no records")
        if ended if ended is not None else not view.records:
            return None
        self._number += 1
        return self.first()


class _Offset(_Sized):
    def __init__(self, spec: OffsetPaging, key: Sequence[str]) -> None:
        super().__init__(spec)
        self._spec = spec
        self._key = key
        self._offset = spec.start
        self._came = 0
        self._tail: list[tuple[bytes, ...]] = []

    def first(self) -> Step:
        return Step({**self._size, self._spec.param: str(self._offset)})

    def fresh(self, records: Sequence[Slice]) -> Sequence[Slice]:
        """What comes after the newest record of the last page that is still there; where it stands says what moved."""
        self._came = len(records)
        if not self._spec.overlap:
            return records
        names = [self._identity(record) for record in records]
        fresh = records
        if self._tail:
            known = next((name for name in reversed(self._tail) if name in names), None)
            if known is None:
                what = f"none of the last {len(self._tail)} records came again where the pages overlap"
                raise PagingError(f"{what}; rows moved while they were paged")
            fresh = records[names.index(known) + 1 :]
        self._tail = names[-self._spec.overlap :]
        return fresh

    def following(self, view: PageView) -> Step | None:
        ended = self._says_end(view)
        if ended if ended is not None else not view.records:
            return None
        self._offset += max(1, self._came - self._spec.overlap)
        return self.first()

    def _identity(self, record: Slice) -> tuple[bytes, ...]:
        if not self._key or bytes(memoryview(record)[:1]) != b"{":
            return (bytes(memoryview(record)),)
        page = JsonPage(bytes(memoryview(record)))
        return tuple(bytes(memoryview(page.slice_at(name) or b"")) for name in self._key)


class _Cursor(_Sized):
    def __init__(self, spec: CursorPaging) -> None:
        super().__init__(spec)
        self._spec = spec

    def first(self) -> Step:
        return Step(dict(self._size))

    def following(self, view: PageView) -> Step | None:
        if view.page is None or self._says_end(view):
            return None
        mark = view.page.value_at(self._spec.path)
        if mark is None or mark == "":
            if self._has_more is not None:
                raise PagingError(f"{self._has_more} is true, but {self._spec.path} is empty")
            return None
        if isinstance(mark, bool) or not isinstance(mark, (str, int)):
            raise PagingError(f"{self._spec.path} is {_shape(mark)}, not a cursor")
        return Step({**self._size, self._spec.param: str(mark)})


class _NextLink(_Sized):
    def __init__(self, spec: NextLinkPaging) -> None:
        super().__init__(spec)
        self._spec = spec

    def first(self) -> Step:
        return Step(dict(self._size))

    def following(self, view: PageView) -> Step | None:
        if self._spec.path is None:
            link: object = view.link_next
        elif view.page is None:
            return None
        else:
            link = view.page.value_at(self._spec.path)
        if self._says_end(view) or link is None or link == "":
            return None
        if not isinstance(link, str):
            raise PagingError(f"{self._spec.path} is {_shape(link)}, not an address")
        return Step(url=link)


class _Keyset(_Sized):
    def __init__(self, spec: KeysetPaging) -> None:
        super().__init__(spec)
        self._spec = spec

    def first(self) -> Step:
        return Step(dict(self._size))

    def following(self, view: PageView) -> Step | None:
        ended = self._says_end(view)
        if ended or not view.records:
            return None
        *before, last = (bytes(memoryview(record)) for record in view.records[-2:])
        text = self._text(last)
        # one record twice is the source's own double; two of one value are parted by the end of a page
        if before and before[0] != last and before[0][:1] == b"{" and self._raw(before[0]) == self._raw(last):
            what = f"two records at the end of a page share {self._spec.field}"
            raise PagingError(f"{what}, so others that do would be missed; it needs a field that is unique")
        return Step({**self._size, self._spec.param: text})

    def _text(self, record: bytes) -> str:
        raw = self._raw(record)
        value = decode(raw) if raw is not None else None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise PagingError(f"the last record's {self._spec.field} is {_shape(value)}; the next page starts after it")
        # a number goes on with its own digits: a float would change them
        return value if isinstance(value, str) else (raw or b"").decode()

    def _raw(self, record: bytes) -> bytes | None:
        found = JsonPage(record).slice_at(self._spec.field)
        return bytes(memoryview(found)) if found is not None else None


def _shape(value: object) -> str:
    match value:
        case None:
            return "missing or null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"
