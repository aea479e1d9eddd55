"""Credentials, put on a request at the last moment: below httpx, so that no log line or message ever has them.

Every credential belongs to the configured host; the transport asks for none when a request goes elsewhere.
"""

import base64
import threading
import time
from collections.abc import Callable
from typing import Protocol

import httpx
import msgspec

from connectors.errors import ConfigError
from connectors.http.specs import ApiKeySpec, AuthSpec, BasicSpec, BearerSpec, ClientCredentialsSpec, NoAuthSpec
from connectors.secrets import resolve

_EXPIRES_EARLY_SECONDS = 300.0
_DEFAULT_LIFE_SECONDS = 3_600.0

Send = Callable[[httpx.Request], httpx.Response]
"""One request without credentials of the source, its body read, with the same limits as any other."""


class TokenRefusedError(Exception):
    """The token endpoint gave no token; the message is safe to show. is_transient: it may give one later."""

    def __init__(self, what: str, *, is_transient: bool = False) -> None:
        super().__init__(what)
        self.is_transient = is_transient


class Auth(Protocol):
    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that no message may show; grows as tokens arrive."""
        ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts that the credential itself comes from; they are configured, so they may be local."""
        ...

    @property
    def query_name(self) -> str | None:
        """The query parameter that carries the credential, to be taken out of addresses that the source echoes."""
        ...

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        """The request with the credential on it. Raises TokenRefusedError."""
        ...

    def renew(self) -> bool:
        """Called after a 401: False when there is no other credential to try."""
        ...


def open_auth(spec: AuthSpec, where: str) -> Auth:
    """Resolves the references. Raises ConfigError when a variable is not set."""
    match spec:
        case NoAuthSpec():
            return _Fixed((), ())
        case BearerSpec():
            token = resolve(spec.token, f"{where}.token")
            require_header_safe(token, f"{where}.token")
            return _Fixed((("Authorization", f"{spec.scheme} {token}"),), (token,))
        case ApiKeySpec(place="query"):
            return _QueryKey(spec.name, resolve(spec.key, f"{where}.key"))
        case ApiKeySpec():
            key = resolve(spec.key, f"{where}.key")
            require_header_safe(key, f"{where}.key")
            return _Fixed(((spec.name, key),), (key,))
        case BasicSpec():
            password = resolve(spec.password, f"{where}.password")
            pair = _basic(resolve(spec.username, f"{where}.username"), password)
            return _Fixed((("Authorization", pair),), (password, pair.removeprefix("Basic ")))
        case ClientCredentialsSpec():
            return _ClientCredentials(spec, where)


def require_header_safe(value: str, where: str) -> None:
    """Raises ConfigError, without the value, when no header can carry it."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigError(
            where,
            "the value has spaces around it, line ends or characters outside ASCII, which no header can carry",
            "Set the variable again, without quotes or a trailing line end.",
        )


def _basic(username: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class _Fixed:
    """Headers that never change."""

    hosts: tuple[str, ...] = ()
    query_name: str | None = None

    def __init__(self, headers: tuple[tuple[str, str], ...], secrets: tuple[str, ...]) -> None:
        self._headers = headers
        self.secrets = secrets

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        for name, value in self._headers:
            request.headers[name] = value
        return request

    def renew(self) -> bool:
        return False


class _QueryKey:
    hosts: tuple[str, ...] = ()

    def __init__(self, name: str, key: str) -> None:
        self.query_name: str | None = name
        self.secrets = (key,)
        self._name, self._key = name, key

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        # a copy: the request that httpx logs keeps its address without the key
        return httpx.Request(
            request.method,
            request.url.copy_set_param(self._name, self._key),
            headers=request.headers,
            stream=request.stream,
            extensions=request.extensions,
        )

    def renew(self) -> bool:
        return False


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float | str = _DEFAULT_LIFE_SECONDS


class _ClientCredentials:
    """One token for all threads, renewed five minutes before it expires (or at half its life, if that is shorter)."""

    query_name: str | None = None

    def __init__(self, spec: ClientCredentialsSpec, where: str) -> None:
        self._spec = spec
        self._url = resolve(spec.token_url, f"{where}.token_url")
        try:
            self.hosts = (httpx.URL(self._url).host,)
        except httpx.InvalidURL as error:
            raise ConfigError(f"{where}.token_url", f"no valid address: {error}", "Correct it.") from error
        self._id = resolve(spec.client_id, f"{where}.client_id")
        self._secret = resolve(spec.client_secret, f"{where}.client_secret")
        self._lock = threading.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self.secrets: tuple[str, ...] = (self._secret, _basic(self._id, self._secret).removeprefix("Basic "))

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        with self._lock:
            if self._token is None or time.monotonic() >= self._renew_at:
                self._fetch(send)
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def renew(self) -> bool:
        with self._lock:
            self._token = None
        return True

    def _fetch(self, send: Send) -> None:
        form = {"grant_type": "client_credentials"}
        if self._spec.scope is not None:
            form["scope"] = self._spec.scope
        if self._spec.audience is not None:
            form["audience"] = self._spec.audience
        headers = {"Accept": "application/json"}
        if self._spec.send == "header":
            headers["Authorization"] = _basic(self._id, self._secret)
        else:
            form |= {"client_id": self._id, "client_secret": self._secret}
        answer = send(httpx.Request("POST", self._url, data=form, headers=headers))
        if answer.status_code != 200:
            passes = answer.status_code in (408, 429) or answer.status_code >= 500
            raise TokenRefusedError(f"token_url answered HTTP {answer.status_code}", is_transient=passes)
        try:
            token = msgspec.json.decode(answer.content, type=_Token)
            life = float(token.expires_in)
        except (msgspec.DecodeError, ValueError) as error:
            raise TokenRefusedError(f"token_url answered no token: {error}") from error
        self._token = token.access_token
        self._renew_at = time.monotonic() + max(life / 2, life - _EXPIRES_EARLY_SECONDS)
        self.secrets = (*self.secrets[:2], token.access_token)
