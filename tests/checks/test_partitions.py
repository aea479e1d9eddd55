"""Checks of a partitioned stream: one window that failed is not forgotten over the others, in a run or after it."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import dagster as dg
import pytest

from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write, load
from tests.ingest.shop import SOURCE, Answer, Shop, order
from tests.support.sql import run as sql

KEY = dg.AssetKey(["shop", "orders"])
TEXT = f"{SOURCE}      partitions: {{by: day, start: 2024-01-01}}\n      retries: 0\n"
RECONCILED = f"{TEXT}      checks: [{{type: reconcile}}]\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as the instance's event log has it. passed, said: of each check that was evaluated."""

    succeeded: bool
    materialized: list[str | None]
    passed: Mapping[str, bool]
    said: Mapping[str, str]
    failure: str

    @property
    def red(self) -> set[str]:
        return {name for name, passed in self.passed.items() if not passed}


@pytest.fixture
def run(write_source: Write, shop: Shop) -> Generator[Callable[..., Seen]]:
    """run(text, "2024-01-02", ...): a run over these partitions; its instance lasts for the test."""
    with dg.DagsterInstance.ephemeral() as instance:

        def materialize(text: str, first: str, last: str = "") -> Seen:
            job = load(write_source(text)).resolve_implicit_global_asset_job_def()
            tags = {
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last or first,
            }
            result = job.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
            events = [entry.dagster_event for entry in instance.all_logs(result.run_id) if entry.dagster_event]
            checks = [
                event.asset_check_evaluation_data
                for event in events
                if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
            ]
            names = [check.check_name for check in checks]
            assert len(names) == len(set(names)), names
            return Seen(
                result.success,
                [
                    event.step_materialization_data.materialization.partition
                    for event in events
                    if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
                ],
                {check.check_name: check.passed for check in checks},
                {check.check_name: check.description or "" for check in checks},
                "".join(str(event.event_specific_data) for event in events if event.is_step_failure),
            )

        yield materialize


def test_a_window_that_failed_keeps_its_blocking_check_red_until_it_is_read_well(
    run: Callable[..., Seen], shop: Shop, warehouse: Warehouse
) -> None:
    shop.orders = [order(number, day=number) for number in range(1, 5)]
    shop.totals = {"2024-01-02": 9}
    failed = run(RECONCILED, "2024-01-02")
    assert (failed.succeeded, failed.red) == (False, {"reconcile"})
    assert failed.said["reconcile"] == "the source says 9 rows, 1 were read"

    other = run(RECONCILED, "2024-01-03")
    # as of every blocking check that fails, the run does too; what it read is there
    assert (other.succeeded, other.materialized, other.red) == (False, ["2024-01-03"], {"reconcile"})
    assert other.said["reconcile"] == "partition 2024-01-02: the source says 9 rows, 1 were read"

    shop.totals["2024-01-01"] = 7
    assert run(RECONCILED, "2024-01-01").said["reconcile"] == (
        "partition 2024-01-01: the source says 7 rows, 1 were read; also 2024-01-02"
    )
    # a stream that begins later has these windows no more; a check that is not declared to block asks no others
    assert run(RECONCILED.replace("2024-01-01}", "2024-01-03}"), "2024-01-03").red == set()
    assert run(TEXT, "2024-01-03").red == set()

    # a sync that broke off before any check says nothing, and one that was stopped on purpose neither
    shop.refusals = [Answer(401, {"error": "expired"})]
    assert run(RECONCILED, "2024-01-02").succeeded is False
    sql(warehouse.admin_dsn, "update ops.syncs set status = 'cancelled' where failure_class = 'auth'")
    assert run(RECONCILED, "2024-01-03").red == {"reconcile"}

    shop.totals = {}
    assert run(RECONCILED, "2024-01-02").said["reconcile"].startswith("partition 2024-01-01: ")
    mended = run(RECONCILED, "2024-01-01")
    assert (mended.succeeded, mended.red) == (True, set())


def test_a_window_that_was_read_while_its_check_only_warned_holds_nothing(run: Callable[..., Seen], shop: Shop) -> None:
    """So a person lets one go that cannot be mended: published as it is, with a warning."""
    shop.orders = [order(1, day=1), order(2, day=2)]
    shop.totals = {"2024-01-01": 9}
    assert run(RECONCILED, "2024-01-01").red == {"reconcile"}
    let_go = run(RECONCILED.replace("reconcile}", "reconcile, severity: warn}"), "2024-01-01")
    assert (let_go.materialized, let_go.red) == (["2024-01-01"], {"reconcile"})

    assert run(RECONCILED, "2024-01-02").red == set()


def test_a_blocking_quarantine_stays_red_while_a_window_has_records_in_it(
    run: Callable[..., Seen], shop: Shop, warehouse: Warehouse
) -> None:
    text = f"{SOURCE}        cents: {{type: bigint}}\n{TEXT.removeprefix(SOURCE)}"
    text += "      checks: [{type: quarantine, blocking: true, severity: error}]\n"
    shop.orders = [order(1, day=1, cents="many"), order(2, day=1), order(3, day=2)]
    assert run(text, "2024-01-01").red >= {"quarantine"}

    other = run(text, "2024-01-02")
    assert other.said["quarantine"].startswith("partition 2024-01-01: 1 of 2 records are in quarantine")

    sql(warehouse.admin_dsn, "update ops.quarantine set status = 'discarded'")
    assert run(text, "2024-01-02").passed["quarantine"]


def test_a_failed_window_hides_no_verdict_of_the_others(run: Callable[..., Seen], shop: Shop) -> None:
    text = f"{SOURCE}        cents: {{type: bigint}}\n{RECONCILED.removeprefix(SOURCE)}"
    text = text.replace("reconcile}", "reconcile}, {type: schema_drift, severity: error, blocking: true}")
    shop.orders = [order(number, day=day) for number, day in enumerate((1, 2, 3, 3, 4, 5), start=1)]
    shop.totals = {"2024-01-02": 9, "2024-01-04": 8}
    shop.orders[2]["cents"] = "many"

    seen = run(text, "2024-01-01", "2024-01-05")

    assert seen.succeeded is False
    assert seen.materialized == ["2024-01-05", "2024-01-03", "2024-01-01"]
    assert seen.red == {"reconcile", "quarantine", "schema_drift"}
    assert seen.passed["volume_anomaly"]
    assert seen.said["reconcile"] == ("partition 2024-01-04: the source says 8 rows, 1 were read; also 2024-01-02")
    assert seen.said["quarantine"].startswith("partition 2024-01-03: 1 of 2 records")
    assert "cents retyped" in seen.said["schema_drift"]
    assert "1 more of its windows failed: 2024-01-02" in seen.failure


@pytest.mark.parametrize("status", [401, 503])
def test_windows_that_were_done_before_the_source_refused_are_judged(
    run: Callable[..., Seen], shop: Shop, status: int
) -> None:
    shop.orders = [order(number, day=number) for number in range(1, 4)]

    def expire(request: int) -> None:
        if request == 2:
            shop.refusals = [Answer(status, {"error": "not now"})]

    shop.on_page = expire

    seen = run(RECONCILED, "2024-01-01", "2024-01-03")

    assert (seen.succeeded, seen.materialized) == (False, ["2024-01-03"])
    assert (seen.red, seen.passed["reconcile"], seen.passed["schema_drift"]) == (set(), True, True)
