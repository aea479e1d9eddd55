"""What Dagster's own backfills lack: newest first, a budget a day, pause and resume, priorities.

Each of ours is one Dagster backfill, whose runs Dagster submits all at once. They are born with the tag HELD, and the
run queue starts nothing that is held (`tag_concurrency_limits` in dagster.yaml). `steer` takes the tag off the newest
ones, as many as may run now, and puts it back. What is done is read from the ledger, so a killed daemon forgets
nothing. Why so: docs/decisions/0006-steered-backfills.md.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import dagster as dg
import psycopg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from connectors.errors import HeadwaterError
from platform_assets.backfills import plan, store
from platform_assets.backfills.adopt import adopt
from platform_assets.backfills.store import Backfill, Spent, WindowStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)
HELD = "headwater/held"
YES, NO = "yes", "no"
STREAM = "headwater/backfill_stream"
"""Its value is the stream: the queue lets one run of a stream's backfills go at a time, for a stream has one writer."""
PRIORITY = "dagster/priority"
BACKFILL = "dagster/backfill"
FIRST, LAST, SINGLE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"
AHEAD = 2
"""Runs of one backfill that are let go: one that reads and one behind it."""
RETRIES = "3"
"""So often a run whose process was killed is started again; finished windows are not read again."""
TITLE_CHARACTERS = 100
"""Dagster takes no longer title, and none with %, * or a double quote."""
STOPPING = frozenset({"config", "auth"})
"""Classes of failure that the next window would meet too: somebody has to act first."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDS: "Mapping[BulkActionStatus, store.State]" = {
    BulkActionStatus.COMPLETED_SUCCESS: "finished",
    BulkActionStatus.COMPLETED_FAILED: "failed",
    BulkActionStatus.FAILED: "failed",
    BulkActionStatus.CANCELED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class _Run:
    """An unfinished run of a backfill and the windows it has still to read."""

    run: dg.DagsterRun
    windows: int
    newest: int

    @property
    def is_queued(self) -> bool:
        return self.run.status == dg.DagsterRunStatus.QUEUED

    @property
    def is_held(self) -> bool:
        # a run of the UI's is born without the tag, and is not let go either
        return self.is_queued and self.run.tags.get(HELD, YES) == YES


def steer(instance: dg.DagsterInstance, graph: BaseAssetGraph, connection: psycopg.Connection[Any]) -> list[str]:
    """One look at every open backfill, the UI's own too; a line for each that says what happens and why."""
    adopt(instance, graph, connection)
    lines: list[str] = []
    for backfill in store.several(connection, is_open=True, limit=1_000):
        try:
            said = _steer(instance, graph, connection, backfill)
        except (dg.DagsterError, HeadwaterError) as error:
            # one that cannot be steered keeps no other one from it
            log.exception("backfill not steered backfill_id=%s", backfill.backfill_id)
            said = f"could not be steered: {str(error).strip().splitlines()[0]}"
        lines.append(f"{backfill.backfill_id} ({backfill.label}): {said}")
    return lines


def _steer(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, connection: psycopg.Connection[Any], backfill: Backfill
) -> str:
    ours = instance.get_backfill(backfill.backfill_id)
    windows = store.windows(connection, backfill)
    if ours is None:
        if backfill.state == "cancelling":
            store.move(connection, backfill, "cancelled", backfill.message, since=["cancelling"])
            return "cancelled before it began"
        if why := _impossible(graph, backfill, windows):
            store.move(connection, backfill, "failed", why, since=["requested", "running", "paused"])
            return f"failed. {why}"
        _add(instance, graph, connection, backfill, windows)
        return f"asked for {len(windows)} windows"
    if ours.status in _ENDS:
        return _end(connection, backfill, windows, _ENDS[ours.status])
    if backfill.state == "cancelling":
        if ours.status == BulkActionStatus.REQUESTED:
            instance.update_backfill(ours.with_status(BulkActionStatus.CANCELING))
        return "being cancelled"
    if backfill.state == "requested":
        backfill = store.move(connection, backfill, "running", since=["requested"])
    if backfill.state == "running" and (blocker := _blocker(backfill, windows)):
        backfill = store.move(connection, backfill, "paused", blocker, since=["running"])
    return _let_go(instance, connection, backfill, windows)


def _impossible(graph: BaseAssetGraph, backfill: Backfill, windows: Sequence[WindowStatus]) -> str:
    """Why Dagster cannot make it: the source file has changed since it was asked for."""
    key = dg.AssetKey([backfill.source, backfill.stream])
    partitions = graph.get(key).partitions_def if graph.has(key) else None
    if partitions is None:
        return "The stream is gone from the source file, or has no partitions any more."
    unknown = [window.partition for window in windows if not partitions.has_partition_key(window.partition)]
    return f"{unknown[0]} is no partition of the stream any more; ask for the backfill again." if unknown else ""


