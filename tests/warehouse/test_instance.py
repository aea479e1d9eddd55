"""dagster.yaml: the instance stands on the warehouse, and a run whose process died is found."""

import logging
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import dagster as dg
import psycopg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus
from dagster._daemon.monitoring.run_monitoring import monitor_started_run

from platform_assets.settings import PROJECT_ROOT, load_settings, process_environment


@dg.op
def nothing() -> None: ...


@dg.job
def idle() -> None:
    nothing()


@pytest.fixture
def instance(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[dg.DagsterInstance]:
    for name, value in (env | process_environment(load_settings(env))).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture
def ended_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def started_run(instance: dg.DagsterInstance, pid: int) -> dg.DagsterRun:
    """A run that the process `pid` says it has started."""
    run = instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED)
    instance.report_engine_event(f"Started process for run (pid: {pid}).", run, EngineEventData.in_process(pid))
    return run


def test_runs_are_in_the_second_database_and_files_in_the_home(
    instance: dg.DagsterInstance, env: dict[str, str]
) -> None:
    run = instance.create_run_for_job(idle)
    with psycopg.connect(env["HEADWATER_DAGSTER_URL"]) as session:
        assert session.execute("select run_id from runs").fetchall() == [(run.run_id,)]
    assert Path(instance.storage_directory()).is_relative_to(env["HEADWATER_HOME"])


def test_the_instance_limits_runs_and_sends_nothing_home(instance: dg.DagsterInstance) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue is not None
    assert queue.max_concurrent_runs == 4
    assert not instance.telemetry_enabled
    assert instance.run_monitoring_enabled
    # a run must be settled within a minute
    assert instance.run_monitoring_poll_interval_seconds <= 30


def test_any_process_finds_the_same_instance(instance: dg.DagsterInstance, env: dict[str, str]) -> None:
    run = instance.create_run_for_job(idle)
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("dagster")), "run", "list"],
        cwd=PROJECT_ROOT,
        env=env | {"DAGSTER_HOME": str(PROJECT_ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.run_id in shown.stdout


def test_a_run_with_a_living_process_is_left_alone(instance: dg.DagsterInstance) -> None:
    run = started_run(instance, os.getpid())
    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_run_whose_process_is_gone_is_failed_by_monitoring(instance: dg.DagsterInstance, ended_pid: int) -> None:
    run = started_run(instance, ended_pid)
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    monitor_started_run(instance, cast("Any", None), record, logging.getLogger("test"))
    settled = instance.get_run_by_id(run.run_id)
    assert settled is not None
    assert settled.status == dg.DagsterRunStatus.FAILURE


def test_a_process_that_only_got_the_old_number_does_not_count(
    instance: dg.DagsterInstance, env: dict[str, str]
) -> None:
    run = started_run(instance, os.getpid())
    with psycopg.connect(env["HEADWATER_DAGSTER_URL"]) as session:
        # as if it had been said before this process was born
        session.execute(
            "update event_logs set event = jsonb_set(event::jsonb, '{timestamp}', '1000000000.5')::text "
            "where run_id = %s",
            [run.run_id],
        )
    assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.FAILED


def test_connections_are_kept_and_dropped_ones_are_replaced(instance: dg.DagsterInstance, env: dict[str, str]) -> None:
    with psycopg.connect(env["HEADWATER_DAGSTER_URL"], autocommit=True) as session:

        def backends() -> set[int]:
            rows = session.execute(
                "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            return {pid for (pid,) in rows.fetchall()}

        for _ in range(5):
            instance.get_runs()
        kept = backends()
        instance.get_runs()
        assert kept
        assert backends() == kept
        session.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) as pid", [list(kept)])
        assert instance.get_runs() == []
        assert not backends() & kept
