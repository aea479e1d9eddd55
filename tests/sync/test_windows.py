"""Long reads commit in windows: a failure keeps what was sealed, and the next sync does not ask for it again."""

import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from connectors.contract import JsonRecords, Window
from connectors.errors import ContractError, HeadwaterError, TransientError
from connectors.specs import SourceSpec, WindowSpec, parse_source
from connectors.sync import Progress, SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.crash.victim import eventually
from tests.http.serving import Exchange, serving
from tests.support.faults import copy_file
from tests.support.scripted import Checkpoint, records
from tests.support.scripted import sync as sync_script
from tests.support.sql import run as sql


def source(connector: dict[str, Any], **stream: Any) -> SourceSpec:
    attributes = {
        "source": "unit",
        "owner": "team:test",
        "connector": connector,
        "streams": [{"name": "things", "write": "append", **stream}],
    }
    return parse_source(attributes, "tests/unit.yaml")


def run(spec: SourceSpec, warehouse: Warehouse, log: list[str] | None = None) -> SyncResult:
    progress = Progress(on_log=log.append) if log is not None else Progress()
    return sync(SyncRequest(spec, spec.streams[0], trigger="cli"), warehouse.loader_dsn, progress)


LEDGER = "select status, failure_class, windows, rows_loaded from ops.syncs order by started_at"


def test_a_window_is_fifty_thousand_rows_or_half_a_minute() -> None:
    assert WindowSpec().model_dump(mode="json") == {"rows": 50_000, "seconds": "PT30S"}


def test_an_ordered_api_that_fails_midway_is_asked_onwards_from_the_last_sealed_page(warehouse: Warehouse) -> None:
    things = [{"n": n} for n in range(10)]
    broken = True

    def answer(exchange: Exchange) -> None:
        since, page = int(exchange.query.get("since", 0)), int(exchange.query.get("page", 1))
        if broken and page == 4:
            exchange.json({"error": "out of order"}, 503)
            return
        found = [thing for thing in things if thing["n"] >= since]
        exchange.json(found[(page - 1) * 2 : page * 2])

    with serving(answer) as served:
        spec = source(
            {"kind": "rest", "base_url": served.url, "retries": {"attempts": 1}},
            path="/things",
            cursor={"field": "n"},
            incremental={"param": "since", "ordered": True},
            pagination={"type": "page_number"},
            window={"rows": 1},
        )
        with pytest.raises(TransientError):
            run(spec, warehouse)
        # the newest value stays open: more records of it might have come
        assert sql(warehouse.admin_dsn, "select n from raw_unit.things order by n") == [(n,) for n in range(5)]
        before, broken = len(served.seen), False

        again = run(spec, warehouse)

    assert (again.rows.loaded, again.rows.deduplicated) == (5, 1)
    assert {target.partition("since=")[2].partition("&")[0] for target in served.seen[before:]} == {"4"}
    assert sql(warehouse.admin_dsn, "select n from raw_unit.things order by n") == [(n,) for n in range(10)]
    assert sql(warehouse.admin_dsn, LEDGER) == [("failed", "transient", 3, 5), ("succeeded", None, again.windows, 5)]


def test_an_api_without_an_order_starts_over_and_publishes_nothing_of_half_a_read(warehouse: Warehouse) -> None:
    def answer(exchange: Exchange) -> None:
        is_broken = exchange.query.get("page") == "2"
        exchange.json({} if is_broken else [{"n": 1}], 503 if is_broken else 200)

    with serving(answer) as served:
        spec = source(
            {"kind": "rest", "base_url": served.url, "retries": {"attempts": 1}},
            path="/things",
            cursor={"field": "n"},
            incremental={"param": "since"},
            pagination={"type": "page_number"},
            window={"rows": 1},
        )
        with pytest.raises(TransientError):
            run(spec, warehouse)
    assert sql(warehouse.admin_dsn, LEDGER) == [("failed", "transient", 0, 0)]


def test_files_before_a_broken_one_stay_and_are_not_opened_again(warehouse: Warehouse, tmp_path: Path) -> None:
    def write(name: str, *numbers: int, cut: int = 0) -> None:
        packed = gzip.compress(("n\n" + "".join(f"{n}\n" for n in numbers)).encode())
        (tmp_path / name).write_bytes(packed[: len(packed) - cut])

    write("a.csv.gz", 1, 2)
    write("b.csv.gz", 3, 4, cut=12)
    write("c.csv.gz", 5)
    spec = source({"kind": "files", "url": str(tmp_path)}, path="*.csv.gz", window={"rows": 1})
    log: list[str] = []
    with pytest.raises(HeadwaterError):
        run(spec, warehouse, log)
    assert [line for line in log if line.startswith("file ")] == ["file 1 of 3: a.csv.gz", "file 2 of 3: b.csv.gz"]
    assert sql(warehouse.admin_dsn, "select n from raw_unit.things order by n") == [(1,), (2,)]
    write("b.csv.gz", 3, 4)
    log.clear()

    again = run(spec, warehouse, log)

    assert sorted(line.split()[-1] for line in log if line.startswith("file ")) == ["b.csv.gz", "c.csv.gz"]
    assert again.rows.loaded == 3
    assert sql(warehouse.admin_dsn, "select n from raw_unit.things order by n") == [(n,) for n in range(1, 6)]


def test_nothing_is_cut_where_the_connector_seals_nothing(warehouse: Warehouse) -> None:
    pages = [records({"n": n}) for n in range(5)]
    result = sync_script(warehouse.loader_dsn, pages, write="append", window={"rows": 1, "seconds": "PT0S"})
    assert (result.windows, result.rows.loaded) == (1, 5)


