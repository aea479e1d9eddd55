"""Partitions of one run: newest first, each a sync and a materialization of its own, none read twice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import cast

import dagster as dg
import psycopg

from connectors.contract import Window
from connectors.errors import HeadwaterError, LoaderError
from connectors.sync import SyncRequest, SyncResult, Verdict
from platform_assets.assets.materialize import (
    Done,
    StreamAsset,
    judged,
    materialization,
    sync_one,
    trigger_of,
    verdicts_of,
)
from platform_assets.assets.partitions import windows_of
from platform_assets.assets.turns import give_way, history_turn, live_turn
from platform_assets.checks import StreamCheck
from platform_assets.checks.standing import failing_windows, judges_windows

BACKFILL_TAG = "dagster/backfill"
OF_ONE_WINDOW = frozenset({"contract", "source"})
"""Classes of failure that say something of one window's data, and nothing of the next one's."""
_FINISHED = """
select sync_id::text from ops.syncs
where source = %s and stream = %s and window_start = %s and window_end = %s and status like 'succeeded%%'
    and (started_at >= %s or run_id = any(%s))
order by started_at desc limit 1
"""


@dataclass(slots=True)
class Reading:
    """What became of the run's partitions so far. said: of each that was judged, newest first, the verdicts.

    failed: those whose own data is at fault. error: what ended the run, or the first of those.
    """

    said: dict[str, Sequence[Verdict]] = field(default_factory=dict[str, Sequence[Verdict]])
    failed: list[str] = field(default_factory=list[str])
    error: HeadwaterError | None = None


def sync_partitions(
    asset: StreamAsset, context: dg.AssetExecutionContext, dsn: str
) -> tuple[Sequence[Verdict], HeadwaterError | None]:
    """Sync the run's partitions. What this run, one that it retries, or its backfill has read is not read again.

    A window that breaks its contract does not keep the older ones from being read.

    Returns:
        One verdict a check, of all partitions together; and the error that the run has to end with, if any.
    """
    label = f"{asset.source.source}.{asset.stream.name}"
    definition = cast("dg.TimeWindowPartitionsDefinition", context.assets_def.partitions_def)
    found = windows_of(definition, context.partition_keys)
    slices = {key: found[key] for key in reversed(context.partition_keys)}
    turn = history_turn if trigger_of(context) == "backfill" else live_turn
    with turn(dsn, label) as session:
        reading = Reading()
        try:
            _read(asset, context, dsn, session, slices, reading)
        except HeadwaterError as error:
            reading.error = error
        try:
            said = [*reading.said.items(), *_standing(asset, context, session, definition, reading.said)]
        except psycopg.Error as error:
            # what is not known of other partitions must not look green
            return (), reading.error or _unasked(label, error)
    verdicts = (_over(check, said) for check in asset.checks)
    return [verdict for verdict in verdicts if verdict is not None], _summed_up(reading)


def _unasked(label: str, error: psycopg.Error) -> LoaderError:
    return LoaderError(
        label,
        f"the partitions are read, but the ledger could not be asked: {str(error).strip().splitlines()[0]}",
        "Run `headwater doctor`; a retry reads only what is left.",
    )


def _read(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    dsn: str,
    session: psycopg.Connection[tuple[object, ...]],
    slices: Mapping[str, Window],
    reading: Reading,
) -> None:
    since = _begun(context)
    for key, window in slices.items():
        if trigger_of(context) == "backfill":
            give_way(session, f"{asset.source.source}.{asset.stream.name}")
        before = _finished(asset, context, session, window, since)
        if before is not None:
            request = SyncRequest(asset.source, asset.stream, window=window)
            again = judged(asset, dsn, request, before, key)
            if not _is_reported(asset, context, again):
                context.log.info("partition %s was read by sync %s and is not read again", key, before.sync_id)
                context.log_event(materialization(asset, again))
            reading.said[key] = again.verdicts
            continue
        try:
            done = sync_one(asset, context, dsn, key, window)
        except HeadwaterError as error:
            reading.said[key] = verdicts_of(error)
            if error.failure_class not in OF_ONE_WINDOW:
                raise
            context.log.error("partition %s: %s", key, error)
            reading.failed.append(key)
            reading.error = reading.error or error
        else:
            context.log_event(materialization(asset, done))
            reading.said[key] = done.verdicts


def _summed_up(reading: Reading) -> HeadwaterError | None:
    """The error that the run ends with, with the names of the partitions that failed besides."""
    error = reading.error
    if error is None:
        return None
    others = reading.failed[1:] if error.failure_class in OF_ONE_WINDOW else reading.failed
    if others:
        error.what += f"; {len(others)} more of its windows failed: {_first(others)}"
    return error


def _standing(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    session: psycopg.Connection[tuple[object, ...]],
    definition: dg.TimeWindowPartitionsDefinition,
    said: Mapping[str, Sequence[Verdict]],
) -> Iterator[tuple[str, Sequence[Verdict]]]:
    """Blocking checks that partitions of other runs have failed, and that nothing has mended since."""
    blocking = [check for check in asset.checks if check.blocking]
    for one in failing_windows(session, asset.source, asset.stream, blocking) if blocking else ():
        assert one.window_start is not None
        key = definition.get_partition_key_for_timestamp(one.window_start.timestamp())
        if all(verdict.name != one.check for verdict in said.get(key, ())):
            context.log.error(
                "partition %s has failed %s, and no read since has mended it: %s\nMend the source and materialize it"
                " again; docs/checks.md says how to let it go.", key, one.check, one.said,
            )  # fmt: skip
            yield key, [Verdict(one.check, passed=False, severity="error", blocking=True, explanation=one.said)]


def _over(check: StreamCheck, said: Sequence[tuple[str, Sequence[Verdict]]]) -> Verdict | None:
    """Of one check over partitions: the gravest failure, which names them, else the newest partition's word."""
    of_check = [(key, verdict) for key, verdicts in said for verdict in verdicts if verdict.name == check.name]
    failed = [(key, verdict) for key, verdict in of_check if not verdict.passed]
    if not failed:
        return of_check[0][1] if of_check else None
    partition, gravest = max(failed, key=lambda one: one[1].severity == "error")
    if len(said) == 1 or not judges_windows(check):
        return gravest
    others = [key for key, _ in failed if key != partition]
    also = f"; also {_first(others)}" if others else ""
    return replace(gravest, explanation=f"partition {partition}: {gravest.explanation}{also}")


