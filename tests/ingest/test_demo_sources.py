"""The four demo source files against the real stand-ins: API, database over Sling, folder of files, webhook sender."""

from collections.abc import Generator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from demo.release import Release
from demo.stack import DemoStack
from platform_assets.cli.demo_services import demo_receiver
from platform_assets.settings import PROJECT_ROOT, load_settings
from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import load
from tests.support.servers import TestServer

Loaded = Mapping[str, tuple[str, int]]
"""Status and rows_loaded by asset."""


@pytest.fixture
def stack(
    server: TestServer,
    warehouse: Warehouse,
    env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Generator[DemoStack]:
    with DemoStack(tmp_path / "demo_home") as running:
        address = server.warehouse.address
        running.serve_database(server.admin_url("postgres"), address.host, address.port)
        for name, value in {**env, **running.environment()}.items():
            monkeypatch.setenv(name, value)
        with demo_receiver(load_settings({**env}), running):
            yield running


def materialize_all() -> tuple[Loaded, dict[str, bool]]:
    """Status and rows of every stream, and every check's verdict."""
    with dg.DagsterInstance.ephemeral() as instance:
        job = load(PROJECT_ROOT).resolve_implicit_global_asset_job_def()
        # the programs of others take seconds to start; tests/demo runs them
        own = [key for key in job.asset_layer.executable_asset_keys if key.path[0] not in ("nyc_fleet", "faker_shop")]
        result = job.execute_in_process(instance=instance, asset_selection=own)
    loaded: dict[str, tuple[str, int]] = {}
    for event in result.get_asset_materialization_events():
        metadata = event.materialization.metadata
        loaded[event.materialization.asset_key.to_user_string()] = (
            str(metadata["status"].value),
            int(str(metadata["rows_loaded"].value)),
        )
    checks = {
        f"{check.asset_key.to_user_string()}:{check.check_name}": check.passed
        for check in result.get_asset_check_evaluations()
    }
    return loaded, checks


def value(warehouse: Warehouse, query: str) -> Any:
    with psycopg.connect(warehouse.admin_dsn) as session:
        row = session.execute(query).fetchone()
    return row and row[0]


@pytest.mark.slow
def test_every_demo_stream_loads_whole_and_then_only_what_is_new(stack: DemoStack, warehouse: Warehouse) -> None:
    stack.release(Release(until=date(2013, 1, 13)))
    first, checks = materialize_all()
    assert {name: status for name, (status, _) in first.items()} == dict.fromkeys(
        [
            "github/events",
            "nyc_flights/flights",
            "nyc_reference/airlines",
            "nyc_reference/airports",
            "nyc_reference/planes",
            "nyc_weather/weather",
        ],
        "succeeded",
    )
    assert [name for name, passed in checks.items() if not passed] == []

    assert first["github/events"][1] == 94
    assert value(warehouse, "select count(*) from raw_github.events where payload ? 'pull_request'") == 29

    stack.release(Release())
    second, checks = materialize_all()
    assert [name for name, passed in checks.items() if not passed] == []
    assert value(warehouse, "select count(*) from raw_nyc_flights.flights") == 12_208
    assert value(warehouse, "select sum(distance) from raw_nyc_flights.flights") == 12_465_282
    assert value(warehouse, "select count(*) from raw_nyc_flights.flights where dep_time is null") == 82
    assert value(warehouse, "select count(*) from raw_nyc_weather.weather") == 2_226
    assert value(warehouse, "select count(*) from raw_nyc_weather.weather where wind_gust is null") == 1_691
    assert 0 < second["nyc_flights/flights"][1] < 1_200  # a day, and the hour of the cursor's lag
    assert second["nyc_weather/weather"][1] == 18 * 24 * 3  # weather goes on until the end of the month

    third, _ = materialize_all()
    assert third["nyc_weather/weather"] == ("succeeded_empty", 0)
    assert third["github/events"] == ("succeeded_empty", 0)
