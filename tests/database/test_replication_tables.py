"""What may happen to a replicated table at its source: after the next sync the raw table is what the source has."""

from collections.abc import Iterator
from typing import Any

import pytest

from connectors.errors import ConfigError, ContractError, SourceError, TransientError
from connectors.sync import Progress
from platform_assets.warehouse import Warehouse
from tests.database.replicating import (
    SLOT,
    STREAM,
    WRITES,
    Source,
    assert_equal,
    assert_whole,
    forgotten,
    named,
    raw,
    run,
    slots,
)


@pytest.fixture
def source(source: Source, source_url: str) -> Iterator[Source]:
    # what is not durable yet is left to the next sync
    source.execute("set synchronous_commit = on")
    with named(source_url):
        yield source


@pytest.fixture
def orders(source: Source) -> Source:
    source.execute("create table orders (id int primary key, amount numeric(12,2), note varchar(9), code text)")
    source.execute("create publication shop for table orders")
    source.execute("insert into orders select g, g + 0.25, 'note ' || g, 'c' from generate_series(1, 5) g")
    return source


ALTERED: dict[str, tuple[str, ...]] = {
    "a default of its own": ("alter table orders add column state text not null default 'open'",),
    "a default that is computed": ("alter table orders add column at timestamptz default clock_timestamp()",),
    "another name": ("alter table orders rename column note to remark",),
    "names that are swapped": (
        "alter table orders rename column note to other",
        "alter table orders rename column code to note",
        "alter table orders rename column other to code",
    ),
    "dropped and added again": ("alter table orders drop column note", "alter table orders add column note varchar(9)"),
    "another type": ("alter table orders alter column amount type numeric(14,3) using amount * 2",),
    "other values in place": ("alter table orders alter column amount type numeric(12,2) using amount * 2",),
    "another table": (
        "alter table orders rename to older",
        "create table orders (id int primary key, amount numeric(12,2), note varchar(9), code text)",
        "insert into orders values (3, 3, 'new', 'x')",
        "alter publication shop add table orders",
    ),
    "published again": (
        "alter publication shop drop table orders",
        "insert into orders values (8, 8, 'unseen', 'x')",
        "delete from orders where id = 2",
        "alter publication shop add table orders",
    ),
    "another publication": (
        "drop publication shop",
        "update orders set note = 'unseen' where id = 2",
        "delete from orders where id = 3",
        "create publication shop for table orders",
    ),
    "fewer kinds for a while": (
        "alter publication shop set (publish = 'insert')",
        "delete from orders where id = 3",
        "alter publication shop set (publish = 'insert, update, delete, truncate')",
    ),
}
FAST = ("another name", "another publication")


@pytest.mark.parametrize("altered", [a if a in FAST else pytest.param(a, marks=pytest.mark.slow) for a in ALTERED])
def test_what_the_log_does_not_tell_is_read_from_the_table(orders: Source, warehouse: Warehouse, altered: str) -> None:
    stream = STREAM | {"columns": {"amount": {"type": "decimal"}}}
    run(warehouse, stream)
    orders.execute("insert into orders (id, amount) values (6, 6)")
    for statement in ALTERED[altered]:
        orders.execute(statement.encode())
    orders.execute("insert into orders (id, amount) values (7, 7)")
    orders.execute("delete from orders where id = 1")

    run(warehouse, stream)

    assert_equal(orders, warehouse)
    orders.execute("update orders set amount = 0 where id = 7")
    assert run(warehouse, stream).rows.extracted == 1
    assert_equal(orders, warehouse)
    assert slots(orders) == [SLOT]


@pytest.mark.parametrize(
    ("line", "before"), [("begins at", 0), pytest.param("reading all rows", 1, marks=pytest.mark.slow)]
)
def test_a_table_that_is_rewritten_behind_its_snapshot_is_not_taken_for_an_empty_one(
    orders: Source, warehouse: Warehouse, line: str, before: int
) -> None:
    if before:
        run(warehouse)
        orders.execute("alter table orders rename column note to remark")
    rewritten: list[str] = []

    def on_log(said: str) -> None:
        if line in said and not rewritten:
            rewritten.append(said)
            orders.execute("alter table orders alter column amount type numeric(13,2)")
            orders.execute("alter table orders alter column amount type numeric(12,2) using amount * 2")

    with pytest.raises(TransientError, match="altered while a snapshot was taken"):
        run(warehouse, progress=Progress(on_log=on_log))

    assert rewritten
    assert slots(orders) == [SLOT] * before
    run(warehouse)
    assert_whole(orders, warehouse)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
