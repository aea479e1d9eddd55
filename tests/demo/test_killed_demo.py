"""`headwater demo` killed in the middle, with its server too, then run again: every figure is right."""

import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, is_running, stop_warehouse
from tests.dbt.figures import CROSS_CHECKS, expected_figures, measured_figures
from tests.demo.running import demo, processes, started
from tests.support.servers import short_folder

READING = """
    select 1 from ops.syncs
    where source = 'nyc_flights' and status = 'running' and step in ('extract', 'land', 'publish')
"""
BUILDING = "select 1 from pg_views where schemaname = 'staging'"
LEDGER = {
    "a sync without an end": "select source, stream from ops.syncs where status = 'running'",
    "a ledger row out of balance": """
        select source, stream from ops.syncs
        where rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined
    """,
    "a left-over table": r"select schemaname, tablename from pg_tables where tablename like '\_next\_%'",
    "a row without its load": """
        select load_id from raw_nyc_flights._dlt_loads right join raw_nyc_flights.flights on load_id = _dlt_load_id
        where load_id is null
    """,
    "a flight twice": """
        select carrier, flight, origin, time_hour from raw_nyc_flights.flights group by 1, 2, 3, 4 having count(*) > 1
    """,
}


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_a_demo_killed_in_the_middle_is_right_when_it_is_run_again() -> None:
    with short_folder() as folder:
        home = folder / "home"
        settings = load_settings({"HEADWATER_HOME": str(home)})
        try:
            _killed(home, READING, with_server=False)
            _killed(home, BUILDING, with_server=True)
            ended = demo(home)
            warehouse = ensure_warehouse(settings)
            assert ended.status == 0, ended.table + ended.progress
            assert measured_figures(warehouse) == expected_figures()
            measured = measured_figures(warehouse, CROSS_CHECKS)
            assert measured == {name: expected_figures()[name] for name in CROSS_CHECKS}
            assert {name: rows for name, query in LEDGER.items() if (rows := _rows(warehouse, query))} == {}
            killed = "select status, failure_class from ops.syncs where source = 'nyc_flights' order by started_at"
            assert _rows(warehouse, killed)[0] == ("failed", "transient")
            assert ended.left == []
        finally:
            stop_warehouse(settings)


def _killed(home: Path, moment: str, *, with_server: bool) -> None:
    """Run the demo until the query finds a row, then end all of its processes at once, as a machine does that fails."""
    with started(home) as process:
        _wait_until(home, moment, process)
        while left := [found for found in processes(home) if with_server or found.name() != "postgres"]:
            for found in left:
                with suppress(psutil.NoSuchProcess):
                    found.kill()
            time.sleep(0.05)


def _wait_until(home: Path, moment: str, process: "subprocess.Popen[str]") -> None:
    settings = load_settings({"HEADWATER_HOME": str(home)})
    while process.poll() is None:
        with suppress(psycopg.Error):
            if is_running(settings) and _rows(ensure_warehouse(settings), moment):
                return
        time.sleep(0.02)
    raise AssertionError(f"the demo ended before: {moment}\n{process.communicate()}")


def _rows(warehouse: Warehouse, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(query.encode()).fetchall()
