"""A stream below another one: its pages for every record of its parent, some parents at a time, in the parents' order.

What is held is bounded: two pages of each parent that is being read, and nothing of those before.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from connectors.contract import ReadContext, Usage
from connectors.errors import Cancelled, ConfigError, SourceError
from connectors.http.client import HttpClient
from connectors.http.hooks import Hooks
from connectors.http.limits import RatePool
from connectors.http.pages import Page, PageFetcher, Part
from connectors.http.records import JsonPage, MalformedPageError, decode
from connectors.http.requests import Plan

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec
    from connectors.http.specs import ParentSpec

_PAGES_AHEAD: Final = 2
_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Parent:
    """number counts from 1. path: of its children. included: the members that its fields add to each of them."""

    number: int
    path: str
    included: bytes


def parents_of(stream: "HttpStreamSpec", parts: Iterator[Part], label: str) -> Iterator[Parent]:
    """Every record of the parent stream that is an object. Raises SourceError when a field of the path is missing."""
    spec: ParentSpec = stream.parent  # pyright: ignore[reportAssignmentType]  only streams below another come here
    fields = [piece.partition("}")[0] for piece in stream.path.split("{parent.")[1:]]
    number = 0
    for part in parts:
        for line in part.body.split(b"\n") if part.rows else ():
            number += 1
            record = JsonPage(line)
            path = stream.path
            for name in fields:
                where = f"{label}: record {number} of {spec.stream}"
                path = path.replace(f"{{parent.{name}}}", _segment(record, name, where))
            members = [
                msgspec.json.encode(column) + b":" + bytes(memoryview(record.slice_at(name) or b"null"))
                for column, name in spec.include.items()
            ]
            yield Parent(number, path, b",".join(members))


def _segment(record: JsonPage, name: str, where: str) -> str:
    """A field as a part of a path; what would lead elsewhere is refused."""
    raw = record.slice_at(name)
    try:
        value = decode(raw) if raw is not None else None
    except MalformedPageError:
        value = None
    # a number goes into the path with its own digits
    text = value if isinstance(value, str) else bytes(memoryview(raw)).decode() if raw is not None else ""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or text in ("", ".", ".."):
        hint = "Name a field in path that every record of the parent has, e.g. its key."
        raise SourceError(where, f"{name} can be no part of a path", hint)
    return quote(text, safe="")


def with_members(part: Part, members: bytes) -> Part:
    """The records with these members in front of their own."""
    if not members or not part.rows:
        return part
    lines = [
        b"{" + members + (line[1:] if line[1:].lstrip()[:1] == b"}" else b"," + line[1:])
        for line in part.body.split(b"\n")
    ]
    return Part(b"\n".join(lines), part.rows, part.odd)


@dataclass(slots=True)
class _Reading:
    """One parent's children on their way. The queue holds pages, then None or the error that ended them."""

    parent: Parent
    usage: Usage = field(default_factory=Usage)
    pages: "queue.Queue[Page | BaseException | None]" = field(default_factory=lambda: queue.Queue(_PAGES_AHEAD))


class _AbandonedError(Exception):
    """Nobody wants the pages any more."""


