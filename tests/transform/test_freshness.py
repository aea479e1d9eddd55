"""Models inherit from their streams: when they must have been built, and how new their data is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
import pytest

from connectors.specs import StreamSpec
from platform_assets.checks.data_time import read_data_times
from platform_assets.checks.upstream import promise_of, worst
from platform_assets.components.model_freshness import ModelFreshness, model_freshness
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.settings import PROJECT_ROOT
from platform_assets.sources import FOLDER
from tests.support.sql import run as sql
from tests.transform.conftest import Transform

FLIGHTS = """\
type: platform_assets.components.Source
attributes:
  source: nyc_flights
  owner: team:data
  connector: {kind: rest, base_url: env:FLIGHTS_API_URL}
  streams:
    - name: flights
      path: /flights
      primary_key: [id]
      write: merge
      cursor: {field: time_hour}
      freshness: {fail_after: PT6H, warn_after: PT2H}
"""
PLANES = """\
type: platform_assets.components.Source
attributes:
  source: nyc_reference
  owner: team:data
  connector: {kind: rest, base_url: env:FLIGHTS_API_URL}
  streams:
    - {name: planes, path: /planes, cursor: {field: seen_at}, freshness: {fail_after: P2D}}
"""
JOINED = dg.AssetKey(["marts", "routes"])
"""Built from flights, and through an intermediate model from planes."""


@pytest.fixture(scope="module")
def inherited(transform: Transform, tmp_path_factory: pytest.TempPathFactory) -> ModelFreshness:
    root = tmp_path_factory.mktemp("sources")
    for name, text in (("flights", FLIGHTS), ("planes", PLANES), ("broken", "type: [")):
        path = root / FOLDER / name / "defs.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    manifest = prepared_manifest(PROJECT_ROOT / "dbt_project", transform.settings)
    return model_freshness(Graph(read_manifest(manifest)), Path(root))


@pytest.fixture
def ledger(transform: Transform) -> Iterator[str]:
    yield transform.warehouse.admin_dsn
    sql(transform.warehouse.admin_dsn, "delete from ops.syncs where kind = 'told'")


def synced(
    dsn: str, source: str, stream: str, *, newest: str | None, said: bool = False, window: str = "null::interval"
) -> None:
    """A finished sync; newest: its cursor value, as SQL interval before now."""
    cursor = f"to_char((now() - interval '{newest}') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    sql(
        dsn,
        "insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch, started_at, finished_at, newest_cursor, "
        f"nothing_new, status, window_start, window_end) values ('{uuid4()}', '{source}', '{stream}', 'told', 'cli', "
        f"1, now(), now(), {cursor if newest else 'null'}, {said}, 'succeeded', now() - {window}, now() - {window})",
    )


def judged(inherited: ModelFreshness, transform: Transform) -> dg.AssetCheckResult:
    asked = {dg.AssetCheckKey(JOINED, "freshness_data")}
    log = dg.build_op_context().log
    (result,) = inherited.results(asked, transform.settings, log)
    return result


def test_every_model_has_a_freshness_policy(transform: Transform) -> None:
    specs = [spec for assets in transform.assets for spec in assets.specs]

    assert [spec.key.to_user_string() for spec in specs if spec.freshness_policy is None] == []


def test_a_model_without_a_policy_has_the_longest_windows_of_its_streams(inherited: ModelFreshness) -> None:
    def policy(*key: str) -> dg.FreshnessPolicy | None:
        return inherited.of(dg.AssetSpec(dg.AssetKey(list(key)))).freshness_policy

    hours = timedelta(hours=1)
    time_window = dg.FreshnessPolicy.time_window
    assert policy("staging", "stg_nyc_flights__flights") == time_window(fail_window=6 * hours, warn_window=2 * hours)
    assert policy("marts", "routes") == time_window(fail_window=48 * hours, warn_window=2 * hours)
    assert policy("marts", "weather_hours") == time_window(fail_window=60 * hours, warn_window=36 * hours)
    declared = dg.AssetSpec(JOINED, freshness_policy=time_window(fail_window=hours))
    assert inherited.of(declared) is declared


def test_a_mart_is_as_fresh_as_the_worst_of_its_streams(
    inherited: ModelFreshness, transform: Transform, ledger: str
) -> None:
    synced(ledger, "nyc_flights", "flights", newest="1 hour")
    synced(ledger, "nyc_reference", "planes", newest="1 day")
    assert judged(inherited, transform).passed

    synced(ledger, "nyc_flights", "flights", newest=None)
    assert judged(inherited, transform).passed

    sql(ledger, "delete from ops.syncs where kind = 'told' and stream = 'flights'")
    synced(ledger, "nyc_flights", "flights", newest="7 hours")
    stale = judged(inherited, transform)
    assert (stale.passed, stale.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (stale.description or "").startswith("nyc_flights.flights: the newest value is of ")
    assert stale.metadata["stalest"].value == "nyc_flights.flights"

    synced(ledger, "nyc_flights", "flights", newest=None, said=True)
    assert judged(inherited, transform).passed


def test_a_mart_is_red_while_nothing_tells_how_old_a_stream_is_that_declares_the_check(
    transform: Transform, ledger: str
) -> None:
    promises = [promise_of("shop", _orders(checks)) for checks in ([{"type": "freshness_data"}], [])]
    synced(ledger, "shop", "orders", newest=None)
    sql(ledger, "update ops.syncs set newest_cursor = '4711', rows_loaded = 3, rows_extracted = 3 where kind = 'told'")
    with psycopg.connect(transform.warehouse.transformer_dsn) as connection:
        data = read_data_times(connection, [("shop", "orders")])

    found = [worst([promise], data, datetime.now(UTC)) for promise in promises if promise is not None]

    assert [verdict.passed for verdict in found] == [False, True]
    assert found[0].explanation == "shop.orders: the cursor is no time, so nothing tells how old the data is"


def _orders(checks: list[dict[str, str]]) -> StreamSpec:
    """Ordered by a number."""
    return StreamSpec.model_validate(
        {"name": "orders", "cursor": {"field": "id"}, "freshness": {"fail_after": "PT6H"}, "checks": checks}
    )


def test_an_old_partition_that_is_read_again_makes_nothing_fresh(
    inherited: ModelFreshness, transform: Transform, ledger: str
) -> None:
    synced(ledger, "nyc_flights", "flights", newest="1 day", window="interval '1 day'")
    synced(ledger, "nyc_flights", "flights", newest="30 days", window="interval '30 days'")
    stale = judged(inherited, transform)
    assert not stale.passed
    assert stale.metadata["age_hours"].value == pytest.approx(24, abs=0.1)

    synced(ledger, "nyc_flights", "flights", newest="1 hour", window="interval '1 hour'")
    assert judged(inherited, transform).passed
