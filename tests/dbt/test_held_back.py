"""`headwater dbt build` over a ledger in which a blocking check of a stream has failed; no Dagster is there."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from connectors.errors import MAX_LINES
from platform_assets.warehouse import Warehouse
from tests.dbt.test_audited_build import count, published, relation
from tests.scenarios.conftest import copy_of_project
from tests.support.sql import run as sql

RULE = "      checks: [{type: row_rule, column: temp, min: -60}]\n"


def synced(warehouse: Warehouse, *, passed: bool) -> None:
    """A sync of the weather, by whatever ran it."""
    said = {"name": "row_rule", "passed": passed, "severity": "error", "blocking": True, "explanation": "3 rows"}
    end = "'succeeded', null" if passed else "'failed', 'contract'"
    sql(
        warehouse.admin_dsn,
        "insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, started_at, finished_at, verdicts,"
        " status, failure_class) values"
        f" ('{uuid4()}', 'nyc_weather', 'weather', 'files', 'cli', 1, now(), now(), '[{json.dumps(said)}]', {end})",
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_build_by_hand_leaves_out_what_stands_on_a_failed_check(
    env: dict[str, str], raw: Warehouse, tmp_path: Path
) -> None:
    root = copy_of_project(tmp_path / "project")
    path = root / "platform_assets/defs/ingest/nyc_weather/defs.yaml"
    path.write_text(path.read_text(encoding="utf-8").rstrip("\n") + f"\n{RULE}", encoding="utf-8")
    env = env | {"PYTHONPATH": str(root)}

    def build(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "platform_assets.cli", "dbt", "build", *words]
        return subprocess.run(command, env=env, cwd=root, capture_output=True, text=True, check=False)

    synced(raw, passed=True)
    synced(raw, passed=False)
    some = build("-s", "+weather_hours", "+customers")
    assert (some.returncode, published(some)) == (8, {"customers"}), some.stdout + some.stderr
    assert relation(raw, "marts.weather_hours") is None
    assert relation(raw, "staging.stg_nyc_weather__weather") is None
    said = some.stderr[some.stderr.index("marts.weather_hours") :].strip().splitlines()
    assert "not built: upstream failed 1 blocking check: row_rule of nyc_weather.weather" in said[0]
    assert "add `--ignore-failed-checks`" in said[-1]
    assert len(said) <= MAX_LINES

    nothing = build("-s", "stg_nyc_weather__weather")
    assert (nothing.returncode, published(nothing)) == (8, set())
    assert "row_rule of nyc_weather.weather" in nothing.stderr
    assert relation(raw, "staging.stg_nyc_weather__weather") is None

    # it is tested against airports, which nobody has built
    alone = ("-s", "+weather_hours", "--exclude", "test_name:relationships")
    over = build(*alone, "--ignore-failed-checks")
    assert (over.returncode, published(over)) == (0, {"weather_hours"}), over.stdout + over.stderr
    assert "building over failed checks, as asked" in over.stderr

    synced(raw, passed=True)
    mended = build(*alone)
    assert (mended.returncode, published(mended)) == (0, {"weather_hours"}), mended.stdout + mended.stderr
    assert count(raw, "marts.weather_hours") != (0,)
