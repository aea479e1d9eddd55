"""What a database says of a read, and what arrived of it: count, sum and keys, in one snapshot or not at all."""

import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import Window
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE, source_spec

CHECKS = [
    {"type": "reconcile"},
    {"type": "reconcile", "name": "amounts", "against": "sum(amount)"},
    {"type": "reconcile", "name": "floats", "against": "sum(weight)"},
    {"type": "reconcile", "name": "keys", "against": "keys"},
]


@pytest.fixture
def at_url() -> Iterator[Any]:
    """at_url(url): the database that the spec's reference means."""
    with pytest.MonkeyPatch.context() as patch:
        yield lambda url: patch.setitem(os.environ, URL_VARIABLE, url)


def run(warehouse: Warehouse, window: Window | None = None, **stream: Any) -> SyncResult:
    spec = source_spec({"checks": CHECKS, **stream})
    return sync(SyncRequest(spec, spec.streams[0], window=window), warehouse.loader_dsn)


def said(result: SyncResult) -> dict[str, bool]:
    return {verdict.name: verdict.passed for verdict in result.verdicts if verdict.name in ("reconcile", *NAMES)}


NAMES = ("amounts", "floats", "keys")
GREEN = dict.fromkeys(("reconcile", *NAMES), True)


def test_postgresql_and_the_warehouse_agree_on_keys_of_many_types(
    source: psycopg.Connection[Any], source_url: str, warehouse: Warehouse, at_url: Any
) -> None:
    at_url(source_url)
    source.execute(
        "create table orders (number bigint, name text, price numeric(12,3), at timestamptz(3), day date, "
        "seen timestamp, token uuid, amount numeric(20,2), weight float8, "
        "primary key (number, name, price, at, day, seen, token))"
    )
    source.execute(
        "insert into orders select g, 'ö' || g, g + 0.500, "
        "timestamptz '2024-03-31 00:30:00.123+01' + g * interval '1 h', date '2024-01-01' + g, "
        "timestamp '2024-01-01' + g * interval '1.5 s', md5(g::text)::uuid, g + 0.01, g / 7.0 "
        "from generate_series(1, 50) g"
    )
    keys = ["number", "name", "price", "at", "day", "seen", "token"]

    whole = run(warehouse, write="merge", primary_key=keys, cursor={"field": "at"})
    window = Window(datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    day = run(warehouse, window, write="merge", primary_key=keys, cursor={"field": "at"})

    assert said(whole) == GREEN
    assert said(day) == GREEN
    assert day.rows.extracted == 24


def test_another_database_is_asked_for_what_it_can_tell(tmp_path: Path, warehouse: Warehouse, at_url: Any) -> None:
    path = tmp_path / "shop.db"
    at_url(f"sqlite:///{path}")
    with sqlite3.connect(path) as shop:
        shop.execute(
            "create table orders (id integer, code varchar(9), amount numeric(9,2), weight real, at timestamp)"
        )
        shop.executemany("insert into orders values (?, ?, ?, ?, ?)", [
            (n, f"ü{n}", n / 10, n / 7, "2024-01-01 00:00:00") for n in range(40)
        ])  # fmt: skip

    assert said(run(warehouse, write="merge", primary_key=["id", "code"])) == GREEN
    by_time = run(warehouse, write="replace", primary_key=["at"], checks=[CHECKS[3]])
    assert [verdict.name for verdict in by_time.verdicts if verdict.name == "keys"] == []
