"""The rest connector: check, discover and read over the HTTP client."""

import logging
import ssl
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast

import httpx

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredStream,
    JsonRecords,
    Message,
    ReadContext,
    Rejected,
    StreamState,
)
from connectors.errors import Cancelled, ConfigError
from connectors.http.auth import open_auth, require_header_safe
from connectors.http.children import ChildReader, Parent, parents_of, with_members
from connectors.http.client import HttpClient, Settings
from connectors.http.conditional import NO_VALIDATORS, remembered, to_state
from connectors.http.discovery import guess_columns
from connectors.http.hooks import NO_HOOKS, Hooks
from connectors.http.limits import RatePool, local_pool, rules_of
from connectors.http.pages import Page, PageFetcher, Part
from connectors.http.requests import Plan, address, plan
from connectors.http.seams import Seams
from connectors.secrets import is_reference, resolve
from connectors.specs import SourceSpec

if TYPE_CHECKING:
    from connectors.http.source import HttpConnectorSpec, HttpStreamSpec

log = logging.getLogger(__name__)

_MB: Final = 1_000_000
_GRACE_SECONDS: Final = 30.0


class RestConnector:
    """One open API. Nothing is sent before check, discover or read."""

    def __init__(self, source: SourceSpec, client: HttpClient, base_url: str, hooks: Hooks) -> None:
        """source: its connector and streams are the specs of connectors.http.source."""
        self._source = source
        self._hooks = hooks
        self.client = client
        self._base_url = base_url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)

    def check(self) -> str:
        streams = [cast("HttpStreamSpec", stream) for stream in self._source.streams]
        stream = next((one for one in streams if one.parent is None), streams[0])
        page = self._first_page(stream)
        _refuse_more(page, self._label(stream))
        answered = f"{self.client.host} answered in {page.seconds:.2f} s"
        return f"{answered}; {stream.name}: {page.rows} records on the first page"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        found: list[DiscoveredStream] = []
        for item in self._source.streams:
            stream = cast("HttpStreamSpec", item)
            page = self._first_page(stream)
            part = next(page.parts, None)
            columns = guess_columns(part.body) if part is not None else ()
            found.append(DiscoveredStream(stream.name, columns, stream.primary_key, estimated_rows=page.total))
        return tuple(found)

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        spec = cast("HttpStreamSpec", stream)
        if context.connect_shared is not None:
            self.client.keep_tokens(context.connect_shared)
        reading = plan(spec, self._base_url, state, context.window, self._label(spec), self._hooks)
        if spec.parent is not None:
            yield from self._read_children(spec, reading, context)
            return
        is_whole_answer = spec.pagination.type == "none" and not spec.single and self._hooks.rows is None
        version = remembered(spec, state) if context.window is None and context.page_limit is None else NO_VALIDATORS
        may_spool = is_whole_answer and self._hooks.following is None and not spec.has_column_rules
        spool = context.folder if may_spool else None
        reading = replace(reading, headers=version.headers, spool=spool)
        seams = None
        if spec.cursor is not None and spec.incremental is not None and spec.incremental.ordered:
            seams = Seams(spec.cursor, self._label(spec))
        rows, total, is_whole, is_unchanged = 0, None, False, False
        sums: dict[str, str] = {}
        with closing(self._pages(reading, context)) as pages:
            for page in pages:
                for part in page.parts:
                    rows += part.rows + len(part.odd)
                    place = f"page {page.number}"
                    for piece in seams.pieces(part, place) if seams is not None else ((part, place),):
                        yield from _messages(*piece) if isinstance(piece, tuple) else (piece,)
                    if context.cancelled.is_set():
                        what = f"stopped on page {page.number}"
                        raise Cancelled(self._label(spec), what, "Start the sync again; it resumes.")
                total = page.total if page.total is not None else total
                sums |= page.sums
                is_whole, is_unchanged, version = page.following is None, page.is_unchanged, page.validators
        is_nothing_new = is_unchanged or (reading.is_filtered and rows == 0)
        if is_whole and (total is not None or sums or is_nothing_new):
            yield Attestation(rows=total, nothing_new=is_nothing_new, measures=sums)
        if spec.conditional and is_whole and not is_unchanged and context.window is None:
            yield Checkpoint(to_state(spec, state, version))

    def _read_children(self, spec: "HttpStreamSpec", reading: Plan, context: ReadContext) -> Iterator[Message]:
        """Every parent is asked, each for what is new since the position of the stream as a whole."""
        rows, counted, last = 0, 0, 0
        with closing(self._below_parents(spec, reading, context)) as pages:
            for parent, page in pages:
                for part in page.parts:
                    rows += part.rows + len(part.odd)
                    part = with_members(part, parent.included)
                    yield from _messages(part, f"parent {parent.number}, page {page.number}")
                if page.number == 1:
                    # every page of a parent repeats its count
                    counted, last = counted + last, 0
                last = page.total if page.total is not None else last
        is_nothing_new = reading.is_filtered and rows == 0
        if context.page_limit is None and (spec.total is not None or is_nothing_new):
            yield Attestation(rows=counted + last if spec.total is not None else None, nothing_new=is_nothing_new)

    def _below_parents(
        self, spec: "HttpStreamSpec", reading: Plan, context: ReadContext
    ) -> Generator[tuple[Parent, Page]]:
        reader = ChildReader(
            spec,
            self._label(spec),
            lambda path: replace(reading, url=address(self._base_url, path)),
            self.client,
            lambda: self._pool(context),
            self._hooks,
            context,
        )
        with closing(self._parents(spec, context)) as parents, closing(reader.pages(parents)) as pages:
            yield from pages

    def _parents(self, spec: "HttpStreamSpec", context: ReadContext) -> Generator[Parent]:
        """The records of the stream above, all of them; it may be below another one itself."""
        parent = cast("HttpStreamSpec", self._source.stream(spec.parent.stream if spec.parent is not None else ""))
        reading = plan(parent, self._base_url, StreamState(), None, self._label(parent), self._hooks)
        with closing(self._parts(parent, reading, context)) as parts:
            yield from parents_of(spec, parts, self._label(spec))

    def _parts(self, spec: "HttpStreamSpec", reading: Plan, context: ReadContext) -> Generator[Part]:
        if spec.parent is None:
            with closing(self._pages(reading, context)) as pages:
                for page in pages:
                    yield from page.parts
            return
        with closing(self._below_parents(spec, reading, context)) as children:
            for above, page in children:
                for part in page.parts:
                    yield with_members(part, above.included)

    def _label(self, stream: "HttpStreamSpec") -> str:
        return f"{self._source.source}.{stream.name}"

    def _first_page(self, stream: "HttpStreamSpec") -> Page:
        reading = plan(stream, self._base_url, StreamState(), None, self._label(stream), self._hooks)
        context = ReadContext(window=None, folder=Path(), page_limit=1)
        if stream.parent is not None:
            with closing(self._parents(stream, context)) as parents:
                first = next(parents, None)
            if first is None:
                return Page(1, iter(()), 0, None, None, 0.0)
            reading = replace(reading, url=address(self._base_url, first.path))
        with closing(self._pages(reading, context)) as pages:
            return next(pages)

    def _pages(self, reading: Plan, context: ReadContext) -> Generator[Page]:
        """The pages of one read; the next one is fetched while the caller works on this one."""
        label = self._label(reading.stream)
        abandoned = threading.Event()

        def is_stopped() -> bool:
            return abandoned.is_set() or context.cancelled.is_set()

        pool = self._pool(context)
        fetcher = PageFetcher(self.client, reading, label, context.usage, pool, is_stopped, self._hooks)
        worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"http-{reading.stream.name}")
        waited = context.usage.wait_seconds
        try:
            ahead: Future[Page] | None = worker.submit(fetcher.page, fetcher.first)
            while ahead is not None:
                page = ahead.result()
                if context.cancelled.is_set():
                    raise Cancelled(label, f"stopped at page {page.number}", "Start the sync again; it resumes.")
                ahead = None
                if page.following is not None and page.number != context.page_limit:
                    ahead = worker.submit(fetcher.page, page.following)
                context.log(_progress(page, context.usage.wait_seconds - waited))
                waited = context.usage.wait_seconds
                yield page
                if context.page_limit is None:
                    _refuse_more(page, label)
        finally:
            # a request under way ends within a quarter of a second of this
            abandoned.set()
            worker.shutdown(wait=True, cancel_futures=True)
            pool.close()

    def _pool(self, context: ReadContext) -> RatePool:
        """The pool that all processes share, or this process's own where nothing is shared."""
        spec = cast("HttpConnectorSpec", self._source.connector)
        limit = spec.rate_limit
        name = limit.pool or self._source.source
        # a request ends at timeouts.total; what it needs to say so is within the grace
        rules = rules_of(limit, spec.breaker, spec.timeouts.total.total_seconds() + _GRACE_SECONDS)
        if context.connect_shared is None:
            return local_pool(name, rules)
        from connectors.http.shared import PostgresPool  # loads libpq: only where something is shared

        return PostgresPool(name, rules, context.connect_shared, is_backfill=context.is_backfill)


