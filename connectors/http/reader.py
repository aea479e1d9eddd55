"""The rest connector: check, discover and read over the HTTP client."""

import logging
import ssl
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
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
from connectors.http.client import HttpClient, Settings
from connectors.http.discovery import guess_columns
from connectors.http.hooks import NO_HOOKS, Hooks
from connectors.http.limits import RatePool, local_pool, quota_of
from connectors.http.pages import Page, PageFetcher
from connectors.http.requests import Plan, plan
from connectors.secrets import is_reference, resolve
from connectors.specs import SourceSpec

if TYPE_CHECKING:
    from connectors.http.source import HttpConnectorSpec, HttpStreamSpec

log = logging.getLogger(__name__)

_MB: Final = 1_000_000


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
        stream = cast("HttpStreamSpec", self._source.streams[0])
        page = self._first_page(stream)
        answered = f"{self.client.host} answered in {page.seconds:.2f} s"
        return f"{answered}; {stream.name}: {page.rows} records on the first page"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        found: list[DiscoveredStream] = []
        for item in self._source.streams:
            stream = cast("HttpStreamSpec", item)
            page = self._first_page(stream)
            columns = guess_columns(page.body)
            found.append(DiscoveredStream(stream.name, columns, stream.primary_key, estimated_rows=page.total))
        return tuple(found)

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        spec = cast("HttpStreamSpec", stream)
        reading = plan(spec, self._base_url, state, context.window, self._label(spec), self._hooks)
        is_ordered = spec.incremental is not None and spec.incremental.ordered
        rows, total, is_whole = 0, None, False
        with closing(self._pages(reading, context)) as pages:
            for page in pages:
                rows += page.rows + len(page.odd)
                total = page.total if page.total is not None else total
                is_whole = page.following is None
                yield from _messages(page)
                if is_ordered and not is_whole:
                    yield Checkpoint(is_ordered=True)
        is_nothing_new = reading.is_filtered and rows == 0
        if is_whole and (total is not None or is_nothing_new):
            yield Attestation(rows=total, nothing_new=is_nothing_new)

    def _label(self, stream: "HttpStreamSpec") -> str:
        return f"{self._source.source}.{stream.name}"

    def _first_page(self, stream: "HttpStreamSpec") -> Page:
        reading = plan(stream, self._base_url, StreamState(), None, self._label(stream), self._hooks)
        context = ReadContext(window=None, folder=Path(), page_limit=1)
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
        finally:
            # a request under way ends within a quarter of a second of this
            abandoned.set()
            worker.shutdown(wait=True, cancel_futures=True)
            pool.close()

    def _pool(self, context: ReadContext) -> RatePool:
        """The pool that all processes share, or this process's own where nothing is shared."""
        spec = cast("HttpConnectorSpec", self._source.connector)
        limit, failures = spec.rate_limit, spec.breaker.failures
        name, pause = limit.pool or self._source.source, spec.breaker.pause.total_seconds()
        if context.connect_shared is None:
            return local_pool(name, limit, failures=failures, pause_seconds=pause)
        from connectors.http.shared import PostgresPool  # loads libpq: only where something is shared

        return PostgresPool(
            name,
            quota_of(limit),
            context.connect_shared,
            failures=failures,
            pause_seconds=pause,
            is_backfill=context.window is not None,
        )


def _progress(page: Page, waited_seconds: float) -> str:
    waits = f", {waited_seconds:.1f} s waited for the rate limit" if waited_seconds >= 0.1 else ""
    return f"page {page.number}: {page.rows} records in {page.seconds:.2f} s{waits}"


def _messages(page: Page) -> Iterator[Message]:
    position = f"page {page.number}"
    if page.rows:
        yield JsonRecords(page.body, position)
    for index, payload in page.odd:
        yield Rejected(payload, "the record is no JSON object", f"{position}, record {index + 1}")


def open_rest(source: SourceSpec, hooks: Hooks = NO_HOOKS, *, secrets: tuple[str, ...] = ()) -> RestConnector:
    """Resolves every reference of the connector; sends nothing. secrets: further values that no message may show.

    Raises:
        ConfigError: a variable is not set, base_url is no http address, a CA bundle cannot be read.
    """
    spec = cast("HttpConnectorSpec", source.connector)
    where = f"{source.source}: connector"
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
        tls=_tls(spec, where),
        allowed_hosts=frozenset(spec.allowed_redirect_hosts),
        max_bytes=spec.max_response_mb * _MB,
        max_wait_seconds=spec.rate_limit.max_wait.total_seconds(),
    )
    # httpx logs every address at INFO, with the parameters that came from references
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return RestConnector(source, HttpClient(settings, open_auth(spec.auth, f"{where}.auth")), base_url, hooks)


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


def _tls(spec: "HttpConnectorSpec", where: str) -> ssl.SSLContext | None:
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