def test_a_table_that_is_read_again_is_whole_whatever_the_disposition(
    orders: Source, warehouse: Warehouse, write: str
) -> None:
    run(warehouse, WRITES[write])
    orders.execute("update orders set amount = 0 where id = 2")
    orders.execute("delete from orders where id = 1")
    orders.execute("alter table orders add column state text default 'open'")

    run(warehouse, WRITES[write])

    assert_whole(orders, warehouse, write)


def test_what_the_log_does_tell_is_not_read_from_the_table(orders: Source, warehouse: Warehouse) -> None:
    stream = STREAM | {"columns": {"note": {"type": "text"}}}
    run(warehouse, stream)
    orders.execute("alter table orders alter column note type varchar(20)")
    with orders.transaction():
        orders.execute("insert into orders values (6, 6, 'before', 'x')")
        orders.execute("alter table orders add column size int, drop column code")
        orders.execute("insert into orders values (7, 7, 'a longer note', 9)")
    orders.execute("create table others (id int)")
    orders.execute("alter publication shop add table others")

    assert run(warehouse, stream).rows.extracted == 2
    assert_equal(orders, warehouse)
    # nor is it later
    orders.execute("vacuum full orders")
    assert run(warehouse, stream).rows.extracted == 0


@pytest.mark.slow
def test_a_column_that_grew_keeps_the_rows_that_fit_and_their_deletions(orders: Source, warehouse: Warehouse) -> None:
    """The raw column stays as it was until somebody decides; only what has no room waits in quarantine."""
    run(warehouse)
    orders.execute("alter table orders alter column note type varchar(20)")
    orders.execute("insert into orders values (6, 6, 'fits', 'x'), (7, 7, 'a longer note', 'x')")
    orders.execute("delete from orders where id = 1")

    found = run(warehouse)

    assert (found.rows.loaded, found.rows.deleted, found.rows.quarantined) == (2, 1, 1)
    assert raw(warehouse, "select id from raw_shop.orders where not _deleted order by id") == [
        (number,) for number in (2, 3, 4, 5, 6)
    ]


@pytest.mark.slow
def test_a_column_that_the_source_file_begins_to_read_has_its_older_values(
    orders: Source, warehouse: Warehouse
) -> None:
    run(warehouse, STREAM | {"exclude": ["note"]})

    run(warehouse)

    assert_equal(orders, warehouse)
    assert run(warehouse).rows.extracted == 0


