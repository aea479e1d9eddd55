"""Streams of the kind through the whole lifecycle, from one PostgreSQL into another."""

import hmac
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from connectors.contract import CopyFile, Frame
from connectors.errors import ConfigError, TransientError
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.database.dropping_proxy import dropping_after
from tests.database.reading import URL_VARIABLE, Reader, source_spec
from tests.database.test_postgres_failures import with_options
from tests.support.servers import TestServer

Source = psycopg.Connection[Any]
STREAM = {"cursor": {"field": "at"}, "primary_key": "id", "write": "merge"}


@pytest.fixture
def orders(source: Source) -> Source:
    source.execute("create type mood as enum ('good', 'bad')")
    source.execute(
        "create table orders (id bigint primary key, amount numeric(12,2) not null, rate numeric, at timestamptz, "
        "tags text[], info jsonb, mood mood, data bytea, code varchar(5), secret text, gap interval, net inet)"
    )
    source.execute(
        "insert into orders select g, g + 0.25, g / 7.0, timestamptz '2024-01-01 00:00+00' + g * interval '1 hour', "
        "array['a,b', null], '{\"n\": 1.50}', 'bad', '\\x00ff', 'c' || g, 'hidden', '1 day', '10.0.0.1/8' "
        "from generate_series(1, 50) g"
    )
    return source


@pytest.fixture
def url(source_url: str) -> Iterator[str]:
    os.environ[URL_VARIABLE] = source_url
    yield source_url
    del os.environ[URL_VARIABLE]


def run(warehouse: Warehouse, stream: dict[str, Any], **connector: Any) -> SyncResult:
    spec = source_spec(stream, **connector)
    return sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)


def raw(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.loader_dsn) as session:
        return session.execute(query.encode()).fetchall()


@pytest.mark.usefixtures("url")
def test_a_replace_gives_the_columns_their_exact_types(orders: Source, warehouse: Warehouse) -> None:
    result = run(warehouse, {"columns": {"secret": {"rule": "block"}}})

    assert (result.status, result.rows.extracted, result.rows.loaded) == ("succeeded", 50, 50)
    types = {column.name: column.type for column in result.columns}
    assert {name: types[name] for name in types if not name.startswith("_")} == {
        "id": "bigint",
        "amount": "numeric(12,2)",
        "rate": "numeric",
        "at": "timestamp with time zone",
        "tags": "jsonb",
        "info": "jsonb",
        "mood": "text",
        "data": "bytea",
        "code": "character varying(5)",
        "gap": "text",
        "net": "inet",
    }
    query = "select id, amount, rate, at, to_jsonb(tags), info, mood::text, data, code, net from {} order by id"
    assert raw(warehouse, query.format("raw_shop.orders")) == orders.execute(query.format("orders").encode()).fetchall()


@pytest.mark.usefixtures("url")
def test_a_merge_reads_only_what_is_new(orders: Source, warehouse: Warehouse) -> None:
    first = run(warehouse, STREAM)
    orders.execute("update orders set amount = 0, at = '2024-05-01 00:00+00' where id = 7")
    orders.execute("insert into orders (id, amount, at) values (51, 1, '2024-05-02 00:00+00')")

    second = run(warehouse, STREAM)
    third = run(warehouse, STREAM)

    assert first.newest_cursor == "2024-01-03T02:00:00Z"
    # the row at the position itself comes again
    assert (second.rows.extracted, second.rows.loaded, second.rows.updated) == (3, 2, 1)
    assert third.rows.loaded == 0
    assert (
        raw(warehouse, "select count(*), sum(amount) from raw_shop.orders")
        == orders.execute("select count(*), sum(amount) from orders").fetchall()
    )


@pytest.mark.usefixtures("url")
def test_a_large_first_read_commits_its_windows(orders: Source, warehouse: Warehouse) -> None:
    result = run(warehouse, {**STREAM, "keyset": {"rows": 20}, "window": {"rows": 20}})

    assert (result.windows, result.rows.loaded) == (3, 50)
    assert result.state_after["connector"] == {}
    assert result.newest_cursor == "2024-01-03T02:00:00Z"


