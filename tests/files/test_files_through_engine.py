"""The whole way: from the folder through the engine into the raw table and the quarantine."""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectors.errors import SourceError
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.files.reading import put, source

WEATHER: Mapping[str, Any] = {
    "name": "weather",
    "path": "weather_*.csv.gz",
    "null_values": ["NA"],
    "primary_key": ["origin", "time_hour"],
    "write": "merge",
}
HEADER = "origin,temp,gust,time_hour\n"


@pytest.fixture(autouse=True)
def work_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Working folders of this test's own: another warehouse's sync of the same name must not share them."""
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path_factory.mktemp("work")))


def run(folder: Path, warehouse: Warehouse, stream: Mapping[str, Any]) -> SyncResult:
    spec = source(stream, folder)
    return sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)


def rows(warehouse: Warehouse, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(warehouse.loader_dsn) as connection:
        return connection.execute(query).fetchall()  # pyright: ignore[reportArgumentType, reportCallIssue] the tests' own


def day(folder: Path, number: int, lines: str) -> Path:
    return put(folder, f"weather_{number:02}.csv.gz", gzip.compress((HEADER + lines).encode()), hour=number)


def test_files_land_typed_and_each_once(tmp_path: Path, warehouse: Warehouse) -> None:
    day(tmp_path, 1, "JFK,39.02,NA,2013-01-01T06:00:00Z\nLGA,40.1,NA,2013-01-01T06:00:00Z\n")
    first = run(tmp_path, warehouse, WEATHER)
    nothing = run(tmp_path, warehouse, WEATHER)
    day(tmp_path, 2, "JFK,38.02,23.5,2013-01-02T06:00:00Z\nLGA,41,NA,2013-01-01T06:00:00Z\n")
    second = run(tmp_path, warehouse, WEATHER)

    assert (first.status, nothing.status) == ("succeeded", "succeeded_empty")
    assert (first.rows.loaded, second.rows.loaded, second.rows.updated) == (2, 2, 1)
    found = rows(
        warehouse,
        "select origin, temp, gust, to_char(time_hour at time zone 'utc', 'DD') from raw_drop.weather order by 4, 1",
    )
    assert found == [("JFK", 39.02, None, "01"), ("LGA", 41.0, None, "01"), ("JFK", 38.02, 23.5, "02")]


def test_a_bad_line_and_a_bad_value_are_quarantined_with_their_place(tmp_path: Path, warehouse: Warehouse) -> None:
    lines = "".join(f"A{number},{number}.5,NA,2013-01-01T06:00:00Z\n" for number in range(100))
    day(tmp_path, 1, lines + "JFK,39.02\nLGA,warm,NA,2013-01-01T06:00:00Z\n")
    stream = {**WEATHER, "columns": {"temp": {"type": "double"}}}

    result = run(tmp_path, warehouse, stream)

    assert result.status == "succeeded_with_warnings"
    assert (result.rows.extracted, result.rows.loaded, result.rows.quarantined) == (102, 100, 2)
    found = rows(warehouse, "select reason, position from ops.quarantine order by position")
    assert [position for _, position in found] == ["weather_01.csv.gz line 102", "weather_01.csv.gz line 2, record 102"]


def test_a_broken_file_keeps_what_came_before_and_the_next_sync_goes_on(tmp_path: Path, warehouse: Warehouse) -> None:
    day(tmp_path, 1, "JFK,1,NA,2013-01-01T06:00:00Z\n")
    broken = day(tmp_path, 2, "".join(f"{os.urandom(20).hex()},1,NA,2013-01-02T06:00:00Z\n" for _ in range(50)))
    whole = broken.read_bytes()
    put(tmp_path, broken.name, whole[: len(whole) // 2], hour=2)
    with pytest.raises(SourceError, match="broken or cut off"):
        run(tmp_path, warehouse, WEATHER)
    kept = rows(warehouse, "select count(*) from raw_drop.weather")
    put(tmp_path, broken.name, whole, hour=2)

    result = run(tmp_path, warehouse, WEATHER)

    assert kept == [(1,)]
    assert (result.rows.extracted, result.rows.loaded) == (50, 50)
    assert rows(warehouse, "select count(*) from raw_drop.weather") == [(51,)]


def test_json_lines_and_parquet_land_too(tmp_path: Path, warehouse: Warehouse) -> None:
    put(tmp_path, "a.jsonl", '{"id": 1, "doc": {"a": [1, 2.50]}}\n{"id": 2}\n')
    pq.write_table(pa.table({"id": [1, 2], "tags": [["a"], None]}), tmp_path / "a.parquet")

    lines = run(tmp_path, warehouse, {"name": "lines", "path": "*.jsonl"})
    parquet = run(tmp_path, warehouse, {"name": "parquet", "path": "*.parquet"})

    assert (lines.rows.loaded, parquet.rows.loaded) == (2, 2)
    assert rows(warehouse, "select doc::text from raw_drop.lines order by id") == [('{"a": [1, 2.50]}',), (None,)]
    assert rows(warehouse, "select tags::text from raw_drop.parquet order by id") == [('["a"]',), (None,)]