def _first(keys: Sequence[str], count: int = 5) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")


def _begun(context: dg.AssetExecutionContext) -> datetime | None:
    """When the run's backfill began; None for a run of none."""
    backfill_id = context.run.tags.get(BACKFILL_TAG)
    backfill = context.instance.get_backfill(backfill_id) if backfill_id else None
    return datetime.fromtimestamp(backfill.backfill_timestamp, UTC) if backfill else None


def _finished(
    asset: StreamAsset,
    context: dg.AssetExecutionContext,
    session: psycopg.Connection[tuple[object, ...]],
    window: Window,
    since: datetime | None,
) -> SyncResult | None:
    """The sync that has read this window already, as the ledger has it."""
    from connectors.sync import past

    run = context.run
    runs = [run.run_id, run.root_run_id or run.run_id, run.parent_run_id or run.run_id]
    row = session.execute(
        _FINISHED, [asset.source.source, asset.stream.name, window.start, window.end, since, runs]
    ).fetchone()
    if row is None:
        return None
    table = f"{session.info.dbname}.{asset.source.schema_name}.{asset.stream.name}"
    return past.result_of(past.one(session, str(row[0])), table)


def _is_reported(asset: StreamAsset, context: dg.AssetExecutionContext, done: Done) -> bool:
    """A run of this backfill has told Dagster of the sync; otherwise the process died before it could."""
    wanted = dg.AssetRecordsFilter(asset.key, asset_partitions=[done.partition or ""])
    for record in context.instance.fetch_materializations(wanted, limit=1).records:
        told = record.asset_materialization
        known = told.metadata.get("sync_id") if told else None
        run = context.instance.get_run_by_id(record.run_id)
        is_ours = run is not None and run.tags.get(BACKFILL_TAG) == context.run.tags.get(BACKFILL_TAG)
        return is_ours and known is not None and known.value == done.result.sync_id
    return False
