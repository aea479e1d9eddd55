"""A PostgreSQL table on its way out: every type as JSON says it exactly."""

import json
from collections.abc import Generator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from connectors.export import airbyte, singer
from connectors.export.reading import Reading
from connectors.export.schemas import shapes
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from platform_assets.warehouse import Warehouse
from tests.database.conftest import source, source_url
from tests.database.reading import source_spec
from tests.database.replicating import SLOT, STREAM, Source, named, raw, run
from tests.export.serving import messages
from tests.support.servers import TestServer, database_pair

__all__ = ["source", "source_url"]

TABLE = """
create table orders (
    id bigint primary key, amount numeric(40, 10), free numeric, share float8, at timestamptz, naive timestamp,
    day date, ok boolean, raw bytea, doc jsonb, tags text[], note text
)
"""
ROW = """
insert into orders values (
    9223372036854775807, 123456789012345678901234567890.0123456789, 'NaN', 0.1, '2024-01-02 03:04:05.678901+02',
    '2024-01-02 03:04:05', '2024-02-29', true, '\\x00ff', '{"a": [1.50, null]}', '{x,NULL}', ''
), (1, null, 1.10, 'Infinity', '2024-01-01', null, null, false, null, null, null, null)
"""


@pytest.fixture
def url(server: TestServer) -> Generator[str]:
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        with psycopg.connect(pair["HEADWATER_WAREHOUSE_URL"], autocommit=True) as session:
            session.execute(TABLE)
            session.execute(ROW)
        yield pair["HEADWATER_WAREHOUSE_URL"]


def test_a_table_is_exported_exactly_and_goes_on_from_its_state(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB_URL", url)
    spec = parse_source(
        {
            "source": "shop",
            "owner": "team:test",
            "connector": {"kind": "database", "url": "env:SHOP_DB_URL"},
            "streams": [{"name": "orders", "primary_key": "id", "cursor": {"field": "at"}, "write": "merge"}],
        },
        "tests/shop.yaml",
    )
    with kind("database").open(spec) as connector:
        (shape,) = shapes(spec, connector)
        *lines, state = Reading(connector, "shop").lines(shape.stream, {})
        # a cursor that was not moved reads the row at the position again
        again = [item for item in Reading(connector, "shop").lines(shape.stream, state) if isinstance(item, bytes)]
    schema = shape.schema(for_airbyte=False)["properties"]
    assert schema["amount"]["type"] == ["null", "number"]
    assert schema["at"]["format"] == "date-time"
    records = {
        record["id"]: record
        for record in (json.loads(line, parse_float=str, parse_int=str) for line in lines if isinstance(line, bytes))
    }
    assert records["9223372036854775807"] == {
        "id": "9223372036854775807", "amount": "123456789012345678901234567890.0123456789", "free": None,
        "share": "0.1", "at": "2024-01-02T01:04:05.678901Z", "naive": "2024-01-02T03:04:05Z", "day": "2024-02-29",
        "ok": True, "raw": "AP8=", "doc": {"a": ["1.50", None]}, "tags": ["x", None], "note": "",
    }  # fmt: skip
    assert (records["1"]["free"], records["1"]["share"], records["1"]["note"]) == ("1.10", None, None)
    assert state["cursor"]["value"] == "2024-01-02T01:04:05.678901Z"
    assert [json.loads(line)["id"] for line in again] == [9223372036854775807]


def exported(spec: SourceSpec, state: dict[str, Any]) -> tuple[dict[int, str], dict[str, Any]]:
    """What a Singer tap and an Airbyte source alike give of the orders: notes by id, and the state to go on from."""
    tapped: list[bytes] = []
    served: list[bytes] = []
    catalog = {"streams": [{"stream": {"name": "orders"}, "sync_mode": "full_refresh"}]}
    with kind("database").open(spec) as connector:
        (shape,) = shapes(spec, connector)
        assert not singer.catalog([shape])["streams"][0].get("replication_key")
        reading = Reading(connector, spec.source)
        singer.sync(reading, singer.selection(spec, None, lambda: [shape]), state, tapped.append)
        airbyte.read(reading, spec, catalog, None, served.append)
    found = [one for one in messages(tapped) if one["type"] == "RECORD"]
    also = [one["record"]["data"] for one in messages(served) if one["type"] == "RECORD"]
    assert [one["record"] for one in found] == also
    return {row["id"]: row["note"] for row in also}, messages(tapped)[-1]["value"]


def test_a_replicated_table_is_exported_whole_and_our_own_slot_stays_as_it_is(
    source: Source, source_url: str, warehouse: Warehouse
) -> None:
    place = "select slot_name, confirmed_flush_lsn::text from pg_replication_slots where database = current_database()"
    source.execute("create table orders (id bigint primary key, note text)")
    # the tests' server does not wait for its log, and what is not durable yet is left to the next sync
    source.execute("set synchronous_commit = on")
    source.execute("create publication shop for table orders")
    source.execute("insert into orders values (1, 'a'), (2, 'b'), (3, 'c')")
    spec = source_spec(STREAM)
    with named(source_url):
        run(warehouse)
        slots = source.execute(place).fetchall()
        assert [name for name, _ in slots] == [SLOT]
        first, state = exported(spec, {})
        source.execute("update orders set note = 'B' where id = 2")
        source.execute("delete from orders where id = 3")
        second, state = exported(spec, state)
        source.execute("truncate orders")
        third, _ = exported(spec, state)
        source.execute("insert into orders values (9, 'z')")
        assert source.execute(place).fetchall() == slots
        run(warehouse)
    assert (first, second, third) == ({1: "a", 2: "b", 3: "c"}, {1: "a", 2: "B"}, {})
    assert raw(warehouse, "select id, note from raw_shop.orders where not _deleted") == [(9, "z")]
