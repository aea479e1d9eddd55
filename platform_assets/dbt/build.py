"""The body of the dbt op: guard, lock, one dbt process, publication of tested marts, results as Dagster's."""

import os
from collections.abc import Generator, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import dagster as dg

from platform_assets.dbt import beside
from platform_assets.dbt.environment import dbt_environment
from platform_assets.dbt.failures import dbt_error
from platform_assets.dbt.gone import say_missing
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import read_manifest
from platform_assets.dbt.served import remember
from platform_assets.settings import Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse

if TYPE_CHECKING:
    from platform_assets.dbt.runner import Command, Outcome, Reported

Event = dg.MaterializeResult[Any] | dg.AssetCheckResult


@dataclass(frozen=True, slots=True)
class Build:
    """What an op builds from. manifest: its path; threads: connections of one dbt process."""

    graph: Graph
    project_dir: Path
    manifest: Path
    threads: int


class BuildConfig(dg.Config):
    """Per launch.

    ignore_failed_checks: build although a blocking check upstream has failed.
    full_refresh: rebuild incremental models from nothing.
    """

    ignore_failed_checks: bool = False
    full_refresh: bool = False


def build(build: Build, context: dg.AssetExecutionContext, config: BuildConfig, settings: Settings) -> Iterator[Event]:
    """Build what the run selected, except what a failed blocking check upstream forbids.

    Models that may be built are, then the op fails when some were held back, a model broke or a blocking test failed.

    Raises:
        HeadwaterError: ContractError for what was held back, a broken contract or a failed test; ConfigError for wrong
            SQL; LoaderError when the warehouse went away.
    """
    from platform_assets.dbt.blocked import blocked_error
    from platform_assets.dbt.guard import OVER, blocked_models  # event log and SQLAlchemy: 0.5 CPU s

    graph = build.graph
    models = {id_ for id_, model in graph.models.items() if dg.AssetKey(model.key) in context.selected_asset_keys}
    tests = {
        id_
        for id_, test in graph.tests.items()
        if dg.AssetCheckKey(dg.AssetKey(graph.key(test.model)), test.name) in context.selected_asset_check_keys
    }
    blocked = blocked_models(graph, models, context.instance)
    if blocked and config.ignore_failed_checks:
        context.log.warning("Building over failed checks, as launched: %s", blocked_error(graph, blocked, OVER))
        blocked = {}
    wanted = models - set(blocked)
    judged = {id_ for id_ in tests if graph.tests[id_].model not in blocked}
    held_back = blocked_error(graph, blocked, OVER) if blocked else None
    if held_back is not None:
        context.log.error(str(held_back))
    if wanted or judged:
        yield from _build(build, context, config, settings, wanted, judged)
    if held_back is not None:
        raise held_back


def _build(
    build: Build,
    context: dg.AssetExecutionContext,
    config: BuildConfig,
    settings: Settings,
    models: set[str],
    tests: set[str],
) -> Iterator[Event]:
    from platform_assets.dbt.runner import forget_old_runs, run_dbt

    beside.refuse_partial("dbt build in Dagster", os.environ)
    warehouse = ensure_warehouse(settings)
    runs = settings.home / "dbt-runs"
    target = runs / f"{context.run.run_id[:8]}-{uuid4().hex[:6]}"
    graph = build.graph
    command = _command(build, config, warehouse, target, models, tests)
    marts = {dg.AssetKey(graph.key(id_)): id_ for id_ in beside.marts_of(graph, models)}
    built: dict[str, dg.MaterializeResult[Any]] = {}
    with beside.locked(warehouse.transformer_dsn, graph, models):
        if not config.full_refresh:
            beside.copy_served(warehouse.transformer_dsn, graph, models)
        events = _own_events(run_dbt(command, graph), context.selected_asset_check_keys)
        outcome = yield from _all_but_marts(events, marts, built)
        judged = beside.judge(graph, models, outcome.statuses, beside.never_served(warehouse.transformer_dsn, graph))
        beside.publish(warehouse.transformer_dsn, [graph.models[id_].name for id_ in judged.published])
    yield from (built[id_] for id_ in judged.published if id_ in built)
    for id_, reason in judged.held.items():
        context.log.warning("%s was built, but the one before is served on: %s", graph.models[id_].relation, reason)
    done = beside.done(models, outcome.statuses, judged)
    say_missing(warehouse.transformer_dsn, read_manifest(build.manifest), graph, done)
    remember(settings, build.manifest, done)
    forget_old_runs(runs)
    if outcome.error is not None:
        raise dbt_error(graph, target, outcome.error)


def _all_but_marts(
    events: "Generator[Event, None, Outcome]", marts: Mapping[Any, str], built: dict[str, dg.MaterializeResult[Any]]
) -> "Generator[Event, None, Outcome]":
    """A mart counts as materialized when it is published: its result goes into `built` till then."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return cast("Outcome", end.value)
        if isinstance(event, dg.MaterializeResult) and event.asset_key in marts:
            built[marts[event.asset_key]] = event
        else:
            yield event


def _own_events(
    events: "Generator[Reported, None, Outcome]", checks: Set[dg.AssetCheckKey]
) -> "Generator[Event, None, Outcome]":
    """Results of this op's own models and checks; hands on how dbt ended."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return cast("Outcome", end.value)
        if isinstance(event, dg.AssetMaterialization):
            yield dg.MaterializeResult(asset_key=event.asset_key, metadata=event.metadata)
        elif event.asset_check_key in checks:
            yield dg.AssetCheckResult(
                asset_key=event.asset_key,
                check_name=event.check_name,
                passed=event.passed,
                severity=event.severity,
                metadata=event.metadata,
            )


def _command(
    build: Build,
    config: BuildConfig,
    warehouse: Warehouse,
    target: Path,
    models: set[str],
    tests: set[str],
) -> "Command":
    """Nodes are named one by one, unless the whole project is wanted: dbt's own indirect selection takes tests along
    that also read a model of another run."""
    from platform_assets.dbt.runner import Command

    graph = build.graph
    arguments = ["build", "--exclude-resource-type", "unit_test", "--threads", str(build.threads)]
    arguments += beside.beside_words(str(build.manifest.parent))
    if config.full_refresh:
        arguments.append("--full-refresh")
    if models != set(graph.models) or tests != set(graph.tests):
        selectors = [*(graph.models[id_].selector for id_ in models), *(graph.tests[id_].selector for id_ in tests)]
        arguments += ["--indirect-selection", "empty", "--select", *sorted(selectors)]
    environment = {**dbt_environment(warehouse), **beside.BESIDE}
    return Command(build.project_dir, build.manifest, tuple(arguments), environment, target, frozenset(models))
