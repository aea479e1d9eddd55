"""OAuth2 by refresh token and by signed assertion, one token for all threads, and requests that are signed."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt

from connectors.contract import StreamState
from connectors.errors import AuthError, ConfigError, HeadwaterError
from connectors.http.token_client import renew_after
from connectors.registry import kind
from connectors.specs import SourceSpec
from tests.http.reading import context, ids, read, source
from tests.http.serving import Exchange, records, serving

KEY = "k3y+/of the source"
PAGED = {"records": "data", "pagination": {"type": "page_number"}}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_KEY", KEY)
    monkeypatch.setenv("THINGS_ID", "client-7")
    monkeypatch.setenv("THINGS_REFRESH", "refresh-0")


class Tokens:
    """Gives issued-1, issued-2, ... for what `judge` lets pass, and takes only the newest."""

    def __init__(self, judge: Callable[[dict[str, str], Exchange], dict[str, Any]]) -> None:
        self.given = 0
        self.revoked = 0
        self._judge = judge
        self._lock = threading.Lock()

    def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/token":
            form = {name: values[0] for name, values in parse_qs(exchange.body.decode()).items()}
            more = self._judge(form, exchange)
            if "error" in more:
                exchange.json(more, 400)
                return
            with self._lock:
                self.given += 1
            exchange.json({"access_token": f"issued-{self.given}", "expires_in": 3600, **more})
            return
        if exchange.headers["authorization"] != f"Bearer issued-{self.given}" or self.given <= self.revoked:
            exchange.json({"error": "token expired"}, 401)
            return
        page = int(exchange.query["page"])
        exchange.json({"data": records(page * 10, 2) if page < 3 else []})


def refresh(url: str, **more: str) -> dict[str, Any]:
    return {
        "type": "oauth2_refresh_token",
        "token_url": f"{url}/token",
        "client_id": "env:THINGS_ID",
        "client_secret": "env:THINGS_KEY",
        "refresh_token": "env:THINGS_REFRESH",
        **more,
    }


@pytest.mark.parametrize("send", ["form", "header"])
def test_a_refresh_token_gets_an_access_token(send: str) -> None:
    seen: list[tuple[dict[str, str], str]] = []

    def judge(form: dict[str, str], exchange: Exchange) -> dict[str, Any]:
        seen.append((form, exchange.headers.get("authorization", "")))
        return {}

    with serving(Tokens(judge)) as server:
        assert ids(read(source(server.url, PAGED, auth=refresh(server.url, send=send)))) == [10, 11, 20, 21]
    ((form, header),) = seen
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "refresh-0")
    assert (form.get("client_secret"), header[:6]) == ((KEY, "") if send == "form" else (None, "Basic "))


def test_a_refresh_token_that_changes_at_use_is_used_on_and_told(caplog: pytest.LogCaptureFixture) -> None:
    used: list[str] = []

    def judge(form: dict[str, str], _: Exchange) -> dict[str, Any]:
        used.append(form["refresh_token"])
        return {"refresh_token": f"refresh-{len(used)}"}

    answer = Tokens(judge)
    with serving(answer) as server:
        spec = source(server.url, PAGED, auth=refresh(server.url))
        read(spec)
        answer.revoked = 1
        assert len(ids(read(spec))) == 4
    assert used == ["refresh-0", "refresh-1"]
    assert "refresh token was changed by its source" in caplog.text
    assert "refresh-1" not in caplog.text


def test_a_refused_refresh_token_is_told_without_it() -> None:
    with (
        serving(Tokens(lambda form, _: {"error": f"invalid_grant {form['refresh_token']}"})) as server,
        pytest.raises(AuthError, match="token_url answered HTTP 400") as caught,
    ):
        read(source(server.url, PAGED, auth=refresh(server.url)))
    assert "refresh-0" not in str(caught.value)


def test_all_threads_share_one_token_and_one_renewal() -> None:
    answer = Tokens(lambda *_: {})
    barrier = threading.Barrier(6)

    def read_one(spec: SourceSpec) -> int:
        with kind("rest").open(spec) as connector:
            barrier.wait(60)
            return len(ids(list(connector.read(spec.streams[0], StreamState(), context()))))

    with serving(answer) as server, ThreadPoolExecutor(6) as threads:
        specs = [source(server.url, PAGED, auth=refresh(server.url)) for _ in range(6)]
        assert list(threads.map(read_one, specs)) == [4] * 6
        assert answer.given == 1
        # every thread is refused with the old token; the first renews it for all
        answer.revoked = 1
        assert list(threads.map(read_one, specs)) == [4] * 6
    assert answer.given == 2


@pytest.mark.parametrize(("life", "after"), [(3600, 3300), (900, 600), (600, 300), (60, 30), (1, 0.5)])
def test_a_token_is_renewed_five_minutes_before_its_end(life: float, after: float) -> None:
    assert renew_after(life) == after


def assertion(url: str, **more: str) -> dict[str, Any]:
    said = {"type": "oauth2_jwt_bearer", "token_url": f"{url}/token", "issuer": "robot@example.com", **more}
    return {"key": "env:THINGS_PEM", **said}


def key_pair(algorithm: str) -> tuple[str, Any]:
    """A private key in PEM, and what verifies it, by joserfc."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from joserfc.jwk import ECKey, OctKey, RSAKey

    if algorithm == "HS256":
        return "shared-secret-of-32-bytes-at-least!", OctKey.import_key("shared-secret-of-32-bytes-at-least!")
    private = rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    pem = private.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem.decode(), (RSAKey if algorithm == "RS256" else ECKey).import_key(public)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "HS256"])
