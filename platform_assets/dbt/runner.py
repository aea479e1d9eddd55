"""One dbt process and its events. Imports dagster-dbt (2 CPU s), so only an op's body imports this module."""

import os
import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliInvocation, DbtCliResource

# what fetch_row_counts() and fetch_column_metadata() call; see _measured
from dagster_dbt.core.dbt_event_iterator import (
    _fetch_column_metadata,  # pyright: ignore[reportPrivateUsage]
    _fetch_row_count_metadata,  # pyright: ignore[reportPrivateUsage]
)
from packaging.version import Version

from platform_assets.dbt.beside import built_beside, statuses
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import PARTIAL_PARSE, dbt_command, read_manifest

KEPT_RUNS = 20
"""Folders of past dbt processes (log, compiled SQL, run_results.json) that are kept."""

_PARSED_BESIDE = "partial_parse.beside.msgpack"
"""As PARTIAL_PARSE, where marts have the schema in which they are built."""

Reported = dg.AssetMaterialization | dg.AssetCheckEvaluation


@dataclass(frozen=True, slots=True)
class Command:
    """arguments: of dbt itself, e.g. ("build", "--select", ...). target: folder of its log and artifacts.

    models: unique ids of what it builds; the marts among them are built beside the served ones.
    """

    project_dir: Path
    manifest: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    target: Path
    models: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """error: dbt's own words when the process failed, else None. statuses: of run_results.json, by unique id."""

    target: Path
    error: str | None
    statuses: Mapping[str, str]


class _Translator(DagsterDbtTranslator):
    """The asset keys of the graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        return dg.AssetSpec(dg.AssetKey(self._graph.key(unique_id)))

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        return dg.AssetKey(self._graph.key(dbt_resource_props["unique_id"]))


class _Dbt(DbtCliResource):
    @cached_property
    def _cli_version(self) -> Version:
        # dagster-dbt runs `dbt --version`, which takes 3 s and asks the package index for a newer one
        return Version(installed("dbt-core"))

    def start(self, command: Command, graph: Graph) -> DbtCliInvocation:
        invocation = DbtCliInvocation.run(
            args=[*dbt_command(), *command.arguments],
            env={
                **os.environ,
                "PYTHONUNBUFFERED": "1",
                "DBT_LOG_FORMAT": "json",
                "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
                "DBT_TARGET_PATH": str(command.target),
                "DBT_LOG_PATH": str(command.target),
                "DBT_PROJECT_DIR": str(command.project_dir),
                "DBT_PROFILES_DIR": str(command.project_dir),
            },
            manifest=built_beside(read_manifest(command.manifest), graph, command.models),
            dagster_dbt_translator=_Translator(graph),
            project_dir=command.project_dir,
            target_path=command.target,
            raise_on_error=False,
            # no context: events come out plain, and the op decides which of them are its own
            context=None,
            adapter=None,
            cli_version=self._cli_version,
        )
        # for columns and row counts; takes 1.5 CPU s, as long as the process needs to come up
        try:
            invocation.adapter = self._initialize_dbt_core_adapter(command.arguments)
        except BaseException:
            _stop(invocation)
            raise
        return invocation


def _stop(invocation: DbtCliInvocation) -> None:
    """End the process if it still runs: nobody would read its results."""
    if invocation.process.poll() is None:
        invocation.process.terminate()
        invocation.process.wait()


def run_dbt(command: Command, graph: Graph) -> Generator[Reported, None, Outcome]:
    """Run dbt; yields every built model with row count, columns and column lineage, and every test's result."""
    command.target.mkdir(parents=True, exist_ok=True)
    parsed = command.manifest.parent / _PARSED_BESIDE
    for earlier in (parsed, command.manifest.parent / PARTIAL_PARSE):
        if earlier.is_file():
            shutil.copy(earlier, command.target / PARTIAL_PARSE)
            break
    with _environment(command.environment):
        dbt = _Dbt(
            project_dir=str(command.project_dir),
            profiles_dir=str(command.project_dir),
            # looked for on the PATH when the resource is made, never run: dbt_command() is
            dbt_executable=sys.executable,
        )
        invocation = dbt.start(command, graph)
        try:
            for event in cast("Iterator[object]", invocation.stream()):
                if isinstance(event, dg.AssetMaterialization):
                    yield _measured(invocation, event)
                elif isinstance(event, dg.AssetCheckEvaluation):
                    yield event
            error = invocation.get_error()
        finally:
            _stop(invocation)
            if invocation.adapter is not None:
                invocation.adapter.cleanup_connections()
    _keep_parse(command.target / PARTIAL_PARSE, parsed)
    return Outcome(command.target, None if error is None else str(error), statuses(command.target))


def _measured(invocation: DbtCliInvocation, event: dg.AssetMaterialization) -> dg.AssetMaterialization:
    """With row count, columns and column lineage. `fetch_row_counts()` and `fetch_column_metadata()` call the same two
    functions from a thread pool and poll it without a pause, which keeps a core busy for as long as dbt runs."""
    found = _fetch_row_count_metadata(invocation, event) or {}
    found |= _fetch_column_metadata(invocation, event, with_column_lineage=True) or {}
    return event.with_metadata({**event.metadata, **found})


def forget_old_runs(folder: Path) -> None:
    """Remove all but the newest KEPT_RUNS folders."""
    runs: Sequence[Path] = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for run in runs[KEPT_RUNS:]:
        shutil.rmtree(run, ignore_errors=True)


def _keep_parse(parsed: Path, place: Path) -> None:
    """The parse of this process knows the connection: the next process need not parse again (2 CPU s)."""
    if parsed.is_file() and place.parent.is_dir():
        scratch = place.with_suffix(f".{os.getpid()}")
        shutil.copy(parsed, scratch)
        scratch.replace(place)


@contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Variables of this process inside the block: dbt's adapter in this process reads the profile, too."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
