"""What dagster.yaml names: Dagster's own storage in the warehouse's server, its files under HEADWATER_HOME.

Whichever Dagster process comes first starts the warehouse: `dagster dev`, a daemon, a run's worker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil
from dagster import DagsterEventType, DagsterRun, DefaultRunLauncher
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse

# the clock of the event log and that of the process table may differ by so much
CLOCK_SECONDS = 5.0


class WarehouseStorage(DagsterPostgresStorage):
    """Runs, events and schedules in HEADWATER_DAGSTER_URL, or in the warehouse's second database."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(postgres_url=ensure_warehouse(load_settings()).dagster_url, inst_data=inst_data)


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
            if (event := record.dagster_event) is not None
            and (event.message or "").startswith("Started process for run")
        ]
        if not starts:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no process has said so far that it works on the run")
        event = starts[-1].dagster_event
        found = event.engine_event_data.metadata.get("pid") if event is not None else None
        pid = int(str(found.value)) if found is not None else 0
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
