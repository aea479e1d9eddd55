"""The Dagster side of the demo, a process of its own: code locations, runs, event log.

Runs are launched as the daemon's queue launches them: planned against the code location's gRPC server, created in the
instance with that location as their origin, and started by the instance's run launcher. The UI shows them like any
other. Only the waiting in the queue is left out, because that needs the daemon.

Standard input: `Configure`, then nothing; when it closes, the demo has ended or was killed, and the runs are ended.
Standard output: events (demo_events). Whatever Dagster and the runs print goes to standard error.

This is the one module that uses Dagster's unpublished interfaces (1.13.27): there is no published one that launches a
run of chosen assets without a webserver.
"""

import argparse
import asyncio
import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.remote_origin import CodeLocationOrigin
from dagster._core.remote_representation.external import (
    RemoteExecutionPlan,
    RemoteExecutionPlanSelector,
    RemoteJob,
    RemoteRepository,
)
from dagster._core.remote_representation.grpc_server_registry import GrpcServerRegistry
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget, WorkspaceLoadTarget
from dagster._grpc.constants import GrpcServerCommand

from platform_assets.cli.demo_events import (
    AssetChanged,
    Configure,
    Event,
    LocationFailed,
    Planned,
    RunLaunched,
    decode,
    encode,
)
from platform_assets.cli.demo_follow import Follower, name_of

log = logging.getLogger(__name__)

ASSET_JOB = "__ASSET_JOB"
POLL_SECONDS = 0.25
LOAD_SECONDS = 180
HEARTBEAT_SECONDS = 20
CANCEL_SECONDS = 60.0


class Channel:
    """The line to the demo. `ended` is set when the demo closes it."""

    def __init__(self) -> None:
        # a copy of standard output that no child inherits; what they print joins standard error
        self._out = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        # unbuffered: a thread that waits inside a buffered reader aborts the interpreter's end
        self._in = os.fdopen(os.dup(0), "rb", buffering=0)
        self._lock = threading.Lock()
        self.ended = threading.Event()

    def configuration(self) -> Configure | None:
        """The first message, None when there comes none; then the line is watched in the background."""
        line = self._in.readline()
        if not line:
            return None
        first = decode(line)
        if not isinstance(first, Configure):
            raise TypeError(f"expected Configure, got {type(first).__name__}")
        threading.Thread(target=self._watch, daemon=True).start()
        return first

    def send(self, event: Event) -> None:
        with self._lock:
            try:
                self._out.write(encode(event))
            except BrokenPipeError:
                self.ended.set()

    def _watch(self) -> None:
        while self._in.readline():
            pass
        self.ended.set()


@dataclass(frozen=True, slots=True)
class OneLocation(WorkspaceLoadTarget):
    """A workspace of a single code location, so that two of them load side by side."""

    origin: CodeLocationOrigin

    def create_origins(self) -> Sequence[CodeLocationOrigin]:
        return [self.origin]


class Location:
    """One loaded code location with its server.

    close: ends the server, and waits until it is gone (about 2 s).
    """

    def __init__(self, name: str, context: WorkspaceProcessContext, close: Callable[[], None]) -> None:
        self.name = name
        self.close = close
        self._context = context
        workspace = context.create_request_context()
        self.error = workspace.get_code_location_error(name)
        self._repositories: list[RemoteRepository] = []
        if self.error is None:
            self._repositories.extend(workspace.get_code_location(name).get_repositories().values())

    @property
    def _repository(self) -> RemoteRepository:
        return self._repositories[0]

    def assets(self) -> list[AssetKey]:
        """Everything that can be materialized here, upstream first; nothing when the location did not load."""
        if not self._repositories:
            return []
        graph = self._repository.asset_graph
        return [key for key in graph.toposorted_asset_keys if graph.get(key).is_executable]

    def blocked(self, keys: Sequence[AssetKey], failed: Collection[AssetKey]) -> dict[AssetKey, AssetKey]:
        """Which of `keys` (upstream first) stand downstream of a failed asset, each with that asset."""
        causes: dict[AssetKey, AssetKey] = {key: key for key in failed}
        for key in keys:
            parents = self._repository.asset_graph.get(key).parent_keys
            if cause := next((causes[parent] for parent in sorted(parents) if parent in causes), None):
                causes[key] = cause
        return {key: cause for key, cause in causes.items() if key not in failed}

    def launch(self, instance: DagsterInstance, keys: Sequence[AssetKey]) -> tuple[DagsterRun, RemoteExecutionPlan]:
        """One run of these assets with their checks, started in a process of the location's server."""
        workspace = self._context.create_request_context()
        selector = JobSubsetSelector(self.name, self._repository.name, ASSET_JOB, None, asset_selection=keys)

        async def planned() -> tuple[RemoteJob | None, RemoteExecutionPlan | None]:
            return await asyncio.gather(
                RemoteJob.gen(workspace, selector),
                RemoteExecutionPlan.gen(workspace, RemoteExecutionPlanSelector(job_selector=selector, run_config={})),
            )

        job, plan = asyncio.run(planned())
        if job is None or plan is None:
            raise RuntimeError(f"code location {self.name} has no plan for {', '.join(map(name_of, keys))}")
        run = instance.create_run(
            job_name=job.name,
            run_id=None,
            run_config={},
            status=DagsterRunStatus.NOT_STARTED,
            tags={"headwater/started_by": "demo"},
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=frozenset(keys),
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=workspace.asset_graph,
        )
        instance.launch_run(run.run_id, workspace)
        return run, plan


