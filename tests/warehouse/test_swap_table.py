"""A raw table is replaced under its readers: they see the old rows, then the new ones."""

import threading
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg import errors

from platform_assets.warehouse import Warehouse
from tests.support.sql import run

SWAP = "select ops.swap_table('raw_shop', 'orders', 'orders_next')"


def load(session: "psycopg.Connection[Any]", generation: int, columns: str = "id int, generation int") -> None:
    session.execute(f"create table raw_shop.orders_next ({columns})".encode())
    session.execute(
        "insert into raw_shop.orders_next (id, generation) select i, %s from generate_series(1, 500) i", [generation]
    )


@pytest.fixture
def shop(warehouse: Warehouse) -> Warehouse:
    """raw_shop.orders of generation 0, read by the transformer's staging.orders, and that by marts.totals."""
    run(
        warehouse.loader_dsn,
        "create schema raw_shop",
        "create table raw_shop.orders as select i as id, 0 as generation from generate_series(1, 500) i",
    )
    run(
        warehouse.transformer_dsn,
        "create view staging.orders with (security_barrier=true) as select id, generation from raw_shop.orders",
        "create view marts.totals as select count(*) as orders, max(generation) as generation from staging.orders",
    )
    return warehouse


def swap(warehouse: Warehouse, generation: int = 1, columns: str = "id int, generation int") -> None:
    with psycopg.connect(warehouse.loader_dsn) as session:
        load(session, generation, columns)
        session.execute(SWAP.encode())


def test_a_polling_reader_sees_every_generation_whole_and_never_an_error(shop: Warehouse) -> None:
    seen: list[list[tuple[int, int]]] = [[], []]
    faults: list[Exception] = []
    done = threading.Event()

    def poll(dsn: str, statement: str, into: list[tuple[int, int]]) -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as session:
                while not done.is_set():
                    into.append(session.execute(statement.encode()).fetchall()[0])
        except Exception as error:  # noqa: BLE001  the test shows whatever a reader met
            faults.append(error)

    readers = [
        threading.Thread(target=poll, args=(shop.reader_dsn, "select orders, generation from marts.totals", seen[0])),
        threading.Thread(
            target=poll,
            args=(shop.transformer_dsn, "select count(*), max(generation) from raw_shop.orders", seen[1]),
        ),
    ]
    for reader in readers:
        reader.start()
    for generation in range(1, 21):
        swap(shop, generation)
    done.set()
    for reader in readers:
        reader.join()

    assert faults == []
    for answers in seen:
        assert {orders for orders, _ in answers} == {500}
        generations = [generation for _, generation in answers]
        assert generations == sorted(generations)
        assert len(set(generations)) > 1
    assert run(shop.reader_dsn, "select generation from marts.totals") == [(20,)]


def test_views_keep_owner_options_and_privileges(shop: Warehouse) -> None:
    facts = """select relowner::regrole::text, reloptions, relacl::text from pg_class
        where oid = 'staging.orders'::regclass"""
    before = run(shop.admin_dsn, facts)
    swap(shop)
    assert run(shop.admin_dsn, facts) == before
    assert before[0][0] == "headwater_transformer"
    assert run(shop.loader_dsn, "select relname from pg_class where relnamespace = 'raw_shop'::regnamespace") == [
        ("orders",)
    ]


def test_a_view_gains_nothing_from_a_new_column_and_the_table_has_it(shop: Warehouse) -> None:
    swap(shop, columns="id int, generation int, note text")
    assert run(shop.transformer_dsn, "select note from raw_shop.orders limit 1") == [(None,)]
    assert run(shop.reader_dsn, "select generation from marts.totals") == [(1,)]


def test_grants_on_the_old_table_are_on_the_new_one(shop: Warehouse) -> None:
    run(shop.loader_dsn, "grant usage on schema raw_shop to headwater_reader")
    run(shop.loader_dsn, "grant select on raw_shop.orders to headwater_reader")
    swap(shop)
    assert run(shop.reader_dsn, "select max(generation) from raw_shop.orders") == [(1,)]


