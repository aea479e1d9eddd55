"""Backfills that somebody started in the Dagster UI become ours: paused, put in order and counted like all others."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import psycopg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill

from platform_assets.assets.partitions import windows_of
from platform_assets.backfills import store

log = logging.getLogger(__name__)
MOST = 100
"""Open backfills of Dagster that are looked at."""
_KNOWN = "select backfill_id from ops.backfills where backfill_id = any(%s)"


def adopt(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, connection: psycopg.Connection[Any]
) -> Sequence[store.Backfill]:
    """Give each backfill of one partitioned stream its row in `ops.backfills`; those that are ours now.

    One of several assets stays Dagster's own, and so does one of windows that another open backfill holds. Nothing is
    written to Dagster's backfill: its daemon would lose what it has noted meanwhile.
    """
    wanted = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    found = {one.backfill_id: one for one in instance.get_backfills(filters=wanted, limit=MOST)}
    known = {row[0] for row in connection.execute(_KNOWN, [list(found)]).fetchall()}
    made = [_adopted(graph, connection, found[id_]) for id_ in found if id_ not in known]
    return [backfill for backfill in made if backfill is not None]


def _adopted(
    graph: BaseAssetGraph, connection: psycopg.Connection[Any], theirs: PartitionBackfill
) -> store.Backfill | None:
    data = theirs.asset_backfill_data
    keys = sorted(data.target_subset.asset_keys) if data is not None else []
    definition = graph.get(keys[0]).partitions_def if len(keys) == 1 and graph.has(keys[0]) else None
    if data is None or not isinstance(definition, dg.TimeWindowPartitionsDefinition) or len(keys[0].path) != 2:
        return None
    source, stream = keys[0].path
    partitions = sorted(data.target_subset.get_partitions_subset(keys[0]).get_partition_keys())
    if not partitions or store.held(connection, source, stream, partitions):
        return None
    title = theirs.title or f"{len(partitions)} windows of {source}.{stream}, started in the UI"
    asked = store.Wanted(source, stream, windows_of(definition, partitions), title)
    at = datetime.fromtimestamp(theirs.backfill_timestamp, UTC)
    log.info("backfill of the UI adopted backfill_id=%s windows=%d", theirs.backfill_id, len(partitions))
    return store.create(connection, asked, backfill_id=theirs.backfill_id, created_at=at)
