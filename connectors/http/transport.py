"""httpx over a network that keeps a deadline and looks where it connects.

httpx limits the silence between two reads, so a server that sends a byte now and then holds a request for ever. Here
every read also ends at the request's deadline and, within a quarter of a second, when the sync is cancelled; headers
and TLS included, because the limit sits below HTTP.
"""

import ipaddress
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import httpcore
import httpx

from connectors.http.auth import Auth, TokenRefusedError
from connectors.http.body import TooLargeError, read_body

_SLICE_SECONDS: Final = 0.25
_RECEIVE_BYTES: Final = 1 << 18
"""At once: httpcore asks for 64 kB, and each piece costs a walk through it and h11."""
_MAX_TOKEN_BYTES: Final = 1_000_000


class DeadlineExceededError(Exception):
    """The request's total time is over."""


class StoppedError(Exception):
    """The sync was cancelled or the reader went away."""


class ForbiddenAddressError(Exception):
    """A host other than the configured one turned out to be this machine or its metadata service."""


@dataclass(slots=True)
class Guard:
    """What the network below one client asks before and while it waits. One request at a time.

    deadline: time.monotonic() at which the request ends.
    trusted_hosts: the configured host and the proxy: they may be on loopback or link-local addresses.
    """

    trusted_hosts: frozenset[str]
    deadline: float = float("inf")
    is_stopped: Callable[[], bool] = lambda: False

    def remaining(self) -> float:
        """Seconds left. Raises StoppedError, DeadlineExceededError."""
        if self.is_stopped():
            raise StoppedError
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceededError
        return left


class Outermost(httpx.BaseTransport):
    """What stands around the transport that signs and sends; replaced by whoever wants to look at requests."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self.inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()


class GuardedTransport(httpx.BaseTransport):
    """Signs, sends and guards. `unsigned` in a request's extensions keeps the credentials back."""

    def __init__(self, guard: Guard, auth: Auth, tls: ssl.SSLContext | None, proxy: httpx.Proxy | None) -> None:
        self._auth = auth
        self._inner = _Pool(guard, tls, proxy)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.extensions.get("unsigned", False):
            request = self._auth.sign(request, self.send_unsigned)
        return self._inner.handle_request(request)

    def send_unsigned(self, request: httpx.Request) -> httpx.Response:
        """For tokens themselves. Raises TokenRefusedError."""
        request.headers["Accept-Encoding"] = "identity"
        request.extensions["timeout"] = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 5.0}
        answer = self._inner.handle_request(request)
        try:
            body, _ = read_body(answer.iter_raw(), "", None, _MAX_TOKEN_BYTES)
        except TooLargeError as error:
            raise TokenRefusedError("token_url answered with more than any token") from error
        finally:
            answer.close()
        return httpx.Response(answer.status_code, content=body)

    def close(self) -> None:
        self._inner.close()


class _Pool(httpx.HTTPTransport):
    """httpx's transport with our network below its connection pool, which is all that its own set-up would make.

    tls: None for the default, made with the first https connection.
    """

    def __init__(self, guard: Guard, tls: ssl.SSLContext | None, proxy: httpx.Proxy | None) -> None:
        backend = _GuardedNetwork(guard)
        self._pool: httpcore.ConnectionPool
        if proxy is None:
            self._pool = httpcore.ConnectionPool(
                ssl_context=tls, max_connections=4, keepalive_expiry=15.0, network_backend=backend
            )
        else:
            url = proxy.url
            self._pool = httpcore.HTTPProxy(
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                proxy_auth=proxy.raw_auth,
                proxy_headers=proxy.headers.raw,
                ssl_context=tls,
                max_connections=4,
                keepalive_expiry=15.0,
                network_backend=backend,
            )


class _GuardedNetwork(httpcore.NetworkBackend):
    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        limit = min(self._guard.remaining(), timeout if timeout is not None else float("inf"))
        stream = self._inner.connect_tcp(host, port, limit, local_address, socket_options)
        if host not in self._guard.trusted_hosts and is_local(str(stream.get_extra_info("server_addr")[0])):
            stream.close()
            raise ForbiddenAddressError(host)
        return _GuardedStream(stream, self._guard)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _GuardedStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, guard: Guard) -> None:
        self._inner = inner
        self._guard = guard

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        silent_at = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            left = min(self._guard.remaining(), silent_at - time.monotonic())
            if left <= 0:
                raise httpcore.ReadTimeout(f"nothing came for {timeout:g} s")
            try:
                return self._inner.read(max(max_bytes, _RECEIVE_BYTES), min(left, _SLICE_SECONDS))
            except httpcore.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        limit = min(self._guard.remaining(), timeout if timeout is not None else float("inf"))
        self._inner.write(buffer, limit)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit = min(self._guard.remaining(), timeout if timeout is not None else float("inf"))
        return _GuardedStream(self._inner.start_tls(ssl_context, server_hostname, limit), self._guard)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def is_local(address: str) -> bool:
    """Loopback, link-local (cloud metadata among them) or unspecified, IPv4 inside IPv6 included."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified


def environment_proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for this address; never one for this machine."""
    if url.host == "localhost" or is_local(url.host) or urllib.request.proxy_bypass(url.host):
        return None
    address = urllib.request.getproxies().get(url.scheme)
    if not address:
        return None
    return httpx.Proxy(address if "://" in address else f"http://{address}")
