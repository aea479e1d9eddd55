"""One fault at a time, with a real API, the engine, PostgreSQL and Dagster: exactly the check named for it is red."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

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
        - {type: reference, column: customer, to: customers.id}
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
        self.number = 0

    def sell(self, at: datetime, count: int = A_BATCH, **fields: Any) -> None:
        for _ in range(count):
            self.number += 1
            order = {"id": self.number, "at": f"{at:%Y-%m-%dT%H:%M:%SZ}", "cents": 100, "customer": 7, **fields}
            self.shop.orders.append(order)


@pytest.fixture
def run(write_source: Write, shop: Shop, warehouse: Warehouse) -> Callable[..., tuple[bool, set[str]]]:
    """run(text): one run; whether it succeeded, and its red checks."""
    sql(warehouse.loader_dsn, "create schema raw_shop")
    sql(warehouse.loader_dsn, "create table raw_shop.customers (id bigint, _deleted boolean)")
    sql(warehouse.loader_dsn, "insert into raw_shop.customers values (7, false), (8, true)")

    def materialize(text: str = TEXT) -> tuple[bool, set[str]]:
        with dg.DagsterInstance.ephemeral() as instance:
            job = load(write_source(text)).resolve_implicit_global_asset_job_def()
            result = job.execute_in_process(instance=instance, raise_on_error=False)
        return result.success, {check.check_name for check in result.get_asset_check_evaluations() if not check.passed}

    return materialize


def test_each_fault_turns_its_own_check_red_and_no_other(
    run: Callable[..., tuple[bool, set[str]]], shop: Shop, warehouse: Warehouse
) -> None:
    book = Book(shop)
    for batch in range(4):
        book.sell(book.now - timedelta(minutes=100 - batch))
        run()
    newest = book.now - timedelta(minutes=97)

    def later() -> datetime:
        nonlocal newest
        newest = max(newest + timedelta(seconds=1), book.now)
        return newest

    # the source goes on sending orders, but none is newer than the last
    book.sell(newest)
    assert run() == (True, {"freshness_data"})

    book.sell(later())
    assert run() == (True, set())

    book.sell(later(), A_BATCH // 2)
    assert run() == (True, {"volume_anomaly"})

    book.sell(later())
    shop.orders.append(dict(shop.orders[-1]))
    assert run() == (True, {"duplicate_keys"})
    shop.orders.pop()

    book.sell(later(), A_BATCH - 10)
    book.sell(newest - timedelta(minutes=30), 10)
    assert run() == (True, {"late_data"})

    book.sell(later(), A_BATCH - 1)
    book.sell(newest, 1, customer=8)
    assert run() == (True, {"reference"})
    shop.orders[-1]["customer"] = 7

    book.sell(later(), A_BATCH - 1)
    book.sell(newest, 1, cents=-1)
    assert run() == (True, {"row_rule"})
    shop.orders[-1]["cents"] = 100

    book.sell(later(), A_BATCH - 1)
    book.sell(newest, 1, id=None, cents=0)
    assert run() == (True, {"quarantine"})
    shop.orders.pop()

    book.sell(later())
    sql(warehouse.admin_dsn, "update ops.syncs set started_at = finished_at - interval '1 microsecond'")
    assert run(TEXT.replace("slack: PT10M", "slack: PT0S")) == (True, {"slow_run"})

    book.sell(later())
    shop.lost_page = 3
    before = sql(warehouse.admin_dsn, "select count(*) from raw_shop.orders")
    assert run() == (False, {"reconcile", "amounts"})
    assert sql(warehouse.admin_dsn, "select count(*) from raw_shop.orders") == before
    shop.lost_page = None

    shop.refusals = [Answer(500, {"error": "broken"})]
    assert run() == (False, {"error_rate"})

    book.sell(later(), 0)
    assert run()[0]
    assert run()[0]
    book.sell(later())
    assert run() == (True, set())
