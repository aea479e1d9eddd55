"""A table that is read out of the log: its source, its syncs, and what must be true after each of them."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from connectors.sync import Progress, SyncRequest, SyncResult, statebook, sync
from connectors.sync.lifecycle import run as run_lifecycle
from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE, source_spec

Source = psycopg.Connection[Any]
Stream = dict[str, Any]
SLOT = "headwater_shop_orders"
STREAM: Stream = {"primary_key": "id", "write": "merge", "replication": {"publication": "shop"}}
WRITES: dict[str, Stream] = {
    "merge": STREAM,
    "hard": STREAM | {"deletes": "hard"},
    "delete-insert": STREAM | {"merge": "delete-insert"},
    "scd2": STREAM | {"write": "scd2"},
}
UNBALANCED = "rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined"
LIVE = {"merge": "not _deleted", "hard": "true", "delete-insert": "not _deleted", "scd2": "_valid_to is null"}


@contextmanager
def named(url: str) -> Generator[None]:
    """The URL is the source's."""
    before = os.environ.get(URL_VARIABLE)
    os.environ[URL_VARIABLE] = url
    try:
        yield
    finally:
        if before is None:
            del os.environ[URL_VARIABLE]
        else:
            os.environ[URL_VARIABLE] = before


def run(
    warehouse: Warehouse,
    stream: Stream = STREAM,
    connector: Any = None,
    progress: Progress | None = None,
    part_mb: int = 32,
) -> SyncResult:
    spec = source_spec(stream, part_mb=part_mb)
    request = SyncRequest(spec, spec.streams[0])
    if connector is not None:
        return run_lifecycle(request, warehouse.loader_dsn, progress or Progress(), connector)
    return sync(request, warehouse.loader_dsn, progress or Progress())


def raw(warehouse: Warehouse, query: str) -> list[Any]:
    with psycopg.connect(warehouse.loader_dsn) as session:
        return session.execute(query.encode()).fetchall()


def forgotten(warehouse: Warehouse, stream: str = "orders") -> None:
    """`headwater state reset`."""
    with psycopg.connect(warehouse.loader_dsn) as session:
        statebook.apply(session, statebook.plan_reset(session, "shop", stream))


def slots(source: Source) -> list[str]:
    found = source.execute(
        "select slot_name::text from pg_replication_slots where database = current_database() order by 1"
    )
    return [name for (name,) in found.fetchall()]


def saved(warehouse: Warehouse) -> dict[str, Any]:
    """The position."""
    query = "select state from ops.stream_state where source = 'shop' order by version desc limit 1"
    return raw(warehouse, query)[0][0]["connector"]["replication"]


def shown(source: Source) -> list[Any]:
    """The rows of the source, by column."""
    return [row for (row,) in source.execute("select to_jsonb(t) from orders t order by id").fetchall()]


def assert_equal(source: Source, warehouse: Warehouse, write: str = "merge") -> None:
    """What lives in the raw table is what the source has now, in every column that the source has."""
    expected = shown(source)
    names = list(expected[0]) if expected else ["id"]
    query = f"select to_jsonb(t) from raw_shop.orders t where {LIVE[write]} order by id"
    found = [{name: row[name] for name in names} for (row,) in raw(warehouse, query)]
    assert len(found) == len(expected)
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]][:3] == []


def assert_whole(source: Source, warehouse: Warehouse, write: str = "merge") -> None:
    """Nothing is missing, nothing doubled, nothing left over; the ledger balances."""
    assert_equal(source, warehouse, write)
    key = "id, _valid_from" if write == "scd2" else "id"
    assert raw(warehouse, f"select {key} from raw_shop.orders group by {key} having count(*) > 1") == []
    if write == "scd2":
        again = (
            "select 1 from (select to_jsonb(t) - array['_synced_at', '_valid_from', '_valid_to', '_dlt_load_id', "
            "'_dlt_id'] as now, lag(to_jsonb(t) - array['_synced_at', '_valid_from', '_valid_to', '_dlt_load_id', "
            "'_dlt_id']) over (partition by id order by _valid_from) as before from raw_shop.orders t) v "
            "where now = before"
        )
        assert raw(warehouse, again) == [], "a version that says what the one before said"
    for query, what in (
        (
            "select 1 from raw_shop.orders where _dlt_load_id not in (select load_id from raw_shop._dlt_loads)",
            "orphan rows",
        ),
        ("select 1 from ops.syncs where status = 'running'", "an unsettled sync"),
        ("select 1 from ops.syncs where " + UNBALANCED, "a ledger that does not balance"),
        ("select 1 from ops.syncs where status = 'failed' and (failure_class is null or message is null)", "no reason"),
        ("select 1 from ops.quarantine", "a row in quarantine"),
    ):
        assert raw(warehouse, query) == [], what
    assert slots(source) == [SLOT]
    ahead = source.execute(
        "select 1 from pg_replication_slots where slot_name = %s and confirmed_flush_lsn > %s::pg_lsn",
        [SLOT, saved(warehouse)["lsn"]],
    )
    assert ahead.fetchall() == [], "the slot was told more than is committed"
