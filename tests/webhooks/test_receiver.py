"""Genuine deliveries are stored once and answered 200; forged, late, large and broken ones leave no trace."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.webhooks.receiving import (
    OLD,
    Inbox,
    ReceiverProcess,
    event,
    github,
    own,
    shopify,
    standard,
    stripe,
)

Sign = Callable[..., dict[str, str]]
SCHEMES: list[tuple[str, Sign, str, str]] = [
    ("git", github, "", "push"),
    ("std", standard, "msg_1", "thing.made"),
    ("pay", stripe, "evt_1", "thing.made"),
    ("shop", shopify, "b54557e4", "orders/create"),
    ("own", own, "d-1", "thing.made"),
]


def post(client: httpx.Client, source: str, body: bytes, headers: Mapping[str, str]) -> httpx.Response:
    return client.post(f"/hooks/{source}", content=body, headers=dict(headers))


@pytest.mark.parametrize(("source", "sign", "delivery", "kind"), SCHEMES)
def test_a_genuine_delivery_is_stored_as_it_came(
    client: httpx.Client, inbox: Inbox, source: str, sign: Sign, delivery: str, kind: str
) -> None:
    body = event(1)
    headers = sign(body)
    assert post(client, source, body, headers).status_code == 200
    assert (delivery or headers["x-github-delivery"], kind, body) in inbox.rows(source)


@pytest.mark.parametrize(("source", "sign"), [case[:2] for case in SCHEMES])
def test_a_replayed_delivery_is_answered_200_and_stored_once(
    client: httpx.Client, inbox: Inbox, source: str, sign: Sign
) -> None:
    body = event(2)
    headers = sign(body)
    assert [post(client, source, body, headers).status_code for _ in range(3)] == [200, 200, 200]
    ids = [row[0] for row in inbox.rows(source)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(("source", "sign"), [case[:2] for case in SCHEMES])
def test_a_forged_delivery_is_refused_and_leaves_no_trace(
    client: httpx.Client, inbox: Inbox, source: str, sign: Sign
) -> None:
    before = inbox.rows(source)
    body = event(3)
    genuine = sign(body)
    forged = [
        post(client, source, body.replace(b"3", b"4"), genuine),
        post(client, source, body, sign(body, secret="whsec_Zm9yZ2Vk" if source == "std" else "forged")),
        post(
            client,
            source,
            body,
            {name: value for name, value in genuine.items() if "sig" not in name and "hmac" not in name},
        ),
        post(
            client,
            source,
            body,
            {name: "" if "sig" in name or "hmac" in name else value for name, value in genuine.items()},
        ),
    ]
    assert [answer.status_code for answer in forged] == [401] * 4
    assert inbox.rows(source) == before


def test_an_id_or_a_time_that_was_not_signed_is_forged(client: httpx.Client) -> None:
    body = event(5)
    for source, sign, name in (("std", standard, "webhook-id"), ("own", own, "x-id")):
        assert post(client, source, body, {**sign(body), name: "another"}).status_code == 401
    later = str(int(time.time()) + 9)
    assert post(client, "std", body, {**standard(body), "webhook-timestamp": later}).status_code == 401
    assert post(client, "own", body, {**own(body), "x-time": later}).status_code == 401


@pytest.mark.parametrize(("source", "sign"), [("std", standard), ("pay", stripe), ("own", own)])
@pytest.mark.parametrize("seconds", [-400, 400])
def test_a_late_or_early_delivery_is_refused_though_genuine(
    client: httpx.Client, inbox: Inbox, source: str, sign: Sign, seconds: int
) -> None:
    before = inbox.rows(source)
    body = event(6)
    answer = post(client, source, body, sign(body, at=time.time() + seconds))
    assert answer.status_code == 400
    assert "away from now" in answer.json()["error"]
    assert inbox.rows(source) == before


def test_a_delivery_inside_the_tolerance_of_its_source_is_taken(client: httpx.Client) -> None:
    body = event(7)
    assert post(client, "std", body, standard(body, delivery="msg_7", at=time.time() - 200)).status_code == 200
    assert post(client, "pay", body, stripe(body, at=time.time() - 200)).status_code == 400


def test_both_secrets_of_a_rotation_are_accepted(client: httpx.Client) -> None:
    body = event(8)
    assert post(client, "git", body, github(body, secret=OLD)).status_code == 200
    assert post(client, "git", body, github(body)).status_code == 200


MALFORMED: list[tuple[str, Callable[[], tuple[bytes, dict[str, str]]]]] = [
    ("git", lambda: (b"not json", github(b"not json"))),
    ("git", lambda: (b"[1, 2]", github(b"[1, 2]"))),
    ("git", lambda: (b"", github(b""))),
    ("git", lambda: (b'{"a": 1} trailing', github(b'{"a": 1} trailing'))),
    ("git", lambda: (b"[" * 15_000, github(b"[" * 15_000))),
    ("git", lambda: (event(), {**github(event()), "x-github-event": ""})),
    ("git", lambda: (event(), {**github(event()), "x-github-delivery": "a b"})),
    ("git", lambda: (event(), {**github(event()), "x-github-delivery": "x" * 256})),
    ("std", lambda: (b'{"no": "type"}', standard(b'{"no": "type"}', delivery="m"))),
    ("pay", lambda: (b'{"id": 7, "type": "x"}', stripe(b'{"id": 7, "type": "x"}'))),
    ("pay", lambda: (b'{"id": "a\\u0000b", "type": "x"}', stripe(b'{"id": "a\\u0000b", "type": "x"}'))),
    ("pay", lambda: (event(), {"stripe-signature": "v1=abc"})),
    ("std", lambda: (b"[]", standard(b"[]", delivery="m"))),
    ("std", lambda: (event(), standard(event(), delivery="m", at="soon"))),
    ("shop", lambda: (b"not json", shopify(b"not json"))),
    ("shop", lambda: (event(), {**shopify(event()), "x-shopify-topic": ""})),
    ("own", lambda: (b"not json", own(b"not json"))),
    ("own", lambda: (event(), own(event(), at="1e9"))),
    ("own", lambda: (event(), {**own(event()), "x-event": "y" * 201})),
]


@pytest.mark.parametrize(("source", "made"), MALFORMED)
def test_a_malformed_delivery_is_answered_400(
    client: httpx.Client, inbox: Inbox, source: str, made: Callable[[], tuple[bytes, dict[str, str]]]
) -> None:
    before = inbox.rows(source)
    body, headers = made()
    assert post(client, source, body, headers).status_code == 400
    assert inbox.rows(source) == before


def test_an_unsigned_body_is_never_parsed(client: httpx.Client) -> None:
    body = b"not json"
    assert post(client, "git", body, github(body, secret="forged")).status_code == 401


def test_bytes_that_postgres_text_cannot_hold_stay_in_the_body(client: httpx.Client, inbox: Inbox) -> None:
    body = b'{"nul": "a\\u0000b", "emoji": "\xf0\x9f\x98\x80"}'
    assert post(client, "git", body, github(body, delivery="nul-1")).status_code == 200
    assert ("nul-1", "push", body) in inbox.rows("git")


@pytest.mark.parametrize(("source", "sign"), [case[:2] for case in SCHEMES])
def test_a_body_that_is_too_large_is_refused_though_genuine(
    client: httpx.Client, inbox: Inbox, source: str, sign: Sign
) -> None:
    before = inbox.rows(source)
    body = event(text="x" * (1 << 20))
    answer = post(client, source, body, sign(body))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert inbox.rows(source) == before


def test_a_large_body_is_refused_before_it_was_sent(client: httpx.Client, receiver: ReceiverProcess) -> None:
    body = b'{"a": "' + b"x" * 30_000 + b'"}'
    assert post(client, "git", body, github(body)).status_code == 413
    answer = _answered(receiver, b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
    assert b" 413 " in answer
    assert b"connection: close" in answer


def test_a_large_body_in_chunks_is_refused_while_it_is_read(receiver: ReceiverProcess) -> None:
    head = b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    # its end never comes: the answer is one to what has come
    answer = _answered(receiver, head, *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 10)
    assert b" 413 " in answer
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000", b" 413 "),
        (b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked", b" 413 "),
        (b"POST /hooks/nobody HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000", b" 404 "),
        (b"PUT /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000", b" 405 "),
    ],
)
def test_a_sender_that_writes_its_whole_body_before_it_reads_gets_its_refusal(
    receiver: ReceiverProcess, head: bytes, status: bytes
) -> None:
    """A connection closed under the writing sender would be reset, and the answer might go with it."""
    body = b"x" * 2_000_000
    if b"chunked" in head:
        body = b"1e8480\r\n" + body + b"\r\n0\r\n\r\n"
    with _connected(receiver) as raw:
        raw.sendall(head + b"\r\n\r\n" + body)
        answer = b""
        while piece := raw.recv(10_000):
            answer += piece
    assert status in answer.partition(b"\r\n")[0]
    assert answer.endswith(b'"}')


@pytest.mark.parametrize(
    "request_text",
    [
        b"nonsense\r\n\r\n",
        b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: abc\r\n\r\n",
        b"POST /hooks/git HTTP/1.1\r\nhost: x\r\nx-github-event: a\x00b\r\n\r\n",
        b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_http_is_answered_400(receiver: ReceiverProcess, request_text: bytes) -> None:
    assert b" 400 " in _answered(receiver, request_text)


def test_a_sender_that_hangs_up_in_its_body_harms_nobody(client: httpx.Client, receiver: ReceiverProcess) -> None:
    for _ in range(5):
        with _connected(receiver) as raw:
            raw.sendall(b"POST /hooks/git HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
    body = event(9)
    assert post(client, "git", body, github(body)).status_code == 200


def test_more_than_the_rate_limit_is_answered_429_with_retry_after(client: httpx.Client) -> None:
    body = event(10)
    forged = [post(client, "slow", body, github(body, secret="forged")).status_code for _ in range(5)]
    answers = [post(client, "slow", body, github(body)) for _ in range(3)]
    assert forged == [401] * 5, "who cannot sign must not use up the senders' rate"
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1_700 < int(answers[-1].headers["retry-after"]) <= 1_800


def test_other_addresses_and_methods_are_refused(client: httpx.Client) -> None:
    assert client.post("/hooks/nobody", content=b"{}").status_code == 404
    assert client.get("/hooks/git").status_code == 405


def test_health_and_metrics_tell_how_it_goes(client: httpx.Client) -> None:
    body = event(11)
    assert post(client, "git", body, github(body)).status_code == 200
    health: dict[str, Any] = client.get("/health").json()
    assert health["status"] == "ok"
    assert health["stored"] >= 1
    text = client.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(figures['headwater_webhooks_deliveries_total{source="git",outcome="stored"}']) >= 1
    assert float(figures['headwater_webhooks_deliveries_total{source="git",outcome="unauthorized"}']) >= 1
    assert float(figures['headwater_webhooks_backlog{source="git",stream="events"}']) >= 1
    assert figures["headwater_webhooks_up"] == "1"
    assert figures["headwater_webhooks_in_flight"] == "0"
    assert figures["headwater_webhooks_held_bytes"] == "0"
    assert "secret" not in text


def test_no_signature_is_kept(client: httpx.Client, inbox: Inbox) -> None:
    body = event(12)
    headers = {**github(body, delivery="kept-1"), "authorization": "Bearer x", "user-agent": "GitHub-Hookshot/1"}
    assert post(client, "git", body, headers).status_code == 200
    with psycopg.connect(inbox.dsn) as session:
        row = session.execute("select headers from ops.webhook_inbox where delivery_id = 'kept-1'").fetchone()
    assert row == ({"content-type": "application/json", "user-agent": "GitHub-Hookshot/1"},)
    assert json.dumps(row).count("sha256") == 0


def test_prune_shows_what_would_go_and_keeps_what_was_not_read(
    client: httpx.Client, inbox: Inbox, hook_project: Path, hook_env: dict[str, str]
) -> None:
    for number in (13, 14):
        body = event(number)
        assert post(client, "shop", body, shopify(body, delivery=f"old-{number}")).status_code == 200
    first, _ = ids = _sequences(inbox, "old-13", "old-14")
    with psycopg.connect(inbox.dsn) as session:
        session.execute(
            "update ops.webhook_inbox set received_at = now() - interval '9 days' where sequence = any(%s)", [list(ids)]
        )
        session.execute(
            "insert into ops.stream_state (source, stream, version, state, engine, size_bytes) "
            "values ('shop', 'events', 1, %s, 'test', 1)",
            [json.dumps({"connector": {"sequence": first}})],
        )

    def webhooks(*words: str) -> str:
        command = [sys.executable, "-m", "platform_assets.cli", "webhooks", *words]
        return subprocess.run(
            command, cwd=hook_project, env=hook_env, capture_output=True, text=True, check=True
        ).stdout

    def prune(*words: str) -> str:
        return webhooks("prune", "shop", "--older-than", "8", *words)

    assert "shop: 1 read and older than 8 days" in prune()
    assert _sequences(inbox, "old-13", "old-14") == ids
    told = prune("--yes")
    assert "1 as old stay, because events has not read them" in told
    assert "shop: 1 deleted" in told
    assert _sequences(inbox, "old-13", "old-14") == ids[1:]
    assert re.search(r"\bshop\b.*\bevents\b.*\b1\b", webhooks("backlog")), "one delivery waits for its stream"


def _sequences(inbox: Inbox, *deliveries: str) -> tuple[int, ...]:
    query = "select sequence from ops.webhook_inbox where delivery_id = any(%s) order by 1"
    with psycopg.connect(inbox.dsn) as session:
        return tuple(row[0] for row in session.execute(query, [list(deliveries)]).fetchall())


def _answered(receiver: ReceiverProcess, *pieces: bytes) -> bytes:
    """The head of what comes back to a sender that writes these, or as many of them as it can."""
    with _connected(receiver) as raw:
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                raw.sendall(piece)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := raw.recv(1000)):
            answer += piece
        return answer


def _connected(receiver: ReceiverProcess) -> socket.socket:
    host, _, port = receiver.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=120)
