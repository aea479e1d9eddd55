"""A real receiver in a process of its own, and senders that sign as the schemes say."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg
import pytest

ROOT = Path(__file__).parents[2]
OLD, NEW = "the-old-secret", "the-new-secret"
STANDARD = "whsec_" + base64.b64encode(b"standard-key-of-24-bytes").decode()
SECRETS = {"HOOK_SECRET": NEW, "HOOK_SECRET_OLD": OLD, "STANDARD_SECRET": STANDARD}

SOURCES: Mapping[str, str] = {
    "git": "scheme: github, secret: [env:HOOK_SECRET, env:HOOK_SECRET_OLD], max_body_bytes: 20000",
    "std": "scheme: standard, secret: env:STANDARD_SECRET",
    "pay": "scheme: stripe, secret: env:HOOK_SECRET, tolerance: PT1M",
    "shop": "scheme: shopify, secret: env:HOOK_SECRET",
    "own": "scheme: hmac, secret: env:HOOK_SECRET, hmac: {header: X-Sig, algorithm: sha512, encoding: base64, "
    "prefix: 'v=', signed: [id, timestamp, body], separator: ':', timestamp_header: X-Time, id_header: X-Id, "
    "event_header: X-Event}",
    "slow": "scheme: github, secret: env:HOOK_SECRET, rate_limit: {requests: 2, per: PT1H}",
}
"""What stands in the connector stanza of each source of the tests."""

FILE = """\
type: platform_assets.components.Source
attributes:
  source: {name}
  owner: team:test
  connector: {{kind: webhook, {connector}}}
  streams:
    - {{name: events, shape: envelope}}
"""


def copied_project(folders: pytest.TempPathFactory) -> Path:
    """The project without any source of its own."""
    root = folders.mktemp("webhooks") / "project"
    ignored = shutil.ignore_patterns("__pycache__", "data", "ingest", "transform")
    for name in ("connectors", "platform_assets"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    return root


def write_sources(root: Path, sources: Mapping[str, str] = SOURCES) -> None:
    for name, connector in sources.items():
        folder = root / "platform_assets" / "defs" / "ingest" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "defs.yaml").write_text(FILE.format(name=name, connector=connector), encoding="utf-8")


@dataclass(slots=True)
class ReceiverProcess:
    """`headwater webhooks serve` in the project at `root`, ended by its pid."""

    root: Path
    env: Mapping[str, str]
    words: Sequence[str] = ()
    url: str = ""
    _process: "subprocess.Popen[str] | None" = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "platform_assets.cli", "webhooks", "serve", "--port", "0", *self.words],
            cwd=self.root,
            env={**self.env, **SECRETS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self.root / "receiver.log").open("a"),
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://[^/]+", line)
        assert found, (self.root / "receiver.log").read_text(encoding="utf-8")[-2000:]
        self.url = found[0]
        self.until_healthy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def until_healthy(self) -> None:
        until(lambda: httpx.get(f"{self.url}/health", timeout=60).status_code == 200)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(60)

    def end(self) -> int:
        """SIGTERM, as an orderly stop is asked for; the exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(120)
        finally:
            if self._process.stdout:
                self._process.stdout.close()


def until(condition: Any, seconds: float = 120.0) -> None:
    """Ask again until it is true; what raises a network error is not true yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (httpx.TransportError, psycopg.OperationalError):
            pass
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def _hex(key: str, message: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(key.encode(), message, algorithm).hexdigest()


def _base64(key: bytes, message: bytes, algorithm: str = "sha256") -> str:
    return base64.b64encode(hmac.new(key, message, algorithm).digest()).decode()


def _stamp(at: float | str | None) -> str:
    """Unix seconds, or the text as it is."""
    return at if isinstance(at, str) else str(int(time.time() if at is None else at))


def github(body: bytes, *, delivery: str | None = None, event: str = "push", secret: str = NEW) -> dict[str, str]:
    return {
        "x-github-delivery": delivery or str(uuid.uuid4()),
        "x-github-event": event,
        "x-hub-signature-256": f"sha256={_hex(secret, body)}",
        "content-type": "application/json",
    }


def standard(
    body: bytes, *, delivery: str = "msg_1", at: float | str | None = None, secret: str = STANDARD
) -> dict[str, str]:
    stamp = _stamp(at)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = _base64(key, f"{delivery}.{stamp}.".encode() + body)
    return {"webhook-id": delivery, "webhook-timestamp": stamp, "webhook-signature": f"v1a,zzz v1,AAAA v1,{signature}"}


def stripe(body: bytes, *, at: float | None = None, secret: str = NEW) -> dict[str, str]:
    stamp = int(time.time() if at is None else at)
    return {"stripe-signature": f"t={stamp},v1={'0' * 64},v1={_hex(secret, f'{stamp}.'.encode() + body)},v0=abc"}


def shopify(body: bytes, *, delivery: str = "b54557e4", secret: str = NEW) -> dict[str, str]:
    return {
        "x-shopify-webhook-id": delivery,
        "x-shopify-topic": "orders/create",
        "x-shopify-hmac-sha256": _base64(secret.encode(), body),
    }


def own(body: bytes, *, delivery: str = "d-1", at: float | str | None = None, secret: str = NEW) -> dict[str, str]:
    stamp = _stamp(at)
    signature = _base64(secret.encode(), f"{delivery}:{stamp}:".encode() + body, "sha512")
    return {"x-id": delivery, "x-time": stamp, "x-event": "thing.made", "x-sig": f"v={signature}"}


def event(number: int = 1, **more: Any) -> bytes:
    return json.dumps({"id": f"evt_{number}", "type": "thing.made", "number": number, **more}).encode()


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Inbox:
    """The inbox as the tests look at it."""

    dsn: str

    def rows(self, source: str) -> list[tuple[str, str, bytes]]:
        with psycopg.connect(self.dsn) as session:
            return session.execute(
                "select delivery_id, event_type, body from ops.webhook_inbox where source = %s order by sequence",
                [source],
            ).fetchall()

    def ids(self) -> set[str]:
        with psycopg.connect(self.dsn) as session:
            return {row[0] for row in session.execute("select delivery_id from ops.webhook_inbox").fetchall()}
