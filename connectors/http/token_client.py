"""OAuth2 as it is on the wire, by authlib: forms, how a client proves itself, signed assertions.

Ours is what is below and above: requests go through our own transport with its limits, answers are decoded strictly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlencode

import httpx
import msgspec
from authlib.oauth2 import ClientAuth, OAuth2Client

from connectors.errors import ConfigError
from connectors.http.auth import Send, TokenRefusedError

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_DEFAULT_LIFE_SECONDS: Final = 3_600.0
_EXPIRES_EARLY_SECONDS: Final = 300.0
_KEY_TYPES: Final[Mapping[str, Literal["RSA", "EC", "oct"]]] = {"RS256": "RSA", "ES256": "EC", "HS256": "oct"}


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. way: how it proves itself at token_url, in authlib's words."""

    name: str
    secret: str | None
    way: Literal["client_secret_basic", "client_secret_post", "none"]


@dataclass(frozen=True, slots=True)
class Assertion:
    """A signed statement of who asks (RFC 7523), made anew for every token."""

    issuer: str
    subject: str | None
    audience: str
    scope: str | None
    key: str
    key_id: str | None
    algorithm: str
    life_seconds: int
    where: str

    def sign(self) -> str:
        """Raises ConfigError when the key cannot sign."""
        from authlib.oauth2.rfc7523 import JWTBearerGrant
        from joserfc.errors import JoseError
        from joserfc.jwk import import_key

        if self.algorithm == "HS256" and "-----BEGIN" in self.key:
            raise self._unusable("a PEM is no shared secret")
        try:
            made = JWTBearerGrant.sign(
                import_key(self.key, _KEY_TYPES[self.algorithm]),
                self.issuer,
                self.audience,
                self.subject,
                # Google reads the scope from the assertion, others from the form; either ignores the other
                claims={"scope": self.scope} if self.scope is not None else None,
                header={"kid": self.key_id} if self.key_id else None,
                alg=self.algorithm,
                expires_in=self.life_seconds,
            )
        except (ValueError, TypeError, JoseError) as error:
            # the error's own text may quote the key
            raise self._unusable(type(error).__name__) from None
        return str(made)

    def _unusable(self, why: str) -> ConfigError:
        hint = "Set the variable to the whole private key in PEM; for HS256 to the shared secret."
        return ConfigError(f"{self.where}.key", f"cannot sign with {self.algorithm}: {why}", hint)


class Token(msgspec.Struct):
    """What a token endpoint answers."""

    access_token: str
    expires_in: float | str = _DEFAULT_LIFE_SECONDS
    refresh_token: str | None = None

    @property
    def renew_after(self) -> float:
        """Seconds. Raises ValueError."""
        return renew_after(float(self.expires_in))


def renew_after(life_seconds: float) -> float:
    """Seconds after which a token is renewed: five minutes before its end, at half its life when that is shorter."""
    return max(life_seconds / 2, life_seconds - _EXPIRES_EARLY_SECONDS)


def asked(send: Send, token_url: str, form: Mapping[str, str], client: Client | None) -> Token:
    """form: grant_type and what it needs. client: None where the form itself proves who asks.

    Raises:
        TokenRefusedError: with no value of the answer but its status, since a server may echo the secret.
    """
    session = _Session(send)
    if client is None:
        asking = _Asking(session, token_endpoint_auth_method=_unproven)
    else:
        asking = _Asking(session, client.name, client.secret, token_endpoint_auth_method=client.way)
    return asking.fetch_token(token_url, **form)


def _unproven(client: ClientAuth, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
    return uri, headers, body


class _Asking(OAuth2Client):
    def parse_response_token(self, resp: httpx.Response) -> Token:
        """Strictly: authlib's own takes any type for a token, and fails on `"expires_in": 1e999`."""
        try:
            token = msgspec.json.decode(resp.content, type=Token)
            float(token.expires_in)
        except (msgspec.DecodeError, RecursionError) as error:
            raise TokenRefusedError(f"token_url answered no token: {error}") from error
        except ValueError:
            raise TokenRefusedError("token_url answered no token: expires_in is no number") from None
        return token


class _Session:
    """What authlib posts through."""

    def __init__(self, send: Send) -> None:
        self._send = send

    def post(self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: ClientAuth) -> httpx.Response:
        # a copy: authlib hands every client the same headers, and a basic header would go to the next one too
        url, ready, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        answer = self._send(httpx.Request("POST", url, headers=ready, content=body))
        if answer.status_code != 200:
            passes = answer.status_code in (408, 429) or answer.status_code >= 500
            raise TokenRefusedError(f"token_url answered HTTP {answer.status_code}", is_transient=passes)
        return answer