def test_a_signed_assertion_gets_an_access_token(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = key_pair(algorithm)
    # as it stands in .env, on one line
    monkeypatch.setenv("THINGS_PEM", private.replace("\n", "\\n"))
    claims: list[dict[str, Any]] = []

    def judge(form: dict[str, str], exchange: Exchange) -> dict[str, Any]:
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        found = jwt.decode(form["assertion"], public, algorithms=[algorithm])
        assert found.claims["aud"] == f"http://127.0.0.1:{exchange.port}/token"
        assert (found.header["alg"], found.header["kid"]) == (algorithm, "key-1")
        assert "authorization" not in exchange.headers
        assert set(form) == {"grant_type", "scope", "assertion"}
        claims.append(found.claims)
        return {}

    with serving(Tokens(judge)) as server:
        auth = assertion(server.url, algorithm=algorithm, scope="read", subject="ada", key_id="key-1")
        assert len(ids(read(source(server.url, PAGED, auth=auth)))) == 4
    (claim,) = claims
    assert (claim["iss"], claim["sub"], claim["scope"]) == ("robot@example.com", "ada", "read")
    assert claim["exp"] - claim["iat"] == 300


# a key of another algorithm signs nothing, and a PEM is never taken for a shared secret
@pytest.mark.parametrize(("key", "algorithm"), [("broken", "RS256"), ("broken", "HS256"), ("RS256", "ES256")])
def test_a_key_that_cannot_sign_is_told_without_it(key: str, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = f"-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----" if key == "broken" else key_pair(key)[0]
    monkeypatch.setenv("THINGS_PEM", pem)
    with (
        serving(Tokens(lambda *_: {})) as server,
        pytest.raises(ConfigError, match=f"cannot sign with {algorithm}") as caught,
    ):
        read(source(server.url, PAGED, auth=assertion(server.url, algorithm=algorithm)))
    assert pem.splitlines()[1] not in str(caught.value)


HMAC = {"type": "hmac", "key": "env:THINGS_KEY", "key_id": "env:THINGS_ID"}
WAYS: dict[str, tuple[dict[str, Any], Callable[[Exchange], bytes]]] = {
    "default": ({}, lambda e: f"{e.headers['x-timestamp']}\nPOST\n{e.handler.path}\n".encode() + e.body),
    "other": (
        {
            "parts": ["key_id", "timestamp", "host", "path", "query", "body"],
            "separator": ".",
            "timestamp": "iso",
            "algorithm": "sha512",
            "encoding": "base64",
            "prefix": "v1=",
            "header": "Signature",
        },
        lambda e: b".".join(
            [
                b"client-7",
                e.headers["x-timestamp"].encode(),
                e.headers["host"].encode(),
                e.path.encode(),
                urlsplit(e.handler.path).query.encode(),
                e.body,
            ]
        ),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_request_is_signed_with_its_time(way: str) -> None:
    more, text = WAYS[way]
    digest: Any = hashlib.sha512 if way == "other" else hashlib.sha256

    def answer(exchange: Exchange) -> None:
        made = hmac.new(KEY.encode(), text(exchange), digest)
        right = f"v1={base64.b64encode(made.digest()).decode()}" if way == "other" else made.hexdigest()
        if exchange.headers["signature" if way == "other" else "x-signature"] != right:
            exchange.json({"error": "signature"}, 401)
        elif exchange.number == 1:
            exchange.json({}, 503)
        else:
            page = int(exchange.query["page"])
            exchange.json({"data": records(page * 10, 2) if page < 3 else []})

    stream = {**PAGED, "method": "POST", "body": {"a": "caf\u00e9"}, "params": {"q": "a b/c+d"}}
    with serving(answer) as server:
        assert ids(read(source(server.url, stream, auth={**HMAC, **more}))) == [10, 11, 20, 21]
        assert {headers["x-key-id"] for headers in server.headers} == {"client-7"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"parts": ["method", "body"]}, "parts must have timestamp"),
        ({"parts": ["timestamp", "key_id"], "key_id": None}, "set key_id"),
    ],
)
def test_a_signature_that_could_be_sent_again_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source("https://api.example.com", auth={**HMAC, **more})


def sigv4(exchange: Exchange) -> str:
    """The signature as the AWS documentation derives it, from what came over the wire."""
    parts = dict(item.strip().split("=", 1) for item in exchange.headers["authorization"].partition(" ")[2].split(","))
    signed = parts["SignedHeaders"].split(";")
    query = "&".join(sorted(urlsplit(exchange.handler.path).query.split("&")))
    headers = "".join(f"{name}:{exchange.headers[name]}\n" for name in signed)
    body = hashlib.sha256(exchange.body).hexdigest()
    canonical = "\n".join([exchange.method, exchange.path, query, headers, parts["SignedHeaders"], body])
    at = exchange.headers["x-amz-date"]
    scope = parts["Credential"].partition("/")[2]
    text = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{KEY}".encode()
    for word in [*scope.split("/")]:
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    assert scope == f"{at[:8]}/eu-west-1/execute-api/aws4_request"
    return f"{parts['Signature']} {hmac.new(key, text.encode(), hashlib.sha256).hexdigest()}"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_to_aws_is_signed_as_aws_derives_it(method: str) -> None:
    pytest.importorskip("botocore")

    def answer(exchange: Exchange) -> None:
        given, right = sigv4(exchange).split()
        assert exchange.headers["x-amz-security-token"] == "refresh-0"
        page = int(exchange.query["page"])
        exchange.json({"data": records(page * 10, 2) if page < 3 else []}, 200 if given == right else 403)

    auth = {
        "type": "aws_sigv4",
        "access_key": "env:THINGS_ID",
        "secret_key": "env:THINGS_KEY",
        "session_token": "env:THINGS_REFRESH",
        "region": "eu-west-1",
        "service": "execute-api",
    }
    stream = {**PAGED, "method": method, "params": {"q": "a b", "z": "1"}}
    with serving(answer) as server:
        assert ids(read(source(server.url, stream, auth=auth))) == [10, 11, 20, 21]


@pytest.mark.parametrize("auth", [HMAC, {**HMAC, "encoding": "base64"}])
def test_no_message_shows_the_key(auth: dict[str, Any]) -> None:
    with (
        serving(lambda e: e.json({"error": f"{KEY} {json.dumps(dict(e.headers))}"}, 400)) as server,
        pytest.raises(HeadwaterError) as caught,
    ):
        read(source(server.url, auth=auth))
    assert "k3y" not in str(caught.value)
