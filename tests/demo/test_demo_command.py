"""`headwater demo` as a newcomer runs it: an empty home, then once more."""

import re
from collections.abc import Generator
from pathlib import Path

import pytest

from connectors.errors import ConfigError
from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse, is_running, stop_warehouse
from tests.dbt.figures import CROSS_CHECKS, expected_figures, measured_figures
from tests.demo.running import Ended, demo
from tests.support.servers import short_folder


@pytest.fixture(scope="module")
def home() -> Generator[Path]:
    with short_folder() as folder:
        settings = load_settings({"HEADWATER_HOME": str(folder / "home")})
        yield settings.home
        stop_warehouse(settings)


@pytest.fixture(scope="module")
def first(home: Path) -> Ended:
    return demo(home, "--days", "13")


@pytest.fixture(scope="module")
def second(home: Path, first: Ended) -> Ended:
    assert first.status == 0, first.table + first.progress
    return demo(home)


@pytest.mark.timeout(600)
def test_a_first_run_fills_every_stream_and_mart_and_ends_by_itself(first: Ended, home: Path) -> None:
    assert first.status == 0, first.table + first.progress
    assert first.rows("nyc_flights.flights") == 12_208 - 928
    assert first.rows("nyc_weather.weather") == 13 * 72 - 6
    assert first.rows("marts.flights") == 12_208 - 928
    assert first.rows("github.events") == first.rows("marts.events") == 94
    assert first.rows("nyc_fleet.planes") == 3_322
    assert first.rows("faker_shop.users") == first.rows("marts.customers") == 200
    assert first.left == []
    assert not is_running(load_settings({"HEADWATER_HOME": str(home)}))


@pytest.mark.timeout(600)
def test_progress_names_every_stream_while_it_runs(first: Ended) -> None:
    for name in ("nyc_flights.flights", "nyc_reference.airports", "nyc_weather.weather"):
        assert re.search(rf" s  {name}: running", first.progress), first.progress
        assert re.search(rf" s  {name}: succeeded, [\d,]+ rows in", first.progress), first.progress


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_second_run_syncs_only_the_day_that_is_new(second: Ended) -> None:
    assert second.status == 0, second.table + second.progress
    assert second.rows("nyc_flights.flights") == 928
    assert second.rows("github.events") == 0
    assert second.rows("faker_shop.users") == second.rows("faker_shop.purchases") == 0
    assert second.left == []


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_the_marts_then_have_the_figures_of_the_source(second: Ended, home: Path) -> None:
    settings = load_settings({"HEADWATER_HOME": str(home)})
    warehouse = ensure_warehouse(settings)
    measured, crossed = measured_figures(warehouse), measured_figures(warehouse, CROSS_CHECKS)
    stop_warehouse(settings)
    assert measured == expected_figures()
    assert crossed == {name: expected_figures()[name] for name in CROSS_CHECKS}
    assert second.rows("marts.flights") == expected_figures()["flights"]


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_program_that_cannot_be_installed_fails_its_own_streams_alone() -> None:
    with short_folder() as folder:
        apart = {"HEADWATER_CONNECTORS": str(folder / "none"), "UV_CACHE_DIR": str(folder / "cache"), "UV_OFFLINE": "1"}
        ended = demo(folder / "home", "--days", "1", **apart)
        stop_warehouse(load_settings({"HEADWATER_HOME": str(folder / "home")}))
    assert ended.status == ConfigError.exit_code, ended.table + ended.progress
    failed = re.findall(r"^stream +(\S+) +failed", ended.table, re.MULTILINE)
    assert failed == ["faker_shop.purchases", "faker_shop.users", "nyc_fleet.planes"]
    assert ended.rows("marts.flights") > 0
    assert "failed while installing meltanolabs-tap-postgres" in ended.table + ended.progress


def test_both_ways_to_say_the_days_are_refused_at_once(tmp_path: Path) -> None:
    ended = demo(tmp_path / "home", "--days", "2", "--until", "2013-01-02")
    assert ended.status == 3
    assert ended.progress.strip() == (
        "config error: headwater demo: --days and --until say the same thing twice\nGive one of them."
    )
    assert not (tmp_path / "home").exists()
