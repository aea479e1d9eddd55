"""dlt sources as streams: their records, tables, own incremental state, parents, and what fails inside them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from connectors.contract import Hints, JsonRecords, StreamState, Window
from connectors.errors import AuthError, ConfigError, HeadwaterError, RateLimited, SourceError, TransientError
from connectors.registry import kind
from connectors.specs import SourceSpec
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.dlt_source.conftest import Shop
from tests.http.reading import context, ids
from tests.http.serving import serving

SHOP = """
import dlt, pendulum
from datetime import date
from decimal import Decimal

CENTS = Decimal("9007199254740993.05")
ROWS = [{"id": n, "at": pendulum.datetime(2024, 1, n), "cents": CENTS, "tags": ["a"]} for n in range(1, 4)]

@dlt.source
def shop(api_key, days=3):
    @dlt.resource(primary_key="id")
    def orders(at=dlt.sources.incremental("at", initial_value=pendulum.datetime(2023, 1, 1))):
        print("reads after", at.last_value.to_date_string())
        yield [row for row in ROWS[:days] if row["at"] >= at.last_value]

    @dlt.transformer(data_from=orders)
    def lines(order_page):
        for order in order_page:
            yield {"id": order["id"] * 10, "order_id": order["id"]}

    @dlt.resource
    def prices():
        import pyarrow as pa
        yield pa.table({"sku": ["a", "b"], "price": pa.array([Decimal("1.10"), Decimal("2.20")])})

    return orders, lines, prices

@dlt.resource
def alone():
    yield {"id": 1}
    yield 7
"""
ORDERS: Mapping[str, Any] = {
    "name": "orders",
    "primary_key": "id",
    "write": "merge",
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY", "sesame-opens")


def given(shop: Shop, *streams: Mapping[str, Any], **arguments: Any) -> SourceSpec:
    place = f"{shop.module(SHOP)}:shop"
    return shop.source(place, *streams, secrets={"api_key": "env:SHOP_KEY"}, arguments=arguments)


def run(spec: SourceSpec, warehouse: Warehouse, stream: int = 0) -> SyncResult:
    return sync(SyncRequest(spec, spec.streams[stream]), warehouse.loader_dsn)


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.loader_dsn) as session:
        return session.execute(query.encode()).fetchall()


def test_a_resource_goes_on_from_its_own_incremental_state(
    shop: Shop, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    module = shop.module(SHOP)
    few, all_ = (
        shop.source(f"{module}:shop", ORDERS, secrets={"api_key": "env:SHOP_KEY"}, arguments={"days": days})
        for days in (2, 3)
    )
    again = all_.model_copy(update={"source": few.source})

    first, second, third = run(few, warehouse), run(again, warehouse), run(again, warehouse)

    assert "reads after 2023-01-01\nreads after 2024-01-02\nreads after 2024-01-03\n" in capsys.readouterr().out
    assert (first.rows.loaded, second.rows.extracted, third.rows.extracted) == (2, 2, 1)
    assert rows(warehouse, f"select id, at, cents, tags from raw_{few.source}.orders order by id")[2] == (
        3,
        datetime(2024, 1, 3, tzinfo=UTC),
        Decimal("9007199254740993.05"),
        ["a"],
    )
    state = second.state_after["connector"]["resources"]["orders"]["incremental"]["at"]
    assert state["unique_hashes"] == []


def test_children_tables_and_a_lone_resource_are_streams_like_any_other(shop: Shop, warehouse: Warehouse) -> None:
    spec = given(shop, {"name": "order_lines", "resource": "lines"}, {"name": "prices"})
    run(spec, warehouse)
    run(spec, warehouse, 1)
    assert rows(warehouse, f"select id, order_id from raw_{spec.source}.order_lines order by 1") == [
        (10, 1),
        (20, 2),
        (30, 3),
    ]
    assert rows(warehouse, f"select price from raw_{spec.source}.prices order by 1") == [
        (Decimal("1.10"),),
        (Decimal("2.20"),),
    ]
    lone = shop.source(f"{shop.module(SHOP)}:alone", {"name": "alone", "max_quarantined": {"share": 1.0}})
    result = run(lone, warehouse)
    assert (result.rows.loaded, result.rows.quarantined) == (1, 1)


def test_dlts_own_rest_api_source_works_as_it_is(shop: Shop, warehouse: Warehouse) -> None:
    with serving(lambda exchange: exchange.json([{"id": 1}, {"id": 2}])) as server:
        config = {"client": {"base_url": server.url}, "resources": [{"name": "things", "endpoint": {"path": "things"}}]}
        spec = shop.source("dlt.sources.rest_api:rest_api_source", {"name": "things"}, arguments={"config": config})
        assert run(spec, warehouse).rows.loaded == 2


def test_a_window_reads_its_own_days_and_leaves_the_state_alone(shop: Shop) -> None:
    spec = given(shop, {**ORDERS, "cursor": {"field": "at"}, "partitions": {"by": "day", "start": "2024-01-01"}})
    window = Window(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    with kind("dlt_source").open(spec) as connector:
        messages = list(connector.read(spec.streams[0], StreamState(), context(window)))
    assert ids(messages) == [2]
    assert [type(message) for message in messages] == [Hints, JsonRecords]


def test_discover_tells_resources_and_keys(shop: Shop) -> None:
    with kind("dlt_source").open(given(shop, ORDERS)) as connector:
        found = {stream.name: stream.primary_key for stream in connector.discover()}
        assert found == {"orders": ("id",), "lines": (), "prices": ()}
        assert "an item came" in connector.check()


FAILING = """
import dlt, requests

