"""A source's HTTP traffic, recorded once and replayed in tests without network, secrets or waiting.

A recording is one file a stream, JSON lines: {"recording"} once, then each {"read": {cursor, rows}} with every
{"request", "response"} of it. Credentials are never in it: it is taken above the layer that signs. Values of columns
with `pii: personal` or `sensitive` are replaced by others of the same type, equal ones by equal ones; other secrets by
the word `recorded`.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

import httpx
import msgspec

from connectors.contract import Connector, ReadContext, StreamState
from connectors.errors import ConfigError, SourceError
from connectors.http.body import read_body
from connectors.http.client import HttpClient
from connectors.registry import kind
from connectors.specs import SourceSpec, StreamSpec
from connectors.testing.conformance import references_in, rows_of, state_after
from connectors.testing.masks import Masks, shy_columns

STAND_IN: Final = "recorded"
"""What stands for every secret, in a recording and while it is replayed."""
_ORIGIN: Final = "http://recorded.invalid"
_DROPPED: Final = frozenset(
    {"set-cookie", "content-encoding", "content-length", "transfer-encoding", "connection", "date", "server"}
    | {"www-authenticate", "keep-alive"}
)
_LONGEST_BYTES: Final = 100_000_000


class NotRecordedError(AssertionError):
    """A request that the recording does not have, or has fewer times."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: target is path and query below base_url's origin."""

    method: str
    target: str
    body: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[tuple[str, str], ...], str]:
        parts = urlsplit(self.target)
        return self.method, parts.path, tuple(sorted(parse_qsl(parts.query, keep_blank_values=True))), self.body

    def __str__(self) -> str:
        return f"{self.method} {self.target}"


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(slots=True)
class Read:
    """One read of a stream. cursor: its position; None at first. rows: how many records came."""

    cursor: str | None
    rows: int = 0
    exchanges: list[tuple[Asked, Answered]] = field(default_factory=list[tuple[Asked, Answered]])


def record(
    source: SourceSpec,
    stream: StreamSpec,
    folder: Path,
    *,
    page_limit: int | None = None,
    connect_shared: Callable[[], Any] | None = None,
) -> Sequence[Read]:
    """Read the stream from its start and once more from where that ends; write `<folder>/<stream>.jsonl`.

    connect_shared: as in ReadContext, for a source whose tokens are kept in the warehouse.

    Raises:
        ConfigError: the kind does not read over HTTP, or its format cannot be masked.
        HeadwaterError: a read failed; nothing is written.
    """
    reads: list[Read] = []
    state: StreamState | None = StreamState()
    form = getattr(stream, "format", "json")
    personal = shy_columns(source, stream)
    if form in ("csv", "xml") and personal:
        what = f"personal columns of {form} cannot be masked"
        raise ConfigError(f"{source.source}.{stream.name}", what, "Leave this stream out of the recording.")
    masks = Masks(personal)
    with kind(source.connector.kind).open(source) as connector:
        client = _client(connector, source)
        base_url = client.base_url
        values = frozenset(os.environ.get(name, "") for name in _variables(source))
        client.tap(lambda inner: _Recorder(inner, client, masks, reads, values))
        while state is not None and len(reads) < 2:
            reads.append(Read(state.cursor))
            rows = _read(connector, stream, state, page_limit, connect_shared)
            reads[-1].rows = len(rows)
            following = state_after(stream, rows)
            state = following if following.cursor is not None else None
    # a position may be a masked value
    reads = [Read(masks.text(read.cursor) if read.cursor else None, read.rows, read.exchanges) for read in reads]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stream.name}.jsonl"
    head = _Head(urlsplit(base_url).path, page_limit)
    path.write_text("".join(f"{line}\n" for line in _lines(reads, head)), encoding="utf-8")
    return reads


@dataclass(slots=True)
class Replayed:
    """requests: what was asked, in order, as `METHOD path?query`. reads: what the recording has."""

    connector: Connector
    stream: StreamSpec
    reads: Sequence[Read]
    page_limit: int | None
    requests: list[str] = field(default_factory=list[str])

    def read(self, state: StreamState | None = None) -> list[Mapping[str, Any]]:
        """The records after `state`. Raises NotRecordedError for a request that was not recorded."""
        return _read(self.connector, self.stream, state or StreamState(), self.page_limit)


