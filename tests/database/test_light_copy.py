"""A copy from PostgreSQL to PostgreSQL starts with little: rows that nobody looks at need no library that could."""

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest

from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE

SYNC = """
import json, sys
from connectors.specs import parse_source
from connectors.sync import SyncRequest, sync

spec = parse_source(json.loads(sys.argv[1]), "unit")
result = sync(SyncRequest(spec, spec.streams[0]), sys.argv[2])
loaded = sorted({"pyarrow", "numpy", "sqlalchemy"} & sys.modules.keys())
print(json.dumps([result.rows.loaded, loaded, result.peak_memory_bytes]))
"""


@pytest.mark.parametrize(
    "stream", [{"write": "replace"}, {"write": "merge", "primary_key": "id", "cursor": {"field": "at"}}]
)
def test_a_copy_loads_neither_arrow_nor_sqlalchemy(
    source: psycopg.Connection[Any], source_url: str, warehouse: Warehouse, stream: dict[str, Any]
) -> None:
    source.execute("create table orders (id bigint primary key, amount numeric(12,2), at timestamptz, info jsonb)")
    source.execute("insert into orders select g, g + 0.25, now(), '[1]' from generate_series(1, 50) g")
    spec = {
        "source": "shop", "owner": "team:data", "connector": {"kind": "database", "url": f"env:{URL_VARIABLE}"},
        "streams": [{"name": "orders", **stream}],
    }  # fmt: skip

    command = [sys.executable, "-c", SYNC, json.dumps(spec), warehouse.loader_dsn]
    said = subprocess.run(
        command, env=os.environ | {URL_VARIABLE: source_url}, check=True, capture_output=True, text=True
    ).stdout

    loaded, libraries, peak_bytes = json.loads(said.splitlines()[-1])
    assert (loaded, libraries) == (50, [])
    # psycopg, dlt and pydantic; Arrow alone would be 50 MB more
    assert peak_bytes < 140 << 20
