"""OAuth2: access tokens, fetched when needed, one for all threads, renewed before they expire.

Where a refresh token is at stake and a vault is at hand, one for all processes and hosts: the row is locked, whoever
comes first renews, the others find the new token there.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

import httpx

from connectors.errors import ConfigError
from connectors.http.auth import Auth, Send, TokenRefusedError, basic, require_header_safe
from connectors.http.specs import AuthorizationCodeSpec, ClientCredentialsSpec, JwtBearerSpec, RefreshTokenSpec
from connectors.http.token_client import JWT_BEARER, Assertion, Client, asked
from connectors.http.vault import KEY_VARIABLE, Connect, Kept, TokenVault, has_key
from connectors.secrets import resolve

log = logging.getLogger(__name__)

_SIGN_IN: Final = "Run `headwater auth login {}`."
_SEEN_TOKENS: Final = 16
_Value = Callable[[str], str | None]
_OAuthSpec = ClientCredentialsSpec | RefreshTokenSpec | AuthorizationCodeSpec | JwtBearerSpec


@dataclass(frozen=True, slots=True)
class Grant:
    """How a token is asked for. Two sources with equal grants share one token.

    fixed: the form, but for the client and `assertion`. secrets: values that no message may show. client: None when
    the assertion names it. owner: the name that the vault has it by. is_signed_in: it comes from there alone.
    """

    token_url: str
    fixed: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    client: Client | None = None
    assertion: Assertion | None = None
    owner: str = ""
    is_signed_in: bool = False

    @property
    def refresh_token(self) -> str | None:
        return dict(self.fixed).get("refresh_token")

    def form(self) -> dict[str, str]:
        """Raises ConfigError when the key cannot sign."""
        added = {"assertion": self.assertion.sign()} if self.assertion is not None else {}
        return {**dict(self.fixed), **added}


class _Tokens:
    """The token of one grant, for all threads."""

    query_name: str | None = None

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self.hosts: tuple[str, ...] = (httpx.URL(grant.token_url).host,)
        self._lock = threading.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self._refused: str | None = None
        self._sent = threading.local()
        self._vault: TokenVault | None = None
        self._seen: tuple[str, ...] = ()

    def keep(self, connect: Connect) -> None:
        """From now on the vault has the tokens, where there is a refresh token to lose."""
        grant = self._grant
        if grant.is_signed_in or (grant.refresh_token is not None and has_key()):
            self._vault = TokenVault(connect)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Also tokens that were used up: their source may still speak of them."""
        return (*self._grant.secrets, *self._seen)

    def sign(self, request: httpx.Request, send: Send) -> httpx.Request:
        with self._lock:
            if self._token is None or time.time() >= self._renew_at:
                self._fetch(send)
            token = self._sent.token = self._token
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    def renew(self) -> bool:
        """The token that this thread sent was refused; another thread may have a new one already."""
        with self._lock:
            if self._token == getattr(self._sent, "token", None):
                self._refused, self._token = self._token, None
        return True

    def _fetch(self, send: Send) -> None:
        grant = self._grant
        if self._vault is None:
            if grant.is_signed_in:
                raise TokenRefusedError(
                    "its tokens are in the warehouse, which is not at hand", hint=_SIGN_IN.format(grant.owner)
                )
            self._take(self._renewed(send, grant.refresh_token))
            return
        with self._vault.locked(grant.owner) as entry:
            kept = entry.kept
            if kept is not None:
                self._see(kept)
            if kept is None and grant.is_signed_in:
                raise TokenRefusedError("nobody has signed in", hint=_SIGN_IN.format(grant.owner))
            if kept is None or kept.access_token == self._refused or time.time() >= kept.renew_at:
                kept = self._renewed(send, kept.refresh_token if kept is not None else grant.refresh_token)
                entry.kept = kept
        # only now, when the new tokens are durable
        self._take(kept)

    def _renewed(self, send: Send, refresh_token: str | None) -> Kept:
        """Tokens from the endpoint; a source that names no new refresh token means the old one."""
        grant = self._grant
        form = grant.form() | ({"refresh_token": refresh_token} if refresh_token is not None else {})
        try:
            token = asked(send, grant.token_url, form, grant.client)
        except TokenRefusedError as error:
            if grant.is_signed_in and not error.is_transient:
                error.hint = _SIGN_IN.format(grant.owner)
            raise
        return Kept(
            grant.owner, token.access_token, time.time() + token.renew_after, token.refresh_token or refresh_token
        )

    def _take(self, kept: Kept) -> None:
        grant = self._grant
        self._token, self._renew_at = kept.access_token, kept.renew_at
        self._see(kept)
        if self._vault is None and kept.refresh_token not in (None, grant.refresh_token):
            self._rotated(kept.refresh_token or "")

    def _see(self, kept: Kept) -> None:
        tokens = (kept.access_token, *([kept.refresh_token] if kept.refresh_token else []))
        self._seen = tuple(dict.fromkeys((*self._seen, *tokens)))[-_SEEN_TOKENS:]

    def _rotated(self, refresh_token: str) -> None:
        """The source changes the refresh token at every use: this process goes on with the new one."""
        grant = self._grant
        fixed = tuple((name, refresh_token if name == "refresh_token" else value) for name, value in grant.fixed)
        self._grant = replace(grant, fixed=fixed, secrets=(*grant.secrets, refresh_token))
        log.warning(
            "refresh token was changed by its source, the variable no longer holds it; with %s set it is kept host=%s",
            KEY_VARIABLE,
            self.hosts[0],
        )


