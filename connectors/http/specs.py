"""What a source file may say about HTTP: credentials, paging, limits. Facts only; nothing here reaches out."""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from connectors.errors import FailureClass
from connectors.secrets import SecretRef, ValueRef, is_reference
from connectors.specs import Spec

DottedPath = Annotated[str, Field(min_length=1, max_length=200)]
"""Keys with dots between them: `meta.next`. A key that has dots itself is found first: `@odata.nextLink`."""

Scalar = str | int | float | bool

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "apikey", "x-auth-token"}
)


class NoAuthSpec(Spec):
    type: Literal["none"] = "none"


class BearerSpec(Spec):
    """`Authorization: Bearer <token>`; some sources want another word: `scheme: Token`."""

    type: Literal["bearer"]
    token: SecretRef
    scheme: str = "Bearer"


class ApiKeySpec(Spec):
    """A key in a header or in the query; in the query it never shows in logs or messages."""

    type: Literal["api_key"]
    key: SecretRef
    name: str
    place: Literal["header", "query"] = Field(default="header", alias="in")


class BasicSpec(Spec):
    type: Literal["basic"]
    username: ValueRef
    password: SecretRef


class ClientCredentialsSpec(Spec):
    """OAuth2 client credentials: a token is fetched when needed and renewed before it expires.

    send: how the client proves itself to token_url, in a basic header or in the form.
    """

    type: Literal["oauth2_client_credentials"]
    token_url: ValueRef
    client_id: ValueRef
    client_secret: SecretRef
    scope: str | None = None
    audience: str | None = None
    send: Literal["header", "form"] = "header"


class RefreshTokenSpec(Spec):
    """OAuth2 with a refresh token that stays valid when it is used. client_secret: None for a public client."""

    type: Literal["oauth2_refresh_token"]
    token_url: ValueRef
    client_id: ValueRef
    client_secret: SecretRef | None = None
    refresh_token: SecretRef
    scope: str | None = None
    send: Literal["header", "form"] = "form"


class AuthorizationCodeSpec(Spec):
    """OAuth2 on behalf of a person, who signs in once by `headwater auth login` (authorization code with PKCE).

    The tokens are kept encrypted in the warehouse. client_secret: None for a public client. redirect_port: of the
    address on this machine that the sign-in returns to; any free one when the source does not insist on one.
    params: what else the source wants on authorize_url, e.g. {access_type: offline}.
    """

    type: Literal["oauth2_authorization_code"]
    authorize_url: ValueRef
    token_url: ValueRef
    client_id: ValueRef
    client_secret: SecretRef | None = None
    scope: str | None = None
    redirect_port: int | None = Field(default=None, ge=1, le=65_535)
    params: Mapping[str, str] = Field(default_factory=dict)
    send: Literal["header", "form"] = "form"


class JwtBearerSpec(Spec):
    """OAuth2 by an assertion that the client signs (RFC 7523), as service accounts do.

    key: a private key as PEM, its line ends may be written as backslash n; for HS256 the shared secret.
    audience: of the assertion; token_url when not given. lifetime: of the assertion.
    """

    type: Literal["oauth2_jwt_bearer"]
    token_url: ValueRef
    key: SecretRef
    issuer: ValueRef
    subject: ValueRef | None = None
    audience: ValueRef | None = None
    scope: str | None = None
    key_id: ValueRef | None = None
    algorithm: Literal["RS256", "ES256", "HS256"] = "RS256"
    lifetime: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0), le=timedelta(hours=1))


class HmacSpec(Spec):
    """Every request is signed: an HMAC over `parts`, with `separator` between them, in a header, beside its time.

    parts: what is signed, in this order; target is path with query. prefix: before the signature in its header.
    """

    type: Literal["hmac"]
    key: SecretRef
    key_id: ValueRef | None = None
    key_id_header: str = "X-Key-Id"
    header: str = "X-Signature"
    prefix: str = ""
    timestamp_header: str = "X-Timestamp"
    timestamp: Literal["epoch", "epoch_ms", "iso"] = "epoch"
    parts: tuple[Literal["timestamp", "key_id", "method", "host", "path", "query", "target", "body"], ...] = (
        "timestamp",
        "method",
        "target",
        "body",
    )
    separator: str = "\n"
    algorithm: Literal["sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if "timestamp" not in self.parts:
            raise ValueError("parts must have timestamp: without it a signature could be sent again for ever")
        if "key_id" in self.parts and self.key_id is None:
            raise ValueError("parts has key_id, but there is none; set key_id")
        return self


class SigV4Spec(Spec):
    """Every request is signed as AWS wants it, version 4. Needs the extra `aws`."""

    type: Literal["aws_sigv4"]
    access_key: ValueRef
    secret_key: SecretRef
    session_token: SecretRef | None = None
    region: ValueRef
    service: str


AuthSpec = Annotated[
    NoAuthSpec
    | BearerSpec
    | ApiKeySpec
    | BasicSpec
    | ClientCredentialsSpec
    | RefreshTokenSpec
    | AuthorizationCodeSpec
    | JwtBearerSpec
    | HmacSpec
    | SigV4Spec,
    Field(discriminator="type"),
]


class _Sized(Spec):
    """size: records asked for on a page, sent as size_param; a source may answer with fewer.

    has_more: path of a boolean that says whether another page follows; it must then be on every page.
    """

    size_param: str | None = None
    size: int | None = Field(default=None, ge=1)
    has_more: DottedPath | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.size is None) != (self.size_param is None):
            raise ValueError("size and size_param belong together: set both or none")
        return self


