"""Signing in by a browser: OAuth2 authorization code with PKCE (RFC 7636), back to a loopback address (RFC 8252)."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import httpx
from authlib.oauth2 import OAuth2Client

from connectors.errors import AuthError, ConfigError
from connectors.http.auth import Send, TokenRefusedError, open_auth
from connectors.http.oauth import open_client
from connectors.http.specs import AuthorizationCodeSpec, NoAuthSpec
from connectors.http.token_client import asked
from connectors.http.transport import Guard, GuardedTransport, environment_proxy
from connectors.http.vault import Kept
from connectors.secrets import resolve

if TYPE_CHECKING:
    import ssl

_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Login:
    """One attempt. url: where the browser goes. verifier: proves at the end that both halves are of one attempt."""

    url: str
    state: str
    verifier: str
    redirect_uri: str


def begin(spec: AuthorizationCodeSpec, where: str, redirect_uri: str) -> Login:
    """Raises ConfigError when a variable is not set or authorize_url is no address."""
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    try:
        url = httpx.URL(resolve(spec.authorize_url, f"{where}.authorize_url"))
    except httpx.InvalidURL as error:
        raise ConfigError(f"{where}.authorize_url", f"no valid address: {error}", "Correct it.") from error
    params = {name: resolve(value, f"{where}.params.{name}") for name, value in spec.params.items()}
    client = OAuth2Client(
        None,
        resolve(spec.client_id, f"{where}.client_id"),
        redirect_uri=redirect_uri,
        scope=spec.scope,
        code_challenge_method="S256",
    )
    asking, _ = client.create_authorization_url("", state, verifier)
    # merged, where authlib would add: an authorize_url may say response_type itself
    url = url.copy_merge_params(params).copy_merge_params(httpx.URL(asking).params)
    return Login(str(url), state, verifier, redirect_uri)


def code_in(login: Login, query: Mapping[str, str], where: str) -> str | None:
    """The code that the browser brought back; None when the request is not this attempt's.

    Raises:
        AuthError: the source or the person refused.
    """
    if not secrets.compare_digest(query.get("state", ""), login.state):
        return None
    if "error" in query:
        said = " ".join((query.get("error_description") or query["error"]).split())[:200]
        raise AuthError(where, f"the source refused the sign-in: {said}", "Run the command again, and allow it.")
    return query.get("code")


def finish(
    spec: AuthorizationCodeSpec, login: Login, code: str, name: str, where: str, tls: "ssl.SSLContext | None"
) -> Kept:
    """The tokens that the code is worth. Raises AuthError."""
    url, client = open_client(spec, where)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": login.redirect_uri,
        "code_verifier": login.verifier,
    }
    try:
        with _sending(url, tls) as transport:
            send: Send = transport.send_unsigned
            token = asked(send, url, form, client)
    except (TokenRefusedError, httpx.HTTPError) as error:
        raise AuthError(where, f"no token for the code: {error}", "Run the command again.") from error
    if token.refresh_token is None:
        hint = "Ask for one by scope (often offline_access) or params (often access_type: offline)."
        raise AuthError(where, "the source gave no refresh token, so the sign-in would end within the hour", hint)
    return Kept(name, token.access_token, time.time() + token.renew_after, token.refresh_token)


def _sending(url: str, tls: "ssl.SSLContext | None") -> GuardedTransport:
    address = httpx.URL(url)
    proxy = environment_proxy(address)
    guard = Guard(frozenset({address.host, *({proxy.url.host} if proxy else ())}), time.monotonic() + _SECONDS)
    return GuardedTransport(guard, open_auth(NoAuthSpec(), ""), tls, proxy)
