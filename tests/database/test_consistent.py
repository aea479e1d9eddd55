"""Streams of one run that read one moment of their database."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import Connector, ReadContext, ReadsTogether, StreamState
from connectors.errors import ConfigError, TransientError
from connectors.kinds.database import KIND
from connectors.process.connector import Alone
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.together import sync_together
from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE, column_of

Source = psycopg.Connection[Any]
STREAMS = [{"name": "orders"}, {"name": "lines"}]
HOLDERS = "select count(*) from pg_stat_activity where application_name = 'headwater' and datname = current_database()"


def spec_of(*streams: dict[str, Any]) -> SourceSpec:
    connector = {"kind": "database", "url": f"env:{URL_VARIABLE}", "consistent": True}
    attributes = {"source": "shop", "owner": "team:data", "connector": connector, "streams": streams or STREAMS}
    return parse_source(attributes, "shop.yaml")


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    source.execute("create table orders (id int, total int)")
    source.execute("create table lines (order_id int, price int)")
    source.execute("insert into orders values (1, 10)")
    source.execute("insert into lines values (1, 10)")
    os.environ[URL_VARIABLE] = source_url
    yield source
    del os.environ[URL_VARIABLE]


def members(folder: Path) -> tuple[SourceSpec, Any]:
    spec = spec_of()
    connector = KIND.open(spec)
    assert isinstance(connector, ReadsTogether)
    return spec, connector.together(spec.streams, Alone(ReadContext(None, folder)))


def test_tables_that_change_between_their_reads_agree(orders: Source, tmp_path: Path) -> None:
    spec, opened = members(tmp_path)

    def read(stream: Any, member: Connector) -> list[str]:
        folder = tmp_path / stream.name
        folder.mkdir()
        with member:
            messages = list(member.read(stream, StreamState(), ReadContext(None, folder)))
        return column_of(messages, "total" if stream.name == "orders" else "price")

    totals = read(spec.streams[0], opened["orders"])
    with orders.transaction():
        orders.execute("update orders set total = 99")
        orders.execute("update lines set price = 99")
    prices = read(spec.streams[1], opened["lines"])

    assert (totals, prices) == (["10"], ["10"])
    while orders.execute(HOLDERS).fetchone() != (0,):
        orders.execute("select pg_sleep(0.02)")


def test_a_snapshot_that_was_lost_is_transient(orders: Source, tmp_path: Path) -> None:
    spec, opened = members(tmp_path)
    list(opened["orders"].read(spec.streams[0], StreamState(), ReadContext(None, tmp_path)))
    orders.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
        "where application_name = 'headwater' and datname = current_database()"
    )

    with pytest.raises(TransientError, match=r"the common snapshot .* is gone"):
        list(opened["lines"].read(spec.streams[1], StreamState(), ReadContext(None, tmp_path)))


def test_a_run_loads_all_of_its_streams(orders: Source, warehouse: Warehouse) -> None:
    spec = spec_of(*STREAMS, {"name": "gone"})
    requests = [SyncRequest(spec, stream) for stream in spec.streams]
    progresses = {stream.name: Progress() for stream in spec.streams}

    outcomes = sync_together(requests, warehouse.loader_dsn, progresses, lambda line: None)

    # one that fails takes nothing from the others
    assert {name: type(outcome) for name, outcome in outcomes.items()} == {
        "orders": SyncResult,
        "lines": SyncResult,
        "gone": ConfigError,
    }


def test_what_is_read_at_other_moments_is_refused(orders: Source) -> None:
    with pytest.raises(ConfigError, match=r"shop\.orders: keyset reads at other moments"):
        KIND.open(spec_of({"name": "orders", "keyset": {"rows": 5}}))
