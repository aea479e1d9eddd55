"""Credentials, put on a request at the last moment: below httpx, so that no log line or message ever has them.

Every credential belongs to the configured host; the transport asks for none when a request goes elsewhere.
"""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import httpx

from connectors.errors import ConfigError
from connectors.http.specs import (
    ApiKeySpec,
    AuthorizationCodeSpec,
    AuthSpec,
    BasicSpec,
    BearerSpec,
    ClientCredentialsSpec,
    HmacSpec,
    JwtBearerSpec,
    NoAuthSpec,
    RefreshTokenSpec,
    SigV4Spec,
)
from connectors.secrets import resolve

if TYPE_CHECKING:
    from connectors.http.vault import Connect

Send = Callable[[httpx.Request], httpx.Response]
"""One request without credentials of the source, its body read, with the same limits as any other."""


class TokenRefusedError(Exception):
    """The token endpoint gave no token; the message is safe to show. is_transient: it may give one later."""

    def __init__(
        self, what: str, *, is_transient: bool = False, hint: str = "Check connector.auth and rotate its secret."
    ) -> None:
        super().__init__(what)
        self.is_transient = is_transient
        self.hint = hint


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


@runtime_checkable
class KeepsTokens(Protocol):
    """A credential that changes as it is used, so that the new one must be kept."""

    def keep(self, connect: "Connect") -> None:
        """connect: sessions with the warehouse, whose `ops.tokens` has them from now on."""
        ...


def open_auth(spec: AuthSpec, where: str, owner: str = "") -> Auth:
    """Resolves the references. owner: the source. Raises ConfigError when a variable is not set."""
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
            pair = basic(resolve(spec.username, f"{where}.username"), password)
            return _Fixed((("Authorization", pair),), (password, pair.removeprefix("Basic ")))
        case ClientCredentialsSpec() | RefreshTokenSpec() | AuthorizationCodeSpec() | JwtBearerSpec():
            from connectors.http.oauth import open_oauth

            return open_oauth(spec, where, owner)
        case HmacSpec() | SigV4Spec():
            from connectors.http.signing import open_signing

            return open_signing(spec, where)


def require_header_safe(value: str, where: str) -> None:
    """Raises ConfigError, without the value, when no header can carry it."""
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigError(
            where,
            "the value has spaces around it, line ends or characters outside ASCII, which no header can carry",
            "Set the variable again, without quotes or a trailing line end.",
        )


def basic(username: str, password: str) -> str:
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