_opened: dict[Grant, _Tokens] = {}
_opened_lock = threading.Lock()


def open_oauth(spec: _OAuthSpec, where: str, owner: str) -> Auth:
    """The process's tokens for this grant. Raises ConfigError when a variable is not set."""
    grant = _grant(spec, where, owner)
    with _opened_lock:
        return _opened.setdefault(grant, _Tokens(grant))


def open_client(spec: AuthorizationCodeSpec, where: str) -> tuple[str, Client]:
    """token_url, and who asks there. Raises ConfigError when a variable is not set."""
    value = _values(spec, where)
    return _token_url(value, where), _client(spec, value, where)


def _values(spec: _OAuthSpec, where: str) -> _Value:
    def value(name: str) -> str | None:
        said = getattr(spec, name)
        return resolve(said, f"{where}.{name}") if said is not None else None

    return value


def _token_url(value: _Value, where: str) -> str:
    url = value("token_url") or ""
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{where}.token_url", f"no valid address: {error}", "Correct it.") from error
    return url


def _grant(spec: _OAuthSpec, where: str, owner: str) -> Grant:
    value = _values(spec, where)
    url = _token_url(value, where)
    if isinstance(spec, JwtBearerSpec):
        key = (value("key") or "").replace("\\n", "\n")
        assertion = Assertion(
            value("issuer") or "",
            value("subject"),
            value("audience") or url,
            spec.scope,
            key,
            value("key_id"),
            spec.algorithm,
            int(spec.lifetime.total_seconds()),
            where,
        )
        return Grant(url, _set(grant_type=JWT_BEARER, scope=spec.scope), (key,), assertion=assertion)
    client = _client(spec, value, where)
    hidden = (client.secret, basic(client.name, client.secret).removeprefix("Basic ")) if client.secret else ()
    match spec:
        case ClientCredentialsSpec():
            form = _set(grant_type="client_credentials", scope=spec.scope, audience=spec.audience)
            return Grant(url, form, hidden, client)
        case RefreshTokenSpec():
            token = value("refresh_token") or ""
            form = _set(grant_type="refresh_token", scope=spec.scope, refresh_token=token)
            # named after the token: two sources with one of it renew it once, and another one begins anew
            named = (
                form
                if client.way == "client_secret_basic"
                else (*form, *_set(client_id=client.name, client_secret=client.secret))
            )
            digest = blake2b(repr(named).encode(), digest_size=6).hexdigest()
            return Grant(url, form, (*hidden, token), client, owner=f"{httpx.URL(url).host} {digest}")
        case AuthorizationCodeSpec():
            return Grant(url, _set(grant_type="refresh_token"), hidden, client, owner=owner, is_signed_in=True)


def _client(
    spec: ClientCredentialsSpec | RefreshTokenSpec | AuthorizationCodeSpec, value: _Value, where: str
) -> Client:
    name, secret = value("client_id") or "", value("client_secret")
    if not secret:
        return Client(name, None, "none")
    if spec.send == "form":
        return Client(name, secret, "client_secret_post")
    # RFC 6749 has ASCII alone in both, and authlib's basic header is Latin-1
    require_header_safe(name, f"{where}.client_id")
    require_header_safe(secret, f"{where}.client_secret")
    return Client(name, secret, "client_secret_basic")


def _set(**values: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in values.items() if value is not None)
