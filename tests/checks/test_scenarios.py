"""One fault at a time, with a real API, the engine, PostgreSQL and Dagster: exactly the check named for it is red."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import yaml

from connectors.specs import parse_source
from connectors.sync import SyncRequest, sync
from platform_assets.checks import refuse_wrong_checks
from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write, load
from tests.ingest.shop import SOURCE, Answer, Shop
from tests.support.sql import run as sql

CHECKS = """\
      sums: {cents: sums.cents}
      freshness: {fail_after: PT1H}
      retries: 0
      checks:
        - {type: reconcile}
        - {type: reconcile, name: amounts, against: sum(cents), severity: warn}
        - {type: row_rule, column: cents, min: 0, severity: warn}
        - {type: duplicate_keys}
        - {type: late_data}
        - {type: reference, column: customer, to: crm.customers.id}
        - {type: volume_anomaly, minimum: 3}
        - {type: slow_run, minimum: 3, slack: PT10M}
        - {type: error_rate, max_share: 0.5, last: 2, minimum: 2}
"""
TEXT = SOURCE.replace("cursor: {field: at}", "cursor: {field: at, lag: PT2H}").replace("rows: 2", "rows: 1000") + CHECKS
A_BATCH = 40


class Book:
    """What the shop gets to sell: each batch has new ids and a later time."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.now = datetime.now(UTC)
        self.newest = self.now
        self.number = 0

    def later(self) -> "Book":
        self.newest = max(self.newest + timedelta(seconds=1), self.now)
        return self

    def sell(self, count: int = A_BATCH, at: datetime | None = None, **fields: Any) -> None:
        for _ in range(count):
            self.number += 1
            when = f"{at or self.newest:%Y-%m-%dT%H:%M:%SZ}"
            self.shop.orders.append({"id": self.number, "at": when, "cents": 100, "customer": 7, **fields})


@pytest.fixture
def run(write_source: Write, shop: Shop, warehouse: Warehouse) -> Callable[..., tuple[bool, set[str]]]:
    """run(text): one run; whether it succeeded, and its red checks."""
    sql(warehouse.loader_dsn, "create schema raw_crm")
    sql(warehouse.loader_dsn, "create table raw_crm.customers (id bigint, _deleted boolean)")
    sql(warehouse.loader_dsn, "insert into raw_crm.customers values (7, false), (8, true)")

    def materialize(text: str = TEXT) -> tuple[bool, set[str]]:
        with dg.DagsterInstance.ephemeral() as instance:
            job = load(write_source(text)).resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, raise_on_error=False)
        return result.success, {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}

    return materialize


def sync_alone(warehouse: Warehouse) -> None:
    """What a run does, without Dagster around it."""
    source = parse_source(yaml.safe_load(TEXT)["attributes"], "shop/defs.yaml")
    refuse_wrong_checks(source, "shop/defs.yaml")
    sync(SyncRequest(source, source.streams[0]), warehouse.loader_dsn)


Run = Callable[..., tuple[bool, set[str]]]


def with_history(shop: Shop, warehouse: Warehouse) -> Book:
    """Four good syncs of orders that are one and a half hours old by now."""
    book = Book(shop)
    for batch in range(4):
        book.newest = book.now - timedelta(minutes=100 - batch)
        book.sell()
        sync_alone(warehouse)
    return book


def test_a_stalled_cursor_half_a_volume_a_doubled_key_and_a_lost_page_turn_their_own_check_red(
    run: Run, shop: Shop, warehouse: Warehouse
) -> None:
    book = with_history(shop, warehouse)

    # the source goes on sending orders, but none is newer than the last
    book.sell()
    assert run() == (True, {"freshness_data"})

    book.later().sell(A_BATCH // 2)
    assert run() == (True, {"volume_anomaly"})

    book.later().sell()
    shop.orders.append(dict(shop.orders[-1]))
    assert run() == (True, {"duplicate_keys"})
    shop.orders.pop()

    book.later().sell()
    shop.lost_page = 3
    before = sql(warehouse.admin_dsn, "select count(*) from raw_shop.orders")
    assert run() == (False, {"reconcile", "amounts"})
    assert sql(warehouse.admin_dsn, "select count(*) from raw_shop.orders") == before

    shop.lost_page = None
    assert run() == (True, set())


@pytest.mark.slow
def test_every_other_fault_turns_its_own_check_red(run: Run, shop: Shop, warehouse: Warehouse) -> None:
    book = with_history(shop, warehouse)
    book.later().sell()
    sync_alone(warehouse)

    book.later().sell(A_BATCH - 10)
    book.sell(10, at=book.newest - timedelta(minutes=30))
    assert run() == (True, {"late_data"})

    book.later().sell(A_BATCH - 1)
    book.sell(1, customer=8)
    assert run() == (True, {"reference"})
    shop.orders[-1]["customer"] = 7

    book.later().sell(A_BATCH - 1)
    book.sell(1, cents=-1)
    assert run() == (True, {"row_rule"})
    shop.orders[-1]["cents"] = 100

    book.later().sell(A_BATCH - 1)
    book.sell(1, id=None, cents=0)
    assert run() == (True, {"quarantine"})
    shop.orders.pop()

    book.later().sell()
    sql(warehouse.admin_dsn, "update ops.syncs set started_at = finished_at - interval '1 microsecond'")
    assert run(TEXT.replace("slack: PT10M", "slack: PT0S")) == (True, {"slow_run"})

    shop.refusals = [Answer(500, {"error": "broken"})]
    assert run()[0] is False
    shop.refusals = [Answer(500, {"error": "broken"})]
    assert run() == (False, {"error_rate"})

    sync_alone(warehouse)
    sync_alone(warehouse)
    book.later().sell()
    assert run() == (True, set())