@contextmanager
def replaying(source: SourceSpec, stream: StreamSpec, folder: Path) -> Generator[Replayed]:
    """The source's connector over the recording of one stream: no network, no secret, no rate limit.

    Raises:
        ConfigError: there is no recording.
    """
    path = folder / f"{stream.name}.jsonl"
    if not path.is_file():
        hint = f"`headwater record {source.source}.{stream.name}` makes it."
        raise ConfigError(f"{source.source}.{stream.name}", f"no recording at {path}", hint)
    reads, head = _load(path)
    with _stand_ins(source):
        offline = _offline(source, head.base)
        with kind(offline.connector.kind).open(offline) as connector:
            replayed = Replayed(connector, offline.stream(stream.name), reads, head.pages)
            _client(connector, source).tap(lambda _: _Replayer(reads, replayed.requests))
            yield replayed


def assert_replays(source: SourceSpec, folder: Path) -> None:
    """Every stream's recording gives as many records as it did then, asks nothing else, and nothing less.

    Raises:
        AssertionError: it does not; NotRecordedError for the first request that was not recorded.
    """
    for stream in source.streams:
        with replaying(source, stream, folder) as replayed:
            for number, read in enumerate(replayed.reads, 1):
                got = len(replayed.read(StreamState(cursor=read.cursor)))
                place = f"{source.source}.{stream.name}: read {number} of its recording"
                assert got == read.rows, f"{place} had {read.rows} records, now {got}"
            recorded = sum(len(read.exchanges) for read in replayed.reads)
            assert len(replayed.requests) == recorded, f"{len(replayed.requests)} of {recorded} requests were made"


def _client(connector: Connector, source: SourceSpec) -> HttpClient:
    client = getattr(connector, "client", None)
    if not isinstance(client, HttpClient):
        what = f"kind {source.connector.kind} has no HTTP traffic to record"
        raise ConfigError(f"{source.source}: connector.kind", what, "Record sources of kind rest or python.")
    return client


