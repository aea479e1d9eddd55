"""A real tap, installed as anybody's: meltanolabs-tap-postgres 0.10.0 against a PostgreSQL of the test's own."""

from collections.abc import Iterator
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
from tests.support.servers import TestServer
from tests.support.sql import run
from tests.support.tapping import result

pytestmark = pytest.mark.slow


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


def spec_of(session: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> SourceSpec:
    where = session.info
    # the tap wants a host in the URL; the driver takes the socket's folder of the query
    query = urlencode({"host": where.host, "port": where.port})
    url = f"postgresql+psycopg2://{where.user}:{quote(where.password or 'unused')}@localhost/{where.dbname}?{query}"
    monkeypatch.setenv("SHOP_URL", url)
    config = {"sqlalchemy_url": "env:SHOP_URL", "filter_schemas": ["public"]}
    return parse_source(
        {
            "source": "shop", "owner": "team:test",
            "connector": {"kind": "singer", "package": "meltanolabs-tap-postgres==0.10.0", "config": config},
            "streams": [
                {"name": "orders", "stream": "public-orders", "replication_key": "at", "primary_key": "id",
                 "write": "merge", "window": {"rows": 500}},
                {"name": "items", "stream": "public-items", "primary_key": "id", "write": "merge", "deletes": "hard",
                 "snapshot": True, "columns": {"card": {"rule": "block"}}},
            ],
        },
        "shop.yaml",
    )  # fmt: skip


def test_incremental_and_full_streams_are_read_resumed_and_replaced(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(shop, monkeypatch)
    log: list[str] = []

    def sync() -> dict[str, int]:
        requests = [SyncRequest(spec, stream, "cli") for stream in spec.streams]
        outcomes = sync_together(requests, warehouse.loader_dsn, {s.name: Progress() for s in spec.streams}, log.append)
        return {name: result(outcome).rows.extracted for name, outcome in sorted(outcomes.items())}

    assert sync() == {"items": 40, "orders": 1_500}
    types = "select column_name, data_type from information_schema.columns where table_schema = 'raw_shop' "
    assert run(warehouse.admin_dsn, f"{types} and table_name = 'orders' and column_name !~ '^_' order by 1") == [
        ("at", "timestamp with time zone"), ("cents", "double precision"), ("extra", "jsonb"), ("id", "bigint"),
        ("note", "text"),
    ]  # fmt: skip
    assert not run(warehouse.admin_dsn, f"{types} and column_name = 'card'"), "a blocked column never leaves the source"

    add(shop, 1_501, 1_700)
    shop.execute("delete from items where id > 30")
    again = sync()

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