class ChildReader:
    """The children of one read.

    plan: the requests of one path. open_pool: called once a thread.
    """

    def __init__(
        self,
        stream: "HttpStreamSpec",
        label: str,
        plan: Callable[[str], Plan],
        client: HttpClient,
        open_pool: Callable[[], RatePool],
        hooks: Hooks,
        context: ReadContext,
    ) -> None:
        spec: ParentSpec = stream.parent  # pyright: ignore[reportAssignmentType]  only streams below another come here
        self._spec = spec
        self._path = stream.path
        self._label = label
        self._plan = plan
        self._client = client
        self._open_pool = open_pool
        self._hooks = hooks
        self._context = context
        self._abandoned = threading.Event()
        self.seen = 0
        self.gone = 0

    def pages(self, parents: Iterator[Parent]) -> Generator[tuple[Parent, Page]]:
        """Raises HeadwaterError, classified; ConfigError when every parent is gone."""
        reader = self._one_by_one(parents) if self._context.page_limit is not None else self._together(parents)
        for parent, page in reader:
            if page.number == 1:
                self.seen += 1
                self.gone += page.is_absent
            yield parent, page
        if self.gone:
            self._context.log(f"{self.gone} of {self.seen} parents were gone when their children were asked for")
            if self.gone == self.seen:
                what = f"every one of {self.seen} records of {self._spec.stream} is gone below {self._path}"
                raise ConfigError(self._label, what, "Check path, or parent.gone; nothing was read.")

    def _one_by_one(self, parents: Iterator[Parent]) -> Iterator[tuple[Parent, Page]]:
        """Without threads, so that a preview or a recording asks for nothing beyond its pages."""
        left = self._context.page_limit or 0
        pool = self._open_pool()
        try:
            for parent in parents:
                for page in self._fetched(parent, self._context.usage, self._client, pool):
                    yield parent, page
                    left -= 1
                    if left <= 0:
                        return
        finally:
            pool.close()

    def _together(self, parents: Iterator[Parent]) -> Iterator[tuple[Parent, Page]]:
        width = self._spec.concurrency
        tools: queue.Queue[tuple[HttpClient, RatePool]] = queue.Queue()
        with ExitStack() as ends:
            for _ in range(width):
                pool = self._open_pool()
                ends.callback(pool.close)
                tools.put((ends.enter_context(self._client.sibling()), pool))
            workers = ends.enter_context(ThreadPoolExecutor(width, thread_name_prefix="http-children"))
            # before the workers are waited for
            ends.callback(self._abandoned.set)
            ahead: deque[_Reading] = deque()
            while True:
                while len(ahead) < 2 * width and (parent := next(parents, None)) is not None:
                    ahead.append(_Reading(parent))
                    workers.submit(self._run, ahead[-1], tools)
                if not ahead:
                    return
                reading = ahead.popleft()
                while (found := self._next(reading)) is not None:
                    if isinstance(found, BaseException):
                        raise found
                    yield reading.parent, found
                _add(self._context.usage, reading.usage)

    def _next(self, reading: _Reading) -> Page | BaseException | None:
        while True:
            if self._context.cancelled.is_set():
                what = f"stopped at record {reading.parent.number} of {self._spec.stream}"
                raise Cancelled(self._label, what, "Start the sync again.")
            try:
                return reading.pages.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                continue

    def _run(self, reading: _Reading, tools: "queue.Queue[tuple[HttpClient, RatePool]]") -> None:
        client, pool = tools.get()
        try:
            for page in self._fetched(reading.parent, reading.usage, client, pool):
                self._put(reading, page)
            self._put(reading, None)
        except _AbandonedError:
            pass
        except BaseException as error:  # noqa: BLE001  it is raised again by the thread that reads
            self._put_last(reading, error)
        finally:
            tools.put((client, pool))

    def _fetched(self, parent: Parent, usage: Usage, client: HttpClient, pool: RatePool) -> Iterator[Page]:
        label, plan = self._label, self._plan(parent.path)
        fetcher = PageFetcher(client, plan, label, usage, pool, self._is_stopped, self._hooks)
        fetcher.place = f"record {parent.number} of {self._spec.stream}, "
        step = fetcher.first
        while step is not None:
            page = fetcher.page(step)
            step = page.following
            yield page

    def _put(self, reading: _Reading, page: Page | BaseException | None) -> None:
        while not self._is_stopped():
            try:
                return reading.pages.put(page, timeout=_LOOK_SECONDS)
            except queue.Full:
                continue
        raise _AbandonedError

    def _put_last(self, reading: _Reading, error: BaseException) -> None:
        try:
            self._put(reading, error)
        except _AbandonedError:
            return

    def _is_stopped(self) -> bool:
        return self._abandoned.is_set() or self._context.cancelled.is_set()


def _add(total: Usage, part: Usage) -> None:
    total.requests += part.requests
    total.received_bytes += part.received_bytes
    total.wait_seconds += part.wait_seconds
    total.retries += part.retries