LOADS = "select count(distinct _dlt_load_id) from raw_unit.things"


def test_each_message_later_than_the_windows_seconds_is_a_window_of_its_own(warehouse: Warehouse) -> None:
    window = WindowSpec.model_validate({"rows": 1_000, "seconds": "PT0.02S"})
    published: list[int] = []

    def script() -> Iterator[Any]:
        for n in range(3):
            since = time.monotonic()
            yield records({"n": n})
            wait_out(window, since)
            yield Checkpoint()
            # far from a thousand rows, and from the end of the read: it was the time
            eventually(warehouse.admin_dsn, "select 1 from ops.syncs where rows_loaded = %s", [n + 1])
            published.append(n)

    result = sync_script(warehouse.loader_dsn, script(), write="append", window=window.model_dump(mode="json"))

    assert (published, result.rows.loaded) == ([0, 1, 2], 3)
    assert sql(warehouse.admin_dsn, LOADS) == [(3,)]


def test_messages_within_the_windows_seconds_share_a_window(warehouse: Warehouse) -> None:
    pages = [message for n in range(3) for message in (records({"n": n}), Checkpoint())]
    result = sync_script(warehouse.loader_dsn, pages, write="append", window={"rows": 1_000, "seconds": "PT1H"})

    assert (result.windows, result.rows.loaded) == (1, 3)
    assert sql(warehouse.admin_dsn, LOADS) == [(1,)]


def wait_out(window: WindowSpec, since: float) -> None:
    """Until the window's seconds have passed since then."""
    while time.monotonic() - since < window.seconds.total_seconds():
        time.sleep(0.001)


@pytest.mark.parametrize("windows", [1, 4])
def test_the_steps_times_fill_the_syncs_duration(warehouse: Warehouse, windows: int) -> None:
    def script() -> Iterator[Any]:
        for number in range(windows):
            yield records(*({"n": number, "k": k} for k in range(2_000)))
            yield Checkpoint()

    before = time.monotonic()
    result = sync_script(warehouse.loader_dsn, script(), write="append", window={"rows": 1})
    elapsed = time.monotonic() - before

    seconds = dict(result.step_seconds)
    assert set(seconds) == {"start", "extract", "land", "audit", "publish", "finalize"}
    reading = sum(seconds[step] for step in ("start", "extract", "finalize"))
    publishing = sum(seconds[step] for step in ("land", "audit", "publish"))
    # each of the two is a part of the time; together they leave none of it out
    assert 0 < reading <= elapsed
    assert 0 < publishing <= elapsed
    assert reading + publishing >= 0.8 * result.seconds


@pytest.mark.slow
@pytest.mark.parametrize("is_sealed", [True, False])
def test_a_million_rows_need_no_more_memory_than_some(warehouse: Warehouse, is_sealed: bool) -> None:
    """Windows bound it; without a checkpoint part files on disk do."""

    def script(pages: int) -> Iterator[Any]:
        for page in range(pages):
            body = b"\n".join(b'{"n": %d, "name": "number %d", "price": %d.25}' % (n, n, n) for n in range(10_000))
            yield JsonRecords(body, f"page {page}")
            if is_sealed:
                yield Checkpoint()

    sync_script(warehouse.loader_dsn, script(10), write="append")
    before = psutil.Process().memory_info().rss
    result = sync_script(warehouse.loader_dsn, script(100), write="append")
    assert result.rows.loaded == 1_000_000
    assert result.peak_memory_bytes - before < 150 * 2**20


def test_a_window_that_fails_ends_the_read_at_once_and_nothing_is_published_behind_it(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """Else the position would stand behind records that are nowhere."""
    bad = copy_file(tmp_path / "a.csv", "1\n2\nx\n", n=pa.int64())
    stream: dict[str, Any] = {"write": "append", "cursor": {"field": "n"}, "window": {"rows": 3, "seconds": "PT1H"}}

    def script() -> Iterator[Any]:
        yield from (bad, Checkpoint(), records({"n": 4}), Checkpoint())
        for _ in range(3_000):
            time.sleep(0.01)
            yield Checkpoint()
        pytest.fail("read on for half a minute")

    with pytest.raises(ContractError):
        sync_script(warehouse.loader_dsn, script(), max_quarantined={"rows": 0}, **stream)
    assert sql(warehouse.admin_dsn, LEDGER) == [("failed", "contract", 0, 0)]
    again = sync_script(warehouse.loader_dsn, [records(*({"n": n} for n in range(1, 6)))], **stream)
    assert (again.state_before, again.rows.loaded) == ({}, 5)


def test_a_partition_that_is_longer_than_a_window_is_replaced_whole_or_not_at_all(warehouse: Warehouse) -> None:
    stream: dict[str, Any] = {
        "write": "append", "cursor": {"field": "at"}, "columns": {"at": {"type": "timestamp"}}, "window": {"rows": 1},
    }  # fmt: skip
    day = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))

    def page(number: int) -> JsonRecords:
        return records({"n": number, "at": f"2024-01-01T0{number}:00:00Z"})

    found = "select n from raw_unit.things order by n"
    for _ in range(2):
        read = sync_script(
            warehouse.loader_dsn, [page(1), Checkpoint(), page(2), Checkpoint()], partition=day, **stream
        )
        assert read.rows.loaded == 2
        assert sql(warehouse.admin_dsn, found) == [(1,), (2,)]
    broken = [page(3), Checkpoint(), TransientError("unit.things", "the source went away")]
    with pytest.raises(TransientError):
        sync_script(warehouse.loader_dsn, broken, partition=day, **stream)
    assert sql(warehouse.admin_dsn, found) == [(1,), (2,)]