def test_a_table_with_another_name_goes_on_where_it_was(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    orders.execute("insert into orders values (6, 6)")
    orders.execute("alter table orders rename to bills")
    orders.execute("delete from bills where id = 1")
    with pytest.raises(ConfigError, match="no table 'orders' in schema 'public'"):
        run(warehouse)

    found = run(warehouse, STREAM | {"table": "bills"})

    assert found.rows.extracted == 2
    orders.execute("alter table bills rename to orders")
    assert_equal(orders, warehouse)


@pytest.mark.slow
@pytest.mark.parametrize("identity", ["full", "using index orders_id"])
def test_a_table_without_a_primary_key_is_known_by_its_replica_identity(
    orders: Source, warehouse: Warehouse, identity: str
) -> None:
    orders.execute("alter table orders drop constraint orders_pkey")
    orders.execute("alter table orders alter column id set not null")
    with pytest.raises(ConfigError, match="would name nothing, without id of primary_key"):
        run(warehouse)
    orders.execute("create unique index orders_id on orders (id)")
    orders.execute(f"alter table orders replica identity {identity}".encode())
    run(warehouse)
    orders.execute("update orders set id = 30, note = null where id = 3")
    orders.execute("delete from orders where id = 4")
    orders.execute("update orders set amount = null where id = 5")

    run(warehouse)

    assert_whole(orders, warehouse)
    assert raw(warehouse, "select id from raw_shop.orders where _deleted order by 1") == [(3,), (4,)]


def test_an_identity_that_left_the_key_out_for_a_while_is_refused(orders: Source, warehouse: Warehouse) -> None:
    orders.execute("alter table orders alter column code set not null")
    orders.execute("create unique index by_code on orders (code, amount)")
    orders.execute("alter table orders alter column amount set not null")
    run(warehouse)
    orders.execute("alter table orders replica identity using index by_code")
    orders.execute("delete from orders where id = 4")
    orders.execute("alter table orders replica identity default")

    with pytest.raises(SourceError, match=r"did not name id of primary_key.*\n.*state reset shop.orders"):
        run(warehouse)


def test_large_values_that_were_left_alone_are_right_also_where_row_or_column_are_gone(
    orders: Source, warehouse: Warehouse
) -> None:
    orders.execute("alter table orders add column large text, add column other text")
    orders.execute(
        "alter table orders alter column large set storage external, alter column other set storage external"
    )
    orders.execute("insert into orders (id, amount) select g, 5 from generate_series(100, 350) g")
    orders.execute("update orders set large = repeat('l', 9000) || id, other = repeat('o', 9000)")
    run(warehouse)
    orders.execute("update orders set amount = 0")
    orders.execute("delete from orders where id = 1")
    orders.execute("update orders set id = 20 where id = 2")
    orders.execute("alter table orders drop column other")

    def on_log(line: str) -> None:
        if "reading from" in line:
            orders.execute("delete from orders where id = 5")

    run(warehouse, progress=Progress(on_log=on_log))

    # gone before its change was read, and its deletion is the next sync's
    kept = "select amount::text, length(large), _deleted from raw_shop.orders where id = 5"
    assert raw(warehouse, kept) == [("5.25", 9001, False)]
    run(warehouse)
    assert_equal(orders, warehouse)
    assert raw(warehouse, kept) == [("5.25", 9001, True)]
    gone = "select id, length(large), length(other) from raw_shop.orders where _deleted and id < 5 order by id"
    assert raw(warehouse, gone) == [(1, 9001, 9000), (2, 9001, 9000)]


@pytest.mark.slow
def test_a_key_that_is_a_large_value_is_no_other_key(source: Source, warehouse: Warehouse) -> None:
    source.execute("create table orders (id text primary key, amount int)")
    source.execute("alter table orders alter column id set storage external")
    source.execute("create publication shop for table orders")
    source.execute("insert into orders select repeat(g::text, 2500), g from generate_series(1, 3) g")
    run(warehouse)
    source.execute("update orders set amount = 0")

    assert run(warehouse).rows.extracted == 3
    assert_whole(source, warehouse)


@pytest.mark.slow
def test_one_truncate_of_several_tables_empties_each_stream(source: Source, warehouse: Warehouse) -> None:
    source.execute("create table others (id int primary key)")
    source.execute("create table orders (id int primary key, other int references others)")
    source.execute("create publication shop for table orders, others")
    source.execute("insert into others values (1), (2)")
    source.execute("insert into orders values (1, 1), (2, 2)")
    other = STREAM | {"name": "others"}
    run(warehouse)
    run(warehouse, other)
    with source.transaction():
        source.execute("insert into others values (3)")
        source.execute("truncate others cascade")
        source.execute("insert into others values (2), (4)")
        source.execute("insert into orders values (2, 4)")
        source.execute("truncate orders")
        source.execute("insert into orders values (9, 4)")

    run(warehouse)
    run(warehouse, other)

    for table, ids in (("orders", [9]), ("others", [2, 4])):
        found = raw(warehouse, f"select id from raw_shop.{table} where not _deleted order by id")
        assert [row[0] for row in found] == ids


def test_a_partitioned_table_is_told_as_one(source: Source, warehouse: Warehouse) -> None:
    source.execute("create table orders (id int, year int, note text, primary key (id, year)) partition by list (year)")
    for year in (2023, 2024):
        source.execute(f"create table orders_{year} partition of orders for values in ({year})".encode())
    source.execute("create publication shop for table orders")
    source.execute("insert into orders values (1, 2023, 'a'), (2, 2024, 'b'), (3, 2024, 'c')")
    stream: dict[str, Any] = STREAM | {"primary_key": ["id", "year"]}
    with pytest.raises(ConfigError, match=r"each partition.*\n.*publish_via_partition_root = true"):
        run(warehouse, stream)
    source.execute("alter publication shop set (publish_via_partition_root = true)")
    run(warehouse, stream)
    source.execute("update orders set year = 2024 where id = 1")
    source.execute("create table orders_2025 partition of orders for values in (2025)")
    source.execute("insert into orders values (4, 2025, 'd')")
    source.execute("delete from orders where id = 2")

    run(warehouse, stream)

    assert_equal(source, warehouse)


@pytest.mark.slow
def test_names_that_need_quotes_are_quoted(source: Source, warehouse: Warehouse) -> None:
    source.execute('create schema "Sh op"')
    source.execute(
        'create table "Sh op"."Or""der" (id int primary key, "From" text, "a.b" text, "sélect" numeric(5,2)[])'
    )
    source.execute('alter table "Sh op"."Or""der" alter column "From" set storage external')
    source.execute('create publication "Pub "", 1" for tables in schema "Sh op"')
    source.execute("""insert into "Sh op"."Or""der" values (1, repeat('x', 9000), 'y', '{1}'), (2, 'x', 'y', '{}')""")
    stream = STREAM | {"schema": "Sh op", "table": 'Or"der', "replication": {"publication": 'Pub ", 1'}}
    run(warehouse, stream)
    source.execute("""update "Sh op"."Or""der" set "a.b" = 'z', "sélect" = '{2.50}'""")
    source.execute("""delete from "Sh op"."Or""der" where id = 2""")

    assert run(warehouse, stream).rows.extracted == 3
    found = raw(warehouse, "select to_jsonb(t) from raw_shop.orders t where not _deleted")[0][0]
    assert {len(value) for value in found.values() if isinstance(value, str)} >= {9000}
    assert [2.50] in found.values()
    assert "z" in found.values()


@pytest.mark.slow
def test_values_that_a_rule_rewrites_are_the_same_out_of_the_log(orders: Source, warehouse: Warehouse) -> None:
    stream = STREAM | {
        "columns": {"note": {"rule": "mask", "keep_last": 1}, "code": {"nullable": False}, "amount": {"rule": "block"}}
    }
    run(warehouse, stream)
    orders.execute("insert into orders values (6, 6, 'note 5', 'c')")
    orders.execute("delete from orders where id = 1")

    run(warehouse, stream)

    notes = dict(raw(warehouse, "select id, note from raw_shop.orders where not _deleted"))
    assert notes[6] == notes[5] != "note 5"
    assert sorted(notes) == [2, 3, 4, 5, 6]
    assert "amount" not in raw(warehouse, "select to_jsonb(t) from raw_shop.orders t limit 1")[0][0]


def test_a_first_read_of_nothing_does_not_empty_a_table_that_has_rows(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    reset = {"deletes": "hard"}
    orders.execute("truncate orders")
    forgotten(warehouse)

    with pytest.raises(ContractError, match="the source sent no rows, and the raw table has some"):
        run(warehouse, STREAM | reset)
    assert slots(orders) == []
    assert len(raw(warehouse, "select 1 from raw_shop.orders")) == 5

    run(warehouse, STREAM | reset | {"allow_empty": True})

    assert raw(warehouse, "select 1 from raw_shop.orders") == []


@pytest.mark.parametrize("again", ["after a reset", "published again"])
def test_a_whole_read_with_a_record_in_quarantine_deletes_nothing_and_says_so(
    orders: Source, warehouse: Warehouse, again: str
) -> None:
    stream = STREAM | {"deletes": "hard", "columns": {"code": {"accepted_values": ["c"]}}}
    ids = "select id from raw_shop.orders order by id"
    run(warehouse, stream)
    if again == "after a reset":
        forgotten(warehouse)
    else:
        orders.execute("alter publication shop drop table orders")
        orders.execute("alter publication shop add table orders")
    orders.execute("delete from orders where id = 1")
    orders.execute("update orders set code = 'x' where id = 2")

    skipped = run(warehouse, stream)

    assert (skipped.rows.quarantined, skipped.rows.deleted) == (1, 0)
    assert "deletes were not looked for, because 1 records are in quarantine" in skipped.message
    assert "headwater state reset shop.orders" in skipped.message
    assert [id_ for (id_,) in raw(warehouse, ids)] == [1, 2, 3, 4, 5]

    orders.execute("update orders set code = 'c' where id = 2")
    forgotten(warehouse)
    assert run(warehouse, stream).rows.deleted == 1
    assert_equal(orders, warehouse, "hard")
