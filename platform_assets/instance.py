"""What dagster.yaml names: Dagster's own storage in the warehouse's server, its files under HEADWATER_HOME.

Whichever Dagster process comes first starts the warehouse: `dagster dev`, a daemon, a run's worker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
import psycopg2.extensions
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import Pool

from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse

# the clock of the event log and that of the process table may differ by so much
CLOCK_SECONDS = 5.0


NO_TIMEOUT = 0
POOL_RECYCLE_SECONDS = 600
POOL_OVERFLOW = 20


class WarehouseStorage(DagsterPostgresStorage):
    """Runs, events and schedules in HEADWATER_DAGSTER_URL, or in the warehouse's second database.

    Every process keeps its connections open, as Dagster's webserver does; without a pool a run of a few assets logs
    in some 500 times (measured with 1.13.27), which costs seconds. A connection that the server has dropped meanwhile
    is noticed when it is taken out of the pool and replaced.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        storage = cls(postgres_url=ensure_warehouse(load_settings()).dagster_url, inst_data=inst_data)
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            part.optimize_for_webserver(NO_TIMEOUT, POOL_RECYCLE_SECONDS, POOL_OVERFLOW)
        if not event.contains(Pool, "checkout", _replace_dropped):
            event.listen(Pool, "checkout", _replace_dropped)
        return storage


def _replace_dropped(connection: Any, _record: Any, _proxy: Any) -> None:
    """On checkout: a connection that is dead makes the pool open another one."""
    if not isinstance(connection, psycopg2.extensions.connection):
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
    except psycopg2.Error as error:
        raise DisconnectionError from error


class HomeArtifacts(LocalArtifactStorage):
    """Files that Dagster keeps beside its database."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(base_dir=str(_dagster_folder()), inst_data=inst_data)


class HomeComputeLogs(LocalComputeLogManager):
    """What the steps print."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(base_dir=str(_dagster_folder() / "storage"), inst_data=inst_data)


class WatchedRunLauncher(DefaultRunLauncher):
    """Dagster's own launcher, whose workers run monitoring can look after.

    A code server settles the workers that die under it. When it died too (kill -9, power cut) only this check finds
    that a started run has no process any more. All processes are on this machine.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """FAILED when the process that said it started the run is gone; a reused pid is told apart by its age."""
        starts = [
            record
            for record in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
            if (found := record.dagster_event) is not None
            and (found.message or "").startswith("Started process for run")
        ]
        if not starts:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has said so far that it works on the run")
        started = starts[-1].dagster_event
        told = started.engine_event_data.metadata.get("pid") if started is not None else None
        pid = int(str(told.value)) if told is not None else 0
        try:
            process = psutil.Process(pid)
            is_worker = process.status() != psutil.STATUS_ZOMBIE
            is_worker = is_worker and process.create_time() <= starts[-1].timestamp + CLOCK_SECONDS
        except psutil.NoSuchProcess:
            is_worker = False
        except psutil.AccessDenied:
            is_worker = True
        if is_worker:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"the run's process (pid {pid}) is gone")


def _dagster_folder() -> Path:
    folder = load_settings().home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
