"""Streams through Dagster, for real: HTTP server, engine, PostgreSQL, event log."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from dagster._serdes import serialize_value

from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write, load
from tests.ingest.shop import SOURCE, TOKEN, Answer, Shop, open_shop, order
from tests.support.servers import TestServer

KEY = dg.AssetKey(["shop", "orders"])
ERROR = dg.AssetCheckSeverity.ERROR
PARTITIONED = f"{SOURCE}      partitions: {{by: day, start: 2024-01-01}}\n"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, seen through its instance."""

    instance: dg.DagsterInstance
    result: dg.ExecuteInProcessResult

    @property
    def succeeded(self) -> bool:
        return self.result.success

    @property
    def materializations(self) -> list[dg.AssetMaterialization]:
        found = self.instance.fetch_materializations(dg.AssetRecordsFilter(KEY), limit=100, ascending=True).records
        mine = [record for record in found if record.event_log_entry.run_id == self.result.run_id]
        return [record.asset_materialization for record in mine if record.asset_materialization]

    @property
    def checks(self) -> dict[str, dg.AssetCheckEvaluation]:
        return {evaluation.check_name: evaluation for evaluation in self.result.get_asset_check_evaluations()}

    @property
    def failure(self) -> Any:
        events = [event for event in self.result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
        return events[0].event_specific_data

    def count(self, kind: dg.DagsterEventType) -> int:
        return sum(event.event_type == kind for event in self.result.all_events)


@pytest.fixture
def shop(warehouse: Warehouse, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[Shop]:
    with open_shop() as opened:
        for name, value in {**env, "SHOP_URL": opened.url, "SHOP_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        opened.orders = [order(1), order(2), order(3)]
        yield opened


@pytest.fixture
def materialize(write_source: Write) -> Generator[Callable[..., Run]]:
    """materialize(source text, partition=, tags=): one run on an instance that lasts for the test."""
    with dg.DagsterInstance.ephemeral() as instance:

        def run(text: str = SOURCE, tags: dict[str, str] | None = None, partition: str | None = None) -> Run:
            job = load(write_source(text)).resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, raise_on_error=False, tags=tags, partition_key=partition)
            return Run(instance, result)

        yield run


def rows(warehouse: Warehouse, query: str) -> Sequence[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(query).fetchall()


def test_a_sync_is_a_materialization_with_rows_schema_cost_and_state(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    run = materialize(tags={"dagster/schedule_name": "shop__hourly"})

    assert run.succeeded
    assert rows(warehouse, "select id, cents from raw_shop.orders order by id") == [(1, 100), (2, 200), (3, 300)]
    (materialization,) = run.materializations
    metadata = materialization.metadata
    plotted = {name: value.value for name, value in metadata.items() if isinstance(value.value, int | float)}
    assert {name: plotted[name] for name in ("rows_extracted", "rows_loaded", "rows_quarantined", "requests")} == {
        "rows_extracted": 3, "rows_loaded": 3, "rows_quarantined": 0, "requests": 2,
    }  # fmt: skip
    assert plotted["dagster/row_count"] == 3
    assert plotted["seconds"] > 0
    assert {"seconds_extract", "seconds_land", "received_bytes", "loaded_bytes", "wait_seconds"} <= plotted.keys()
    assert metadata["dagster/table_name"].value == f"{warehouse.database}.raw_shop.orders"
    columns = {column.name: column for column in metadata["dagster/column_schema"].value.columns}
    assert columns["cents"].type == "bigint"
    assert columns["id"].description == "number of the order"
    assert metadata["status"].value == "succeeded"
    ledger = rows(warehouse, "select trigger, run_id, sync_id::text, status, state_after from ops.syncs")
    assert ledger == [
        ("schedule", run.result.run_id, metadata["sync_id"].value, "succeeded", metadata["state_after"].value)
    ]


def test_every_check_of_a_good_sync_is_green_with_numbers_to_plot(shop: Shop, materialize: Callable[..., Run]) -> None:
    checks = materialize().checks

    assert {name: check.passed for name, check in checks.items()} == {
        "quarantine": True, "reconcile": True, "schema_drift": True, "volume_anomaly": True,
    }  # fmt: skip
    assert checks["volume_anomaly"].metadata["rows"].value == 3
    assert checks["volume_anomaly"].description == "3 rows; learning: 0 of 7 earlier syncs"


def test_a_blocked_value_is_neither_in_the_event_log_nor_on_any_disk(
    shop: Shop, warehouse: Warehouse, server: TestServer, materialize: Callable[..., Run], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Of a sync with records in quarantine, and of one that fails of them."""
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path / "work"))
    secret, limit = f"{uuid4().int % 10**20:020}", "      max_quarantined: {share: 1}\n"
    text = f"{SOURCE}        ssn: {{rule: block}}\n        cents: {{type: bigint}}\n"
    shop.orders = [order(1, ssn=secret), order(2, ssn=secret, cents="many"), order(3, ssn={"a": [secret]})]
    good = materialize(text + limit)
    shop.orders = [order(number, ssn=secret, cents="many") for number in range(4, 40)]
    failed = materialize(text)

    assert (good.succeeded, failed.succeeded) == (True, False)
    assert rows(warehouse, "select count(*) > 1 from ops.quarantine") == [(True,)]
    for run in (good, failed):
        log = [serialize_value(entry) for entry in run.instance.all_logs(run.result.run_id)]
        assert "cents" in str(log)
        assert secret not in str(log)
    for folder in (tmp_path, server.settings.home):
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert [path for path in files if _has(path, secret.encode())] == []


def _has(path: Path, text: bytes) -> bool:
    try:
        return text in path.read_bytes()
    except FileNotFoundError:
        return False  # the server's own files come and go


def test_an_empty_sync_materializes_with_zero_rows(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    assert materialize().succeeded
    shop.orders = []

    run = materialize()

    assert run.succeeded
    (materialization,) = run.materializations
    assert materialization.metadata["status"].value == "succeeded_empty"
    assert isinstance(materialization.metadata["rows_loaded"], dg.IntMetadataValue)
    assert materialization.metadata["rows_loaded"].value == 0
    assert materialization.metadata["dagster/row_count"].value == 3


def test_a_refused_credential_fails_once_and_materializes_nothing(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "expired-token")

    run = materialize()

    assert not run.succeeded
    assert run.materializations == []
    assert run.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) == 0
    failure = run.failure.user_failure_data
    assert failure.metadata["failure_class"].value == "auth"
    assert len(failure.description.splitlines()) <= 6
    assert "expired-token" not in failure.description
    assert rows(warehouse, "select sync_id::text, status, failure_class from ops.syncs") == [
        (failure.metadata["sync_id"].value, "failed", "auth")
    ]


def test_a_rate_limit_is_retried_after_the_time_the_source_asked_for(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.refusals = [Answer(429, {"error": "slow down"}, {"Retry-After": "1"})] * 2

    run = materialize()

    assert run.succeeded
    retries = [
        event.step_retry_data
        for event in run.result.all_events
        if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY
    ]
    assert [retry.seconds_to_wait for retry in retries] == [1.0, 1.0]
    ledger = rows(warehouse, "select status, failure_class from ops.syncs order by started_at")
    assert ledger == [("failed", "rate_limited"), ("failed", "rate_limited"), ("succeeded", None)]


def test_retries_end_with_the_number_the_file_allows(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.refusals = [Answer(429, {"error": "slow down"}, {"Retry-After": "0"})] * 9

    run = materialize(f"{SOURCE}      retries: 1\n")

    assert not run.succeeded
    assert run.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) == 1
    assert run.failure.user_failure_data.metadata["attempts"].value == 2
    assert rows(warehouse, "select count(*) from ops.syncs") == [(2,)]


def test_a_missing_variable_names_itself_and_is_not_retried(
    shop: Shop, materialize: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHOP_TOKEN")

    run = materialize()

    failure = run.failure.user_failure_data
    assert "SHOP_TOKEN is not set" in failure.description
    assert failure.metadata["failure_class"].value == "config"
    assert run.count(dg.DagsterEventType.STEP_UP_FOR_RETRY) == 0


def test_a_blocking_audit_that_fails_is_red_and_keeps_the_last_good_data(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    text = f"{SOURCE}      checks: [{{type: row_rule, column: cents, min: 0}}]\n"
    assert materialize(text).succeeded
    shop.orders.append(order(4, cents=-1))

    run = materialize(text)

    assert not run.succeeded
    assert run.materializations == []
    check = run.checks["row_rule"]
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.ERROR, True)
    assert "1 rows with cents outside min 0" in (check.description or "")
    assert run.failure.user_failure_data.metadata["failure_class"].value == "contract"
    assert rows(warehouse, "select count(*), min(cents) from raw_shop.orders") == [(3, 100)]


def test_a_declared_reconciliation_that_fails_keeps_the_rows_out(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.total, shop.page_size = 4, 10

    run = materialize(f"{SOURCE}      checks: [{{type: reconcile, against: count}}]\n")

    assert run.checks["reconcile"].passed is False
    assert run.materializations == []


@pytest.mark.parametrize(
    ("checks", "severity", "loaded"),
    [("", dg.AssetCheckSeverity.WARN, [1, 2, 5, 6]), ("      checks: [{type: reconcile}]\n", ERROR, [])],
    ids=["undeclared", "declared"],
)
def test_a_dropped_page_turns_the_same_run_red(
    shop: Shop,
    warehouse: Warehouse,
    materialize: Callable[..., Run],
    checks: str,
    severity: dg.AssetCheckSeverity,
    loaded: list[int],
) -> None:
    """With status 200, and the way to the next page in it: nothing but the source's own count tells."""
    shop.orders = [order(number) for number in range(1, 7)]

    def drop_the_second_page(request: int) -> None:
        if request == 2:
            shop.refusals = [Answer(200, {"data": [], "next": "4", "total": 6})]

    shop.on_page = drop_the_second_page

    run = materialize(SOURCE + checks)

    check = run.checks["reconcile"]
    assert (check.passed, check.severity) == (False, severity)
    assert check.description == "the source says 6 rows, 4 were read"
    assert {name: value.value for name, value in check.metadata.items()} == {"source_rows": 6, "rows": 4}
    assert len(run.materializations) == (1 if loaded else 0)
    published = "select count(*) from pg_tables where schemaname = 'raw_shop' and tablename = 'orders'"
    if rows(warehouse, published) == [(1,)]:
        assert [number for (number,) in rows(warehouse, "select id from raw_shop.orders order by id")] == loaded
    status = "succeeded_with_warnings" if loaded else "failed"
    assert rows(warehouse, "select status from ops.syncs") == [(status,)]


def test_a_total_that_is_wrong_only_warns_where_reconciliation_is_not_declared(
    shop: Shop, materialize: Callable[..., Run]
) -> None:
    shop.total, shop.page_size = 4, 10

    run = materialize()

    assert run.succeeded
    check = run.checks["reconcile"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_drift_stays_red_after_the_data_looks_right_again_until_it_is_accepted(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    assert materialize().checks["schema_drift"].passed
    shop.orders.append(order(4, cents="four"))
    drifted = materialize()
    shop.orders[-1] = order(5)
    healed = materialize()

    assert drifted.checks["schema_drift"].passed is False
    assert drifted.checks["quarantine"].passed is False
    assert drifted.checks["schema_drift"].metadata["undecided_changes"].value == 1
    assert "cents" in (drifted.checks["schema_drift"].description or "")
    assert healed.checks["schema_drift"].passed is False
    assert healed.checks["quarantine"].passed is True

    with psycopg.connect(warehouse.admin_dsn) as session:
        session.execute("update ops.schema_versions set decision = 'accepted' where decision = 'pending'")
    assert materialize().checks["schema_drift"].passed is True


def test_each_partition_reads_its_own_window_and_leaves_the_live_position_alone(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.orders = [order(1, day=1), order(2, day=2), order(3, day=2), order(4, day=3)]

    run = materialize(PARTITIONED, partition="2024-01-02")

    assert run.succeeded
    (materialization,) = run.materializations
    assert materialization.partition == "2024-01-02"
    assert materialization.metadata["rows_loaded"].value == 2
    assert materialization.metadata["dagster/partition_row_count"].value == 2
    assert rows(warehouse, "select id from raw_shop.orders order by id") == [(2,), (3,)]
    assert rows(warehouse, "select count(*) from ops.stream_state") == [(0,)]
    assert rows(warehouse, "select window_start::date::text, window_end::date::text from ops.syncs") == [
        ("2024-01-02", "2024-01-03")
    ]


RANGE = {
    "dagster/asset_partition_range_start": "2024-01-01",
    "dagster/asset_partition_range_end": "2024-01-03",
}


def test_a_range_run_gives_every_partition_its_own_numbers(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.orders = [order(1, day=1), order(2, day=2), order(3, day=2)]

    run = materialize(PARTITIONED, tags={**RANGE, "dagster/backfill": "b1"})

    assert run.succeeded
    loaded = {found.partition: found.metadata["rows_loaded"].value for found in run.materializations}
    assert loaded == {"2024-01-01": 1, "2024-01-02": 2, "2024-01-03": 0}
    assert [found.partition for found in run.materializations] == ["2024-01-03", "2024-01-02", "2024-01-01"]
    assert rows(warehouse, "select distinct trigger from ops.syncs") == [("backfill",)]


def test_partitions_that_finished_before_a_failure_are_recorded(
    shop: Shop, warehouse: Warehouse, materialize: Callable[..., Run]
) -> None:
    shop.orders = [order(1, day=1), order(2, day=2), order(3, day=3)]

    def break_the_second_day(request: int) -> None:
        if request == 2:
            shop.refusals = [Answer(401, {"error": "expired"})]

    shop.on_page = break_the_second_day

    run = materialize(PARTITIONED, tags=RANGE)

    assert not run.succeeded
    assert [(found.partition, found.metadata["rows_loaded"].value) for found in run.materializations] == [
        ("2024-01-03", 1)
    ]