def test_a_connection_cut_midway_keeps_what_was_sealed_and_the_next_sync_reads_the_rest(
    source: Source, source_url: str, server: TestServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.execute("create table orders as select g as id, repeat('x', 9000) as note from generate_series(1, 400) g")
    source.execute("alter table orders add primary key (id)")
    stream = {"keyset": {"rows": 50}, "window": {"rows": 50}, "primary_key": "id", "write": "merge"}
    address = server.warehouse.address
    with dropping_after((address.host, address.port), 2_000_000) as port:
        monkeypatch.setenv(URL_VARIABLE, with_options(source_url, host="127.0.0.1", port=port) + "?sslmode=disable")
        with pytest.raises(TransientError, match="the connection was lost while reading orders after"):
            run(warehouse, stream)
    sealed = raw(warehouse, "select count(*), max(id) from raw_shop.orders")
    monkeypatch.setenv(URL_VARIABLE, source_url)

    result = run(warehouse, stream)

    ((count, last),) = sealed
    assert 0 < count == last < 400
    assert (result.rows.extracted, result.rows.updated) == (400 - count, 0)
    assert raw(warehouse, "select count(*), sum(id) from raw_shop.orders") == [(400, 400 * 401 // 2)]


@pytest.mark.usefixtures("url")
def test_the_sources_own_count_is_compared(orders: Source, warehouse: Warehouse) -> None:
    result = run(warehouse, {"checks": [{"type": "reconcile", "against": "count"}]})

    (verdict,) = [verdict for verdict in result.verdicts if verdict.name == "reconcile"]
    assert verdict.passed


@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("declared", [{}, {"id": {"type": "bigint"}, "code": {"type": "text"}}], ids=["binary", "csv"])
def test_a_table_arrives_the_same_in_either_format(
    orders: Source, warehouse: Warehouse, declared: dict[str, Any]
) -> None:
    orders.execute("alter table orders alter column id type integer")
    orders.execute("insert into orders (id, amount, info) values (99, 'NaN', 'null')")

    result = run(warehouse, {"columns": declared}, part_mb=1)

    types = {column.name: column.type for column in result.columns}
    assert (types["id"], types["code"]) == (("bigint", "text") if declared else ("integer", "character varying(5)"))
    columns = "id, amount::text, rate, at, to_jsonb(tags), info, mood::text, data, code, gap::text, net"
    query = f"select {columns} from {{}} order by id"
    expected = orders.execute("set intervalstyle = iso_8601").execute(query.format("orders").encode()).fetchall()
    assert raw(warehouse, query.format("raw_shop.orders")) == expected


@pytest.mark.usefixtures("url")
def test_a_row_that_the_table_refuses_is_held_alone_also_when_it_came_in_binary(
    orders: Source, warehouse: Warehouse
) -> None:
    stream = {"write": "replace", "max_quarantined": {"share": 1}}
    run(warehouse, stream)
    with psycopg.connect(warehouse.loader_dsn) as session:
        session.execute("alter table raw_shop.orders add check (id <> 7) not valid")

    result = run(warehouse, stream)

    assert (result.rows.loaded, result.rows.quarantined) == (49, 1)
    query = "select payload::text, position from ops.quarantine where source = 'shop' and stream = 'orders'"
    ((payload, position),) = raw(warehouse, query)
    assert '"amount":"7.25"' in payload
    assert position == "public.orders part 1, row 7"


HASHED = {"columns": {"secret": {"rule": "hash", "key": "env:HASH_KEY"}}}


@pytest.mark.usefixtures("orders")
def test_values_that_a_rule_rewrites_are_read_without_a_file(reader: Reader) -> None:
    messages = list(reader.messages(HASHED))

    assert [message for message in messages if isinstance(message, CopyFile)] == []
    assert [message.table.num_rows for message in messages if isinstance(message, Frame)] == [50]


@pytest.mark.usefixtures("url")
def test_columns_beside_a_hashed_one_lose_nothing(
    orders: Source, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASH_KEY", "k")
    result = run(warehouse, HASHED)

    digest = hmac.digest(b"k", b"hidden", "sha256").hex()
    assert (result.rows.loaded, result.rows.quarantined) == (50, 0)
    assert raw(warehouse, "select distinct secret from raw_shop.orders") == [(digest,)]
    query = "select id, amount, rate, at, to_jsonb(tags), info, mood::text, data, code, net from {} order by id"
    assert raw(warehouse, query.format("raw_shop.orders")) == orders.execute(query.format("orders").encode()).fetchall()


def test_a_protected_key_is_no_position_of_windows() -> None:
    key = {"id": {"rule": "hash", "key": "env:HASH_KEY"}}
    with pytest.raises(ConfigError, match="keyset keeps the last id as the position, in clear"):
        source_spec({"primary_key": "id", "keyset": {"rows": 10}, "write": "merge", "columns": key})
