"""A PostgreSQL table on its way out: every type as JSON says it exactly."""

import json
from collections.abc import Generator
from uuid import uuid4

import psycopg
import pytest

from connectors.export.reading import Reading
from connectors.export.schemas import shapes
from connectors.registry import kind
from connectors.specs import parse_source
from tests.support.servers import TestServer, database_pair

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