def _refuse_more(page: Page, label: str) -> None:
    """Raises ConfigError when others follow the only page that the declaration asks for."""
    if page.more:
        what = (
            f"the answer of {page.rows} records says that there are more ({page.more}), and no pagination is declared"
        )
        hint = "Declare how the source pages, or `pagination: {type: none}` when this answer is all you want."
        raise ConfigError(f"{label}.pagination", what, hint)


def _progress(page: Page, waited_seconds: float) -> str:
    waits = f", {waited_seconds:.1f} s waited for the rate limit" if waited_seconds >= 0.1 else ""
    return f"page {page.number}: {page.rows} records in {page.seconds:.2f} s{waits}"


def _messages(part: Part, position: str) -> Iterator[Message]:
    if part.rows:
        yield JsonRecords(part.body, position)
    for index, payload in part.odd:
        yield Rejected(payload, "the record is no JSON object", f"{position}, record {index + 1}")


def open_rest(source: SourceSpec, hooks: Hooks = NO_HOOKS, *, secrets: tuple[str, ...] = ()) -> RestConnector:
    """Resolves every reference of the connector; sends nothing. secrets: further values that no message may show.

    Raises:
        ConfigError: a variable is not set, base_url is no http address, a CA bundle cannot be read.
    """
    spec = cast("HttpConnectorSpec", source.connector)
    where = f"{source.source}: connector"
    _require_parents(source)
    base_url = _base_url(spec, where)
    headers = {name: resolve(value, f"{where}.headers.{name}") for name, value in spec.headers.items()}
    for name, value in headers.items():
        require_header_safe(value, f"{where}.headers.{name}")
    hidden = [*secrets, *(headers[name] for name, value in spec.headers.items() if is_reference(value))]
    for stream in source.streams:
        params = cast("HttpStreamSpec", stream).params.values()
        references = [value for value in params if isinstance(value, str) and is_reference(value)]
        hidden += [resolve(value, f"{source.source}.{stream.name}: params") for value in references]
    settings = Settings(
        base_url=base_url,
        headers=headers,
        secrets=tuple(hidden),
        timeouts=spec.timeouts,
        retries=spec.retries,
        rules=spec.errors,
        tls=tls_of(spec, where),
        allowed_hosts=frozenset(spec.allowed_redirect_hosts),
        max_bytes=spec.max_response_mb * _MB,
        max_wait_seconds=spec.rate_limit.max_wait.total_seconds(),
    )
    # httpx logs every address at INFO, with the parameters that came from references
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return RestConnector(
        source, HttpClient(settings, open_auth(spec.auth, f"{where}.auth", source.source)), base_url, hooks
    )


