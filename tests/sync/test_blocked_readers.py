"""A reader that does not come back: its limit, a cancellation and a lost lock end its sync all the same."""

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from connectors.errors import Cancelled, HeadwaterError, LoaderError, ResourceError
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest, sync
from platform_assets.ingest import location
from platform_assets.sources import FOLDER
from platform_assets.warehouse import Warehouse
from tests.support.sql import run as sql

SLEEPS = "time.sleep(300)"
KEEPS_PYTHON = "ctypes.PyDLL(None).sleep(300)"
"""In C, where no other thread of the process runs meanwhile."""
PYTHON = """
import ctypes
import time
from pathlib import Path

from connectors.contract import Checkpoint, JsonRecords


class Shop:
    def __init__(self, given):
        self.cues, self.windows = Path(given.options["cues"]), int(given.options["windows"])

    def check(self):
        return "here"

    def discover(self):
        return ()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, stream, state, context):
        # full windows, of which the second waits until the first is published, and one that is not full
        for page in range(self.windows):
            yield JsonRecords(b'{"id": %d}\\n{"id": %d}' % (2 * page + 1, 2 * page + 2), f"page {page}")
            yield Checkpoint(connector={"page": page})
        yield JsonRecords(b'{"id": 5}', "the last but one")
        yield Checkpoint(connector={"page": self.windows})
        yield JsonRecords(b'{"id": 6}', "the last")
        if stream.name == "misfit":
            (self.cues / "reached").touch()
            BLOCK
            (self.cues / "came_back").touch()
"""
DLT = """
import time
from pathlib import Path

import dlt


@dlt.resource
def misfit(cues):
    yield {"id": 1}
    (Path(cues) / "reached").touch()
    BLOCK
    (Path(cues) / "came_back").touch()
"""
_numbers = itertools.count()
Blocked = Callable[..., SourceSpec]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """module(text, block): the dotted name of a module that is on the path of this test alone."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str, block: str) -> str:
        package = f"blocked_{next(_numbers)}"
        (tmp_path / package).mkdir()
        (tmp_path / package / "shop.py").write_text(text.replace("BLOCK", block), encoding="utf-8")
        return f"{package}.shop"

    return write


@pytest.fixture
def blocked(module: Callable[[str, str], str], tmp_path: Path) -> Blocked:
    """blocked(block, limit, windows): a source `unit` whose stream `misfit` blocks after so many full windows."""

    def make(block: str, limit: str, windows: int) -> SourceSpec:
        options = {"cues": str(tmp_path), "windows": str(windows)}
        return source({"kind": "python", "module": module(PYTHON, block), "options": options}, limit)

    return make


def source(connector: dict[str, Any], limit: str) -> SourceSpec:
    stream = {"name": "misfit", "write": "append", "window": {"rows": 2}, "limits": {"time": limit}}
    return parse_source(
        {"source": "unit", "owner": "team:test", "connector": connector, "streams": [stream]}, "tests/unit.yaml"
    )


class Running:
    """A sync in a thread of its own."""

    def __init__(self, spec: SourceSpec, dsn: str, cues: Path) -> None:
        self.progress, self.errors, self._cues = Progress(), list[HeadwaterError](), cues
        self._thread = threading.Thread(target=self._run, args=(spec, dsn), daemon=True)
        self._thread.start()

    def _run(self, spec: SourceSpec, dsn: str) -> None:
        try:
            sync(SyncRequest(spec, spec.streams[0], trigger="cli"), dsn, self.progress)
        except HeadwaterError as error:
            self.errors.append(error)

    def reached(self) -> None:
        """Waits until the reader is about to block."""
        deadline = time.monotonic() + 90
        while not (self._cues / "reached").exists():
            assert time.monotonic() < deadline, "the reader never came to block"
            assert self._thread.is_alive(), self.errors
            time.sleep(0.05)

    def over(self) -> None:
        self._thread.join(120)
        assert not self._thread.is_alive(), "the sync waits for its reader"

    def ended(self) -> HeadwaterError:
        """What it ended with, the reader blocking as before."""
        self.over()
        assert not (self._cues / "came_back").exists()
        (error,) = self.errors
        return error


def ledger(warehouse: Warehouse) -> tuple[Any, ...]:
    (row,) = sql(warehouse.admin_dsn, "select sync_id::text, status, failure_class, message from ops.syncs")
    return row


def published(warehouse: Warehouse) -> list[int]:
    return [number for (number,) in sql(warehouse.admin_dsn, "select id from raw_unit.misfit order by id")]


def test_a_sleeping_reader_is_left_at_its_limit_and_what_it_had_sealed_is_published(
    warehouse: Warehouse, blocked: Blocked, tmp_path: Path
) -> None:
    running = Running(blocked(SLEEPS, "PT2S", 0), warehouse.loader_dsn, tmp_path)
    running.reached()

    error = running.ended()

    assert isinstance(error, ResourceError)
    assert "limits.time is 2 s" in str(error)
    assert ledger(warehouse) == (error.sync_id, "failed", "resource", str(error))
    assert published(warehouse) == [5]


@pytest.mark.slow
def test_a_process_in_which_python_stands_still_is_ended_after_its_limit(
    warehouse: Warehouse, blocked: Blocked, tmp_path: Path
) -> None:
    running = Running(blocked(KEEPS_PYTHON, "PT20S", 2), warehouse.loader_dsn, tmp_path)
    running.reached()

    error = running.ended()

    assert isinstance(error, ResourceError)
    assert "limits.time is 20 s" in str(error)
    assert ledger(warehouse) == (error.sync_id, "failed", "resource", str(error))
    assert published(warehouse)[:2] == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("block", [SLEEPS, KEEPS_PYTHON])
def test_a_cancelled_sync_does_not_wait_for_its_reader(
    warehouse: Warehouse, blocked: Blocked, tmp_path: Path, block: str
) -> None:
    running = Running(blocked(block, "PT20M", 2), warehouse.loader_dsn, tmp_path)
    running.reached()
    running.progress.cancelled.set()

    error = running.ended()

    assert isinstance(error, Cancelled)
    assert ledger(warehouse) == (error.sync_id, "cancelled", "cancelled", str(error))
    # where nothing else runs beside the reader, what is being published is rolled back
    assert published(warehouse) in ([[1, 2, 3, 4, 5]] if block == SLEEPS else [[1, 2], [1, 2, 3, 4]])


@pytest.mark.slow
def test_a_sync_that_has_lost_its_lock_does_not_wait_for_its_reader(
    warehouse: Warehouse, blocked: Blocked, tmp_path: Path
) -> None:
    running = Running(blocked(SLEEPS, "PT20M", 2), warehouse.loader_dsn, tmp_path)
    running.reached()
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        session.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")

    error = running.ended()

    assert isinstance(error, LoaderError)
    assert "lost the connection that holds the stream's lock" in str(error)
    assert ledger(warehouse) == (error.sync_id, "failed", "loader", str(error))


@pytest.mark.slow
def test_a_thread_that_a_reader_leaves_behind_holds_nobody_up(
    warehouse: Warehouse, blocked: Blocked, tmp_path: Path
) -> None:
    leaves = "__import__('threading').Thread(target=time.sleep, args=(300,)).start()"
    running = Running(blocked(leaves, "PT20M", 2), warehouse.loader_dsn, tmp_path)
    running.over()

    assert running.errors == []
    assert ledger(warehouse)[1:3] == ("succeeded", None)
    assert published(warehouse) == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_dlt_source_that_blocks_ends_at_its_limit(
    warehouse: Warehouse, module: Callable[[str, str], str], tmp_path: Path
) -> None:
    place = f"{module(DLT, SLEEPS)}:misfit"
    spec = source({"kind": "dlt_source", "source": place, "arguments": {"cues": str(tmp_path)}}, "PT20S")
    running = Running(spec, warehouse.loader_dsn, tmp_path)
    running.reached()

    assert isinstance(running.ended(), ResourceError)
    assert ledger(warehouse)[1:3] == ("failed", "resource")


SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: unit
  owner: team:data
  connector: {{kind: python, module: {module}, options: {{cues: "{cues}", windows: "2"}}}}
  defaults: {{write: replace, retries: 0}}
  streams:
    - {{name: apples}}
    - {{name: misfit, limits: {{time: PT20S}}}}
    - {{name: zebras}}
"""


@pytest.mark.slow
def test_siblings_of_a_run_go_on_after_the_limit_of_one_that_blocks(
    warehouse: Warehouse,
    env: dict[str, str],
    module: Callable[[str, str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "project" / FOLDER / "unit" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(SOURCE.format(module=module(PYTHON, SLEEPS), cues=tmp_path), encoding="utf-8")

    job = location(tmp_path / "project").resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance, raise_on_error=False)

    assert (tmp_path / "reached").exists()
    assert not (tmp_path / "came_back").exists()
    assert sql(warehouse.admin_dsn, "select stream, status, failure_class from ops.syncs order by stream") == [
        ("apples", "succeeded", None),
        ("misfit", "failed", "resource"),
        ("zebras", "succeeded", None),
    ]
