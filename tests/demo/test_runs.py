"""Runs as the demo launches and follows them: a small workspace, real code servers, real storage."""

from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from platform_assets.cli import demo_events as told
from platform_assets.cli.demo_process import DagsterProcess
from platform_assets.cli.demo_view import Board

INGEST = """
import os, time
from pathlib import Path
import dagster as dg

@dg.asset(key=["shop", "orders"], check_specs=[dg.AssetCheckSpec("volume", asset=["shop", "orders"], blocking=True)])
def orders():
    yield dg.MaterializeResult(
        metadata={"rows_loaded": 7, "status": "succeeded", "dagster/table_name": "db.raw_shop.orders"},
        check_results=[dg.AssetCheckResult(passed=False, check_name="volume", description="7 rows, expected 10")],
    )

@dg.asset(key=["shop", "clients"])
def clients():
    raise dg.Failure("shop.clients: HTTP 401\\nRotate it.", metadata={"failure_class": "auth"}, allow_retries=False)

@dg.asset(key=["shop", "prices"])
def prices():
    Path(os.environ["MARK"]).touch()
    while os.environ.get("WAIT"):
        time.sleep(0.1)
    return dg.MaterializeResult(metadata={"rows_loaded": 0, "status": "succeeded_empty"})

defs = dg.Definitions(assets=[orders, clients, prices], executor=dg.in_process_executor)
"""

TRANSFORM = """
import dagster as dg

@dg.asset(key=["staging", "orders"], deps=[["shop", "orders"]])
def stg_orders(): ...

@dg.asset(key=["marts", "sales"], deps=[["staging", "orders"]])
def sales(): ...

@dg.asset(key=["marts", "prices"], deps=[["shop", "prices"]])
def mart_prices():
    return dg.MaterializeResult(metadata={"dagster/row_count": 3})

defs = dg.Definitions(assets=[stg_orders, sales, mart_prices], executor=dg.in_process_executor)
"""

WORKSPACE = """
load_from:
  - python_file: {relative_path: small_ingest.py, location_name: ingest}
  - python_file: {relative_path: small_transform.py, location_name: transform}
"""


@pytest.fixture
def project(tmp_path: Path, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    root = Path(__file__).parents[2]
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "small_ingest.py").write_text(INGEST)
    (folder / "small_transform.py").write_text(TRANSFORM)
    (folder / "workspace.yaml").write_text(WORKSPACE)
    (folder / "dagster.yaml").write_text((root / "dagster.yaml").read_text())
    env = env | {"DAGSTER_HOME": str(folder), "PYTHONPATH": str(root), "MARK": str(tmp_path / "mark")}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def dagster(project: Path) -> Generator[DagsterProcess]:
    with DagsterProcess(project / "workspace.yaml", project / "runs.log") as process:
        yield process


def follow(process: DagsterProcess) -> tuple[Board, list[told.Anything]]:
    board, events = Board(), list[told.Anything]()
    for event in process.events():
        match event:
            case None:
                continue
            case told.Planned():
                board.plan(event)
            case told.AssetChanged():
                board.change(event)
            case told.CheckJudged():
                board.checks[event.name, event.check] = event
            case _:
                pass
        events.append(event)
    return board, events


@pytest.mark.slow
def test_what_failed_is_told_and_nothing_is_built_on_it(dagster: DagsterProcess) -> None:
    dagster.configure({})
    board, events = follow(dagster)
    assert dagster.finish() == 0, dagster.last_words()
    states = {name: (line.state, line.status, line.rows) for name, line in board.lines.items()}
    assert states == {
        "shop.orders": ("succeeded", "succeeded", 7),
        "shop.clients": ("failed", "", None),
        "shop.prices": ("succeeded", "succeeded_empty", 0),
        "staging.orders": ("skipped", "", None),
        "marts.sales": ("skipped", "", None),
        "marts.prices": ("succeeded", "", 3),
    }
    clients = board.lines["shop.clients"]
    assert (clients.failure_class, clients.note) == ("auth", "shop.clients: HTTP 401\nRotate it.")
    assert board.lines["marts.sales"].note == "not run: shop.orders failed"
    assert board.lines["shop.orders"].table == "raw_shop.orders"
    assert [(check.check, check.severity, check.message) for check in board.red_checks] == [
        ("volume", "error", "7 rows, expected 10")
    ]
    launched = {event.run_id: event.location for event in events if isinstance(event, told.RunLaunched)}
    with DagsterInstance.get() as instance:
        runs = {run_id: instance.get_run_by_id(run_id) for run_id in launched}
    origins = {
        launched[run_id]: run.remote_job_origin.repository_origin.code_location_origin.location_name
        for run_id, run in runs.items()
        if run and run.remote_job_origin
    }
    assert origins == {"ingest": "ingest", "transform": "transform"}


WORKER = "platform_assets.cli.demo_worker"


@pytest.mark.slow
def test_closing_the_line_ends_the_run_and_every_process(dagster: DagsterProcess) -> None:
    dagster.configure({"WAIT": "yes"})
    run_id, processes = "", list[psutil.Process]()
    for event in dagster.events():
        if isinstance(event, told.RunLaunched):
            run_id = event.run_id
        if isinstance(event, told.AssetChanged) and (event.name, event.state) == ("shop.prices", "running"):
            # the tests before this one may have left helpers of multiprocessing's behind: those are not the worker's
            (worker,) = (child for child in psutil.Process().children() if WORKER in child.cmdline())
            processes = [worker, *(child for child in worker.children(recursive=True) if is_python(child))]
            break
    assert len(processes) >= 3
    dagster.finish()
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []
    with DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == DagsterRunStatus.CANCELED


@pytest.mark.slow
def test_a_location_that_does_not_load_is_named(dagster: DagsterProcess, project: Path) -> None:
    (project / "small_transform.py").write_text("import a_module_that_is_not_there\n")
    dagster.configure({})
    _, events = follow(dagster)
    failed = [event for event in events if isinstance(event, told.LocationFailed)]
    assert [event.location for event in failed] == ["transform"]
    assert "a_module_that_is_not_there" in failed[0].message


def is_python(process: psutil.Process) -> bool:
    try:
        return "python" in process.name()
    except psutil.NoSuchProcess:
        return False