class NoPaging(Spec):
    """One request is the whole answer."""

    type: Literal["none"] = "none"


class PageNumberPaging(_Sized):
    """?page=1, 2, 3 until a page is empty, or total_pages (a path in the body) says so.

    A short page does not end the read: many sources cap the size below what was asked.
    """

    type: Literal["page_number"] = "page_number"
    param: str = "page"
    start: int = 1
    total_pages: DottedPath | None = None


class OffsetPaging(_Sized):
    """?offset=0, n, 2n until a page is empty; n is what really came.

    overlap: records of the last page that are asked for again, where the order is stable: rows that were deleted or
        inserted meanwhile shift the pages, and these tell by how much.
    """

    type: Literal["offset"] = "offset"
    param: str = "offset"
    start: int = 0
    overlap: int = Field(default=0, ge=0, le=1_000)


class CursorPaging(_Sized):
    """The body carries an opaque mark for the next page; none, null or empty text is the end."""

    type: Literal["cursor"] = "cursor"
    param: str = "cursor"
    path: DottedPath


class NextLinkPaging(_Sized):
    """The next page's address, in the body at `path`, or in the Link header with rel=next when there is no path."""

    type: Literal["next_link"] = "next_link"
    path: DottedPath | None = None


class KeysetPaging(_Sized):
    """?since_id=<field of the last record> until a page is empty or has_more is false."""

    type: Literal["keyset"] = "keyset"
    param: str
    field: DottedPath


PagingSpec = Annotated[
    NoPaging | PageNumberPaging | OffsetPaging | CursorPaging | NextLinkPaging | KeysetPaging,
    Field(discriminator="type"),
]


class IncrementalSpec(Spec):
    """How the stream's cursor (and a partition's window) goes into the request.

    param: gets the position, or the window's start. end_param: gets the window's end.
    format: iso (2013-01-01T05:00:00Z) | date | epoch | epoch_ms | raw, or a strftime pattern with %.
    ordered: records come in cursor order over the whole read, so a long read may commit between two values.
    """

    param: str
    end_param: str | None = None
    format: str = "iso"
    ordered: bool = False

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ("iso", "date", "epoch", "epoch_ms", "raw") and "%" not in value:
            raise ValueError("must be iso, date, epoch, epoch_ms, raw, or a strftime pattern such as %Y-%m-%d")
        return value


class ParentSpec(Spec):
    """A stream below another one: its path has {parent.FIELD} in it and is read for every record of `stream`.

    include: columns of the child that hold a field of its parent, {order_id: id}.
    gone: statuses that mean that the parent has vanished since it was listed.
    concurrency: parents that are read at the same time.
    """

    stream: str
    include: Mapping[str, DottedPath] = Field(default_factory=dict)
    gone: tuple[int, ...] = (404, 410)
    concurrency: int = Field(default=4, ge=1, le=16)


class RateLimitSpec(Spec):
    """At most `requests` in any `per`, shared by all that name the same pool (default: the source's name).

    window: `rolling` counts any stretch of `per` and spreads the requests; `fixed` is for sources whose quota is full
        again at every multiple of `per` (counted from 1970 UTC): all of it may be used at once.
    concurrent: at most so many requests under way together.
    max_wait: the longest that one request may wait for its turn or for what the source asked (Retry-After).
    """

    pool: str | None = None
    requests: int | None = Field(default=None, ge=1)
    per: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))
    window: Literal["rolling", "fixed"] = "rolling"
    concurrent: int | None = Field(default=None, ge=1, le=1_000)
    max_wait: timedelta = Field(default=timedelta(minutes=5), ge=timedelta(0))


class TimeoutSpec(Spec):
    """connect: until the connection stands; read: longest silence; total: one page with its retries, waits for
    rate limits not counted. A server that sends a byte now and then ends at `total`."""

    connect: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    read: timedelta = Field(default=timedelta(seconds=60), gt=timedelta(0))
    total: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0))


class RetrySpec(Spec):
    """Attempts for one request, the first included; the pause doubles from `initial` to `longest`, with jitter."""

    attempts: int = Field(default=5, ge=1, le=20)
    initial: timedelta = timedelta(seconds=0.5)
    longest: timedelta = timedelta(seconds=30)


class BreakerSpec(Spec):
    """After so many requests in a row that failed for good, none of the pool's is sent for `pause`; then one may try.

    Failures of a single stream stop that stream alone: as long as no second one fails, the source is not down.
    """

    failures: int = Field(default=5, ge=1)
    pause: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))


class ErrorRule(Spec):
    """An exception to the default table: answers of this status whose body matches belong to this class.

    status 200 may be named: for sources that report errors with it. body: a regular expression, searched.
    """

    status: int = Field(ge=100, le=599)
    body: str | None = None
    becomes: Literal["rate_limited", "transient", "auth", "config", "source"]

    @field_validator("body")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value

    @property
    def failure_class(self) -> FailureClass:
        return self.becomes


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers that carry credentials must be references.

    Raises:
        ValueError: one is a literal; its value is not echoed.
    """
    for name, value in headers.items():
        if name.lower() in _SECRET_HEADERS and not is_reference(value):
            raise ValueError(f"{name} carries a credential: use auth, or a reference such as env:API_TOKEN")
    return headers
