"""`headwater backfill` on a real warehouse. Only what reads source files needs a project, and a process, of its own."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from connectors.contract import Window
from connectors.errors import ConfigError
from platform_assets.backfills import store
from platform_assets.backfills.plan import Plan
from platform_assets.cli import main
from platform_assets.cli.backfill import show
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
        "within the budget of a day it takes 2 days",
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
    assert (len(planned["windows"]), planned["runs"], planned["days"]) == (31, 2, 2)
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


@pytest.mark.slow
def test_a_backfill_of_nothing_missing_asks_for_nothing(project: Project, env: dict[str, str]) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    project.source(f"{SOURCE}      partitions: {{by: day, start: {yesterday}}}\n")
    with psycopg.connect(env["HEADWATER_WAREHOUSE_URL"]) as session:
        session.execute(
            "insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, window_start, window_end, "
            "finished_at, step, status) values (gen_random_uuid(), 'shop', 'orders', 'rest', 'backfill', 1, "
            "%(day)s::timestamptz, %(day)s::timestamptz + interval '1 day', now(), 'done', 'succeeded')",
            {"day": f"{yesterday}T00:00:00Z"},
        )

    asked = project.run("backfill", "run", "shop.orders", "--missing", **env, SHOP_URL="http://127.0.0.1:9")

    assert (asked.stdout, asked.returncode) == ("shop.orders: no window to read\n", 0)


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
    assert backfill("prioritize", number, "-20") == f"backfill {number} has priority -20"
    assert backfill("prioritize", number, "5") == f"backfill {number} has priority 5"
    assert backfill("cancel", number) == f"backfill {number} is cancelling"
    assert f"backfill {number}: is cancelling" in backfill("pause", number)
    store.move(connection, store.one(connection, number), "cancelled", since=["cancelling"])

    assert "is cancelled, so it has no place in the queue" in backfill("prioritize", number, "7")
    for words in (["prioritize", number, "99999999999999"], ["run", "shop.orders", "--priority", "99999999999999"]):
        assert "should be less than or equal to 1000" in backfill(*words)
    assert "4 windows that" in backfill("resume", number)
    lines = json.loads(backfill("status", "--json"))
    assert [(line["state"], line["done"], line["windows"], line["priority"]) for line in lines] == [
        ("requested", 0, 4, 5), ("cancelled", 0, 4, 5),
    ]  # fmt: skip
    assert number in backfill("status")
    assert "there is none" in backfill("status", "nothing")
    for command in ("plan", "run"):
        assert "nyc_weather.weather: has no partitions" in backfill(command, "nyc_weather.weather")


@pytest.mark.parametrize(("seconds", "is_told"), [(0.4, False), (3.0, True)])
def test_a_rate_limit_that_allows_it_at_once_is_not_told(
    capsys: pytest.CaptureFixture[str], seconds: float, is_told: bool
) -> None:
    window = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    show(
        "shop.orders",
        Plan(
            {"2024-01-01": window}, {}, runs=1, sample=1, rows=1, requests=1, seconds=1.0, quota_seconds=seconds, days=1
        ),
    )
    assert ("its rate limit allows" in capsys.readouterr().out) is is_told
