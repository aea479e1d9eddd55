"""What a source file says of an HTTP source and of one stream of it; kinds that read over HTTP build on both."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from connectors.http.specs import (
    AuthSpec,
    BreakerSpec,
    DottedPath,
    ErrorRule,
    IncrementalSpec,
    NoAuthSpec,
    NoPaging,
    PagingSpec,
    ParentSpec,
    RateLimitSpec,
    RetrySpec,
    Scalar,
    TimeoutSpec,
    check_headers,
)
from connectors.secrets import ValueRef, is_reference
from connectors.specs import ConnectorSpec, StreamSpec


class HttpConnectorSpec(ConnectorSpec):
    """An API's address, credentials and limits.

    headers: sent with every request; values may be references.
    verify: true, false, or the path of a CA bundle.
    allowed_redirect_hosts: other hosts that a redirect or a next link may lead to; credentials never go there.
    max_response_mb: largest answer, also after decompression.
    errors: exceptions to the default table of statuses and failure classes; the first that matches counts.
    """

    base_url: ValueRef
    auth: AuthSpec = NoAuthSpec()
    headers: Mapping[str, ValueRef] = Field(default_factory=dict)
    rate_limit: RateLimitSpec = RateLimitSpec()
    timeouts: TimeoutSpec = TimeoutSpec()
    retries: RetrySpec = RetrySpec()
    breaker: BreakerSpec = BreakerSpec()
    errors: tuple[ErrorRule, ...] = ()
    verify: bool | str = True
    allowed_redirect_hosts: tuple[str, ...] = ()
    max_response_mb: int = Field(default=100, ge=1, le=2_000)

    @field_validator("base_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not is_reference(value) and not value.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://, or be a reference such as env:API_URL")
        return value

    @field_validator("headers")
    @classmethod
    def _no_literal_secret(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return check_headers(value)


class HttpStreamSpec(StreamSpec):
    """One collection of an API.

    format: what an answer is. csv: a header line, then one record a line; xml: `records` is the path to the elements
        with the root's name first, attributes are `@name`. delimiter: between the cells of csv.
    records: where the array of records is, e.g. `data.items`; `.` is the body itself. Left out, the first page's
        array is looked for: the body, else data, results, items, records, else the only array. A later page that
        lacks it fails the sync.
    single: `records` selects one object, which is one record.
    total: path of the source's own count of the whole read, or `header:X-Total-Count`; the sync is reconciled
        against it.
    sums: path of the source's own sum of a column over the whole read, by column, for `reconcile` against it.
    send_in: where paging and incremental parameters go, in the query or in the JSON body of a POST.
    empty_statuses: statuses that mean "no records", e.g. 204 or 404.
    null_is_empty: `null` where the records should be means none.
    conditional: the answer's ETag or Last-Modified goes into the next sync's request, and 304 means nothing new.
    parent: the stream is below another one.
    """

    path: str
    method: Literal["GET", "POST"] = "GET"
    params: Mapping[str, Scalar] = Field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    send_in: Literal["query", "body"] = "query"
    records: DottedPath | None = None
    single: bool = False
    total: DottedPath | None = None
    sums: Mapping[str, DottedPath] = Field(default_factory=dict)
    pagination: PagingSpec = NoPaging()
    incremental: IncrementalSpec | None = None
    empty_statuses: tuple[int, ...] = ()
    null_is_empty: bool = False
    format: Literal["json", "jsonl", "csv", "xml"] = "json"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    conditional: bool = False
    parent: ParentSpec | None = None

    @field_validator("path")
    @classmethod
    def _relative(cls, value: str) -> str:
        if not value.isprintable() or " " in value:
            raise ValueError("has spaces or control characters in it")
        if "://" in value or value.startswith("//"):
            raise ValueError("is relative to the connector's base_url; give another host its own source")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        require_fit(self)
        return self


def require_fit(stream: HttpStreamSpec, *, builds_parameters: bool = False) -> None:
    """The stream's keys fit each other.

    builds_parameters: a connector in Python makes the parameters of position and window itself.

    Raises:
        ValueError: two of them contradict.
    """
    incremental = stream.incremental
    if not builds_parameters and stream.partitions is not None and (incremental is None or not incremental.end_param):
        raise ValueError(
            "partitions need incremental.param and incremental.end_param: without both, every slice would read"
            " more than its own time"
        )
    if incremental is not None and stream.cursor is None and stream.partitions is None:
        raise ValueError("incremental.param has no value without a cursor; set cursor: {field: ...}")
    if incremental is not None and incremental.ordered and stream.cursor is None:
        raise ValueError("incremental.ordered is about the cursor; set cursor: {field: ...}")
    if stream.method == "GET" and (stream.body is not None or stream.send_in == "body"):
        raise ValueError("a body needs method: POST")
    if stream.single and stream.pagination.type != "none":
        raise ValueError("single: true is one record in one answer; it has no pagination")
    _require_format(stream)
    if stream.conditional and (stream.pagination.type != "none" or stream.parent is not None):
        raise ValueError("conditional: true is about one answer; a stream of several pages or parents has no such")
    _require_parent(stream)


def _require_parent(stream: HttpStreamSpec) -> None:
    if ("{parent." in stream.path) != (stream.parent is not None):
        raise ValueError("parent and {parent.FIELD} in path belong together: set both or none")
    if stream.parent is not None and stream.sums:
        raise ValueError("sums are those of one read; a stream below another one is read once a parent")
    if stream.parent is not None and stream.incremental is not None and stream.incremental.ordered:
        raise ValueError("incremental.ordered: records of several parents never come in order of the cursor")


def _require_format(stream: HttpStreamSpec) -> None:
    if stream.format == "xml" and (stream.records is None or "." not in stream.records):
        raise ValueError("format: xml needs records, the path to the elements from the root on, e.g. feed.entry")
    if stream.format != "json" and stream.single:
        raise ValueError(f"single: true is a JSON object; format: {stream.format} has records")
    if stream.format in ("jsonl", "csv") and (stream.records not in (None, ".") or _reads_body(stream)):
        raise ValueError(f"format: {stream.format} is records and nothing else; no path leads into it")


def _reads_body(stream: HttpStreamSpec) -> bool:
    paging = stream.pagination
    paths = [getattr(paging, key, None) for key in ("has_more", "total_pages", "path")]
    return any(paths) or bool(stream.sums) or (stream.total is not None and not stream.total.startswith("header:"))
