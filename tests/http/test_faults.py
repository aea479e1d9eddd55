"""What servers and networks do wrong: the class, the place, the measurement, and what was read before it."""

import gzip
import json
import ssl
import subprocess
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import JsonRecords, Message, StreamState
from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    HeadwaterError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.registry import kind
from tests.http.reading import context, ids, read, readers, source
from tests.http.serving import Exchange, records, serving

PAGED = {"records": "data", "pagination": {"type": "page_number"}}


def page(exchange: Exchange) -> None:
    """Three pages of ten, then an empty one."""
    number = int(exchange.query.get("page", "1"))
    exchange.json({"data": records((number - 1) * 10, 10) if number <= 3 else []})


def on_page(number: int, fault: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """The fault on that page, every time."""
    return lambda exchange: fault(exchange) if exchange.query.get("page") == str(number) else page(exchange)


def once(fault: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
    """The fault on the second request of all, and never again."""
    return lambda exchange: fault(exchange) if exchange.number == 2 else page(exchange)


def raw(status_line: str, body: bytes, *headers: str) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        exchange.raw("\r\n".join([f"HTTP/1.1 {status_line}", *headers, "", ""]).encode() + body)
        exchange.hang_up()

    return answer


PASSING: dict[str, Callable[[Exchange], None]] = {
    "429 without Retry-After": lambda e: e.json({}, 429),
    "429 with Retry-After: 0": lambda e: e.json({}, 429, retry_after="0"),
    "503": lambda e: e.json({}, 503),
    "502 with an HTML page": lambda e: e.send(b"<html>bad gateway", 502, content_type="text/html"),
    "408": lambda e: e.json({}, 408),
    "a reset connection": lambda e: e.reset(),
    "a closed connection": lambda e: e.hang_up(),
    "a body cut short of its length": raw("200 OK", b'{"data": [{"id"', "Content-Length: 500"),
    "a cut body without a length": raw("200 OK", b'{"data": [{"id"', "Connection: close"),
    "an empty body": raw("200 OK", b"", "Content-Length: 0"),
    "a cut gzip body": raw(
        "200 OK", gzip.compress(b'{"data": []}' * 50)[:-20], "Content-Encoding: gzip", "Connection: close"
    ),
    "a broken chunk": raw("200 OK", b"zz\r\nnonsense", "Transfer-Encoding: chunked"),
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_costs_a_retry_and_no_record(fault: str) -> None:
    with serving(once(PASSING[fault])) as server:
        within = context()
        assert ids(read(source(server.url, PAGED), within=within)) == list(range(30))
        assert within.usage.retries == 1
        assert within.usage.requests == 5


def error_page(exchange: Exchange) -> None:
    exchange.json({"error": {"message": "shard 3 is down"}})


LASTING: dict[str, tuple[Callable[[Exchange], None], type[HeadwaterError], str]] = {
    "503": (lambda e: e.json({}, 503), TransientError, r"HTTP 503 on page 2 after 3 attempts in \d+ s"),
    "429": (lambda e: e.json({}, 429), RateLimited, r"HTTP 429 on page 2 after 3 attempts"),
    "reset": (lambda e: e.reset(), TransientError, r"on page 2 after 3 attempts"),
    "truncated": (
        raw("200 OK", b'{"data": [{"id"', "Connection: close"),
        TransientError,
        r"the JSON ends early on page 2 after 3 attempts in \d+ s \(15 bytes\)",
    ),
    "error object with 200": (
        error_page,
        SourceError,
        r"HTTP 200 with no array at 'data' on page 2; it says error: .*shard 3 is down",
    ),
    "html with 200": (
        lambda e: e.send(b"<!doctype html><title>Sign in</title>", 200, content_type="text/html"),
        SourceError,
        r"neither a JSON object nor a JSON array on page 2 \(text/html, 37 bytes\): an HTML page titled 'Sign in'",
    ),
    "204": (lambda e: e.send(b"", 204), SourceError, r"HTTP 204 on page 2\nIf 204 means"),
    "400": (lambda e: e.json({"message": "bad page"}, 400), ConfigError, r"HTTP 400 on page 2: .*bad page"),
    "404": (lambda e: e.json({}, 404), ConfigError, r"HTTP 404 on page 2"),
    "401": (lambda e: e.json({}, 401), AuthError, r"HTTP 401 on page 2"),
    "403": (lambda e: e.json({}, 403), AuthError, r"HTTP 403 on page 2"),
    "403 with no requests left": (
        lambda e: e.json({}, 403, x_ratelimit_remaining="0", x_ratelimit_reset="7200"),
        RateLimited,
        r"HTTP 403 on page 2; the server asked for 7200 s",
    ),
    "501": (lambda e: e.json({}, 501), SourceError, r"HTTP 501 on page 2"),
    "records are null": (lambda e: e.json({"data": None}), SourceError, r"no array at 'data' on page 2"),
    "an encoding that was not asked for": (
        lambda e: e.send(b"x", 200, content_encoding="br"),
        SourceError,
        r"Content-Encoding 'br', which was not asked for on page 2",
    ),
}


@pytest.mark.parametrize("fault", LASTING)
def test_a_fault_that_stays_is_classed_and_keeps_the_pages_before_it(fault: str) -> None:
    answer, error, message = LASTING[fault]
    got: list[Message] = []
    with serving(on_page(2, answer)) as server, kind("rest").open(spec := source(server.url, PAGED)) as connector:
        with pytest.raises(error, match=message) as caught:
            got.extend(connector.read(spec.streams[0], StreamState(), context()))
        assert ids(got) == [] or ids(got) == list(range(10))
        assert len(str(caught.value).splitlines()) <= 6
        assert str(caught.value).startswith(f"{spec.source}.things: ")


def test_pages_read_before_a_fault_are_handed_over() -> None:
    with serving(on_page(3, error_page)) as server, kind("rest").open(spec := source(server.url, PAGED)) as connector:
        messages = connector.read(spec.streams[0], StreamState(), context())
        assert ids([next(messages), next(messages)]) == list(range(20))
        with pytest.raises(SourceError):
            next(messages)


def test_a_declared_rule_overrides_the_table() -> None:
    rules = [{"status": 200, "body": "shard .* down", "becomes": "transient"}, {"status": 400, "becomes": "source"}]
    with serving(once(error_page)) as server:
        assert ids(read(source(server.url, PAGED, errors=rules))) == list(range(30))
    with serving(on_page(2, lambda e: e.json({}, 400))) as server, pytest.raises(SourceError):
        read(source(server.url, PAGED, errors=rules))


@pytest.mark.parametrize("status", [204, 404])
def test_a_status_declared_empty_ends_the_read(status: int) -> None:
    with serving(on_page(3, lambda e: e.send(b"", status))) as server:
        assert ids(read(source(server.url, {**PAGED, "empty_statuses": [status]}))) == list(range(20))


def test_null_declared_empty_ends_the_read() -> None:
    with serving(on_page(3, lambda e: e.json({"data": None}))) as server:
        assert ids(read(source(server.url, {**PAGED, "null_is_empty": True}))) == list(range(20))


# ---- time


def quickly(**limits: str) -> dict[str, Any]:
    return {
        "timeouts": {"connect": "PT20S", "read": "PT20S", "total": "PT20S", **limits},
        "retries": {"attempts": 2, "initial": "PT0.01S"},
    }


def test_a_server_that_says_nothing_ends_at_the_read_limit() -> None:
    with (
        serving(lambda e: e.wait()) as server,
        pytest.raises(TransientError, match=r"fell silent on page 1 after 2 attempts in \d+ s: nothing came for 0.4 s"),
    ):
        read(source(server.url, **quickly(read="PT0.4S")))


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"], ids=["headers", "body"])
def test_a_server_that_drips_ends_at_the_total_limit(start: bytes) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(start)
        exchange.drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 800, 0.02)

    with serving(answer) as server, pytest.raises(TransientError, match=r"no whole answer within 1 s on page 1"):
        read(source(server.url, **quickly(total="PT1S")))


def test_a_cancelled_read_stops_while_the_server_hangs() -> None:
    arrived = threading.Event()

    def answer(exchange: Exchange) -> None:
        arrived.set()
        exchange.wait()

    within = context()
    with serving(answer) as server:
        threading.Thread(target=lambda: (arrived.wait(), within.cancelled.set())).start()
        with pytest.raises(Cancelled, match="stopped at page 1"):
            read(source(server.url), within=within)


def test_a_cancelled_read_stops_while_it_waits_for_the_rate_limit() -> None:
    within = context()

    def answer(exchange: Exchange) -> None:
        exchange.json({}, 429, retry_after="60")
        within.cancelled.set()

    with serving(answer) as server, pytest.raises(Cancelled):
        read(source(server.url), within=within)


def test_a_reader_that_goes_away_leaves_no_request_behind() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.wait() if exchange.query.get("page") == "2" else page(exchange)

    with serving(answer) as server, kind("rest").open(spec := source(server.url, PAGED)) as connector:
        messages = connector.read(spec.streams[0], StreamState(), context())
        assert isinstance(next(messages), JsonRecords)
        assert [name.startswith("http-things") for name in readers()] == [True]
        messages.close()  # type: ignore[attr-defined] # an iterator by contract, a generator in fact
        assert readers() == []


# ---- size


def test_an_answer_over_the_limit_is_refused_before_it_is_read() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n")
        exchange.hang_up()

    with serving(answer) as server, pytest.raises(ResourceError, match=r"900.0 MB or more, over 1 MB on page 1"):
        read(source(server.url, max_response_mb=1))


def test_an_answer_without_a_length_is_cut_off_at_the_limit() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[")
        while not exchange.gone.is_set():
            exchange.raw(b'{"id": 1},' * 10_000)

    with serving(answer) as server, pytest.raises(ResourceError, match=r"over 1 MB"):
        read(source(server.url, max_response_mb=1))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_small_answer_that_grows_is_cut_off_at_the_limit(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(300)) + packer.flush()
    assert len(bomb) < 1_000_000
    with (
        serving(lambda e: e.send(bomb, 200, content_encoding=encoding)) as server,
        pytest.raises(ResourceError, match=r"over 2 MB"),
    ):
        read(source(server.url, max_response_mb=2))


@pytest.mark.parametrize("wbits", [31, 15, -15], ids=["gzip", "zlib", "bare deflate"])
def test_a_compressed_answer_is_read(wbits: int) -> None:
    packer = zlib.compressobj(wbits=wbits)
    body = packer.compress(json.dumps(records(0, 500)).encode()) + packer.flush()
    encoding = "gzip" if wbits == 31 else "deflate"
    within = context()
    with serving(lambda e: e.send(body, 200, content_encoding=encoding)) as server:
        assert ids(read(source(server.url), within=within)) == list(range(500))
        assert within.usage.received_bytes == len(body)


# ---- where the request goes


def test_a_redirect_on_the_same_host_keeps_the_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_TOKEN", "s3cret-token")

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/things":
            exchange.send(b"", 307, location="/v2/things?x=1")
        else:
            exchange.json(records(0, 3))

    with serving(answer) as server:
        auth = {"type": "bearer", "token": "env:THINGS_TOKEN"}
        assert ids(read(source(server.url, auth=auth))) == [0, 1, 2]
        assert server.seen == ["GET /things", "GET /v2/things?x=1"]
        assert server.headers[1]["authorization"] == "Bearer s3cret-token"


@pytest.mark.parametrize("other", ["http://localhost:{port}/x", "http://127.0.0.1:1/x", "//169.254.169.254/latest"])
def test_a_redirect_to_another_host_is_refused(other: str) -> None:
    with serving(lambda e: e.send(b"", 302, location=other.format(port=e.port))) as server:
        with pytest.raises(SourceError, match=r"leads away from 127.0.0.1:\d+ to .* on page 1\nIf that is right"):
            read(source(server.url))
        assert len(server.seen) == 1


def test_a_next_link_to_another_host_is_refused() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.json({"data": records(0, 2), "next": "https://evil.example/things?page=2"})

    with serving(answer) as server, pytest.raises(SourceError, match=r"to evil.example on page 2"):
        read(source(server.url, {"pagination": {"type": "next_link", "path": "next"}}))


def test_a_host_allowed_by_name_gets_no_credential_and_may_not_be_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("THINGS_TOKEN", "s3cret-token")
    auth = {"type": "bearer", "token": "env:THINGS_TOKEN"}
    with serving(lambda e: e.json(records(0, 3))) as files:
        with serving(lambda e: e.send(b"", 302, location=f"http://localhost:{files.port}/f")) as server:
            spec = source(server.url, auth=auth, allowed_redirect_hosts=["localhost"])
            with pytest.raises(SourceError, match="leads to localhost, a local address"):
                read(spec)
        assert files.seen == []
        # the configured host on another port is the one local address that can be allowed
        with serving(lambda e: e.send(b"", 302, location=f"{files.url}/f")) as server:
            allowed = [f"127.0.0.1:{files.port}"]
            headers = {"X-App": "env:THINGS_TOKEN"}
            spec = source(server.url, auth=auth, headers=headers, allowed_redirect_hosts=allowed)
            assert ids(read(spec)) == [0, 1, 2]
            assert "x-app" in server.headers[0]
        assert {"authorization", "x-app"}.isdisjoint(files.headers[0])


def test_a_redirect_in_a_circle_ends() -> None:
    with serving(lambda e: e.send(b"", 302, location="/things")) as server:
        with pytest.raises(SourceError, match="more than 5 redirects"):
            read(source(server.url))
        assert len(server.seen) == 6


# ---- reaching it at all


def certificate(folder: Path) -> Path:
    pem = folder / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(pem), "-out", str(folder / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    with pem.open("ab") as file:
        file.write((folder / "cert.pem").read_bytes())
    return pem


def test_a_self_signed_certificate_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with serving(lambda e: e.json(records(0, 3)), tls=tls) as server:
        with pytest.raises(ConfigError, match=r"certificate of 127.0.0.1:\d+ was refused on page 1: self.signed"):
            read(source(server.url))
        assert ids(read(source(server.url, verify=str(tmp_path / "cert.pem")))) == [0, 1, 2]
        assert ids(read(source(server.url, verify=False))) == [0, 1, 2]
        with pytest.raises(TransientError, match=r"ended the answer early|broke"):
            read(source(server.url.replace("https", "http")))


def test_an_encrypted_answer_may_come_in_pieces_with_silence_between_them(tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))

    def answer(exchange: Exchange) -> None:
        # each silence is longer than the quarter of a second after which a read looks around
        exchange.gone.wait(0.6)
        exchange.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n[{"id": 1},')
        exchange.gone.wait(0.6)
        exchange.raw(b'{"id": 2}]')

    with serving(answer, tls=tls) as server:
        assert ids(read(source(server.url, verify=False))) == [1, 2]


def test_https_to_a_plain_server_is_the_authors_mistake() -> None:
    with (
        serving(lambda e: e.json([])) as server,
        pytest.raises(ConfigError, match="does not speak TLS on this port"),
    ):
        read(source(server.url.replace("http", "https")))


def test_a_refused_connection_says_who_refused() -> None:
    with serving(lambda e: e.json([])) as server:
        url = server.url
    with pytest.raises(TransientError, match=r"127.0.0.1:\d+ refused the connection on page 1 after 3 attempts"):
        read(source(url))


def test_an_unknown_host_says_so() -> None:
    with pytest.raises((ConfigError, TransientError), match=r"(no such host|DNS did not answer).* nowhere\.invalid"):
        read(source("http://nowhere.invalid"))


def test_the_breaker_spares_a_source_that_is_down() -> None:
    with serving(lambda e: e.json({}, 503)) as server:
        spec = source(server.url, breaker={"failures": 2, "pause": "PT60S"}, retries={"attempts": 1})
        for _ in range(2):
            with pytest.raises(TransientError, match="HTTP 503"):
                read(spec)
        with pytest.raises(TransientError, match=r"is closed for \d+ s more"):
            read(spec)
        assert len(server.seen) == 2
