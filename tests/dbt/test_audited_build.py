"""`headwater dbt build`: the whole command on the demo's streams."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from platform_assets.settings import PROJECT_ROOT
from platform_assets.warehouse import Warehouse


def headwater(env: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "platform_assets.cli", "dbt", *words]
    return subprocess.run(command, env=env, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)


def count(warehouse: Warehouse, relation: str) -> object:
    with psycopg.connect(warehouse.transformer_dsn) as session:
        return session.execute(f"select count(*) from {relation}".encode()).fetchone()


@pytest.mark.slow
def test_a_build_publishes_marts_once_again_slim_and_can_be_taken_back(env: dict[str, str], raw: Warehouse) -> None:
    whole = headwater(env, "build")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "published marts.airlines" in whole.stdout
    events = count(raw, "marts.events")

    slim = headwater(env, "build", "--slim")
    assert slim.returncode == 0, slim.stdout + slim.stderr
    assert "Nothing to do" in slim.stdout
    assert "published" not in slim.stdout

    # an incremental mart goes on from what is served
    again = headwater(env, "build", "-s", "events")
    assert "published marts.events" in again.stdout, again.stdout
    back = headwater(env, "rollback", "marts.events")
    assert (back.returncode, os.linesep in back.stdout) == (0, True), back.stderr
    assert count(raw, "marts.events") == events
    assert headwater(env, "rollback", "marts.events").returncode == 3


@pytest.mark.slow
def test_plain_dbt_builds_in_a_shell_that_has_the_environment(env: dict[str, str], raw: Warehouse) -> None:
    script = """
        eval "$(python -m platform_assets.dbt)"
        cd dbt_project
        dbt build -s stg_nyc_reference__airlines --target-path "$1" --log-path "$1"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with TemporaryDirectory() as target:
        done = subprocess.run(
            ["bash", "-ec", script, "dbt", target],
            env=env | {"PATH": path}, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert count(raw, "staging.stg_nyc_reference__airlines") == count(raw, "raw_nyc_reference.airlines")


@pytest.mark.slow
def test_the_projects_pages_are_made_and_served(env: dict[str, str], raw: Warehouse, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    made = headwater(env, "docs", "generate", "--target-path", target)
    assert made.returncode == 0, made.stdout + made.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["docs", "serve", "--target-path", target, "--host", "127.0.0.1", "--port", str(port), "--no-browser"]
    serving = subprocess.Popen(
        [sys.executable, "-m", "platform_assets.cli", "dbt", *words],
        env=env, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert serving.stdout is not None
        assert any("Serving docs" in line for line in serving.stdout)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/catalog.json", timeout=30) as answer:
            catalog = json.load(answer)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            page = answer.read()
    finally:
        os.killpg(serving.pid, signal.SIGTERM)
        serving.wait(30)
    assert "source.headwater.nyc_flights.flights" in catalog["sources"]
    assert b"<html" in page
