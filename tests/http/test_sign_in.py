"""Signing in by a browser: PKCE, one attempt's own answer, tokens kept encrypted, renewed once for all processes."""

import json
import logging
import stat
import subprocess
import sys
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import psycopg
import pytest
from cryptography.fernet import Fernet

from connectors.contract import ReadContext, StreamState
from connectors.errors import AuthError, ConfigError
from connectors.http.login import begin
from connectors.http.oauth import _grant, _opened
from connectors.http.specs import AuthorizationCodeSpec, RefreshTokenSpec
from connectors.http.vault import Kept, TokenVault
from connectors.registry import kind
from connectors.specs import SourceSpec
from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.http.reading import context, ids, source
from tests.http.serving import Exchange, records, serving
from tests.support import sql

__all__ = ["project"]

ROOT = Path(__file__).parents[2]


class Provider:
    """An OAuth2 server and the API behind it. A refresh token is good for one use; the newest access token is valid."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.refresh, self.given, self.challenge = "refresh-0", 0, ""
        self.life = 3_600
        self.bodies: list[dict[str, str]] = []

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/token":
            with self.lock:
                self.token(exchange, dict(parse_qsl(exchange.body.decode())))
            return
        valid = exchange.headers.get("authorization") == f"Bearer access-{self.given}"
        exchange.json(records(0, 3)) if valid else exchange.json({}, 401)

    def token(self, exchange: Exchange, form: dict[str, str]) -> None:
        self.bodies.append(form)
        if form["grant_type"] == "authorization_code":
            digest = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
            fits = form["code"] == "the-code" and digest == self.challenge
        else:
            fits = form["refresh_token"] == self.refresh
        if not fits:
            exchange.json({"error": "invalid_grant"}, 400)
            return
        self.given += 1
        self.refresh = f"refresh-{self.given}"
        exchange.json({"access_token": f"access-{self.given}", "refresh_token": self.refresh, "expires_in": self.life})


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    found = Fernet.generate_key().decode()
    monkeypatch.setenv("HEADWATER_SECRET_KEY", found)
    monkeypatch.setenv("REFRESH_TOKEN", "refresh-0")
    yield found
    _opened.clear()


def code_auth(url: str) -> dict[str, Any]:
    urls = {"authorize_url": f"{url}/authorize?tenant=1", "token_url": f"{url}/token"}
    return {"type": "oauth2_authorization_code", "client_id": "me", "scope": "read offline", **urls}


def refresh_auth(url: str) -> dict[str, Any]:
    token = {"token_url": f"{url}/token", "client_id": "me", "refresh_token": "env:REFRESH_TOKEN"}
    return {"type": "oauth2_refresh_token", **token}


def shared(dsn: str) -> ReadContext:
    return replace(context(), connect_shared=lambda: psycopg.connect(dsn, autocommit=True))


def read(spec: SourceSpec, dsn: str) -> list[Any]:
    with kind("rest").open(spec) as connector:
        return ids(list(connector.read(spec.streams[0], StreamState(), shared(dsn))))


def another_process() -> None:
    """What this process remembers is gone; the vault is not."""
    _opened.clear()


def put(dsn: str, kept: Kept) -> None:
    with TokenVault(lambda: psycopg.connect(dsn, autocommit=True)).locked(kept.name) as entry:
        entry.kept = kept


def test_a_sign_in_by_browser_keeps_tokens_that_the_next_processes_use(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    provider = Provider()
    with serving(provider) as server:
        auth = json.dumps(code_auth(server.url))
        project.source(
            "type: platform_assets.components.Source\nattributes:\n  source: shop\n  owner: team:data\n"
            f"  connector: {{kind: rest, base_url: '{server.url}', auth: {auth}}}\n"
            "  streams: [{name: things, path: /things}]\n",
            "shop",
        )
        # no key yet: the command makes one
        with project.start("auth", "login", "shop", "--wait", "240", **env) as running:
            assert running.stdout is not None
            assert "Open this address" in running.stdout.readline()
            url = urlsplit(running.stdout.readline().strip())
            asked = dict(parse_qsl(url.query))
            assert (asked["tenant"], asked["response_type"], asked["client_id"]) == ("1", "code", "me")
            assert (asked["scope"], asked["code_challenge_method"]) == ("read offline", "S256")
            provider.challenge = asked["code_challenge"]
            # somebody else's answer, and one without a state, end nothing
            for forged in ({"state": "x", "code": "evil"}, {"code": "evil"}):
                httpx.get(asked["redirect_uri"], params=forged)
            answer = {"state": asked["state"], "code": "the-code"}
            assert httpx.get(asked["redirect_uri"], params=answer).status_code == 200
            said, complained = running.communicate(timeout=240)
        assert running.returncode == 0, complained
        for hidden in ("access-1", "refresh-1", provider.bodies[0]["code_verifier"]):
            assert hidden not in said + complained
        dotenv = project.root / ".env"
        assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
        assert "HEADWATER_SECRET_KEY=" in dotenv.read_text("utf-8")
        checked = project.run("check", "shop", **env)
        assert "3 records on the first page" in checked.stdout, checked.stderr
        assert provider.given == 1
    assert "shop" in project.run("auth", "list", **env).stdout
    assert project.run("auth", "logout", "shop", **env).returncode == 0
    assert sql.run(warehouse.loader_dsn, "select count(*) from ops.tokens") == [(0,)]


def test_the_address_of_a_sign_in_says_everything_once() -> None:
    more = {"authorize_url": "https://shop.example/authorize?response_type=token&a=1&a=2"}
    said = {**code_auth("https://shop.example"), **more, "params": {"state": "mine", "access_type": "offline"}}
    spec = AuthorizationCodeSpec.model_validate(said)
    attempt = begin(spec, "shop", "http://127.0.0.1:9/callback")
    query = parse_qsl(urlsplit(attempt.url).query)
    digest = sha256(attempt.verifier.encode()).digest()
    assert sorted(query) == [
        ("a", "1"),
        ("a", "2"),
        ("access_type", "offline"),
        ("client_id", "me"),
        ("code_challenge", urlsafe_b64encode(digest).rstrip(b"=").decode()),
        ("code_challenge_method", "S256"),
        ("redirect_uri", "http://127.0.0.1:9/callback"),
        ("response_type", "code"),
        ("scope", "read offline"),
        ("state", attempt.state),
    ]


def test_a_refresh_token_has_the_row_that_earlier_versions_gave_it() -> None:
    """Otherwise a token that its source changed would be lost with the update."""
    secret = {"client_secret": "env:REFRESH_TOKEN"}
    specs = [
        RefreshTokenSpec.model_validate(refresh_auth("https://a.example") | more)
        for more in ({}, secret, {**secret, "send": "header", "scope": "read"})
    ]
    names = [_grant(spec, "shop", "").owner for spec in specs]
    assert names == ["a.example af54838965e2", "a.example 8392272b1bca", "a.example 2040a85c2bc7"]


@pytest.mark.slow
def test_a_rotated_refresh_token_is_kept_for_the_next_process(warehouse: Warehouse) -> None:
    provider = Provider()
    provider.life = 1
    with serving(provider) as server:
        for _ in range(3):
            spec = source(server.url, auth=refresh_auth(server.url))
            assert read(spec, warehouse.loader_dsn) == [0, 1, 2]
            another_process()
            sql.run(warehouse.loader_dsn, "select pg_sleep(0.6)")
    assert [body["refresh_token"] for body in provider.bodies] == ["refresh-0", "refresh-1", "refresh-2"]


def test_processes_share_one_token_and_renew_it_once(warehouse: Warehouse) -> None:
    """Each thread has tokens of its own, as a process has; what they share is the vault alone."""
    provider = Provider()
    dsn = warehouse.loader_dsn
    meeting = threading.Barrier(4)

    def one(url: str) -> list[Any]:
        spec = source(url, auth=code_auth(url)).model_copy(update={"source": "shop"})
        with lock:
            another_process()
            opened = kind("rest").open(spec)
        with opened as connector:
            meeting.wait(60)
            return ids(list(connector.read(spec.streams[0], StreamState(), shared(dsn))))

    lock = threading.Lock()
    with serving(provider) as server, ThreadPoolExecutor(4) as threads:
        put(dsn, Kept("shop", "access-0", 0.0, "refresh-0"))
        assert list(threads.map(one, [server.url] * 4)) == [[0, 1, 2]] * 4
        assert provider.given == 1
        # revoked at the source: the first that is refused renews, the others find the new one
        provider.given, provider.refresh = 5, "refresh-1"
        assert list(threads.map(one, [server.url] * 4)) == [[0, 1, 2]] * 4
    assert provider.given == 6
    assert len(provider.bodies) == 2


def test_real_processes_renew_once_for_all_of_them(warehouse: Warehouse) -> None:
    provider = Provider()
    with serving(provider) as server, ExitStack() as ends:
        put(warehouse.loader_dsn, Kept("shop", "access-0", 0.0, "refresh-0"))
        connector = {"kind": "rest", "base_url": server.url, "auth": code_auth(server.url)}
        said = {"source": "shop", "owner": "team:data", "connector": connector}
        words = [sys.executable, "-m", "tests.http.signed_reader", warehouse.loader_dsn]
        running = [
            ends.enter_context(
                subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        for process in running:
            assert process.stdin is not None
            process.stdin.write(json.dumps(said | {"streams": [{"name": "things", "path": "/things"}]}) + "\n")
            process.stdin.flush()
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert [process.communicate("go\n", timeout=240)[0] for process in running] == ["3\n"] * 2
    assert len(provider.bodies) == 1


def test_no_token_is_in_a_log_a_message_or_a_row_of_the_warehouse(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the source echoes in its error what it was sent."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CLIENT_SECRET", "s3cret-of-the-client")
    provider, dsn = Provider(), warehouse.loader_dsn

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/token" or not provider.given:
            provider(exchange)
        else:
            sent = exchange.headers["authorization"]
            exchange.json({"error": f"{sent} with {provider.refresh} may not, {provider.bodies}"}, 403)

    with serving(answer) as server:
        auth = {**code_auth(server.url), "client_secret": "env:CLIENT_SECRET"}
        spec = source(server.url, auth=auth)
        put(dsn, Kept(spec.source, "access-0", 0.0, "refresh-0"))
        with pytest.raises(AuthError, match="HTTP 403") as caught:
            sync(SyncRequest(spec, spec.streams[0]), dsn)
    tables = sql.run(dsn, "select tablename from pg_tables where schemaname = 'ops'")
    rows = [str(row) for (table,) in tables for row in sql.run(dsn, f"select t::text from ops.{table} t")]
    assert any("HTTP 403" in row for row in rows), "the ledger has the message"
    text = "\n".join([str(caught.value), caplog.text, *rows])
    for hidden in ("access-0", "access-1", "refresh-0", "refresh-1", "s3cret-of-the-client"):
        assert hidden not in text
    assert (provider.given, provider.refresh) == (1, "refresh-1")


def test_nothing_of_a_token_stands_in_the_warehouse_in_clear_and_another_key_reads_nothing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    dsn = warehouse.loader_dsn
    put(dsn, Kept("shop", "access-9", 9e9, "refresh-9"))
    ((sealed,),) = sql.run(dsn, "select sealed from ops.tokens")
    assert b"access" not in bytes(sealed)
    vault = TokenVault(lambda: psycopg.connect(dsn, autocommit=True))
    # a new key in front, the old one still there
    monkeypatch.setenv("HEADWATER_SECRET_KEY", f"{Fernet.generate_key().decode()},{key}")
    with vault.locked("shop") as entry:
        assert entry.kept is not None
        assert entry.kept.refresh_token == "refresh-9"
    sql.run(dsn, "update ops.tokens set name = 'other'")
    for name, wrong, message in (
        ("other", key, "tokens of other: the tokens were kept with another key"),
        ("other", Fernet.generate_key().decode(), "with another key"),
        ("other", "not-a-key", "HEADWATER_SECRET_KEY: is no Fernet key"),
        ("other", "", "tokens are never kept in clear"),
    ):
        monkeypatch.setenv("HEADWATER_SECRET_KEY", wrong)
        with pytest.raises(ConfigError, match=message) as caught, vault.locked(name):
            pass
        assert "not-a-key" not in str(caught.value)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        sql.run(warehouse.reader_dsn, "select * from ops.tokens")


def test_who_has_not_signed_in_is_told_how(warehouse: Warehouse) -> None:
    provider = Provider()
    with serving(provider) as server:
        spec = source(server.url, auth=code_auth(server.url))
        with pytest.raises(AuthError, match=rf"nobody has signed in .*\nRun `headwater auth login {spec.source}`"):
            read(spec, warehouse.loader_dsn)
        put(warehouse.loader_dsn, Kept(spec.source, "access-0", 0.0, "withdrawn"))
        with pytest.raises(AuthError, match="HTTP 400 on page 1\nRun `headwater auth login") as caught:
            read(spec, warehouse.loader_dsn)
        assert "withdrawn" not in str(caught.value)
        another_process()
        with kind("rest").open(spec) as connector, pytest.raises(AuthError, match="in the warehouse"):
            connector.check()
