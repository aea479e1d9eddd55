"""Credentials reach the source and nothing else: no message, no log line, no other host."""

import base64
import logging
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from connectors.errors import AuthError, ConfigError, HeadwaterError, TransientError
from connectors.http.errors import FaultError
from connectors.http.targets import Targets
from tests.http.reading import ids, read, source
from tests.http.serving import Exchange, records, serving

SECRET = "s3cret+/value"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_SECRET", SECRET)
    monkeypatch.setenv("THINGS_USER", "ada")


AUTHS: dict[str, tuple[dict[str, Any], str, str]] = {
    "bearer": ({"type": "bearer", "token": "env:THINGS_SECRET"}, "authorization", f"Bearer {SECRET}"),
    "scheme": ({"type": "bearer", "token": "env:THINGS_SECRET", "scheme": "Token"}, "authorization", f"Token {SECRET}"),
    "header key": ({"type": "api_key", "key": "env:THINGS_SECRET", "name": "X-Key", "in": "header"}, "x-key", SECRET),
    "basic": (
        {"type": "basic", "username": "env:THINGS_USER", "password": "env:THINGS_SECRET"},
        "authorization",
        f"Basic {base64.b64encode(f'ada:{SECRET}'.encode()).decode()}",
    ),
}


@pytest.mark.parametrize("name", AUTHS)
def test_a_credential_is_sent_in_its_header(name: str) -> None:
    auth, header, value = AUTHS[name]

    def answer(exchange: Exchange) -> None:
        is_known = exchange.headers.get(header) == value
        exchange.json(records(0, 2)) if is_known else exchange.json({}, 401)

    with serving(answer) as server:
        assert ids(read(source(server.url, auth=auth))) == [0, 1]
        with pytest.raises(AuthError, match="HTTP 401"):
            read(source(server.url))


def test_a_key_in_the_query_is_on_every_page_once_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    def answer(exchange: Exchange) -> None:
        # the source echoes the whole address, key included
        link = f"{exchange.handler.path}&page=2" if exchange.number == 1 else None
        exchange.json({"data": records(exchange.number * 10, 2), "next": link})

    caplog.set_level(logging.DEBUG)
    auth = {"type": "api_key", "key": "env:THINGS_SECRET", "name": "api_key", "in": "query"}
    stream = {"params": {"a": 1}, "pagination": {"type": "next_link", "path": "next"}}
    with serving(answer) as server:
        assert ids(read(source(server.url, stream, auth=auth))) == [10, 11, 20, 21]
        for seen in server.seen:
            assert parse_qs(seen.partition("?")[2])["api_key"] == [SECRET]
    assert server.seen[1].count("api_key") == 1
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("fault", ["echo", "echo quoted", "echo at the cut", "refused"])
@pytest.mark.parametrize("name", [*AUTHS, "query key"])
def test_no_message_shows_a_credential(name: str, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    def answer(exchange: Exchange) -> None:
        said = exchange.handler.path + str(exchange.headers) if fault == "echo quoted" else SECRET
        if fault == "echo at the cut":
            # messages show 200 characters of what a source says
            said = "x" * 180 + SECRET
        exchange.json({"error": f"{said} was refused"}, 400)

    caplog.set_level(logging.DEBUG)
    auth = (
        AUTHS[name][0] if name in AUTHS else {"type": "api_key", "key": "env:THINGS_SECRET", "name": "k", "in": "query"}
    )
    with serving(answer) as server:
        url = server.url if fault != "refused" else "http://127.0.0.1:1"
        with pytest.raises(HeadwaterError) as caught:
            read(source(url, auth=auth))
    text = str(caught.value) + caplog.text
    for form in (SECRET, "s3c", base64.b64encode(f"ada:{SECRET}".encode()).decode()):
        assert form not in text


def test_a_header_or_parameter_from_the_environment_is_a_secret_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="httpx")
    stream = {"params": {"tenant": "env:THINGS_SECRET"}}
    with serving(lambda e: e.json({"error": f"{e.query['tenant']} {e.headers['x-app']}"}, 400)) as server:
        with pytest.raises(ConfigError) as caught:
            read(source(server.url, stream, headers={"X-App": "env:THINGS_SECRET"}))
        assert server.headers[0]["x-app"] == SECRET
    assert "s3cret" not in str(caught.value) + caplog.text


def test_a_key_that_the_source_echoes_is_taken_out_of_its_address() -> None:
    targets = Targets(httpx.URL("https://api.example/v1"), frozenset(), "api_key")
    assert str(targets.resolve("/v1/x?api_key=abc&page=2")) == "https://api.example/v1/x?page=2"
    # behind a TLS proxy a source names itself with http
    assert str(targets.resolve("http://api.example/v1/x")) == "https://api.example/v1/x"
    with pytest.raises(FaultError, match="leads away"):
        targets.resolve("http://api.example:8080/v1/x")


