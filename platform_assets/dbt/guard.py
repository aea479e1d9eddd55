"""Which models may be built: none whose data upstream failed a blocking check.

Dagster stops a run at a failed blocking check of that run. A run of this location never holds the streams' own ops, so
what their checks said is read from the event log.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as db

# the list of an asset's evaluated checks has no public reader: only the evaluations of a check whose name is known do
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

from connectors.errors import ContractError
from platform_assets.dbt.graph import Graph

_DONE = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True, slots=True)
class FailedCheck:
    """at: when it was evaluated, aware UTC."""

    asset: dg.AssetKey
    name: str
    at: datetime


def blocked_models(
    graph: Graph, selected: Iterable[str], instance: dg.DagsterInstance
) -> Mapping[str, Sequence[FailedCheck]]:
    """Of the selected models those that must not be built, with the failed blocking checks upstream.

    Checks of models that are selected themselves do not count: this run evaluates them again, and dbt skips what is
    built on one that fails.
    """
    wanted = set(selected)
    upstream = {id_: graph.ancestors(id_) - wanted for id_ in wanted}
    failed: dict[str, Sequence[FailedCheck]] = {}
    for ancestor in sorted(frozenset[str]().union(*upstream.values())):
        key = dg.AssetKey(graph.key(ancestor))
        if ancestor in graph.sources:
            names: Iterable[str] = _evaluated_checks(instance, key)
        else:
            names = [test.name for test in graph.tests_of.get(ancestor, ()) if test.is_blocking]
        found = [check for name in names if (check := _failure(instance, dg.AssetCheckKey(key, name)))]
        if found:
            failed[ancestor] = found
    blocked = {
        id_: [check for ancestor in sorted(far & set(failed)) for check in failed[ancestor]]
        for id_, far in upstream.items()
    }
    return {id_: checks for id_, checks in blocked.items() if checks}


def blocked_error(graph: Graph, blocked: Mapping[str, Sequence[FailedCheck]]) -> ContractError:
    """Names the models, the checks, and how to go on."""
    models = sorted(graph.models[id_].relation for id_ in blocked)
    checks = sorted({check for found in blocked.values() for check in found}, key=lambda one: (one.asset, one.name))
    words = [f"{check.name} of {'.'.join(check.asset.path)} ({check.at:%Y-%m-%d %H:%M} UTC)" for check in checks]
    assets = sorted({".".join(check.asset.path) for check in checks})
    return ContractError(
        _first(models, 3),
        f"not built: upstream failed {len(checks)} blocking check{'s' if len(checks) > 1 else ''}: {_first(words, 3)}",
        f"Mend the data or the rule and materialize {_first(assets, 3)} again; to build over it, launch with the op's"
        " config `ignore_failed_checks: true`.",
    )


def _first(words: Sequence[str], count: int) -> str:
    more = f" and {len(words) - count} more" if len(words) > count else ""
    return ", ".join(words[:count]) + more


def _evaluated_checks(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Sequence[str]:
    """Names of the checks of an asset of another location that were ever evaluated."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"the event log is a {type(storage).__name__}, which cannot list an asset's checks")
    table = AssetCheckExecutionsTable.c
    with storage.index_connection() as connection:
        query = db.select(table.check_name).where(table.asset_key == asset.to_string()).distinct()
        return sorted(name for (name,) in connection.execute(query))


def _failure(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> FailedCheck | None:
    """The check's last finished evaluation if it blocks: failed, of severity error, and not outlived by its asset."""
    storage = instance.event_log_storage
    found = storage.get_asset_check_execution_history(check, limit=1, status=_DONE)
    last = found[0] if found else None
    evaluation = last.evaluation if last else None
    if last is None or last.event is None or evaluation is None or evaluation.passed:
        return None
    if evaluation.severity != dg.AssetCheckSeverity.ERROR:
        return None
    # an evaluation that was reported from outside does not say whether it blocks
    if evaluation.blocking is False or _is_gone(instance, check, last.run_id, last.event.timestamp):
        return None
    return FailedCheck(check.asset_key, check.name, datetime.fromtimestamp(last.event.timestamp, UTC))


def _is_gone(instance: dg.DagsterInstance, check: dg.AssetCheckKey, run_id: str, evaluated_at: float) -> bool:
    """Whether the check was taken out of the source file: the op that once evaluated it has since run without it."""
    newest = instance.get_latest_materialization_event(check.asset_key)
    if newest is None or newest.timestamp <= evaluated_at or newest.run_id == run_id:
        return False
    run = instance.get_run_by_id(run_id)
    # a run of checks alone: its check may well be asked on another rhythm than the asset
    is_of_checks_alone = run is None or (
        check.asset_key not in run.asset_selection if run.asset_selection else bool(run.asset_check_selection)
    )
    if is_of_checks_alone:
        return False
    planned = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    return bool(planned) and planned[0].run_id != newest.run_id
