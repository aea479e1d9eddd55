"""`headwater check`, `discover` and `preview` on every source of the demo, as processes of their own."""

import json
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from demo.files import publish_weather
from demo.release import Release
from demo.stack import DemoStack
from platform_assets.cli.demo_services import demo_receiver
from platform_assets.settings import PROJECT_ROOT, load_settings
from platform_assets.sources import load_sources
from platform_assets.warehouse import ensure_warehouse
from tests.support.servers import TestServer, clean_environment, database_pair

SECONDS = 280
STREAMS = {
    "faker_shop": ["users", "purchases"],
    "github": ["events"],
    "nyc_fleet": ["planes"],
    "nyc_flights": ["flights"],
    "nyc_reference": ["airlines", "airports", "planes"],
    "nyc_weather": ["weather"],
}


@pytest.fixture(scope="module")
def env(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    """Of the running demo sources, all of their data released."""
    home = tmp_path_factory.mktemp("demo")
    with database_pair(server, "trying_demo_sources") as pair, DemoStack(home) as stack:
        base = clean_environment() | pair | {"HEADWATER_HOME": str(home)}
        settings = load_settings(base)
        ensure_warehouse(settings)
        address = server.warehouse.address
        stack.serve_database(server.admin_url("postgres"), address.host, address.port)
        with pytest.MonkeyPatch.context() as patched:
            told = {**base, **stack.environment()}
            for name, value in told.items():
                patched.setenv(name, value)
            with demo_receiver(settings, stack):
                yield told


def headwater(env: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "platform_assets.cli", *words]
    done = subprocess.run(
        command, cwd=PROJECT_ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


def rows_of(env: dict[str, str], stream: str) -> Sequence[dict[str, object]]:
    return [json.loads(line) for line in headwater(env, "preview", stream, "--rows", "3", "--json").splitlines()]


def test_every_source_of_the_demo_is_tried() -> None:
    assert {spec.source: [stream.name for stream in spec.streams] for spec in load_sources(PROJECT_ROOT)} == STREAMS


@pytest.mark.slow
@pytest.mark.parametrize("source", STREAMS)
def test_a_source_of_the_demo_answers_offers_and_shows_its_streams(env: dict[str, str], source: str) -> None:
    said = headwater(env, "check", source)
    assert said.startswith(f"{source}: ")

    offered = headwater(env, "discover", source)
    assert "but not seen by discovery" not in offered, offered

    declared = {stream.name: stream.columns for spec in load_sources(PROJECT_ROOT) for stream in spec.streams}
    for stream in STREAMS[source]:
        rows = rows_of(env, f"{source}.{stream}")
        assert len(rows) == 3
        shown = {name for name, column in declared[stream].items() if column.rule == "keep"}
        assert shown <= {name for row in rows for name in row}


def test_the_demos_weather_answers_and_is_shown_with_its_types(tmp_path: Path) -> None:
    folder = tmp_path / "weather"
    publish_weather(folder, Release())
    env = clean_environment() | {"HEADWATER_HOME": str(tmp_path / "home"), "WEATHER_FILES": str(folder)}

    assert headwater(env, "check", "nyc_weather").startswith(f"nyc_weather: 31 files at {folder}")
    assert "in weather" in headwater(env, "discover", "nyc_weather")
    assert rows_of(env, "nyc_weather.weather")[0] == {
        "origin": "EWR", "year": 2013, "month": 1, "day": 1, "hour": 1, "temp": 39.02, "dewp": 26.06, "humid": 59.37,
        "wind_dir": 270, "wind_speed": 10.357019999999999, "wind_gust": None, "precip": 0.0, "pressure": 1012.0,
        "visib": 10.0, "time_hour": "2013-01-01 06:00:00+00:00",
    }  # fmt: skip
