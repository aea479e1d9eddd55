"""What a source file becomes, without network, secrets or an engine."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from platform_assets.assets.resources import ingest_resources
from platform_assets.components.loading import is_plain
from platform_assets.freshness import longest_gap
from platform_assets.settings import PROJECT_ROOT
from tests.ingest.conftest import PARTITIONED, SOURCE, STREAMS, Write, load

PINNED = Path(__file__).with_name("asset_graph.json")
HEAVY = ["dlt", "dbt", "pyarrow", "httpx", "dagster_dbt", "dagster_dlt", "dagster_sling", "sling", "psycopg"]

LOAD_IN_A_FRESH_PROCESS = """
import json, socket, sys

def refuse(*arguments, **options):
    raise AssertionError("definitions opened a connection")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
from platform_assets.ingest import defs
repository = defs().get_repository_def()
print(json.dumps({
    "assets": sorted(key.to_user_string() for key in repository.asset_graph.materializable_asset_keys),
    "modules": sorted(sys.modules),
}))
"""


def graph_of(defs: dg.Definitions) -> dict[str, object]:
    """What is pinned of an asset graph: keys, deps, groups, kinds, checks, freshness, pools."""
    graph = defs.resolve_asset_graph()
    assets: dict[str, object] = {}
    for key in sorted(graph.get_all_asset_keys()):
        node = graph.get(key)
        policy = node.freshness_policy
        assets[key.to_user_string()] = {
            "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
            "group": node.group_name,
            "owners": sorted(node.owners),
            "kinds": sorted(node.kinds),
            "pools": sorted(node.pools or ()),
            "table": node.metadata["dagster/table_name"],
            "columns": [column.name for column in node.metadata["dagster/column_schema"].columns],
            "checks": {
                check.name: {"blocking": graph.get_check_spec(check).blocking}
                for check in sorted(graph.get_check_keys_for_assets({key}))
            },
            "freshness": {
                "warn_seconds": policy.warn_window.to_timedelta().total_seconds(),
                "fail_seconds": policy.fail_window.to_timedelta().total_seconds(),
            },
        }
    schedules = {schedule.name: schedule.cron_schedule for schedule in defs.get_repository_def().schedule_defs}
    sensors = {
        sensor.name: {
            "status": sensor.default_status.value,
            "every_seconds": sensor.minimum_interval_seconds,
        }
        for sensor in defs.get_repository_def().sensor_defs
    }
    return {
        "assets": assets,
        "schedules": dict(sorted(schedules.items())),
        "sensors": dict(sorted(sensors.items())),
    }


def test_the_asset_graph_is_the_pinned_one() -> None:
    """To accept a change: `python -m tests.ingest.test_definitions` writes the graph anew; review its diff."""
    assert graph_of(load(PROJECT_ROOT)) == json.loads(PINNED.read_text(encoding="utf-8"))


def test_definitions_load_offline_in_an_empty_environment_without_heavy_imports(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD_IN_A_FRESH_PROCESS],
        cwd=PROJECT_ROOT,
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert loaded["assets"] == list(json.loads(PINNED.read_text(encoding="utf-8"))["assets"])
    assert [name for name in HEAVY if name in loaded["modules"]] == []


def test_a_stream_is_one_op_one_asset_with_the_default_checks_and_freshness(write_source: Write) -> None:
    graph = graph_of(load(write_source(SOURCE + STREAMS + "      columns: {id: {type: bigint}}\n")))

    assert graph == {
        "assets": {
            "shop/orders": {
                "deps": [],
                "group": "shop",
                "owners": ["team:data"],
                "kinds": ["api", "postgres", "rest"],
                "pools": ["shop"],
                "table": "raw_shop.orders",
                "columns": ["id"],
                "checks": {name: {"blocking": False} for name in ("quarantine", "schema_drift", "volume_anomaly")},
                "freshness": {"warn_seconds": 1.5 * 86_400, "fail_seconds": 2.5 * 86_400},
            }
        },
        "schedules": {},
        "sensors": {
            "run_backfills": {"status": "RUNNING", "every_seconds": 15},
            "settle_lost_syncs": {"status": "RUNNING", "every_seconds": 30},
        },
    }


def test_a_declared_check_takes_the_place_of_the_default_and_may_block(write_source: Write) -> None:
    checks = "      checks: [{type: volume_anomaly, blocking: true}, {type: volume_anomaly, name: tight, minimum: 3}]\n"
    defs = load(write_source(SOURCE + STREAMS + checks))
    graph = defs.resolve_asset_graph()

    blocking = {check.name: graph.get_check_spec(check).blocking for check in graph.asset_check_keys}
    assert blocking == {"volume_anomaly": True, "tight": False, "schema_drift": False, "quarantine": False}


def test_streams_of_one_cron_share_a_schedule_that_is_stopped_at_first(write_source: Write) -> None:
    other = STREAMS.replace("orders", "items")
    hourly, daily = '      schedule: "@hourly"\n', '      schedule: "0 6 * * 1-5"\n'
    third = STREAMS.replace("orders", "customers")
    defs = load(write_source(SOURCE + STREAMS + hourly + other + hourly + third + daily))
    repository = defs.get_repository_def()

    found = {schedule.name: schedule for schedule in repository.schedule_defs}
    assert sorted(found) == ["shop__0_6_x_x_1to5", "shop__hourly"]
    assert {schedule.default_status for schedule in found.values()} == {dg.DefaultScheduleStatus.STOPPED}
    job = repository.get_job(found["shop__hourly"].job_name)
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"shop/orders", "shop/items"}


def test_freshness_without_windows_follows_the_schedule(write_source: Write) -> None:
    defs = load(write_source(f'{SOURCE}{STREAMS}      schedule: "@hourly"\n'))
    policy = defs.resolve_asset_graph().get(dg.AssetKey(["shop", "orders"])).freshness_policy

    assert policy == dg.FreshnessPolicy.time_window(
        warn_window=timedelta(minutes=90), fail_window=timedelta(minutes=150)
    )


@pytest.mark.parametrize(
    ("cron", "gap"),
    [
        ("@hourly", timedelta(hours=1)),
        ("*/15 * * * *", timedelta(minutes=15)),
        ("0 6 * * *", timedelta(days=1)),
        ("0 6 * * 1-5", timedelta(days=3)),
        ("0 8,20 * * *", timedelta(hours=12)),
        ("0 0 1 * *", timedelta(days=31)),
        ("0 0 1 1 *", timedelta(days=366)),
    ],
)
def test_the_longest_gap_of_a_schedule_counts_nights_weekends_and_months(cron: str, gap: timedelta) -> None:
    assert longest_gap(cron) == gap


def test_partitions_follow_the_calendar_of_their_time_zone_and_tile_without_gap(write_source: Write) -> None:
    from platform_assets.assets.partitions import window_of

    defs = load(write_source(PARTITIONED))
    asset = defs.resolve_assets_def(dg.AssetKey(["shop", "orders"]))
    partitions = asset.partitions_def
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(30)

    days = [f"2024-03-{day}" for day in (30, 31)] + ["2024-04-01"]
    windows = [window_of(partitions, day) for day in days]
    assert [window.end - window.start for window in windows] == [timedelta(hours=hours) for hours in (24, 23, 24)]
    assert windows[0].start == datetime(2024, 3, 29, 23, tzinfo=UTC)
    assert [window.end for window in windows[:-1]] == [window.start for window in windows[1:]]


def test_a_partitioned_schedule_asks_once_for_the_last_whole_partition(write_source: Write) -> None:
    defs = load(write_source(PARTITIONED))
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def("shop__orders__hourly")

    def tick(at: datetime) -> list[tuple[str | None, str | None]]:
        context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository)
        data = schedule.evaluate_tick(context)
        return [(request.partition_key, request.run_key) for request in data.run_requests or ()]

    # midnight in Berlin is 22:00 UTC in summer
    assert tick(datetime(2024, 7, 1, 21, tzinfo=UTC)) == [("2024-06-30", "2024-06-30")]
    assert tick(datetime(2024, 7, 1, 22, tzinfo=UTC)) == [("2024-07-01", "2024-07-01")]
    assert tick(datetime(2023, 12, 31, tzinfo=UTC)) == []


GOLD = "post_processing:\n  assets: [{attributes: {tags: {tier: gold}}}]\n"


def test_a_source_works_in_dagsters_own_component_tree_too(write_source: Write) -> None:
    text = SOURCE + STREAMS
    with create_defs_folder_sandbox() as sandbox:
        (sandbox.defs_folder_path / "shop").mkdir()
        (sandbox.defs_folder_path / "shop" / "defs.yaml").write_text(text + GOLD, encoding="utf-8")
        with sandbox.build_all_defs() as defs:
            whole = dg.Definitions.merge(defs, dg.Definitions(resources=ingest_resources()))
            tags = whole.resolve_asset_graph().get(dg.AssetKey(["shop", "orders"])).tags
    assert tags["tier"] == "gold"
    assert tags["headwater/write"] == "merge"


@pytest.mark.parametrize(
    ("name", "text", "plain"),
    [
        ("defs.yaml", SOURCE + STREAMS, True),
        ("defs.yaml", f"# a comment\n{SOURCE}{STREAMS}---\n{SOURCE}{STREAMS}", True),
        ("defs.yaml", SOURCE + STREAMS + GOLD, False),
        ("defs.yaml", SOURCE.replace("platform_assets.components.Source", "other.Component") + STREAMS, False),
        ("defs.yml", SOURCE + STREAMS, False),
        ("extra.py", "", False),
        ("notes.md", "", True),
    ],
)
def test_only_a_folder_of_plain_source_files_is_read_without_dagster(
    name: str, text: str, plain: bool, tmp_path: Path
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / name).write_text(text, encoding="utf-8")
    assert is_plain(tmp_path) is plain


if __name__ == "__main__":
    text = json.dumps(graph_of(load(PROJECT_ROOT)), indent=2)
    PINNED.write_text(f"{text}\n", encoding="utf-8")
