"""A source in a container, by every engine that runs here; the image is made of this machine's own Python."""

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.errors import Cancelled, ConfigError, TransientError
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest
from connectors.sync.together import Outcome, sync_together
from tests.airbyte.conftest import succeeded, sync
from tests.support import sql

pytestmark = pytest.mark.slow
PROGRAM = """
import json, os, sys, time
def say(**message): print(json.dumps(message), flush=True)
def given(name): return json.load(open(sys.argv[sys.argv.index(name) + 1])) if name in sys.argv else None
things = {"name": "things", "json_schema": {"properties": {"id": {"type": "integer"}, "by": {"type": "string"}}},
          "supported_sync_modes": ["full_refresh", "incremental"], "source_defined_cursor": True}
if sys.argv[1] == "spec":
    say(type="SPEC", spec={"connectionSpecification": {}})
elif sys.argv[1] == "check":
    say(type="CONNECTION_STATUS", connectionStatus={"status": "SUCCEEDED"})
elif sys.argv[1] == "discover":
    say(type="CATALOG", catalog={"streams": [things]})
else:
    state, config = given("--state"), given("--config")
    at = state[0]["stream"]["stream_state"]["at"] if state else 0
    for number in range(at + 1, at + 4):
        data = {"id": number, "by": f"{config['name']} {os.environ['WHO']} {os.getuid()}"}
        say(type="RECORD", record={"stream": "things", "data": data, "emitted_at": 1})
    position = {"stream_descriptor": {"name": "things"}, "stream_state": {"at": at + 3}}
    say(type="STATE", state={"type": "STREAM", "stream": position})
    if config["hangs"]:
        say(type="LOG", log={"level": "INFO", "message": "it hangs now"})
        time.sleep(600)
    eaten = b"x" * config["eats"]
"""
_PARTS = """
import json, os, sys, time, encodings.ascii, encodings.latin_1, encodings.utf_8
print("\\n".join(filter(None, (getattr(module, "__file__", None) for module in sys.modules.values()))))
print(os.path.realpath(sys.executable))
"""


@dataclass(frozen=True, slots=True)
class Engine:
    client: str
    image: str

    def run(self, *words: str) -> str:
        ended = subprocess.run([self.client, *words], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def containers(self) -> list[str]:
        """Those of the image, running or not."""
        return self.run("ps", "--all", "--quiet", "--filter", f"ancestor={self.image}").split()


def rootfs(path: Path) -> Path:
    """An archive of what Python needs to run the program, and the program."""
    found = subprocess.run([sys.executable, "-ISc", _PARTS], capture_output=True, text=True, check=True)
    files = set(found.stdout.split())
    python = found.stdout.split()[-1]
    for file in [python, *(file for file in files if file.endswith(".so"))]:
        needed = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        files |= {word for word in needed.split() if word.startswith("/")}
    with tarfile.open(path, "w", dereference=True) as archive:
        for file in sorted(files):
            archive.add(file)
        body = f"#!{python} -IS\n{PROGRAM}".encode()
        entry = tarfile.TarInfo("source")
        entry.mode, entry.size = 0o755, len(body)
        archive.addfile(entry, io.BytesIO(body))
    return path


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Engine]:
    """The one engine on PATH. Skips where it cannot run a container."""
    client = shutil.which(request.param)
    if client is None:
        pytest.skip(f"no {request.param} on PATH")
    if subprocess.run([client, "version"], capture_output=True).returncode != 0:
        pytest.skip(f"{request.param} has no engine that answers")
    folder = tmp_path_factory.mktemp("engine")
    found = Engine(client, f"localhost/headwater-test:{uuid4().hex[:12]}")
    found.run("import", "--change", 'ENTRYPOINT ["/source"]', str(rootfs(folder / "rootfs.tar")), found.image)
    with pytest.MonkeyPatch.context() as patch:
        (folder / request.param).symlink_to(client)
        # an engine looks for iptables and the like
        patch.setenv("PATH", os.pathsep.join([str(folder), "/usr/sbin", "/sbin"]))
        tried = subprocess.run([client, "run", "--rm", found.image, "spec"], capture_output=True, text=True)
        if tried.returncode == 0:
            yield found
    for container in found.containers():
        found.run("rm", "--force", container)
    found.run("rmi", found.image)
    if tried.returncode != 0:
        pytest.skip(f"{request.param} runs no container: {tried.stderr.strip()[-300:]}")


