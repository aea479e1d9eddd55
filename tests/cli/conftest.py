"""A copy of the project whose files a test may spoil, and `headwater` run in it as a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.servers import clean_environment

ROOT = Path(__file__).parents[2]
INGEST = Path("platform_assets", "defs", "ingest")

GOOD = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector: {kind: rest, base_url: env:SHOP_URL, auth: {type: bearer, token: env:SHOP_TOKEN}}
  streams:
    - {name: orders, path: /orders, primary_key: id, write: merge}
"""


@dataclass(frozen=True, slots=True)
class Project:
    root: Path
    env: Mapping[str, str] = field(default_factory=clean_environment)

    def source(self, text: str, folder: str = "shop") -> Path:
        path = self.root / INGEST / folder / "defs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def start(self, *words: str, **env: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "platform_assets.cli", *words],
            cwd=self.root,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **env: str) -> "subprocess.CompletedProcess[str]":
        process = self.start(*words, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The project without its sources, in a folder of the test's own."""
    root = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", "data", "ingest", "transform")
    for name in ("connectors", "platform_assets", "demo"):
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    for name in ("pyproject.toml", "uv.lock", ".env.example"):
        shutil.copy(ROOT / name, root / name)
    (root / "dbt_project").mkdir()
    shutil.copy(ROOT / "dbt_project" / "dbt_project.yml", root / "dbt_project")
    (root / INGEST).mkdir(parents=True)
    return Project(root, clean_environment() | {"HEADWATER_HOME": os.fspath(tmp_path / "home")})


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The handler on a free loopback port; its base URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
