"""Which models may be built: none whose data upstream failed a blocking check.

Dagster stops a run at a failed blocking check of that run. A run of this location never holds the streams' own ops, so
what their checks said is read from the event log.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as db

# the list of an asset's evaluated checks has no public reader: only the evaluations of a check whose name is known do
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable

from platform_assets.dbt.blocked import Blocked, FailedCheck, standing_on
from platform_assets.dbt.graph import Graph

_DONE = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


OVER = "launch with the op's config `ignore_failed_checks: true`"


def blocked_models(graph: Graph, selected: Iterable[str], instance: dg.DagsterInstance) -> Blocked:
    """Of the selected models those that must not be built, with the failed blocking checks upstream."""

    def failed(ancestor: str) -> list[FailedCheck]:
        key = dg.AssetKey(graph.key(ancestor))
        if ancestor in graph.sources:
            names: Iterable[str] = _evaluated_checks(instance, key)
        else:
            names = [test.name for test in graph.tests_of.get(ancestor, ()) if test.is_blocking]
        return [check for name in names if (check := _failure(instance, dg.AssetCheckKey(key, name)))]

    return standing_on(graph, selected, failed)


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
    """The check's last finished evaluation if it blocks: failed, of severity error, and not outlived by its asset.

    One that has passed blocks too once newer data came in a run that ended before it could say anything of them.
    """
    storage = instance.event_log_storage
    found = storage.get_asset_check_execution_history(check, limit=1, status=_DONE)
    last = found[0] if found else None
    evaluation = last.evaluation if last else None
    # an evaluation that was reported from outside does not say whether it blocks
    if last is None or last.event is None or evaluation is None or evaluation.blocking is False:
        return None
    if (unjudged := _unjudged(instance, check, last)) is not None:
        return FailedCheck(tuple(check.asset_key.path), check.name, unjudged, "its run ended without it")
    if evaluation.passed or evaluation.severity != dg.AssetCheckSeverity.ERROR:
        return None
    if _is_gone(instance, check, last.run_id, last.event.timestamp):
        return None
    return FailedCheck(tuple(check.asset_key.path), check.name, datetime.fromtimestamp(last.event.timestamp, UTC))


def _unjudged(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, last: AssetCheckExecutionRecord
) -> datetime | None:
    """When the data came that the check has said nothing of, in a run that has ended; None when there is none.

    A run that failed and brought nothing leaves the word of the last good data standing.
    """
    newest = instance.get_latest_materialization_event(check.asset_key)
    planned = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
    if newest is None or not planned or planned[0].id == last.id or planned[0].run_id != newest.run_id:
        return None
    run = instance.get_run_by_id(newest.run_id)
    return datetime.fromtimestamp(newest.timestamp, UTC) if run is not None and run.is_finished else None


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
