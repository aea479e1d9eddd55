"""`headwater up`: what it serves, and that nothing is left when it ends."""

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import httpx
import psutil
import pytest

from platform_assets.cli.up import await_answer
from platform_assets.settings import load_settings
from platform_assets.warehouse import is_running, stop_warehouse
from tests.support.servers import clean_environment, short_folder

ROOT = Path(__file__).parents[2]
QUERY = """{
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError { __typename } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required } } }
}"""


@dataclass(frozen=True, slots=True)
class Served:
    """A running command that has said where its UI is. said: its lines so far."""

    process: "subprocess.Popen[str]"
    home: Path
    url: str
    said: list[str]


@pytest.fixture
def served() -> Generator[Served]:
    """Started while its usual port is taken."""
    with short_folder() as folder, socket.create_server(("127.0.0.1", 0)) as holder:
        home, taken = folder / "home", holder.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "platform_assets.cli", "up", "--port", str(taken)],
            cwd=ROOT,
            env=clean_environment() | {"HEADWATER_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: list[str] = []
        for line in cast("IO[str]", process.stdout):
            said.append(line.strip())
            if found := re.match(r"Dagster UI: (http://\S+)", line):
                assert any(f"port {taken} is taken" in earlier for earlier in said), said
                yield Served(process, home, found[1], said)
                break
        else:
            pytest.fail("\n".join(said))
        if process.poll() is None:
            process.kill()
            process.wait()
        cast("IO[str]", process.stdout).close()
        stop_warehouse(load_settings({"HEADWATER_HOME": str(home)}))


def test_both_locations_and_the_daemon_are_served_and_ctrl_c_ends_everything(served: Served) -> None:
    answer = httpx.post(f"{served.url}/graphql", json={"query": QUERY}, timeout=60).json()["data"]
    entries = answer["workspaceOrError"]["locationEntries"]
    assert {entry["name"]: entry["locationOrLoadError"]["__typename"] for entry in entries} == {
        "ingest": "RepositoryLocation",
        "transform": "RepositoryLocation",
    }
    family = psutil.Process(served.process.pid).children(recursive=True)
    commands = [" ".join(process.cmdline()) for process in family]
    for part in ("dagster_webserver", "dagster._daemon", "demo.api"):
        assert any(part in command for command in commands), commands
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(120) == 0
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert not is_running(load_settings({"HEADWATER_HOME": str(served.home)}))


@pytest.mark.slow
def test_a_killed_command_leaves_no_ui_and_no_source_behind(served: Served) -> None:
    family = psutil.Process(served.process.pid).children(recursive=True)
    served.process.kill()
    served.process.wait()
    assert psutil.wait_procs(family, timeout=120)[1] == []


def test_something_else_that_answers_on_the_port_first_is_not_taken_for_the_ui(tmp_path: Path) -> None:
    """Until the UI listens, a connection to a high port may even meet itself and read its own request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_garbage_then_200, args=[server], daemon=True).start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            port = server.getsockname()[1]
            await_answer(f"http://127.0.0.1:{port}/server_info", process, tmp_path / "ui.log")


def _garbage_then_200(server: socket.socket) -> None:
    for answer in (b"GET /server_info HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"):
        connection, _ = server.accept()
        connection.recv(4096)
        connection.sendall(answer)
        connection.close()