@dlt.resource
def things(url, token=dlt.secrets.value):
    answer = requests.get(url, headers={"authorization": token})
    answer.raise_for_status()
    yield answer.json()

@dlt.resource
def broken(token):
    raise ValueError(f"no rows for {token}")

@dlt.resource
def unreachable():
    raise ConnectionResetError("gone")
"""


@pytest.mark.parametrize(
    ("status", "expected"), [(401, AuthError), (429, RateLimited), (503, TransientError), (404, SourceError)]
)
def test_the_status_inside_decides_the_class(shop: Shop, status: int, expected: type[HeadwaterError]) -> None:
    with serving(lambda exchange: exchange.json({}, status)) as server:
        spec = shop.source(
            f"{shop.module(FAILING)}:things", {"name": "things"}, arguments={"url": server.url, "token": "t"}
        )
        with kind("dlt_source").open(spec) as connector, pytest.raises(expected, match=str(status)):
            connector.check()


def test_what_fails_in_it_is_told_without_its_secrets(shop: Shop) -> None:
    module = shop.module(FAILING)
    spec = shop.source(f"{module}:broken", {"name": "broken"}, secrets={"token": "env:SHOP_KEY"})
    with kind("dlt_source").open(spec) as connector, pytest.raises(SourceError) as caught:
        connector.check()
    assert "no rows for" in str(caught.value)
    assert "sesame" not in str(caught.value)
    away = shop.source(f"{module}:unreachable", {"name": "unreachable"})
    with kind("dlt_source").open(away) as connector, pytest.raises(TransientError, match="gone"):
        connector.check()


def test_what_is_not_there_is_named(shop: Shop) -> None:
    module = shop.module(SHOP)
    with pytest.raises(ConfigError, match="has no function shoop"):
        kind("dlt_source").open(shop.source(f"{module}:shoop", {"name": "orders"}))
    with pytest.raises(ConfigError, match="no module nowhere"):
        kind("dlt_source").open(shop.source("nowhere:shop", {"name": "orders"}))
    wrong = shop.source(f"{module}:shop", {"name": "order"}, secrets={"api_key": "env:SHOP_KEY"})
    with kind("dlt_source").open(wrong) as connector, pytest.raises(ConfigError, match="orders"):
        connector.check()
    missing = shop.source(f"{module}:shop", {"name": "orders"})
    with kind("dlt_source").open(missing) as connector, pytest.raises(ConfigError, match="api_key"):
        connector.check()