def _read(
    connector: Connector,
    stream: StreamSpec,
    state: StreamState,
    page_limit: int | None,
    connect_shared: Callable[[], Any] | None = None,
) -> list[Mapping[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="headwater-recording-") as folder:
        context = ReadContext(window=None, folder=Path(folder), page_limit=page_limit, connect_shared=connect_shared)
        return [row for message in connector.read(stream, state, context) for row in rows_of(message)]


@dataclass(frozen=True, slots=True)
class _Head:
    """base: path of base_url. pages: how many of each read were recorded; None for all."""

    base: str
    pages: int | None


def _lines(reads: Sequence[Read], head: _Head) -> Iterator[str]:
    yield json.dumps({"recording": asdict(head)})
    for read in reads:
        yield json.dumps({"read": {"cursor": read.cursor, "rows": read.rows}})
        for asked, answered in read.exchanges:
            yield json.dumps({"request": asdict(asked), "response": asdict(answered)}, ensure_ascii=False)


def _load(path: Path) -> tuple[list[Read], _Head]:
    reads: list[Read] = []
    number = 0
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        head = _Head(**json.loads(first)["recording"])
        for line in lines:
            number += 1
            item = json.loads(line)
            if "read" in item:
                reads.append(Read(**item["read"]))
            else:
                reads[-1].exchanges.append((Asked(**item["request"]), Answered(**item["response"])))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{path}, line {number + 1}", f"is no recording: {error}", "Record it again.") from error
    return reads, head


class _Recorder(httpx.BaseTransport):
    def __init__(
        self,
        inner: httpx.BaseTransport,
        client: HttpClient,
        masks: Masks,
        reads: Sequence[Read],
        values: frozenset[str],
    ) -> None:
        self._inner, self._client, self._masks, self._reads, self._values = inner, client, masks, reads, values
        url = urlsplit(client.base_url)
        self._origin = f"{url.scheme}://{url.netloc}"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._inner.handle_request(request)
        length = response.headers.get("content-length", "")
        declared = int(length) if length.isdecimal() else None
        try:
            encoding = response.headers.get("content-encoding", "")
            body, _ = read_body(response.iter_raw(), encoding, declared, _LONGEST_BYTES)
        finally:
            response.close()
        asked = Asked(request.method, self._clean(request.url.raw_path.decode()), self._clean(_text(request.read())))
        headers = {name.lower(): self._clean(value) for name, value in response.headers.items()}
        answered = Answered(
            response.status_code,
            {name: "0" if name == "retry-after" else value for name, value in headers.items() if _is_kept(name)},
            self._clean(self._body(body)),
        )
        self._reads[-1].exchanges.append((asked, answered))
        kept = [(name, value) for name, value in response.headers.items() if name.lower() not in _ENCODING]
        return httpx.Response(response.status_code, headers=kept, stream=httpx.ByteStream(body))

    def _body(self, body: bytes) -> str:
        try:
            return _text(self._masks.json(body))
        except msgspec.DecodeError:
            with suppress(msgspec.DecodeError):
                return _text(b"\n".join(self._masks.json(line) for line in body.splitlines() if line.strip()))
            # what is no JSON has no columns to mask by
            return "masked: no JSON"

    def _clean(self, text: str) -> str:
        text = self._masks.text(text.replace(self._origin, _ORIGIN))
        hidden = {value for value in self._client.secrets | self._values if len(value) >= 4}
        for secret in sorted(hidden, key=len, reverse=True):
            for form in {secret, quote(secret, safe=""), quote_plus(secret)}:
                text = text.replace(form, STAND_IN)
        return text

    def close(self) -> None:
        self._inner.close()


_ENCODING: Final = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def _is_kept(name: str) -> bool:
    return name not in _DROPPED and "ratelimit" not in name and "rate-limit" not in name


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        hint = "Only text can be masked and recorded; leave this stream out."
        raise SourceError("record", "an answer is no UTF-8 text", hint) from error


class _Replayer(httpx.BaseTransport):
    def __init__(self, reads: Sequence[Read], requests: list[str]) -> None:
        self._left: dict[Any, list[Answered]] = {}
        self._known: list[str] = []
        self._requests = requests
        for read in reads:
            for asked, answered in read.exchanges:
                self._left.setdefault(asked.key, []).append(answered)
                self._known.append(str(asked))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        asked = Asked(request.method, request.url.raw_path.decode(), _text(request.read()))
        self._requests.append(str(asked))
        left = self._left.get(asked.key)
        if not left:
            how = "was not recorded" if left is None else "was recorded fewer times"
            shown = "\n  ".join(self._known[:4])
            raise NotRecordedError(f"{asked} {how}; recorded are {len(self._known)} requests, the first:\n  {shown}")
        answered = left.pop(0)
        return httpx.Response(
            answered.status, headers=dict(answered.headers), stream=httpx.ByteStream(answered.body.encode())
        )


def _offline(source: SourceSpec, base: str) -> SourceSpec:
    """The source at an address that is nobody's, with no quota and quick retries."""
    connector = source.connector
    changed = connector.model_dump(by_alias=True, exclude_unset=True) | {
        "base_url": f"{_ORIGIN}{base}",
        "retries": {"attempts": 10, "initial": "PT0.001S", "longest": "PT0.001S"},
        "rate_limit": {"pool": f"replay {secrets.token_hex(4)}"},
    }
    return source.model_copy(update={"connector": type(connector).model_validate(changed)})


def _variables(source: SourceSpec) -> set[str]:
    """Every variable that the source refers to, but for its address."""
    specs = [source.connector.model_dump(exclude={"base_url"}), *(stream.model_dump() for stream in source.streams)]
    return set(references_in(specs))


@contextmanager
def _stand_ins(source: SourceSpec) -> Generator[None]:
    """Every variable is set to the word that stands for it in the recording."""
    names = _variables(source)
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, STAND_IN))
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)