@pytest.mark.parametrize(
    ("role", "obstacle", "columns", "message"),
    [
        ("transformer", "select 1", "id int, generation text", "staging.orders does not fit the new raw_shop.orders"),
        (
            "transformer",
            "create materialized view marts.copied as select * from raw_shop.orders",
            "id int, generation int",
            "is read by marts.copied, which is not a plain view",
        ),
        (
            "loader",
            "create function raw_shop.f(raw_shop.orders) returns int language sql as 'select 1'",
            "id int, generation int",
            "function raw_shop.f(raw_shop.orders) depends on type raw_shop.orders",
        ),
        (
            "admin",
            "create publication p for table raw_shop.orders",
            "id int, generation int",
            "carries publication p",
        ),
    ],
)
def test_an_obstacle_is_named_and_the_old_table_stays(
    shop: Warehouse, role: str, obstacle: str, columns: str, message: str
) -> None:
    run({"admin": shop.admin_dsn, "loader": shop.loader_dsn, "transformer": shop.transformer_dsn}[role], obstacle)
    with pytest.raises(psycopg.Error, match="swap_table") as refused:
        swap(shop, columns=columns)
    assert message in str(refused.value)
    assert run(shop.reader_dsn, "select generation from marts.totals") == [(0,)]
    assert run(shop.admin_dsn, "select to_regclass('raw_shop.orders_next')::text") == [(None,)]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["marts", "totals", "orders_next"], errors.InsufficientPrivilege),
        (["ops", "syncs", "leases"], errors.InsufficientPrivilege),
        (["raw_shop", "orders", "missing"], errors.WrongObjectType),
        (["raw_shop", "orders", "orders"], errors.InvalidParameterValue),
        (["raw_shop", "orders; drop table raw_shop.orders", "orders"], errors.WrongObjectType),
        (["raw_shop.x", "orders", "orders"], errors.InsufficientPrivilege),
    ],
)
def test_only_raw_tables_of_the_loader_are_swapped(
    shop: Warehouse, arguments: Sequence[str], error: type[psycopg.Error]
) -> None:
    with psycopg.connect(shop.loader_dsn) as session, pytest.raises(error):
        session.execute("select ops.swap_table(%s, %s, %s)", arguments)


def test_a_table_of_another_role_is_not_swapped(shop: Warehouse) -> None:
    run(shop.loader_dsn, "create table raw_shop.orders_next (id int)")
    run(shop.admin_dsn, "alter table raw_shop.orders_next owner to headwater_admin")
    with pytest.raises(errors.WrongObjectType, match="not an ordinary table of headwater_loader"):
        run(shop.loader_dsn, SWAP)


@pytest.mark.parametrize("role", ["transformer", "reader"])
def test_no_other_role_may_swap(shop: Warehouse, role: str) -> None:
    dsn = {"transformer": shop.transformer_dsn, "reader": shop.reader_dsn}[role]
    with pytest.raises(errors.InsufficientPrivilege, match="permission denied for function swap_table"):
        run(dsn, SWAP)


def test_a_long_reader_delays_the_swap_and_is_not_ended_by_it(shop: Warehouse) -> None:
    with psycopg.connect(shop.reader_dsn) as reader:
        reader.execute("select * from staging.orders")
        swapper = threading.Thread(target=swap, args=(shop,))
        swapper.start()
        with psycopg.connect(shop.admin_dsn, autocommit=True) as watcher:
            waiting = False
            while not waiting:
                row = watcher.execute(
                    "select exists (select from pg_stat_activity where query like %s and wait_event_type = 'Lock')",
                    ["select ops.swap_table('raw_shop'%"],
                ).fetchone()
                waiting = bool(row and row[0])
        assert reader.execute("select max(generation) from staging.orders").fetchone() == (0,)
        reader.commit()
        swapper.join()
    assert run(shop.reader_dsn, "select generation from marts.totals") == [(1,)]
