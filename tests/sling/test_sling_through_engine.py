"""The whole way: from the source through Sling and the engine into the raw table, value for value."""

import dagster as dg
import psycopg
import pytest
import yaml

from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write, load, write_source
from tests.sling.reading import URL, source
from tests.sling.test_sling_reading import FULL, TYPES
from tests.support.sql import run as sql

__all__ = ["write_source"]

SAME = ("id", "small", "price", "tiny", "wide", "ratio", "ok", "moment", "day", "at", "label", "doc", "raw", "key")


@pytest.fixture(autouse=True)
def work_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working folders of this test's own: another warehouse's sync of the same name must not share them."""
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path_factory.mktemp("work")))


def raw_rows(warehouse: Warehouse, stream: str, columns: str) -> list[tuple[object, ...]]:
    with psycopg.connect(warehouse.loader_dsn) as connection:
        return connection.execute(f"select {columns} from raw_shop.{stream} order by id").fetchall()  # pyright: ignore[reportArgumentType, reportCallIssue] the test's own names


def test_every_value_of_every_type_lands_as_it_was(shop: psycopg.Connection, warehouse: Warehouse) -> None:
    shop.execute(TYPES)
    shop.execute(FULL)
    shop.execute("insert into everything (id, label) values (2, '')")
    spec = source({"name": "everything", "object": "public.everything", "primary_key": "id", "write": "merge"})

    result = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)

    names = ", ".join(SAME)
    assert result.status == "succeeded"
    assert result.rows.loaded == 2
    assert (
        raw_rows(warehouse, "everything", names)
        == shop.execute(
            f"select {names} from everything order by id"  # pyright: ignore[reportArgumentType, reportCallIssue] the test's own names
        ).fetchall()
    )


@pytest.mark.parametrize("write", ["merge", "append"])
def test_an_incremental_stream_loads_every_row_once(shop: psycopg.Connection, warehouse: Warehouse, write: str) -> None:
    shop.execute(
        "create table orders as select i as id, '2024-01-01Z'::timestamptz + i * interval '1 h' as at "
        "from generate_series(0, 4) i"
    )
    stream = {
        "name": "orders",
        "object": "public.orders",
        "cursor": {"field": "at"},
        "primary_key": "id",
        "write": write,
    }
    spec = source(stream)

    first = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)
    nothing = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)
    shop.execute(
        "insert into orders select i, '2024-01-01Z'::timestamptz + i * interval '1 h' from generate_series(4, 7) i"
    )
    later = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)

    assert first.rows.loaded == 5
    assert nothing.rows.loaded - nothing.rows.updated == 0 if write == "append" else nothing.rows.extracted == 1
    assert later.newest_cursor
    assert later.newest_cursor.startswith("2024-01-01T07")
    ids = [row[0] for row in raw_rows(warehouse, "orders", "id")]
    # the row that the source itself has twice is one under merge and two under append
    assert ids == ([0, 1, 2, 3, 4, 5, 6, 7] if write == "merge" else [0, 1, 2, 3, 4, 4, 5, 6, 7])


def test_values_that_the_raw_type_cannot_hold_are_quarantined(shop: psycopg.Connection, warehouse: Warehouse) -> None:
    shop.execute("create table shifts as select i as id, '10:00'::time as at from generate_series(1, 50) i")
    shop.execute("update shifts set at = '24:00' where id = 7")
    spec = source({"name": "shifts", "object": "public.shifts", "primary_key": "id", "write": "merge"})

    result = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)

    assert (result.rows.loaded, result.rows.quarantined) == (49, 1)


def test_values_that_a_rule_rewrites_are_read_without_a_file_and_the_others_lose_nothing(
    shop: psycopg.Connection, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASH_KEY", "k")
    shop.execute(TYPES)
    shop.execute(FULL)
    columns = {"label": {"rule": "hash", "key": "env:HASH_KEY"}}
    spec = source({"name": "everything", "object": "public.everything", "columns": columns})

    result = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)

    others = [name for name in SAME if name != "label"]
    assert (result.rows.loaded, result.rows.quarantined) == (1, 0)
    expected = shop.execute(
        f"select {', '.join(others)} from everything"  # pyright: ignore[reportArgumentType, reportCallIssue] the test's own names
    ).fetchall()
    assert raw_rows(warehouse, "everything", ", ".join(others)) == expected
    ((label,),) = raw_rows(warehouse, "everything", "label")
    assert len(str(label)) == 64


def test_one_stream_of_a_source_runs_alone_and_tells_what_every_kind_tells(
    shop: psycopg.Connection,
    warehouse: Warehouse,
    env: dict[str, str],
    write_source: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    shop.execute("create table orders as select i as id, numeric(8, 2) '1.5' as price from generate_series(1, 7) i")
    shop.execute("create table lines (id int)")
    cursor = {"primary_key": "id", "cursor": {"field": "id"}, "write": "merge"}
    streams = [{"name": "orders", "object": "public.orders", **cursor}, {"name": "lines", "object": "public.lines"}]
    attributes = {
        "source": "shop", "owner": "team:data", "connector": {"kind": "sling", "connection": f"env:{URL}"},
        "streams": streams,
    }  # fmt: skip
    text = yaml.safe_dump({"type": "platform_assets.components.Source", "attributes": attributes})
    job = load(write_source(text)).resolve_implicit_global_asset_job_def()

    result = job.execute_in_process(asset_selection=[dg.AssetKey(["shop", "orders"])])

    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["rows_loaded"].value == 7
    schema = metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    types = {column.name: column.type for column in schema.columns}
    assert (types["id"], types["price"]) == ("integer", "numeric(8,2)")
    syncs = "select stream, status, rows_extracted, rows_loaded, requests, received_bytes > 0 from ops.syncs"
    assert sql(warehouse.admin_dsn, syncs) == [("orders", "succeeded", 7, 7, 2, True)]
    states = "select stream, engine, state -> 'cursor' ->> 'value' from ops.stream_state"
    assert sql(warehouse.admin_dsn, states) == [("orders", "sling", "7")]
