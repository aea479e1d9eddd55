"""A real tap, installed as anybody's: meltanolabs-tap-postgres 0.10.0 against a PostgreSQL of the test's own."""

from collections.abc import Iterator
from hashlib import md5
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest
from connectors.sync.together import sync_together
from platform_assets.warehouse import Warehouse
from tests.support.programs import programs
from tests.support.servers import TestServer
from tests.support.sql import run
from tests.support.tapping import result

pytestmark = pytest.mark.slow
__all__ = ["programs"]


@pytest.fixture
def shop(server: TestServer) -> Iterator[psycopg.Connection[Any]]:
    name = f"shop_{uuid4().hex[:10]}"
    server.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    with psycopg.connect(server.admin_url(name), autocommit=True) as session:
        session.execute(
            "create table orders (id bigint primary key, at timestamptz not null, cents numeric(12,2), note text, "
            "extra jsonb); create table items (id int primary key, order_id bigint, name text, card text)"
        )
        session.execute("insert into items select n, n, 'item ' || n, '4111' from generate_series(1, 40) n")
        add(session, 1, 1_500)
        yield session
    server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def add(session: psycopg.Connection[Any], first: int, last: int) -> None:
    session.execute(
        "insert into orders select n, timestamptz '2024-01-01' + n * interval '1 minute', n + 0.25, 'order ' || n, "
        "jsonb_build_object('n', n) from generate_series(%s::int, %s) n",
        [first, last],
    )


def url_of(session: psycopg.Connection[Any]) -> str:
    """As the tap wants it: with a host; the driver takes the socket's folder of the query."""
    where = session.info
    query = urlencode({"host": where.host, "port": where.port})
    return f"postgresql+psycopg2://{where.user}:{quote(where.password or 'unused')}@localhost/{where.dbname}?{query}"


def tap_over(
    session: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
    *streams: dict[str, Any],
    connector: dict[str, Any] | None = None,
    **config: Any,
) -> SourceSpec:
    """config: of the tap; None takes a key away."""
    monkeypatch.setenv("SHOP_URL", url_of(session))
    settings = {"sqlalchemy_url": "env:SHOP_URL", "filter_schemas": ["public"], **config}
    stanza = {
        "kind": "singer",
        "package": "meltanolabs-tap-postgres==0.10.0",
        **(connector or {}),
        "config": {name: value for name, value in settings.items() if value is not None},
    }
    attributes = {"source": "shop", "owner": "team:test", "connector": stanza, "streams": list(streams)}
    return parse_source(attributes, "shop.yaml")


def spec_of(session: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> SourceSpec:
    return tap_over(
        session, monkeypatch,
        {"name": "orders", "stream": "public-orders", "replication_key": "at", "primary_key": "id", "write": "merge",
         "window": {"rows": 500}},
        {"name": "items", "stream": "public-items", "primary_key": "id", "write": "merge", "deletes": "hard",
         "snapshot": True, "columns": {"card": {"rule": "block"}}},
    )  # fmt: skip


def extracted(spec: SourceSpec, warehouse: Warehouse, log: list[str] | None = None) -> dict[str, int]:
    """A sync of all streams: how many records each had."""
    lines = log if log is not None else []
    requests = [SyncRequest(spec, stream, "cli") for stream in spec.streams]
    progresses = {stream.name: Progress() for stream in spec.streams}
    outcomes = sync_together(requests, warehouse.loader_dsn, progresses, lines.append)
    return {name: result(outcome).rows.extracted for name, outcome in sorted(outcomes.items())}


def test_incremental_and_full_streams_are_read_resumed_and_replaced(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(shop, monkeypatch)
    log: list[str] = []

    assert extracted(spec, warehouse, log) == {"items": 40, "orders": 1_500}
    types = "select column_name, data_type from information_schema.columns where table_schema = 'raw_shop' "
    assert run(warehouse.admin_dsn, f"{types} and table_name = 'orders' and column_name !~ '^_' order by 1") == [
        ("at", "timestamp with time zone"), ("cents", "double precision"), ("extra", "jsonb"), ("id", "bigint"),
        ("note", "text"),
    ]  # fmt: skip
    assert not run(warehouse.admin_dsn, f"{types} and column_name = 'card'"), "a blocked column never leaves the source"

    add(shop, 1_501, 1_700)
    shop.execute("delete from items where id > 30")
    again = extracted(spec, warehouse)

    # the bookmark is inclusive: the boundary row comes again and is merged by its key
    assert again == {"items": 30, "orders": 201}
    assert run(warehouse.admin_dsn, "select count(*), count(distinct id), max(id) from raw_shop.orders") == [
        (1_700, 1_700, 1_700)
    ]
    assert run(warehouse.admin_dsn, "select count(*), max(id) from raw_shop.items") == [(30, 30)]
    state = run(warehouse.admin_dsn, "select stream, state from ops.stream_state where stream = 'orders' "
                                     "order by version desc limit 1")  # fmt: skip
    assert state[0][1]["connector"]["bookmark"]["replication_key"] == "at"
    assert any("tap-postgres" in line for line in log), "the tap's own log is the run's"


ITEMS = {"name": "items", "stream": "public-items", "primary_key": "id", "write": "merge"}
COLUMNS = (
    "select column_name from information_schema.columns where table_schema = 'raw_shop' and table_name = 'items' "
    "and column_name !~ '^_' order by 1"
)


def test_the_taps_own_stream_maps_hold_and_may_give_a_stream_another_name(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = {
        "public-items": {
            "__alias__": "articles", "card": None, "loud": "name.upper()", "name": "md5(name)", "__filter__": "id <= 30"
        }
    }  # fmt: skip
    assert extracted(tap_over(shop, monkeypatch, ITEMS, stream_maps=maps), warehouse) == {"items": 30}

    assert run(warehouse.admin_dsn, COLUMNS) == [("id",), ("loud",), ("name",), ("order_id",)]
    assert run(warehouse.admin_dsn, "select loud, name from raw_shop.items where id = 7") == [
        ("ITEM 7", md5(b"item 7").hexdigest())  # noqa: S324 (what the tap's function is called)
    ]


def test_a_tap_asked_for_batches_loads_the_same_and_goes_on(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = {"name": "orders", "stream": "public-orders", "replication_key": "id", "primary_key": "id",
              "write": "merge"}  # fmt: skip
    spec = tap_over(shop, monkeypatch, orders, ITEMS, connector={"batch": True})

    assert extracted(spec, warehouse) == {"items": 40, "orders": 1_500}

    add(shop, 1_501, 1_700)
    again = extracted(spec, warehouse)["orders"]
    assert 200 <= again <= 201
    assert run(warehouse.admin_dsn, "select count(*), count(distinct id), sum(cents) from raw_shop.orders") == (
        shop.execute("select count(*), count(*), sum(cents)::float8 from orders").fetchall()
    )


def test_metadata_of_the_source_file_reaches_the_tap(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "metadata": {"replication-method": "INCREMENTAL", "replication-key": "id"},
        "column_metadata": {"card": {"inclusion": "unsupported"}},
    }
    spec = tap_over(shop, monkeypatch, {**ITEMS, **settings})

    assert extracted(spec, warehouse) == {"items": 40}
    assert extracted(spec, warehouse) == {"items": 1}, "from its bookmark on"
    assert run(warehouse.admin_dsn, COLUMNS) == [("id",), ("name",), ("order_id",)]