def _require_parents(source: SourceSpec) -> None:
    """Raises ConfigError when a stream is below one that is not there, or below itself."""
    for item in source.streams:
        above, seen = cast("HttpStreamSpec", item), [item.name]
        while above.parent is not None:
            above = cast("HttpStreamSpec", source.stream(above.parent.stream))
            if above.name in seen:
                place = f"{source.source}.{item.name}: parent.stream"
                what = f"goes in a circle: {' below '.join([*seen, above.name])}"
                raise ConfigError(place, what, "Name a stream that is read by itself at the top.")
            seen.append(above.name)


def _base_url(spec: "HttpConnectorSpec", where: str) -> str:
    text = resolve(spec.base_url, f"{where}.base_url").strip()
    hint = "Set something like https://api.example.com/v1; credentials belong into auth, parameters into params."
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{where}.base_url", f"no valid address: {error}", hint) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{where}.base_url", "needs http:// or https:// and a host", hint)
    if url.userinfo or url.query or url.fragment:
        raise ConfigError(f"{where}.base_url", "has credentials, parameters or a fragment in it", hint)
    return text


def tls_of(spec: "HttpConnectorSpec", where: str) -> ssl.SSLContext | None:
    if spec.verify is True:
        return None
    if spec.verify is False:
        log.warning("certificates are not verified place=%s", where)
        return httpx.create_ssl_context(verify=False)
    path = resolve(str(spec.verify), f"{where}.verify")
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{where}.verify", f"{path} is no CA bundle: {error}", "Name a file of PEM certificates."
        ) from error