@pytest.mark.parametrize("value", ["line-end\n", "with\r\nX-Injected: yes", "caf\u00e9", " led by a space"])
def test_a_credential_that_no_header_can_carry_is_refused_unseen(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_SECRET", value)
    with pytest.raises(ConfigError, match=r"connector.auth.token: the value has spaces") as caught:
        read(source("http://127.0.0.1:1", auth={"type": "bearer", "token": "env:THINGS_SECRET"}))
    assert value.strip() not in str(caught.value)


def test_a_missing_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THINGS_SECRET")
    with pytest.raises(ConfigError, match=r"connector.auth.token: environment variable THINGS_SECRET is not set"):
        read(source("http://127.0.0.1:1", auth={"type": "bearer", "token": "env:THINGS_SECRET"}))


def oauth(url: str, **more: str) -> dict[str, Any]:
    return {
        "type": "oauth2_client_credentials",
        "token_url": f"{url}/token",
        "client_id": "env:THINGS_USER",
        "client_secret": "env:THINGS_SECRET",
        **more,
    }


class TokenServer:
    """Gives t1, t2, ... and accepts only the newest; page 2 revokes what page 1 was read with."""

    def __init__(self, *, revokes_on_page: int | None = None, always_refuses: bool = False) -> None:
        self.given = 0
        self.forms: list[dict[str, list[str]]] = []
        self._revokes_on_page = revokes_on_page
        self._always_refuses = always_refuses

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/token":
            self.given += 1
            self.forms.append(parse_qs(exchange.body.decode()))
            exchange.json({"access_token": f"issued-{self.given}", "expires_in": 3600, "token_type": "Bearer"})
            return
        page = int(exchange.query["page"])
        revoked = page == self._revokes_on_page and self.given == 1
        if self._always_refuses or revoked or exchange.headers["authorization"] != f"Bearer issued-{self.given}":
            exchange.json({"error": "token expired"}, 401)
            return
        exchange.json({"data": records(page * 10, 2) if page < 4 else []})


PAGED = {"records": "data", "pagination": {"type": "page_number"}}


@pytest.mark.parametrize("send", ["header", "form"])
def test_client_credentials_fetch_one_token_for_all_pages(send: str) -> None:
    answer = TokenServer()
    with serving(answer) as server:
        spec = source(server.url, PAGED, auth=oauth(server.url, send=send, scope="read"))
        assert len(ids(read(spec))) == 6
        assert server.headers[0].get("authorization", "").startswith("Basic ") == (send == "header")
    assert answer.given == 1
    assert answer.forms[0]["scope"] == ["read"]
    assert answer.forms[0].get("client_secret") == ([SECRET] if send == "form" else None)


def test_a_token_that_expires_mid_run_is_renewed_once() -> None:
    answer = TokenServer(revokes_on_page=2)
    with serving(answer) as server:
        assert ids(read(source(server.url, PAGED, auth=oauth(server.url)))) == [10, 11, 20, 21, 30, 31]
    assert answer.given == 2


def test_a_renewed_token_that_is_refused_too_ends_the_sync() -> None:
    answer = TokenServer(always_refuses=True)
    with serving(answer) as server, pytest.raises(AuthError, match=r"HTTP 401 on page 1: .*token expired"):
        read(source(server.url, PAGED, auth=oauth(server.url)))
    assert answer.given == 2


def test_a_token_endpoint_may_be_a_local_host_of_its_own_but_not_an_endless_one() -> None:
    with serving(lambda e: e.json({"access_token": "x" * 2_000_000})) as tokens, serving(TokenServer()) as server:
        spec = source(server.url, PAGED, auth=oauth(tokens.url.replace("127.0.0.1", "localhost")))
        with pytest.raises(AuthError, match="token_url answered with more than any token on page 1"):
            read(spec)
        assert tokens.seen == ["POST /token"]
        assert server.seen == []


@pytest.mark.parametrize(
    ("status", "error"), [(400, AuthError), (401, AuthError), (503, TransientError), (200, AuthError)]
)
def test_a_token_endpoint_that_gives_none_is_classed(status: int, error: type[HeadwaterError]) -> None:
    with (
        serving(lambda e: e.json({"error": SECRET}, status)) as server,
        pytest.raises(error, match="token_url answered") as caught,
    ):
        read(source(server.url, PAGED, auth=oauth(server.url)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "token",
    [
        "[]",
        '{"a": ' + "[" * 400_000,
        "access_token=t&expires_in=3600",
        '{"token": "t"}',
        '{"access_token": ["t"]}',
        '{"access_token": "t", "expires_in": "soon"}',
        '{"access_token": "t", "expires_in": 1e999}',
        '{"access_token": "t", "expires_in": [3600]}',
    ],
    ids=range(8),
)
def test_an_answer_that_is_no_token_is_refused(token: str) -> None:
    with (
        serving(lambda e: e.send(token.encode())) as server,
        pytest.raises(AuthError, match="token_url answered no token") as caught,
    ):
        read(source(server.url, PAGED, auth=oauth(server.url)))
    assert "soon" not in str(caught.value)


def test_one_clients_basic_header_never_goes_out_with_the_next_client() -> None:
    answer = TokenServer()
    public = {"type": "oauth2_refresh_token", "client_id": "public", "refresh_token": "env:THINGS_USER"}
    with serving(answer) as server:
        read(source(server.url, PAGED, auth=oauth(server.url)))
        read(source(server.url, PAGED, auth={**public, "token_url": f"{server.url}/token"}))
        asked = [headers for seen, headers in zip(server.seen, server.headers, strict=True) if "/token" in seen]
    assert ["authorization" in headers for headers in asked] == [True, False]
    assert answer.forms[1] == {"grant_type": ["refresh_token"], "refresh_token": ["ada"], "client_id": ["public"]}


def test_a_client_secret_that_a_basic_header_would_garble_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_SECRET", "caf\u20ac")
    with pytest.raises(ConfigError, match=r"auth.client_secret: the value has .* outside ASCII") as caught:
        read(source("http://127.0.0.1:1", auth=oauth("http://127.0.0.1:1")))
    assert "caf" not in str(caught.value)
