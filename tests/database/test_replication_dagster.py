"""Replicated streams as Dagster's assets: each has its slot, so one that runs alone takes nothing from the others."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.warehouse import Warehouse
from tests.database.replicating import Source, named, raw, slots
from tests.ingest.conftest import Write, load, write_source

__all__ = ["write_source"]
FILE = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector: {kind: database, url: env:TEST_DATABASE_KIND_URL}
  streams:
    - {name: orders, primary_key: id, write: merge, replication: {publication: shop}}
    - {name: bills, primary_key: id, write: merge, replication: {publication: shop}}
"""
ORDERS, BILLS = dg.AssetKey(["shop", "orders"]), dg.AssetKey(["shop", "bills"])


@pytest.fixture
def shop(source: Source, source_url: str, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    source.execute("set synchronous_commit = on")
    for table in ("orders", "bills"):
        source.execute(f"create table {table} (id int primary key, amount int)".encode())
        source.execute(f"insert into {table} select g, g from generate_series(1, 3) g".encode())
    source.execute("create publication shop for table orders, bills")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with named(source_url):
        yield source


def test_a_stream_that_runs_alone_takes_no_changes_from_its_siblings(
    shop: Source, warehouse: Warehouse, write_source: Write
) -> None:
    root: Path = write_source(FILE)

    def materialized(*keys: dg.AssetKey) -> dict[dg.AssetKey, int]:
        """Rows that came, by asset."""
        job = load(root).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            result = job.execute_in_process(instance=instance, asset_selection=list(keys), raise_on_error=False)
        assert result.success
        found: dict[dg.AssetKey, int] = {}
        for event in result.get_asset_materialization_events():
            metadata = event.materialization.metadata
            assert event.asset_key is not None
            value = metadata["rows_extracted"].value
            assert isinstance(value, int)
            found[event.asset_key] = value
            slot = f"headwater_shop_{event.asset_key.path[-1]}"
            assert slot in str(metadata["state_after"].value)
            if "slot_held_bytes" in metadata:
                held = metadata["slot_held_bytes"].value
                assert isinstance(held, int)
                assert held > 0
                shown.add(slot)
        return found

    shown: set[str] = set()
    assert materialized(ORDERS, BILLS) == {ORDERS: 3, BILLS: 3}
    assert slots(shop) == ["headwater_shop_bills", "headwater_shop_orders"]
    with shop.transaction():
        shop.execute("update orders set amount = 0")
        shop.execute("delete from bills where id = 1")
        shop.execute("insert into bills values (4, 4)")

    assert materialized(ORDERS) == {ORDERS: 3}
    with shop.transaction():
        shop.execute("truncate orders")
        shop.execute("insert into orders values (9, 9)")
        shop.execute("update bills set amount = -1 where id = 2")
    assert materialized(ORDERS) == {ORDERS: 1}
    assert materialized(ORDERS, BILLS) == {ORDERS: 0, BILLS: 3}

    for table, expected in (("orders", [(9, 9)]), ("bills", [(2, -1), (3, 3), (4, 4)])):
        assert raw(warehouse, f"select id, amount from raw_shop.{table} where not _deleted order by id") == expected
    assert shown == {"headwater_shop_bills", "headwater_shop_orders"}
