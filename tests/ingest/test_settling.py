"""A sync whose process was killed gets its true final status: by a sensor's tick, by a command, by the daemon."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from platform_assets.assets.resources import WarehouseResource
from platform_assets.sensors import settle_lost_syncs
from platform_assets.settings import PROJECT_ROOT, load_settings, process_environment
from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write
from tests.ingest.shop import SOURCE, TOKEN, Shop, open_shop, order

DEFINITIONS = """
from pathlib import Path
import dagster as dg
from tests.ingest.conftest import load
defs = dg.Definitions.merge(load(Path({root!r})), dg.Definitions(jobs=[dg.define_asset_job("everything", "*")]))
"""
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Location:
    """A code location over the shop, whose API hangs at its fourth page until `go_on`."""

    file: Path
    env: dict[str, str]
    go_on: threading.Event

    def command(self, *words: str) -> list[str]:
        return [*words, "-f", str(self.file)]


@pytest.fixture
def location(
    warehouse: Warehouse, env: dict[str, str], write_source: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Location]:
    file = tmp_path / "location.py"
    file.write_text(DEFINITIONS.format(root=str(write_source(SOURCE))), encoding="utf-8")
    with open_shop() as shop:
        found = Location(file, env, threading.Event())
        hang_at_the_fourth_page(shop, found)
        found.env.update(process_environment(load_settings(env)))
        found.env.update({"SHOP_URL": shop.url, "SHOP_TOKEN": TOKEN, "PYTHONPATH": str(PROJECT_ROOT)})
        for name, value in found.env.items():
            monkeypatch.setenv(name, value)
        try:
            yield found
        finally:
            found.go_on.set()


def hang_at_the_fourth_page(shop: Shop, location: Location) -> None:
    def on_page(request: int) -> None:
        if request == 4:
            location.go_on.wait(120)

    shop.orders, shop.on_page = [order(number) for number in range(1, 9)], on_page


@contextmanager
def running(location: Location, *words: str) -> Generator["subprocess.Popen[bytes]"]:
    log = location.file.with_suffix(f".{words[1]}.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            location.command(str(BIN / words[0]), *words[1:]),
            cwd=PROJECT_ROOT,
            env=location.env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(query).fetchall()


def wait_for(warehouse: Warehouse, query: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        while session.execute(query).fetchone() is None:
            assert time.monotonic() < deadline, f"not within {seconds} s: {query}"
            time.sleep(0.1)


HANGS = "select 1 from ops.syncs where windows = 2 and step = 'extract'"
LEDGER = "select status, failure_class, rows_loaded, message from ops.syncs order by started_at"
# two windows of the three pages: the last value of a page stays open until another one follows
FAILED = ("failed", "transient", 5)
LOST = "The process ended in step extract; 2 sealed windows are published, the next sync resumes there."


def test_a_tick_settles_what_a_killed_run_left_and_says_so(location: Location, warehouse: Warehouse) -> None:
    words = ("dagster", "asset", "materialize", "--select", "*")
    with dg.DagsterInstance.get() as instance, running(location, *words) as run:
        wait_for(warehouse, HANGS, 60)
        run.send_signal(signal.SIGKILL)
        run.wait()
        free = (
            "select 1 where not exists (select 1 from pg_stat_activity where application_name like 'headwater shop%')"
        )
        wait_for(warehouse, free, 30)

        def tick() -> str | None:
            with dg.build_sensor_context(instance, resources={"warehouse": WarehouseResource()}) as context:
                return settle_lost_syncs.evaluate_tick(context).skip_message

        early = tick()
        rows(warehouse, "update ops.syncs set heartbeat_at = now() - interval '11 seconds' returning 1")
        (sync_id,) = rows(warehouse, "select sync_id::text from ops.syncs")[0]

        assert early == "no sync has died without an end"
        assert tick() == f"settled 1: shop.orders: failed (transient), sync {sync_id}"
        assert tick() == "no sync has died without an end"
    assert rows(warehouse, LEDGER) == [(*FAILED, LOST)]
    # three pages at the least had been asked for when the second window was published
    assert rows(warehouse, "select syncs, rows_loaded, requests >= 3, received_bytes > 0 from ops.usage") == [
        (1, 5, True, True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("retries", [0, 1])
def test_the_daemon_settles_a_killed_run_within_a_minute(
    location: Location, warehouse: Warehouse, retries: int
) -> None:
    """Without retries of runs by the sensor; with them the next start of the stream may come first."""
    with dg.DagsterInstance.get() as instance, running(location, "dagster-daemon", "run"):
        tags = f'{{"dagster/max_retries": "{retries}"}}'
        subprocess.run(
            location.command(str(BIN / "dagster"), "job", "launch", "--job", "everything", "--tags", tags),
            cwd=PROJECT_ROOT,
            env=location.env,
            check=True,
            capture_output=True,
        )
        wait_for(warehouse, HANGS, 120)
        (run,) = instance.get_runs()
        os.kill(worker_of(instance, run.run_id), signal.SIGKILL)
        location.go_on.set()

        wait_for(warehouse, "select 1 from ops.syncs where status = 'failed'", 60)

        assert rows(warehouse, LEDGER)[0] == (*FAILED, LOST)
        failed = instance.get_run_by_id(run.run_id)
        assert failed is not None
        assert failed.status == dg.DagsterRunStatus.FAILURE
        if retries:
            wait_for(warehouse, "select 1 from ops.syncs where status = 'succeeded'", 180)
            assert rows(warehouse, "select count(*), sum(rows_loaded) from ops.syncs") == [(2, 8)]
            assert rows(warehouse, "select count(*), count(distinct id) from raw_shop.orders") == [(8, 8)]


def worker_of(instance: dg.DagsterInstance, run_id: str) -> int:
    for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = record.dagster_event
        if event is not None and (found := re.search(r"Started process for run \(pid: (\d+)\)", event.message or "")):
            return int(found[1])
    raise AssertionError("no process said that it works on the run")