def _add(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,
    connection: psycopg.Connection[Any],
    backfill: Backfill,
    windows: Sequence[WindowStatus],
) -> None:
    """Dagster's backfill; its id is ours, so a second try after a crash adds nothing."""
    instance.add_backfill(
        PartitionBackfill.from_asset_partitions(
            backfill_id=backfill.backfill_id,
            asset_graph=graph,
            partition_names=[window.partition for window in windows],
            asset_selection=[dg.AssetKey([backfill.source, backfill.stream])],
            backfill_timestamp=backfill.created_at.timestamp(),
            tags={
                HELD: YES,
                STREAM: backfill.label,
                PRIORITY: str(backfill.priority),
                "dagster/max_retries": RETRIES,
                "headwater/reason": backfill.reason,
            },
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=re.sub(r'[%*"]', " ", backfill.title)[:TITLE_CHARACTERS],
            description=f"{backfill.title}. `headwater backfill status {backfill.backfill_id}` tells more.",
            run_config=None,
        )
    )
    if backfill.state == "requested":
        store.move(connection, backfill, "running", since=["requested"])


def _end(
    connection: psycopg.Connection[Any], backfill: Backfill, windows: Sequence[WindowStatus], state: store.State
) -> str:
    left = [window for window in windows if not window.is_done]
    state = "finished" if not left else "failed" if state == "finished" else state
    message = backfill.message
    if left:
        why = next((window.message for window in left if window.message), "see its runs")
        message = f"{len(left)} of {len(windows)} windows are not read: {why.splitlines()[0]}"
    store.move(connection, backfill, state, message, since=["requested", "running", "paused", "cancelling"])
    return f"{state}. {message}".strip()


def _blocker(backfill: Backfill, windows: Sequence[WindowStatus]) -> str:
    """Why going on makes no sense; empty while it does. What failed before somebody resumed it no longer counts."""
    for window in windows:
        is_new = window.started_at is not None and window.started_at >= backfill.updated_at
        if is_new and window.failure_class in STOPPING:
            said = (window.message or "").splitlines()[0]
            return f"{window.failure_class} error at {window.partition}: {said}"
    return ""


def _let_go(
    instance: dg.DagsterInstance,
    connection: psycopg.Connection[Any],
    backfill: Backfill,
    windows: Sequence[WindowStatus],
) -> str:
    """Put the tags of the queued runs right; the newest that fit today's budget go first."""
    runs = _runs(instance, backfill, windows)
    is_paused = backfill.state == "paused"
    going = [run for run in runs if not run.is_held]
    room, is_measured = (0.0, True) if is_paused else _room(connection, backfill, going)
    has_no_room = False
    for run in runs:
        wants = NO
        if is_paused or has_no_room:
            wants = YES
        elif run.is_held:
            is_due = len(going) < AHEAD
            # let go while there is room at all: the last run of a day may exceed the budget, by less than itself
            has_no_room = is_due and room <= 0
            wants = NO if is_due and not has_no_room else YES
            if wants == NO:
                going.append(run)
                room -= run.windows
        _tag(instance, run, {HELD: wants, STREAM: backfill.label, PRIORITY: str(backfill.priority)})
    said = f"{sum(window.is_done for window in windows)} of {len(windows)} windows done"
    waiting = sum(run.is_queued for run in runs)
    if is_paused:
        return f"paused, {said}. {backfill.message}".strip()
    if has_no_room and not is_measured:
        return f"{said}; runs: {len(runs) - waiting} read, {waiting} wait until one has told what a window costs"
    if has_no_room:
        return f"{said}; today's budget is spent, {waiting} runs wait for tomorrow (UTC)"
    return f"{said}; runs: {len(runs) - waiting} read, {waiting} wait"


def _tag(instance: dg.DagsterInstance, run: _Run, tags: dict[str, str]) -> None:
    changed = {name: value for name, value in tags.items() if run.run.tags.get(name) != value}
    if changed and run.is_queued:
        instance.add_run_tags(run.run.run_id, changed)


def _runs(instance: dg.DagsterInstance, backfill: Backfill, windows: Sequence[WindowStatus]) -> list[_Run]:
    """The unfinished runs of the backfill, that of the newest windows first."""
    place = {window.partition: index for index, window in enumerate(windows)}
    found = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED, tags={BACKFILL: backfill.backfill_id}))
    runs: list[_Run] = []
    for run in found:
        newest = place.get(run.tags.get(LAST) or run.tags.get(SINGLE, ""), 0)
        oldest = place.get(run.tags.get(FIRST) or run.tags.get(SINGLE, ""), newest)
        runs.append(_Run(run, sum(not window.is_done for window in windows[newest : oldest + 1]), newest))
    return sorted(runs, key=lambda run: run.newest)


def _room(connection: psycopg.Connection[Any], backfill: Backfill, going: Sequence[_Run]) -> tuple[float, bool]:
    """How many more windows may be let go today, at least one when there was none; and whether their cost is known.

    A bound of rows or requests lets one run go at a time until some window has told what it costs.
    """
    budget, spent = backfill.budget, store.spent(connection, backfill)
    each, _ = plan.cost(connection, backfill.source, backfill.stream)
    under_way = sum(run.windows for run in going)
    room, is_measured = inf, True
    for bound, used, one in (
        (budget.windows, spent.windows, 1.0),
        (budget.rows, spent.rows, each.rows),
        (budget.requests, spent.requests, each.requests),
    ):
        if bound is None:
            continue
        if one:
            room = min(room, (bound - used) / one - under_way)
        elif used >= bound:
            room = min(room, 0.0)
        else:
            room, is_measured = min(room, 0.0 if going else 1.0), False
    if not going and spent == Spent(0, 0, 0):
        return max(room, 1.0), is_measured
    return room, is_measured