class Worker:
    """Runs the code locations of a workspace one after the other; the later ones load meanwhile."""

    def __init__(self, instance: DagsterInstance, channel: Channel) -> None:
        self._instance = instance
        self._channel = channel

    def run(self, workspace: Path) -> None:
        origins = WorkspaceFileTarget([str(workspace)]).create_origins()
        failed: set[AssetKey] = set()
        with ThreadPoolExecutor(2 * len(origins)) as pool:
            for loading in [pool.submit(self._load, origin) for origin in origins]:
                location = loading.result()
                if not self._channel.ended.is_set():
                    failed |= self._run_location(location, failed)
                pool.submit(location.close)

    def _run_location(self, location: Location, failed: Collection[AssetKey]) -> set[AssetKey]:
        """Everything of a location but what stands downstream of a failed asset; what failed of it."""
        if location.error is not None:
            self._channel.send(LocationFailed(location.name, location.error.to_string()))
            return set()
        keys = location.assets()
        blocked = location.blocked(keys, failed)
        for key, cause in blocked.items():
            message = f"not run: {name_of(cause)} failed"
            self._channel.send(AssetChanged(location.name, name_of(key), "skipped", "", message=message))
        wanted = [key for key in keys if key not in blocked]
        return self._follow(location, wanted) if wanted else set()

    def _load(self, origin: CodeLocationOrigin) -> Location:
        stack = ExitStack()
        # a registry starts one server at a time: each location has its own
        registry = stack.enter_context(
            GrpcServerRegistry(
                instance_ref=self._instance.get_ref(),
                server_command=GrpcServerCommand.API_GRPC,
                heartbeat_ttl=HEARTBEAT_SECONDS,
                startup_timeout=LOAD_SECONDS,
                wait_for_processes_on_shutdown=True,
                log_level="WARNING",
            )
        )
        with warnings.catch_warnings(action="ignore"):  # a location that does not load is reported by us
            context = WorkspaceProcessContext(self._instance, OneLocation(origin), grpc_server_registry=registry)
        location = Location(origin.location_name, stack.enter_context(context), stack.close)
        self._channel.send(Planned(location.name, tuple(name_of(key) for key in location.assets())))
        return location

    def _follow(self, location: Location, keys: Sequence[AssetKey]) -> set[AssetKey]:
        """Launch and watch one run to its end; the assets that failed, or that a failed check blocks."""
        run, plan = location.launch(self._instance, keys)
        self._channel.send(RunLaunched(location.name, run.run_id, tuple(name_of(key) for key in keys)))
        follower = Follower(location.name, run.run_id, keys, plan.execution_plan_snapshot)
        cursor: str | None = None
        while True:
            batch = self._instance.get_records_for_run(run.run_id, cursor, limit=500)
            cursor = batch.cursor
            for record in batch.records:
                for event in follower.events(record.event_log_entry):
                    self._channel.send(event)
            if follower.ended:
                return follower.failed
            if not batch.records and self._channel.ended.wait(POLL_SECONDS):
                self._cancel(run.run_id)
                return follower.failed

    def _cancel(self, run_id: str) -> None:
        log.warning("demo ended, run cancelled run_id=%s", run_id)
        self._instance.run_launcher.terminate(run_id)
        deadline = time.monotonic() + CANCEL_SECONDS
        while time.monotonic() < deadline:
            run = self._instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                return
            time.sleep(POLL_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m platform_assets.cli.demo_worker")
    parser.add_argument("--workspace", type=Path, required=True)
    options = parser.parse_args()
    channel = Channel()
    configuration = channel.configuration()
    if configuration is None:
        return
    os.environ.update(configuration.environment)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with DagsterInstance.get() as instance:
        Worker(instance, channel).run(options.workspace)


if __name__ == "__main__":
    main()
