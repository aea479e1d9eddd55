"""OAuth2: access tokens, fetched when needed, one for all threads, renewed before they expire.

Where a refresh token is at stake and a vault is at hand, one for all processes and hosts: the row is locked, whoever
comes first renews, the others find the new token there.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from types import ModuleType
from typing import Final

import httpx
import msgspec

from connectors.errors import ConfigError
from connectors.http.auth import Auth, Send, TokenRefusedError, basic
from connectors.http.specs import AuthorizationCodeSpec, ClientCredentialsSpec, JwtBearerSpec, RefreshTokenSpec
from connectors.http.vault import KEY_VARIABLE, Connect, Kept, TokenVault, has_key
from connectors.secrets import resolve

log = logging.getLogger(__name__)

_EXPIRES_EARLY_SECONDS: Final = 300.0
_DEFAULT_LIFE_SECONDS: Final = 3_600.0
_SIGN_IN: Final = "Run `headwater auth login {}`."
_OAuthSpec = ClientCredentialsSpec | RefreshTokenSpec | AuthorizationCodeSpec | JwtBearerSpec
_JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def renew_after(life_seconds: float) -> float:
    """Seconds after which a token is renewed: five minutes before its end, at half its life when that is shorter."""
    return max(life_seconds / 2, life_seconds - _EXPIRES_EARLY_SECONDS)


@dataclass(frozen=True, slots=True)
class Grant:
    """How a token is asked for. Two sources with equal grants share one token.

    fixed: the form, but for `assertion`. secrets: values that no message may show. credentials: for a basic header.
    owner: the name that the vault has it by. is_signed_in: it comes from there alone.
    """

    token_url: str
    fixed: tuple[tuple[str, str], ...]
    secrets: tuple[str, ...]
    credentials: tuple[str, str] | None = None
    assertion: "Assertion | None" = None
    owner: str = ""
    is_signed_in: bool = False

    @property
    def refresh_token(self) -> str | None:
        return dict(self.fixed).get("refresh_token")

    def form(self) -> dict[str, str]:
        """Raises ConfigError when the key cannot sign."""
        added = {"assertion": self.assertion.sign()} if self.assertion is not None else {}
        return {**dict(self.fixed), **added}


@dataclass(frozen=True, slots=True)
class Assertion:
    """A signed statement of who asks (RFC 7523), made anew for every token."""

    claims: tuple[tuple[str, str], ...]
    key: str
    key_id: str | None
    algorithm: str
    life_seconds: int
    where: str

    def sign(self) -> str:
        jwt = _jwt(self.where)
        now = int(time.time())
        claims = {**dict(self.claims), "iat": now, "exp": now + self.life_seconds}
        headers = {"kid": self.key_id} if self.key_id else None
        try:
            return str(jwt.encode(claims, self.key, algorithm=self.algorithm, headers=headers))
        except (ValueError, TypeError, jwt.PyJWTError) as error:
            # the error's own text may quote the key
            what = f"cannot sign with {self.algorithm}: {type(error).__name__}"
            raise ConfigError(f"{self.where}.key", what, "Set the variable to the whole private key in PEM.") from None


def _jwt(where: str) -> ModuleType:
    try:
        import jwt
    except ImportError as error:
        raise ConfigError(where, "needs PyJWT, which is not installed", "Install headwater[jwt].") from error
    return jwt


class Token(msgspec.Struct):
    """What a token endpoint answers."""

    access_token: str
    expires_in: float | str = _DEFAULT_LIFE_SECONDS
    refresh_token: str | None = None

    @property
    def renew_after(self) -> float:
        """Seconds. Raises ValueError."""
        return renew_after(float(self.expires_in))


def asked(send: Send, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Token:
    """Raises TokenRefusedError."""
    answer = send(httpx.Request("POST", url, data=dict(form), headers={"Accept": "application/json", **headers}))
    if answer.status_code != 200:
        passes = answer.status_code in (408, 429) or answer.status_code >= 500
        raise TokenRefusedError(f"token_url answered HTTP {answer.status_code}", is_transient=passes)
    try:
        token = msgspec.json.decode(answer.content, type=Token)
        float(token.expires_in)
    except (msgspec.DecodeError, ValueError) as error:
        raise TokenRefusedError(f"token_url answered no token: {error}") from error
    return token


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
        self.secrets: tuple[str, ...] = grant.secrets

    def keep(self, connect: Connect) -> None:
        """From now on the vault has the tokens, where there is a refresh token to lose."""
        grant = self._grant
        if grant.is_signed_in or (grant.refresh_token is not None and has_key()):
            self._vault = TokenVault(connect)

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
        headers = {"Authorization": basic(*grant.credentials)} if grant.credentials is not None else {}
        try:
            token = asked(send, grant.token_url, form, headers)
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
        self.secrets = (*grant.secrets, kept.access_token, *([kept.refresh_token] if kept.refresh_token else []))
        if self._vault is None and kept.refresh_token not in (None, grant.refresh_token):
            self._rotated(kept.refresh_token or "")

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


def client_form(spec: AuthorizationCodeSpec, where: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """token_url, and how the client proves itself there: members of the form, headers."""
    grant = _grant(spec, where, "")
    form = {name: value for name, value in grant.fixed if name in ("client_id", "client_secret")}
    return grant.token_url, form, {"Authorization": basic(*grant.credentials)} if grant.credentials else {}


def _grant(spec: _OAuthSpec, where: str, owner: str) -> Grant:
    def value(name: str) -> str | None:
        said = getattr(spec, name)
        return resolve(said, f"{where}.{name}") if said is not None else None

    url = value("token_url") or ""
    try:
        httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{where}.token_url", f"no valid address: {error}", "Correct it.") from error
    match spec:
        case ClientCredentialsSpec():
            more = {"scope": spec.scope, "audience": spec.audience}
            return _client_grant(spec, url, value, {"grant_type": "client_credentials", **_set(more)})
        case RefreshTokenSpec():
            more = {"scope": spec.scope, "refresh_token": value("refresh_token")}
            grant = _client_grant(spec, url, value, {"grant_type": "refresh_token", **_set(more)})
            # named after the token: two sources with one of it renew it once, and another one begins anew
            digest = blake2b(repr(grant.fixed).encode(), digest_size=6).hexdigest()
            return replace(grant, owner=f"{httpx.URL(url).host} {digest}")
        case AuthorizationCodeSpec():
            grant = _client_grant(spec, url, value, {"grant_type": "refresh_token"})
            return replace(grant, owner=owner, is_signed_in=True)
        case JwtBearerSpec():
            _jwt(where)
            key = (value("key") or "").replace("\\n", "\n")
            claims = _set({"iss": value("issuer"), "sub": value("subject"), "aud": value("audience") or url})
            if spec.scope is not None:
                # Google reads the scope from the assertion, others from the form; either ignores the other
                claims["scope"] = spec.scope
            life = int(spec.lifetime.total_seconds())
            assertion = Assertion(tuple(claims.items()), key, value("key_id"), spec.algorithm, life, where)
            form = {"grant_type": _JWT_BEARER, **_set({"scope": spec.scope})}
            return Grant(url, tuple(form.items()), (key,), assertion=assertion)


def _client_grant(
    spec: ClientCredentialsSpec | RefreshTokenSpec | AuthorizationCodeSpec,
    url: str,
    value: Callable[[str], str | None],
    form: Mapping[str, str],
) -> Grant:
    name, secret = value("client_id") or "", value("client_secret")
    hidden = [*([secret, basic(name, secret).removeprefix("Basic ")] if secret else [])]
    if token := form.get("refresh_token"):
        hidden.append(token)
    if spec.send == "header" and secret:
        return Grant(url, tuple(form.items()), tuple(hidden), (name, secret))
    fields = {**form, **_set({"client_id": name, "client_secret": secret})}
    return Grant(url, tuple(fields.items()), tuple(hidden))


def _set(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
