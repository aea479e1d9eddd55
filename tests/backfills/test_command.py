"""`headwater backfill` on a real warehouse. Only what reads source files needs a project, and a process, of its own."""

import json
from typing import Any

import psycopg
import pytest

from connectors.errors import ConfigError
from platform_assets.backfills import store
from platform_assets.cli import main
from platform_assets.warehouse import Warehouse
from tests.backfills.test_store import connection, spec, wanted
from tests.cli.conftest import Project, project
from tests.ingest.shop import SOURCE, TOKEN

__all__ = ["connection", "project", "spec"]

DAILY = "      partitions: {by: day, start: 2024-01-01}\n"


JANUARY = ("shop.orders", "--from", "2024-01-01", "--to", "2024-01-31", "--windows-per-day", "10")


def shop(project: Project, env: dict[str, str]) -> dict[str, str]:
    project.source(SOURCE + DAILY)
    return {**env, "SHOP_URL": "http://127.0.0.1:9", "SHOP_TOKEN": TOKEN}


@pytest.mark.slow
def test_a_backfill_is_asked_for_and_shows_its_plan(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    asked = project.run("backfill", "run", *JANUARY, **shop(project, env)).stdout.splitlines()

    with psycopg.connect(warehouse.loader_dsn) as session:
        (backfill,) = store.several(session, is_open=True)
    assert asked[:4] == [
        "shop.orders: 31 windows, newest first, 2024-01-31 to 2024-01-01, in 2 runs",
        "no window of it was read yet: at least 31 requests, cost unknown",
        "within the budget of a day it takes 4 days",
        "  2024-01-31  2024-01-31 00:00 to 2024-02-01 00:00",
    ]
    assert asked[-1] == f"backfill {backfill.backfill_id} is asked for; the daemon begins within half a minute"
    assert (backfill.title, backfill.windows_per_day) == ("shop.orders: 31 windows, 2024-01-01 to 2024-01-31", 10)


@pytest.mark.slow
def test_a_plan_changes_nothing_and_wrong_ranges_are_refused(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    variables = shop(project, env)
    planned = json.loads(project.run("backfill", "plan", *JANUARY, "--json", **variables).stdout)
    assert (len(planned["windows"]), planned["runs"], planned["days"]) == (31, 2, 4)
    with psycopg.connect(warehouse.loader_dsn) as session:
        assert store.several(session, is_open=True) == []
    assert project.run("backfill", "run", *JANUARY, **variables).returncode == 0

    again = project.run("backfill", "run", *JANUARY, **variables)
    early = project.run("backfill", "plan", "shop.orders", "--from", "2023-12-01", **variables)
    suggested = project.run("backfill", "suggest", "shop", **variables)

    assert (again.returncode, early.returncode) == (ConfigError.exit_code, ConfigError.exit_code)
    assert "all 31 windows are in backfill" in again.stderr
    assert "2023-12-01 is before its first partition, 2024-01-01" in early.stderr
    assert "off: add missing to backfill.reasons" in suggested.stdout


def test_a_backfill_is_paused_resumed_prioritized_and_cancelled(
    connection: psycopg.Connection[Any],
    spec: Any,
    env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    made = store.create(connection, wanted(spec, 1, 4))

    def backfill(*words: str) -> str:
        capsys.readouterr()
        code = main(["backfill", *words])
        out, err = capsys.readouterr()
        return out.strip() if code == 0 else err.strip()

    number = made.backfill_id
    assert backfill("pause", number) == f"backfill {number} is paused"
    assert backfill("resume", number) == f"backfill {number} goes on"
    assert backfill("prioritize", number, "5") == f"backfill {number} has priority 5"
    assert backfill("cancel", number) == f"backfill {number} is cancelling"
    assert f"backfill {number}: is cancelling" in backfill("pause", number)
    store.move(connection, store.one(connection, number), "cancelled", since=["cancelling"])

    assert "4 windows that" in backfill("resume", number)
    lines = json.loads(backfill("status", "--json"))
    assert [(line["state"], line["done"], line["windows"], line["priority"]) for line in lines] == [
        ("requested", 0, 4, 5), ("cancelled", 0, 4, 5),
    ]  # fmt: skip
    assert number in backfill("status")
    assert "there is none" in backfill("status", "nothing")
    for command in ("plan", "run"):
        assert "nyc_weather.weather: has no partitions" in backfill(command, "nyc_weather.weather")
