"""The demo sources as processes, files and secrets."""

import gzip
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from datetime import date
from pathlib import Path

import httpx
import psutil
import pytest

from demo.dataset import WEATHER
from demo.release import Release
from demo.stack import API_PORT, DemoStack

HOLD = """
import json, sys, threading
from pathlib import Path
from demo.stack import DemoStack
with DemoStack(Path(sys.argv[1])) as stack:
    print(json.dumps({"pid": stack.api_pid, "url": stack.environment()["FLIGHTS_API_URL"]}), flush=True)
    threading.Event().wait()
"""


def test_weather_files_together_are_the_source_file(tmp_path: Path) -> None:
    with DemoStack(tmp_path) as stack:
        files = sorted(stack.weather_folder.iterdir())
    texts = [gzip.decompress(path.read_bytes()).decode().splitlines() for path in files]
    whole = gzip.decompress(WEATHER.read_bytes()).decode().splitlines()
    assert len(files) == 31
    assert {text[0] for text in texts} == {whole[0]}
    assert sorted(line for text in texts for line in text[1:]) == sorted(whole[1:])
    assert "NA" in whole[1].split(",")


def test_weather_appears_day_by_day_and_old_files_stay_untouched(tmp_path: Path) -> None:
    with DemoStack(tmp_path) as stack:
        stack.release(Release(date(2013, 1, 2)))
        before = {path.name: path.stat().st_mtime_ns for path in stack.weather_folder.iterdir()}
        stack.release(Release(date(2013, 1, 3)))
        after = {path.name: path.stat().st_mtime_ns for path in stack.weather_folder.iterdir()}
    assert sorted(before) == ["weather_2013-01-01.csv.gz", "weather_2013-01-02.csv.gz"]
    assert sorted(after) == [*sorted(before), "weather_2013-01-03.csv.gz"]
    assert {name: after[name] for name in before} == before


def test_the_release_is_remembered_by_the_next_stack(tmp_path: Path) -> None:
    with DemoStack(tmp_path) as stack:
        stack.release(Release.first_days(2))
    with DemoStack(tmp_path) as again:
        assert again.released == Release(date(2013, 1, 2))
        assert httpx.get(f"{again.environment()['FLIGHTS_API_URL']}/health").json()["flights"] == 842 + 943


def test_secrets_are_generated_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    first, second = DemoStack(tmp_path), DemoStack(tmp_path)
    assert first.credentials == second.credentials
    assert first.credentials != DemoStack(tmp_path / "other").credentials
    path = tmp_path / "demo" / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_taken_port_moves_the_api_to_a_free_one(tmp_path: Path) -> None:
    try:
        holder = socket.create_server(("127.0.0.1", API_PORT))
    except OSError:
        holder = socket.socket()  # somebody else holds it already, which serves the test as well
    with holder, DemoStack(tmp_path) as stack:
        url = stack.environment()["FLIGHTS_API_URL"]
        assert not url.endswith(f":{API_PORT}")
        assert httpx.get(f"{url}/health").status_code == 200


def test_two_stacks_of_one_home_serve_side_by_side(tmp_path: Path) -> None:
    with DemoStack(tmp_path) as one, DemoStack(tmp_path) as two:
        urls = [stack.environment()["FLIGHTS_API_URL"] for stack in (one, two)]
        assert len(set(urls)) == 2
        assert [httpx.get(f"{url}/health").status_code for url in urls] == [200, 200]


def test_leaving_the_stack_ends_the_api(tmp_path: Path) -> None:
    with DemoStack(tmp_path) as stack:
        pid = stack.api_pid
        assert pid is not None
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_ended_parent_leaves_no_api_behind(tmp_path: Path, how: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert parent.stdout is not None
    started = json.loads(parent.stdout.readline())
    api = psutil.Process(started["pid"])
    assert httpx.get(f"{started['url']}/health").status_code == 200
    parent.send_signal(how)
    parent.wait(30)
    parent.stdout.close()
    api.wait(30)
    assert not api.is_running()