def source(name: str, engine: Engine, *, hangs: bool = False, eats: int = 0, **connector: object) -> SourceSpec:
    stanza = {
        "kind": "airbyte", "image": engine.image, "env": {"WHO": "somebody"},
        "config": {"name": "crate", "hangs": hangs, "eats": eats}, **connector,
    }  # fmt: skip
    streams = [{"name": "things", "primary_key": "id", "write": "merge"}]
    return parse_source({"source": name, "owner": "team:test", "connector": stanza, "streams": streams}, "image.yaml")


def eventually_none(engine: Engine) -> None:
    deadline = time.monotonic() + 120
    while engine.containers():
        assert time.monotonic() < deadline, "a container is still there"
        time.sleep(0.1)


def test_an_image_is_checked_discovered_and_read_onwards(engine: Engine, dsn: str, name: str) -> None:
    spec = source(name, engine)
    with kind("airbyte").open(spec) as connector:
        assert "succeeded" in connector.check()
        assert [stream.name for stream in connector.discover()] == ["things"]
    for last in (3, 6):
        assert succeeded(sync(spec, dsn))
        rows = sql.run(dsn, f"select id, by from raw_{name}.things order by 1")
        assert rows == [(number, f"crate somebody {os.getuid()}") for number in range(1, last + 1)]
    eventually_none(engine)


def test_a_cancelled_read_ends_the_container_and_keeps_what_is_sealed(engine: Engine, dsn: str, name: str) -> None:
    spec = source(name, engine, hangs=True)
    hangs, cancelled = threading.Event(), threading.Event()
    outcomes: dict[str, Outcome] = {}

    def heard(line: str) -> None:
        if "it hangs now" in line:
            hangs.set()

    def run() -> None:
        request = SyncRequest(spec, spec.streams[0], trigger="cli")
        progress = Progress(on_log=heard, cancelled=cancelled)
        outcomes.update(sync_together([request], dsn, {"things": progress}, heard))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert hangs.wait(240)
        assert engine.containers()
    finally:
        cancelled.set()
        thread.join()

    assert isinstance(outcomes["things"], Cancelled), outcomes
    assert engine.containers() == []
    assert sql.run(dsn, f"select count(*) from raw_{name}.things") == [(3,)]


def test_a_killed_loader_takes_its_container_along(engine: Engine, dsn: str, name: str) -> None:
    spec = source(name, engine, hangs=True)

    def heard(line: str) -> None:
        if "it hangs now" in line:
            os.kill(os.getpid(), signal.SIGKILL)

    def load() -> None:
        request = SyncRequest(spec, spec.streams[0], trigger="cli")
        sync_together([request], dsn, {"things": Progress(on_log=heard)}, heard)

    loader = multiprocessing.get_context("fork").Process(target=load)
    loader.start()
    loader.join()

    assert loader.exitcode == -signal.SIGKILL
    eventually_none(engine)


def test_a_limit_of_memory_holds_in_the_container(engine: Engine, dsn: str, name: str) -> None:
    outcome = sync(source(name, engine, eats=600 << 20, memory_mb=64), dsn)["things"]
    if "cgroup" in str(outcome):
        pytest.skip(f"no limits here: {outcome}")
    assert isinstance(outcome, TransientError), repr(outcome)
    assert "SIGKILL" in str(outcome)
    eventually_none(engine)


def test_an_image_that_is_not_there_is_named(engine: Engine, dsn: str, name: str) -> None:
    outcome = sync(source(name, engine, image="127.0.0.1:9/nobody/nothing:1"), dsn)["things"]
    assert isinstance(outcome, ConfigError | TransientError), repr(outcome)
    assert "the image cannot be run" in str(outcome)
    assert len(str(outcome).splitlines()) <= 6
    eventually_none(engine)
