"""One request with everything around it: credentials, turn in the pool, retries, redirects, limits, classes."""

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Self, TypeVar
from urllib.parse import quote, quote_plus

import httpx
import tenacity

from connectors.contract import Usage
from connectors.errors import Cancelled, TransientError
from connectors.http.auth import Auth, KeepsTokens, TokenRefusedError
from connectors.http.body import BrokenEncodingError, Decoding, TooLargeError, spool
from connectors.http.errors import Fault, FaultError, exception_fault, status_fault
from connectors.http.limits import Grant, RatePool
from connectors.http.server_limits import server_limit
from connectors.http.specs import ErrorRule, RetrySpec, TimeoutSpec
from connectors.http.targets import Targets
from connectors.http.transport import (
    DeadlineExceededError,
    ForbiddenAddressError,
    Guard,
    GuardedTransport,
    Outermost,
    StoppedError,
    environment_proxy,
)
from connectors.secrets import mask

if TYPE_CHECKING:
    from connectors.http.vault import Connect

log = logging.getLogger(__name__)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5
_MB: Final = 1_000_000
_SHORTEST_WAIT_SECONDS: Final = 0.001
_POLL_SECONDS: Final = 0.25

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client is made of; every reference is resolved.

    headers: sent to the configured host only. secrets: values that no message may show.
    tls: None for the default certificates.
    """

    base_url: str
    headers: Mapping[str, str]
    secrets: tuple[str, ...]
    timeouts: TimeoutSpec
    retries: RetrySpec
    rules: tuple[ErrorRule, ...]
    tls: ssl.SSLContext | None
    allowed_hosts: frozenset[str]
    max_bytes: int
    max_wait_seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """url is absolute; params are added to those it has. content is a JSON body.

    accepted: statuses that are an answer, whatever the table of classes says. headers: beside those of the source.
    spool: where an answer that is too large for memory may go; None reads it into memory up to the limit.
    """

    method: Literal["GET", "POST"]
    url: str
    params: tuple[tuple[str, str], ...] = ()
    content: bytes | None = None
    accepted: frozenset[int] = frozenset()
    headers: tuple[tuple[str, str], ...] = ()
    spool: Path | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, decompressed. Header names are lower case.

    spooled: the file that holds the body, when it was too large; then body is its beginning.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    link_next: str | None
    seconds: float
    spooled: Path | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """For whom a request is made: label `source.stream`, place `page 14`, where to count, when to stop, whose turn."""

    label: str
    place: str
    usage: Usage
    pool: RatePool
    is_stopped: Callable[[], bool] = lambda: False


@dataclass(slots=True)
class _Effort:
    """What one request has cost so far. waited_seconds: for the pool and because the source asked."""

    call: Call
    started: float = field(default_factory=time.monotonic)
    attempts: int = 0
    waited_seconds: float = 0.0
    is_renewed: bool = False


class HttpClient:
    """Requests to one source, one at a time."""

    def __init__(self, settings: Settings, auth: Auth) -> None:
        self._settings = settings
        self._auth = auth
        self._taps: list[Callable[[httpx.BaseTransport], httpx.BaseTransport]] = []
        base = httpx.URL(settings.base_url)
        self._targets = Targets(base, settings.allowed_hosts, auth.query_name)
        proxy = environment_proxy(base)
        trusted = {base.host, *auth.hosts, *({proxy.url.host} if proxy else ())}
        self._guard = Guard(frozenset(trusted))
        connect, read = settings.timeouts.connect.total_seconds(), settings.timeouts.read.total_seconds()
        self._transport = Outermost(GuardedTransport(self._guard, auth, settings.tls, proxy))
        self._client = httpx.Client(
            transport=self._transport,
            timeout=httpx.Timeout(read, connect=connect),
            headers={"Accept": "application/json", "Accept-Encoding": "gzip, deflate", "User-Agent": "headwater"},
            follow_redirects=False,
        )
        self.host = base.netloc.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    @property
    def base_url(self) -> str:
        return self._settings.base_url

    @property
    def secrets(self) -> frozenset[str]:
        """Values that nothing may show; more come as tokens arrive."""
        return frozenset({*self._settings.secrets, *self._auth.secrets})

    def tap(self, wrap: Callable[[httpx.BaseTransport], httpx.BaseTransport]) -> None:
        """Put a transport around the one that signs and sends: it sees requests without their credentials."""
        self._taps.append(wrap)
        self._transport.inner = wrap(self._transport.inner)

    def keep_tokens(self, connect: "Connect") -> None:
        """connect: sessions with the warehouse, where tokens that change at use are kept."""
        if isinstance(self._auth, KeepsTokens):
            self._auth.keep(connect)

    def sibling(self) -> "HttpClient":
        """Another client for the same source, for one more thread; they share credentials and taps."""
        made = HttpClient(self._settings, self._auth)
        for wrap in self._taps:
            made.tap(wrap)
        return made

    def mask(self, text: str) -> str:
        """The text without any credential, also where it is quoted for an address."""
        secrets = self.secrets
        return mask(text, secrets | {quote(s, safe="") for s in secrets} | {quote_plus(s) for s in secrets})

    def fetch(self, request: Request, call: Call, accept: Callable[[Response], T]) -> T:
        """What `accept` makes of the answer; it may raise FaultError, and a retryable one is tried again.

        Raises:
            HeadwaterError: classified, with label, place, attempts and seconds in the message.
        """
        closed_for = call.pool.open_seconds(call.label)
        if closed_for:
            what = f"too many requests failed in a row; pool {call.pool.name} is closed for {closed_for:.0f} s more"
            hint = "The source is down; the next sync tries it."
            raise TransientError(call.label, what, hint, retry_after=closed_for)
        effort = _Effort(call)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FaultError) and error.fault.is_retryable),
            stop=lambda state: self._gives_up(effort, _fault_of(state)),
            wait=lambda state: self._pause_before(state),
            sleep=lambda seconds: self._sleep(call, seconds),
            before_sleep=lambda state: self._note_retry(effort, state),
            reraise=True,
        )
        try:
            result = retrying(self._attempt, request, effort, accept)
        except FaultError as error:
            call.pool.record(call.label, succeeded=error.fault.failure_class != "transient")
            self._give_up(effort, error)
        except StoppedError as error:
            raise Cancelled(call.label, f"stopped at {call.place}", "Start the sync again; it resumes.") from error
        call.pool.record(call.label, succeeded=True)
        return result

    def _attempt(self, request: Request, effort: _Effort, accept: Callable[[Response], T]) -> T:
        effort.attempts += 1
        response = self._in_turn(request, effort)
        if response.status == 401 and not effort.is_renewed and self._auth.renew():
            effort.is_renewed = True
            effort.call.usage.retries += 1
            response = self._in_turn(request, effort)
        limit = server_limit(response.headers, datetime.now(UTC))
        effort.call.pool.note(limit)
        # a pause longer than anybody may wait is waited by nobody: a sibling that is refused too finds out by itself
        if limit.pause and limit.pause <= self._settings.max_wait_seconds:
            effort.call.pool.hold(limit.pause)
        if response.status in request.accepted:
            return accept(response)
        fault = status_fault(response.status, response.body, response.headers, limit, self._settings.rules)
        if fault is not None:
            raise FaultError(fault)
        return accept(response)

    def _in_turn(self, request: Request, effort: _Effort) -> Response:
        """The whole answer, whatever its status. Raises FaultError when there is none."""
        grant = self._take_turn(effort)
        # waits are bounded by max_wait, so they do not count against the total
        total = self._settings.timeouts.total.total_seconds()
        self._guard.deadline = effort.started + effort.waited_seconds + total
        self._guard.is_stopped = effort.call.is_stopped
        try:
            return self._follow(request, effort.call)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise FaultError(exception_fault(error, self.host)) from error
        except DeadlineExceededError as error:
            hint = "The source is too slow: raise timeouts.total, or lower the page size."
            raise FaultError(Fault("transient", f"no whole answer within {total:.0f} s", hint)) from error
        except TokenRefusedError as error:
            kind = "transient" if error.is_transient else "auth"
            raise FaultError(Fault(kind, str(error), error.hint)) from error
        finally:
            effort.call.pool.release(grant)

    def _follow(self, request: Request, call: Call) -> Response:
        """The answer after redirects; only to the configured host, or, unsigned, to one allowed by name."""
        target = self._targets.resolve(request.url)
        method, content, params = request.method, request.content, request.params
        for _ in range(_MAX_REDIRECTS + 1):
            outgoing = replace(request, method=method, params=params, content=content)
            response = self._send(outgoing, target, call)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None:
                return response
            target, params = self._targets.resolve(location, target), ()
            if response.status == 303:
                method, content = "GET", None
        raise FaultError(Fault("source", f"more than {_MAX_REDIRECTS} redirects", "Check base_url and path."))

    def _send(self, request: Request, target: httpx.URL, call: Call) -> Response:
        own = self._targets.is_own(target)
        headers = {**self._settings.headers, **dict(request.headers)} if own else {}
        if request.content is not None:
            headers["Content-Type"] = "application/json"
        if request.params:
            # what the address already has is replaced, never doubled
            target = target.copy_merge_params(request.params)
        call.usage.requests += 1
        started = time.monotonic()
        outgoing = self._client.build_request(
            request.method,
            target,
            headers=headers,
            content=request.content,
            extensions={} if own else {"unsigned": True},
        )
        try:
            answer = self._client.send(outgoing, stream=True)
        except ForbiddenAddressError as error:
            hint = "It resolves to this machine or a metadata service; take it out of allowed_redirect_hosts."
            raise FaultError(Fault("source", f"the source leads to {error}, a local address", hint)) from error
        encoding, declared = answer.headers.get("content-encoding", ""), _length(answer.headers.get("content-length"))
        decoding = Decoding(encoding, declared, self._settings.max_bytes)
        try:
            # an error's text is never worth a file
            into = request.spool if answer.is_success else None
            body, spooled = spool(decoding.pieces(answer.iter_raw()), into)
        except TooLargeError as error:
            size, limit = error.size_bytes / _MB, self._settings.max_bytes / _MB
            hint = "Lower the page size, or raise connector.max_response_mb."
            what = f"an answer of {size:.1f} MB or more, over {limit:.0f} MB"
            raise FaultError(Fault("resource", what, hint)) from error
        except BrokenEncodingError as error:
            kind = "transient" if error.is_cut else "source"
            raise FaultError(Fault(kind, str(error), "The answer did not arrive whole; sync again.")) from error
        finally:
            answer.close()
        call.usage.received_bytes += decoding.received
        return Response(
            status=answer.status_code,
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=body,
            url=str(target),
            link_next=answer.links.get("next", {}).get("url"),
            seconds=time.monotonic() - started,
            spooled=spooled,
        )

    def _take_turn(self, effort: _Effort) -> Grant:
        """Waits until the request may be sent. Raises FaultError when that is later than max_wait."""
        pool = effort.call.pool
        while True:
            grant = pool.take(self._settings.max_wait_seconds - effort.waited_seconds)
            if not grant.is_booked and not grant.is_deferred:
                what = f"pool {pool.name} has no free request for {grant.wait_seconds:.0f} s"
                hint = "Lower the number of streams or requests, or raise rate_limit.max_wait."
                raise FaultError(Fault("rate_limited", what, hint, grant.wait_seconds))
            if grant.wait_seconds >= _SHORTEST_WAIT_SECONDS:
                try:
                    self._sleep(effort.call, grant.wait_seconds)
                except StoppedError:
                    pool.release(grant)
                    raise
                effort.waited_seconds += grant.wait_seconds
                effort.call.usage.wait_seconds += grant.wait_seconds
            if grant.is_booked:
                return grant

    def _gives_up(self, effort: _Effort, fault: Fault | None) -> bool:
        if effort.attempts >= self._settings.retries.attempts:
            return True
        asked = (fault.retry_after if fault is not None else None) or 0.0
        if asked > self._settings.max_wait_seconds - effort.waited_seconds:
            return True
        spent = time.monotonic() - effort.started - effort.waited_seconds
        return spent >= self._settings.timeouts.total.total_seconds()

    def _pause_before(self, state: tenacity.RetryCallState) -> float:
        """Seconds before the next attempt; none when the pool already holds everybody for what the source asked."""
        fault = _fault_of(state)
        if fault is not None and fault.retry_after:
            return 0.0
        retries = self._settings.retries
        initial, longest = retries.initial.total_seconds(), retries.longest.total_seconds()
        return (tenacity.wait_exponential(initial, max=longest) + tenacity.wait_random(0, initial))(state)

    def _sleep(self, call: Call, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if call.is_stopped():
                raise StoppedError
            time.sleep(min(left, _POLL_SECONDS))

    def _note_retry(self, effort: _Effort, state: tenacity.RetryCallState) -> None:
        effort.call.usage.retries += 1
        fault = _fault_of(state)
        what = self.mask(fault.what) + fault.shown_detail(self.mask) if fault else "unknown"
        pause = state.upcoming_sleep
        if fault is not None and fault.failure_class == "rate_limited" and pause:
            # it did not say for how long: everybody in the pool waits, and the wait counts as one for the limit
            effort.call.pool.hold(pause)
            effort.waited_seconds += pause
            effort.call.usage.wait_seconds += pause
        place = f"{effort.call.label} {effort.call.place}"
        log.info("request failed, trying again place=%s attempt=%d what=%s", place, effort.attempts, what)

    def _give_up(self, effort: _Effort, error: FaultError) -> NoReturn:
        fault, call = error.fault, effort.call
        seconds = time.monotonic() - effort.started
        effort_text = f" after {effort.attempts} attempts in {seconds:.0f} s" if effort.attempts > 1 else ""
        what = self.mask(f"{fault.what} on {call.place}{effort_text}") + fault.shown_detail(self.mask)
        raise fault.as_error(call.label, what) from error


def _fault_of(state: tenacity.RetryCallState) -> Fault | None:
    error = state.outcome.exception() if state.outcome is not None else None
    return error.fault if isinstance(error, FaultError) else None


def _length(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
