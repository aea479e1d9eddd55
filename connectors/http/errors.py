"""Status, body or exception to failure class, and the message that goes with it.

| class        | what                                                               | what the client does            |
|--------------|--------------------------------------------------------------------|---------------------------------|
| rate_limited | 429; 403 with Retry-After or no requests left                      | waits as told, up to max_wait   |
| transient    | 408, 425, 500, 502, 503, 504, 52x, 529; reset, refused, timed out, | tries again, up to attempts     |
|              | truncated                                                          | and timeouts.total              |
| auth         | 401, 403, 407                                                      | renews the credential once      |
| config       | 400, 402, 404 and the other 4xx; unknown host; bad certificate     | stops                           |
| source       | 501, 505; no JSON; no records; paging in a circle; foreign redirect| stops                           |
| resource     | an answer beyond max_response_mb                                   | stops                           |
"""

import errno
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from connectors.errors import (
    AuthError,
    ConfigError,
    FailureClass,
    HeadwaterError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.http.server_limits import ServerLimit
from connectors.http.specs import ErrorRule

_TRANSIENT: Final = frozenset({408, 425, 500, 502, 503, 504, *range(520, 528), 529, 530, 598, 599})
_LONGEST_DETAIL = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """Why one attempt failed.

    what: the measurement without page and attempts, e.g. `HTTP 429`.
    retry_after: seconds the source asked for.
    detail: what follows page and attempts in the message, e.g. `; the server asked for 30 s`. It may hold what the
        source said, at any length and with whatever it was sent: `shown_detail` is for messages.
    """

    failure_class: FailureClass
    what: str
    hint: str
    retry_after: float | None = None
    detail: str = ""

    def shown_detail(self, mask: Callable[[str], str]) -> str:
        """The detail without secrets, then cut: a secret that is cut first is not known any more."""
        text = mask(self.detail)
        return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}…"

    @property
    def is_retryable(self) -> bool:
        return self.failure_class in ("rate_limited", "transient")

    def as_error(self, where: str, what: str) -> HeadwaterError:
        match self.failure_class:
            case "rate_limited":
                return RateLimited(where, what, self.hint, retry_after=self.retry_after)
            case "transient":
                return TransientError(where, what, self.hint, retry_after=self.retry_after)
            case "auth":
                return AuthError(where, what, self.hint)
            case "config":
                return ConfigError(where, what, self.hint)
            case "resource":
                return ResourceError(where, what, self.hint)
            case _:
                return SourceError(where, what, self.hint)


class FaultError(Exception):
    """One attempt failed; the client decides whether there is another."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.what)
        self.fault = fault


def status_fault(
    status: int, body: bytes, headers: Mapping[str, str], limit: ServerLimit, rules: Sequence[ErrorRule]
) -> Fault | None:
    """What an answer's status and body mean; None when it is to be read as a page. Header names are lower case."""
    for rule in rules:
        if rule.status == status and (rule.body is None or re.search(rule.body, _text(body, 20_000))):
            return _fault(rule.failure_class, status, body, headers, limit)
    if 200 <= status < 300 and status != 204:
        return None
    return _fault(_default_class(status, limit), status, body, headers, limit)


def _default_class(status: int, limit: ServerLimit) -> FailureClass:
    if status == 429 or (status == 403 and limit.pause is not None):
        return "rate_limited"
    if status in _TRANSIENT:
        return "transient"
    if status in (401, 403, 407):
        return "auth"
    if 400 <= status < 500:
        return "config"
    if status >= 500 and status not in (501, 505):
        return "transient"
    return "source"


def _fault(kind: FailureClass, status: int, body: bytes, headers: Mapping[str, str], limit: ServerLimit) -> Fault:
    said = excerpt(body, headers.get("content-type", ""))
    what = f"HTTP {status}"
    if kind == "rate_limited":
        asked = f"; the server asked for {limit.pause:.0f} s" if limit.pause is not None else ""
        hint = "Lower rate_limit.requests or the page size, or raise rate_limit.max_wait."
        return Fault(kind, what, hint, limit.pause, asked)
    if kind == "transient":
        return Fault(kind, what, "The source is unwell; the next sync resumes.", limit.retry_after, said)
    if kind == "auth":
        hint = "Rotate the credential that connector.auth names, or grant it this read."
        return Fault(kind, what, hint, detail=said)
    if kind == "config":
        hint = {
            404: "Check base_url and path; if 404 means that there are no records, set empty_statuses: [404].",
            402: "The account at the source has no access to this; ask its owner.",
            405: "Check the stream's method.",
        }.get(status, "Check the stream's path, params and incremental settings.")
        return Fault(kind, what, hint, detail=said)
    hint = "Ask the source's operator; nothing of this page was loaded."
    if status == 204:
        hint = "If 204 means that there are no records, set empty_statuses: [204]."
    return Fault("source", what, hint, detail=said)


def exception_fault(error: Exception, host: str) -> Fault:
    """What an exception of the network means."""
    for cause in _chain(error):
        fault = _system_fault(cause, host)
        if fault is not None:
            return fault
    network = "The network or the source failed; the next sync resumes."
    match error:
        case httpx.ConnectTimeout():
            return Fault("transient", f"no connection to {host} in time", "Check base_url, or raise timeouts.connect.")
        case httpx.TimeoutException():
            hint = "The source is slow: raise timeouts.read, or lower the page size."
            return Fault("transient", f"{host} fell silent", hint, detail=f": {_short(error)}")
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return Fault("config", "the address is not a valid http or https URL", "Check base_url and path.")
        case httpx.RemoteProtocolError():
            what = f"{host} ended the answer early or broke HTTP"
            return Fault("transient", what, network, detail=f": {_short(error)}")
        case _:
            return Fault("transient", f"the connection to {host} broke", network, detail=f": {_short(error)}")


def _system_fault(cause: BaseException, host: str) -> Fault | None:
    """What TLS, DNS or the socket said below httpx."""
    match cause:
        case ssl.SSLCertVerificationError():
            hint = "Set connector.verify to the path of the CA bundle that signed it, or correct base_url."
            why = f": {cause.verify_message}"
            return Fault("config", f"the certificate of {host} was refused", hint, detail=why)
        case ssl.SSLError() if cause.reason == "WRONG_VERSION_NUMBER":
            return Fault("config", f"{host} does not speak TLS on this port", "Check base_url: http:// or https://?")
        case socket.gaierror() if cause.errno in (socket.EAI_AGAIN, None):
            return Fault("transient", f"DNS did not answer for {host}", "Check the machine's DNS and network.")
        case socket.gaierror():
            return Fault("config", f"no such host: {host}", "Check connector.base_url, or the machine's DNS.")
        case OSError() if cause.errno == errno.ECONNREFUSED:
            return Fault("transient", f"{host} refused the connection", "Check base_url and that the source is up.")
        case _:
            return None


def excerpt(body: bytes, content_type: str) -> str:
    """`: <what the error answer says>`, one line; empty when it says nothing."""
    text = _text(body, 4_000)
    if "html" in content_type or text.lstrip()[:1] == "<":
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        text = f"an HTML page titled {title[1].strip()!r}" if title else "an HTML page"
    text = " ".join(text.split())
    return f": {text}" if text else ""


def _text(body: bytes, longest: int) -> str:
    return body[:longest].decode("utf-8", "replace")


def _short(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        error = error.__cause__ or error.__context__
        seen += 1
