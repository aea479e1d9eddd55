"""A column with `rule: block` reaches neither the raw table nor quarantine nor the ledger, with and without a type."""

from typing import Any

import psycopg
import pyarrow as pa
import pytest

from platform_assets.warehouse import Warehouse
from tests.support.scripted import Frame, records, sync

SECRET = "078-05-1120"


def everything(warehouse: Warehouse) -> str:
    """All rows of the raw table, quarantine and the ledger as one text."""
    with psycopg.connect(warehouse.admin_dsn) as connection:
        tables = ("raw_unit.things", "ops.quarantine", "ops.syncs", "ops.stream_state")
        found: list[Any] = []
        for table in tables:
            found += connection.execute(f"select to_jsonb(t)::text from {table} t").fetchall()
    return str(found)


@pytest.mark.parametrize("column", [{"rule": "block"}, {"rule": "block", "type": "text"}], ids=["untyped", "typed"])
def test_a_blocked_column_is_nowhere(warehouse: Warehouse, column: dict[str, str]) -> None:
    script = [
        records({"id": 1, "ssn": SECRET, "n": 1}, {"id": 2, "ssn": {"deep": SECRET}, "n": 2}),
        Frame(pa.table({"id": [3], "ssn": [SECRET], "n": [3]}), "frame 1"),
        records({"id": None, "ssn": SECRET, "n": 4}, {"id": 5, "ssn": SECRET, "n": "many"}),
    ]
    columns = {"ssn": column, "n": {"type": "bigint"}}
    result = sync(
        warehouse.loader_dsn, script, write="merge", primary_key="id", columns=columns, max_quarantined={"share": 1.0}
    )
    assert (result.rows.loaded, result.rows.quarantined) == (3, 2)
    assert SECRET not in everything(warehouse)


def test_a_column_that_is_blocked_later_is_loaded_no_more(warehouse: Warehouse) -> None:
    options: dict[str, Any] = {"write": "merge", "primary_key": "id"}
    sync(warehouse.loader_dsn, [records({"id": 1, "age": 41})], **options)
    sync(warehouse.loader_dsn, [records({"id": 2, "age": 42})], columns={"age": {"rule": "block"}}, **options)
    with psycopg.connect(warehouse.admin_dsn) as connection:
        assert connection.execute("select id, age from raw_unit.things order by id").fetchall() == [(1, 41), (2, None)]
