"""Tables out of PostgreSQL's log: a first read joined to what changes, through the whole lifecycle."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from connectors.contract import ReadContext, StreamState
from connectors.database.postgres import PostgresConnector
from connectors.errors import ConfigError, ContractError, TransientError
from connectors.kinds.database import KIND, DatabaseStreamSpec, slot_name
from connectors.sync import Progress, SyncRequest, SyncResult, statebook, sync
from platform_assets.warehouse import Warehouse
from tests.database.reading import URL_VARIABLE, column_of, source_spec
from tests.database.replicating import SLOT, STREAM, Source, Stream, raw, run, slots
from tests.database.replication_victim import Meanwhile

ROWS = "select id, amount, _deleted from raw_shop.orders order by id"


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    source.execute(
        "create table orders (id bigint primary key, amount numeric(12,2), tags text[], at timestamptz, note text, "
        "data bytea, price money, twice bigint generated always as (id * 2) stored)"
    )
    source.execute("create table others (id int)")
    # the tests' server does not wait for its log, and what is not durable yet is left to the next sync
    source.execute("set synchronous_commit = on")
    source.execute("create publication shop for table orders, others")
    source.execute(
        "insert into orders select g, g + 0.25, array['a,b', null], timestamptz '2024-01-01 00:00+00', '', "
        "'\\x00ff', 2 from generate_series(1, 5) g"
    )
    os.environ[URL_VARIABLE] = source_url
    yield source
    del os.environ[URL_VARIABLE]


def assert_equal_tables(source: Source, warehouse: Warehouse) -> None:
    """What lives in the raw table is what the source has now, value for value."""
    columns = "id, amount::text, to_jsonb(tags), at, note, data, price::numeric"
    expected = source.execute(f"select {columns} from orders order by id".encode()).fetchall()
    assert raw(warehouse, f"select {columns} from raw_shop.orders where not _deleted order by id") == expected


def test_changes_follow_the_first_read_value_for_value(orders: Source, warehouse: Warehouse) -> None:
    first = run(warehouse)
    assert_equal_tables(orders, warehouse)
    orders.execute("insert into orders values (6, 'NaN', '{}', null, E'a\\nb\"c', '', -3.5)")
    orders.execute("update orders set note = 'ü', tags = array['x'] where id = 2")
    orders.execute("delete from orders where id = 3")
    orders.execute("update orders set id = 40 where id = 4")
    orders.execute("insert into others values (1)")

    second = run(warehouse)
    third = run(warehouse)

    assert (first.rows.loaded, second.rows.extracted, second.rows.deleted) == (5, 5, 2)
    assert_equal_tables(orders, warehouse)
    assert raw(warehouse, "select id from raw_shop.orders where _deleted order by id") == [(3,), (4,)]
    # what was deleted keeps its last values
    assert raw(warehouse, "select amount::text from raw_shop.orders where id = 3") == [("3.25",)]
    assert (third.status, third.rows.extracted) == ("succeeded_empty", 0)
    assert "twice" not in {column.name for column in first.columns}


def test_rows_that_change_during_the_first_read_are_neither_lost_nor_doubled(
    orders: Source, warehouse: Warehouse
) -> None:
    """Between the slot and the end of the first read everything may happen at the source."""

    def change() -> None:
        orders.execute("update orders set amount = -1 where id = 1")
        orders.execute("delete from orders where id = 2")
        orders.execute("insert into orders (id, amount) values (7, 7)")

    first = run(warehouse, connector=Meanwhile(KIND.open(source_spec(STREAM)), 1, change))
    assert first.rows.loaded == 5
    assert raw(warehouse, ROWS)[0][1] != -1

    second = run(warehouse)

    assert second.rows.extracted == 3
    assert_equal_tables(orders, warehouse)


def test_what_was_read_and_not_committed_comes_again_and_what_was_committed_does_not(
    orders: Source, warehouse: Warehouse, tmp_path: Path
) -> None:
    run(warehouse)
    orders.execute("insert into orders (id) values (6)")
    connector = KIND.open(source_spec(STREAM))
    state = StreamState(connector=raw(warehouse, STATE)[0][0]["connector"])

    # read to its end, and never committed
    assert len(list(connector.read(source_spec(STREAM).streams[0], state, ReadContext(None, tmp_path)))) == 2
    second = run(warehouse)
    orders.execute("insert into orders (id) values (7)")
    third = run(warehouse)

    assert (second.rows.extracted, third.rows.extracted) == (1, 1)
    assert_equal_tables(orders, warehouse)
    assert confirmed(orders) == lsn_of(second)


STATE = "select state from ops.stream_state where source = 'shop' order by version desc limit 1"


def confirmed(source: Source) -> str:
    row = source.execute("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s", [SLOT])
    return row.fetchall()[0][0]


def lsn_of(result: SyncResult) -> str:
    return result.state_after["connector"]["replication"]["lsn"]


def test_a_truncate_deletes_what_was_there_before_it_and_nothing_after(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    orders.execute("insert into orders (id) values (6)")
    with orders.transaction():
        orders.execute("insert into orders (id) values (8)")
        orders.execute("truncate orders")
        orders.execute("insert into orders (id, amount) values (1, 100)")

    result = run(warehouse)

    assert_equal_tables(orders, warehouse)
    assert [row[0] for row in raw(warehouse, ROWS) if row[2]] == [2, 3, 4, 5, 6, 8]
    assert result.rows.extracted == 3


@pytest.mark.slow
def test_a_table_that_was_truncated_and_stays_empty_is_empty(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse, {**STREAM, "deletes": "hard"})
    orders.execute("truncate orders")

    run(warehouse, {**STREAM, "deletes": "hard"})

    assert raw(warehouse, ROWS) == []


def test_columns_follow_the_table_in_the_middle_of_the_log(orders: Source, warehouse: Warehouse) -> None:
    orders.execute("create domain short as varchar(9)")
    run(warehouse)
    orders.execute("insert into orders (id) values (6)")
    orders.execute("alter table orders add column code short, add column deep int[][], drop column note")
    orders.execute("insert into orders (id, code, deep) values (7, 'new', '{{1},{2}}')")
    orders.execute("alter table orders add column note text")

    result = run(warehouse)

    assert raw(warehouse, "select id, code, deep from raw_shop.orders where id > 5 order by id") == [
        (6, None, None),
        (7, "new", [[1], [2]]),
    ]
    types = {column.name: column.type for column in result.columns}
    assert (types["code"], types["deep"]) == ("character varying(9)", "jsonb")


@pytest.mark.parametrize("identity", ["default", pytest.param("full", marks=pytest.mark.slow)])
def test_a_large_value_that_an_update_left_alone_stays(
    orders: Source, warehouse: Warehouse, identity: LiteralString
) -> None:
    # with it no identity is full
    orders.execute("alter table orders drop column twice")
    orders.execute(sql.SQL("alter table orders replica identity {}").format(sql.SQL(identity)))
    orders.execute("alter table orders alter column note set storage external")
    orders.execute("update orders set note = repeat('long', 5000) where id < 3")
    run(warehouse)
    orders.execute("update orders set amount = 0 where id < 3")
    orders.execute("delete from orders where id = 2")

    run(warehouse)

    assert_equal_tables(orders, warehouse)
    assert raw(warehouse, "select length(note) from raw_shop.orders where id = 1") == [(20000,)]


@pytest.mark.slow
def test_a_large_transaction_is_handed_on_in_pieces_and_sealed_at_its_end(
    orders: Source, warehouse: Warehouse, tmp_path: Path
) -> None:
    run(warehouse)
    orders.execute("insert into orders (id, note) select g, repeat('x', 1000) from generate_series(10, 20000) g")
    spec = source_spec(STREAM)
    state = StreamState(connector=raw(warehouse, STATE)[0][0]["connector"])

    with KIND.open(spec) as connector:
        messages = list(connector.read(spec.streams[0], state, ReadContext(None, tmp_path)))

    kinds = [type(message).__name__ for message in messages]
    assert kinds == ["CopyFile"] * 3 + ["Checkpoint"] * 2
    run(warehouse)
    assert_equal_tables(orders, warehouse)


def test_a_read_ends_at_the_log_as_it_was_when_it_began(orders: Source, warehouse: Warehouse, tmp_path: Path) -> None:
    run(warehouse)
    orders.execute("insert into orders (id) values (6)")
    spec = source_spec(STREAM)
    state = StreamState(connector=raw(warehouse, STATE)[0][0]["connector"])

    def on_log(line: str) -> None:
        if "reading from" in line:
            orders.execute("insert into orders (id) values (7)")

    with KIND.open(spec) as connector:
        messages = list(connector.read(spec.streams[0], state, ReadContext(None, tmp_path, log=on_log)))

    assert column_of(messages, "id") == ["6"]


def test_a_failed_first_read_leaves_no_slot_behind(orders: Source, warehouse: Warehouse) -> None:
    with pytest.raises(ContractError):
        run(warehouse, {**STREAM, "max_quarantined": {"rows": 0}, "columns": {"note": {"accepted_values": ["other"]}}})

    assert slots(orders) == []


@pytest.mark.slow
def test_a_slot_without_a_position_is_made_anew_and_old_rows_are_gone(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    with psycopg.connect(warehouse.loader_dsn) as session:
        statebook.apply(session, statebook.plan_reset(session, "shop", "orders"))
    orders.execute("delete from orders where id = 5")

    result = run(warehouse)

    assert (result.rows.extracted, result.rows.deleted) == (4, 1)
    assert_equal_tables(orders, warehouse)
    assert slots(orders) == [SLOT]


def gone(source: Source) -> None:
    source.execute("select pg_drop_replication_slot(%s)", [SLOT])


def moved(source: Source) -> None:
    source.execute("insert into others values (2)")
    source.execute("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", [SLOT])


@pytest.mark.parametrize(
    ("fault", "message"),
    [(gone, "is gone, and with it what changed since"), (moved, "was read by somebody else up to")],
)
def test_a_slot_that_cannot_give_what_is_missing_says_so(
    orders: Source, warehouse: Warehouse, fault: Callable[[Source], None], message: str
) -> None:
    run(warehouse)
    fault(orders)

    with pytest.raises(ConfigError, match=message) as caught:
        run(warehouse)

    assert "headwater state reset shop.orders" in str(caught.value)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("drop publication shop", "create publication shop for table"),
        pytest.param(
            "alter publication shop drop table orders", "alter publication shop add table", marks=pytest.mark.slow
        ),
        pytest.param(
            "alter publication shop set (publish = 'insert')", "leaves kinds of changes out", marks=pytest.mark.slow
        ),
        pytest.param(
            "alter publication shop set table orders (id, amount)",
            "leaves out columns at, data, note, price, tags",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "alter publication shop set table orders where (id > 1)",
            "leaves out rows by a condition",
            marks=pytest.mark.slow,
        ),
        ("alter table orders replica identity nothing", "would name nothing, without id of primary_key"),
    ],
)
def test_a_source_that_cannot_tell_every_change_is_refused_before_a_slot_is_made(
    orders: Source, warehouse: Warehouse, statement: str, message: str
) -> None:
    orders.execute(statement.encode())

    with pytest.raises(ConfigError, match=message):
        run(warehouse)

    assert slots(orders) == []


def test_the_slots_of_a_source_are_shown_and_dropped(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    connector = KIND.open(source_spec(STREAM))
    assert isinstance(connector, PostgresConnector)

    assert f"slot {SLOT}: idle, reserved, holds " in connector.check()
    with pytest.raises(ConfigError, match="no slot 'headwater_shop_order'"):
        connector.drop_slot("headwater_shop_order")
    without = KIND.open(source_spec({}))
    assert isinstance(without, PostgresConnector)
    assert [(slot.name, stream) for slot, stream in without.slots()] == [(SLOT, None)]
    without.drop_slot(SLOT)
    assert slots(orders) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"write": "append"}, "use write: merge or scd2"),
        ({"cursor": {"field": "at"}}, "leave out cursor"),
        ({"keyset": {"rows": 9}}, "leave out keyset"),
    ],
)
def test_what_a_log_cannot_do_is_refused(change: Stream, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        source_spec({**STREAM, **change})


def test_a_slots_name_fits_the_source() -> None:
    streams = [DatabaseStreamSpec.model_validate({"name": name * 49, **STREAM}) for name in ("a", "b")]

    names = {slot_name("s" * 40, stream) for stream in streams}

    assert len(names) == 2
    assert {len(name) for name in names} == {63}


def test_a_connection_that_is_lost_midway_is_transient_and_nothing_is_missing(
    orders: Source, warehouse: Warehouse
) -> None:
    run(warehouse)
    orders.execute("insert into orders (id) values (6)")
    spec = source_spec(STREAM)

    def on_log(line: str) -> None:
        if "reading from" in line:
            orders.execute(
                "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
                "where backend_type = 'walsender' and datname = current_database()"
            )

    with pytest.raises(TransientError, match="while reading orders after 0 rows"):
        sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn, Progress(on_log=on_log))

    assert run(warehouse).rows.extracted == 1
    assert_equal_tables(orders, warehouse)
