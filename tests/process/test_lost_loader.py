"""The loader is killed while it reads a real program, and its folder is lost: the next sync makes everything right."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest
from connectors.sync.together import Outcome, sync_together
from platform_assets.warehouse import Warehouse
from tests.singer.test_bad_taps import eventually_gone
from tests.singer.test_tap_postgres import add, shop, spec_of
from tests.support.programs import programs
from tests.support.sql import run
from tests.support.tapping import result

__all__ = ["programs", "shop"]
pytestmark = pytest.mark.slow
_fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path / "work"))


def sync(spec: SourceSpec, dsn: str, *, killed_at_rows: int | None = None) -> Mapping[str, Outcome]:
    """All streams. killed_at_rows: the process kills itself so far into the first of them."""

    def seen(rows: int) -> None:
        if killed_at_rows is not None and rows >= killed_at_rows:
            os.kill(os.getpid(), signal.SIGKILL)

    progresses = {stream.name: Progress() for stream in spec.streams}
    progresses[spec.streams[0].name] = Progress(on_rows=seen)
    return sync_together(
        [SyncRequest(spec, stream, "cli") for stream in spec.streams], dsn, progresses, lambda line: None
    )


def lose_loader(spec: SourceSpec, warehouse: Warehouse, killed_at_rows: int, program: str) -> None:
    """A loader in a process of its own is killed; its folder goes, and no process of the program stays."""
    child = _fork.Process(target=sync, args=(spec, warehouse.loader_dsn), kwargs={"killed_at_rows": killed_at_rows})
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was not killed"
    for process in psutil.process_iter(["cmdline"]):
        if os.environ["HEADWATER_WORK_DIR"] in (words := " ".join(process.info["cmdline"] or [])) and program in words:
            eventually_gone(process.pid)
    shutil.rmtree(os.environ["HEADWATER_WORK_DIR"])


def assert_balanced(warehouse: Warehouse, source: str) -> None:
    unbalanced = "rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined"
    assert run(warehouse.admin_dsn, f"select count(*) from ops.syncs where source = '{source}' and {unbalanced}") == [
        (0,)
    ]
    assert run(warehouse.admin_dsn, f"select count(*) from ops.pieces where source = '{source}'") == [(0,)]


@pytest.mark.parametrize("write", ["merge", "append"])
def test_an_incremental_tap_is_read_to_the_end_by_the_next_loader(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    add(shop, 1_501, 60_000)
    whole = spec_of(shop, monkeypatch)
    settings = {
        "name": "orders", "stream": "public-orders", "primary_key": "id", "write": write, "window": {"rows": 10_000},
        # the boundary row comes again: merged by its key, or left out by the cursor
        **({"replication_key": "at"} if write == "merge" else {"cursor": {"field": "at"}}),
    }  # fmt: skip
    source = whole.model_copy(update={"streams": (type(whole.streams[0]).model_validate(settings),)})

    lose_loader(source, warehouse, 45_000, "tap-postgres")
    sealed = run(warehouse.admin_dsn, "select count(*), count(distinct id) from raw_shop.orders")
    assert sealed[0][0] == sealed[0][1]
    assert 0 < sealed[0][0] < 60_000, "what was sealed is published, and nothing else"
    again = result(sync(source, warehouse.loader_dsn)["orders"]).rows

    assert again.extracted < 60_000, "it went on from the last state"
    assert (
        run(
            warehouse.admin_dsn,
            "select count(*), count(distinct id), min(id), max(id), sum(cents)::numeric(20,2) from raw_shop.orders",
        )
        == shop.execute("select count(*), count(*), min(id), max(id), sum(cents)::numeric(20,2) from orders").fetchall()
    )
    assert_balanced(warehouse, "shop")


def test_the_faker_is_read_to_the_end_by_the_next_loader(warehouse: Warehouse) -> None:
    config = {"count": 6_000, "seed": 7, "records_per_slice": 500, "parallelism": 1}
    connector = {"kind": "airbyte", "package": "airbyte-source-faker==7.2.1", "executable": "source-faker"}
    streams = [
        {"name": name, "primary_key": "id", "write": "merge", "window": {"rows": 1_000}}
        for name in ("users", "purchases")
    ]
    source = parse_source(
        {"source": "fake", "owner": "team:test", "connector": connector | {"config": config}, "streams": streams},
        "fake.yaml",
    )
    undisturbed = source.model_copy(update={"source": "whole"})

    lose_loader(source, warehouse, 2_500, "source-faker")
    sealed = run(warehouse.admin_dsn, "select count(*), count(distinct id) from raw_fake.users")
    assert sealed[0][0] == sealed[0][1]
    assert 0 < sealed[0][0] < 6_000
    for spec in (source, undisturbed):
        for outcome in sync(spec, warehouse.loader_dsn).values():
            result(outcome)

    columns = {"users": "id, name, email, age, address", "purchases": "id, user_id, product_id"}
    for table, told in columns.items():
        one, other = (f"select {told} from raw_{schema}.{table}" for schema in ("fake", "whole"))
        assert run(warehouse.admin_dsn, f"select count(*) from (({one}) except all ({other})) as d") == [(0,)]
        assert run(warehouse.admin_dsn, f"select count(*) from (({other}) except all ({one})) as d") == [(0,)]
    assert run(warehouse.admin_dsn, "select count(*), count(distinct id) from raw_fake.users") == [(6_000, 6_000)]
    assert_balanced(warehouse, "fake")
