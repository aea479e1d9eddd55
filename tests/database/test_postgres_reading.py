"""Positions, windows, checkpoints and counts of a PostgreSQL source."""

import threading
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from connectors.contract import Checkpoint, CopyFile, StreamState, Window
from connectors.errors import ConfigError
from tests.database.reading import Reader, attestations, checkpoints, column_of, rows_of, source_spec

Source = psycopg.Connection[Any]
ORDERS = """
create table orders (id int primary key, at timestamptz, day date, note text);
insert into orders
select g, timestamptz '2024-01-01 00:00+00' + g * interval '1 hour', date '2024-01-01' + g, 'note ' || g
from generate_series(0, 99) g
"""


@pytest.fixture
def orders(source: Source) -> Source:
    source.execute(ORDERS)
    return source


def test_a_read_without_state_reads_everything(orders: Source, reader: Reader) -> None:
    messages = reader.read()

    assert column_of(messages, "id") == [str(number) for number in range(100)]
    assert [type(message) for message in messages] == [CopyFile]


def test_select_and_exclude_choose_columns_and_blocked_ones_are_never_asked_for(orders: Source, reader: Reader) -> None:
    assert list(rows_of(reader.read({"select": ["note", "id"]}))[0]) == ["note", "id"]
    assert list(rows_of(reader.read({"exclude": ["note", "at"]}))[0]) == ["id", "day"]
    assert list(rows_of(reader.read({"columns": {"note": {"rule": "block"}}}))[0]) == ["id", "at", "day"]


def test_the_authors_condition_narrows_the_read(orders: Source, reader: Reader) -> None:
    assert column_of(reader.read({"where": "id < 3 or note like '%99'"}), "id") == ["0", "1", "2", "99"]


def test_a_position_is_read_again_itself(orders: Source, reader: Reader) -> None:
    stream = {"cursor": {"field": "at"}, "write": "merge", "primary_key": "id"}

    messages = reader.read(stream, StreamState(cursor="2024-01-05T01:00:00Z"))

    assert column_of(messages, "id") == ["97", "98", "99"]


def test_a_numeric_position_is_compared_as_a_number(orders: Source, reader: Reader) -> None:
    assert column_of(reader.read({"cursor": {"field": "id"}}, StreamState(cursor="98")), "id") == ["98", "99"]


def test_a_text_position_is_compared_by_code_points_whatever_its_type_thinks(source: Source, reader: Reader) -> None:
    # to the type itself a0 comes before Za
    source.execute("create type size as enum ('B', 'a0', 'ZA', 'Za')")
    source.execute("create table orders (id int primary key, code size)")
    source.execute("insert into orders values (0, 'B'), (1, 'ZA'), (2, 'Za'), (3, 'a0')")
    stream = {"cursor": {"field": "code"}, "write": "merge", "primary_key": "id", "order": True}

    assert column_of(reader.read(stream, StreamState(cursor="Za")), "id") == ["2", "3"]
    assert column_of(reader.read(stream), "id") == ["0", "1", "2", "3"]


def test_the_start_of_the_cursor_counts_while_there_is_no_state(orders: Source, reader: Reader) -> None:
    messages = reader.read({"cursor": {"field": "day", "start": "2024-04-08"}})

    assert column_of(messages, "id") == ["98", "99"]


@pytest.mark.parametrize(("field", "before_noon"), [("at", "59"), ("day", "2")])
def test_windows_tile_without_gap_or_overlap(orders: Source, reader: Reader, field: str, before_noon: str) -> None:
    stream = {"cursor": {"field": field}, "partitions": {"by": "hour", "start": "2024-01-01"}}
    edges = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in range(0, 24, 5)] + [
        datetime(2024, 1, 3, 12, tzinfo=UTC),
        datetime(2025, 1, 1, tzinfo=UTC),
    ]

    found = [
        column_of(reader.read(stream, StreamState(cursor="2030-01-01T00:00:00Z"), window=Window(*pair)), "id")
        for pair in pairwise(edges)
    ]

    assert [int(number) for window in found for number in window] == list(range(100))
    # a date is its midnight: it belongs to the day's first hours
    assert (found[0][0], found[-2][-1]) == ("0", before_noon)


def test_a_partition_over_a_number_is_refused(orders: Source, reader: Reader) -> None:
    stream = {"cursor": {"field": "id"}, "partitions": {"by": "day", "start": "2024-01-01"}}

    with pytest.raises(ConfigError, match="partitions need a time, but cursor 'id' is integer"):
        reader.read(stream, window=Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)))


def test_parts_are_cut_at_row_ends_and_hold_every_row(source: Source, reader: Reader) -> None:
    source.execute("create table orders as select g as id, repeat(E'a,\"\n', 3000) as t from generate_series(1, 300) g")

    messages = reader.but(part_mb=1).read()

    parts = [message for message in messages if isinstance(message, CopyFile)]
    assert len(parts) > 3
    assert sum(part.rows for part in parts) == 300
    assert column_of(messages, "id") == [str(number) for number in range(1, 301)]
    assert max(part.path.stat().st_size for part in parts) < (1 << 20) + 20_000


def test_without_order_there_is_no_checkpoint_before_the_end(source: Source, reader: Reader) -> None:
    source.execute("create table orders as select g as id, repeat('x', 9000) as t from generate_series(1, 300) g")

    assert checkpoints(reader.but(part_mb=1).read({"cursor": {"field": "id"}})) == []


def test_with_an_index_on_the_cursor_every_part_is_a_checkpoint(source: Source, reader: Reader) -> None:
    source.execute("create table orders as select 301 - g as id, repeat('x', 9000) as t from generate_series(1, 300) g")
    source.execute("create index on orders (id)")
    stream = {"cursor": {"field": "id"}, "write": "merge", "primary_key": "id"}

    messages = reader.but(part_mb=1).read(stream)

    assert column_of(messages, "id") == [str(number) for number in range(1, 301)]
    kinds = [type(message) for message in messages]
    assert kinds == [CopyFile, Checkpoint] * (kinds.count(CopyFile) - 1) + [CopyFile]
    assert all(checkpoint.is_ordered and checkpoint.connector is None for checkpoint in checkpoints(messages))


def test_keyset_windows_seal_each_and_clear_the_position_at_the_end(orders: Source, reader: Reader) -> None:
    messages = reader.read({"keyset": {"rows": 40}})

    assert [m.rows for m in messages if isinstance(m, CopyFile)] == [40, 40, 20]
    sealed = checkpoints(messages)
    assert [(c.connector or {}).get("keyset", {}).get("after") for c in sealed] == [["39"], ["79"], None]
    assert [c.is_ordered for c in sealed] == [False, False, True]
    assert sealed[-1].connector == {}


def test_a_composite_key_is_windowed_in_its_own_order(source: Source, reader: Reader) -> None:
    source.execute("""create table orders ("A" text, "b ""c" date, v int, primary key ("A", "b ""c"))""")
    source.execute(
        "insert into orders select chr(97 + g % 3) || '''', date '2024-01-01' + g / 3, g from generate_series(0, 49) g"
    )

    messages = reader.read({"keyset": {"rows": 7}})

    assert sorted(map(int, column_of(messages, "v"))) == list(range(50))
    assert len(checkpoints(messages)) == 8


def test_a_failed_keyset_read_resumes_after_its_last_window(orders: Source, reader: Reader) -> None:
    stream = {"keyset": {"rows": 40}, "checks": [{"type": "reconcile"}]}
    first = next(m for m in reader.read(stream) if isinstance(m, Checkpoint))
    assert first.connector is not None

    messages = reader.read(stream, StreamState(connector=first.connector))

    assert column_of(messages, "id") == [str(number) for number in range(40, 100)]
    assert [a.rows for a in attestations(messages)] == [60]


def test_a_resumed_keyset_read_leaves_later_changes_to_the_next_sync(orders: Source, reader: Reader) -> None:
    stream = {"keyset": {"rows": 40}, "cursor": {"field": "at"}, "write": "merge", "primary_key": "id"}
    first = next(m for m in reader.read(stream) if isinstance(m, Checkpoint))
    assert first.connector is not None
    # one row of a sealed window and one of an open window change before the read goes on
    orders.execute("update orders set at = '2024-06-01 00:00+00' where id = 3")
    orders.execute("update orders set at = '2024-06-02 00:00+00' where id = 90")
    orders.execute("update orders set at = null where id = 91")

    resumed = rows_of(reader.read(stream, StreamState(connector=first.connector)))
    position = max(row["at"] for row in resumed)
    after = reader.read(stream, StreamState(cursor=position.replace(" ", "T")))

    assert "90" not in {row["id"] for row in resumed}
    assert "91" in {row["id"] for row in resumed}
    assert {"3", "90"} <= set(column_of(after, "id"))


def test_a_saved_window_of_another_key_or_beginning_is_not_resumed(orders: Source, reader: Reader) -> None:
    saved = {"keyset": {"by": ["note"], "after": ["note 5"], "until": None, "since": None}}

    assert len(column_of(reader.read({"keyset": {"rows": 40}}, StreamState(connector=saved)), "id")) == 100


def test_a_key_that_may_be_null_is_refused(orders: Source, reader: Reader) -> None:
    with pytest.raises(ConfigError, match=r"keyset.by: note of public.orders may be NULL"):
        reader.read({"keyset": {"by": "note"}})


def test_all_parts_are_of_one_moment(orders: Source, reader: Reader) -> None:
    found = reader.messages({"keyset": {"rows": 10}})
    first = next(found)
    orders.execute("delete from orders where id > 50")
    orders.execute("update orders set note = 'changed'")

    messages = [first, *found]

    assert column_of(messages, "note") == [f"note {number}" for number in range(100)]


def test_the_source_counts_its_rows_only_where_a_check_asks(orders: Source, reader: Reader) -> None:
    stream = {"where": "id < 10", "checks": [{"type": "reconcile", "against": "count"}]}

    assert [a.rows for a in attestations(reader.read(stream))] == [10]
    assert attestations(reader.read({"where": "id < 10"})) == []


def test_nothing_after_the_position_is_attested(orders: Source, reader: Reader) -> None:
    messages = reader.read({"cursor": {"field": "at"}}, StreamState(cursor="2025-01-01T00:00:00Z"))

    assert [a.nothing_new for a in attestations(messages)] == [True]
    assert rows_of(messages) == []


def test_a_first_read_of_an_empty_table_still_tells_its_columns(source: Source, reader: Reader) -> None:
    source.execute("create table orders (id int, amount numeric(5,1))")

    (part,) = reader.read()

    assert isinstance(part, CopyFile)
    assert part.rows == 0
    assert part.names == ["id", "amount"]
    assert part.path.read_bytes() == b""


def test_a_preview_reads_no_more_than_it_shows(orders: Source, reader: Reader) -> None:
    orders.execute("insert into orders select g, now(), now(), 'x' from generate_series(100, 5000) g")

    messages = reader.read({"keyset": {"rows": 10}}, page_limit=1)

    assert len(rows_of(messages)) == 1000
    assert checkpoints(messages) == []


def test_the_next_part_is_read_while_this_one_is_used(source: Source, reader: Reader) -> None:
    source.execute("create table orders as select g as id, repeat('x', 9000) as t from generate_series(1, 1000) g")
    context = reader.context()
    read_ahead = threading.Event()
    context = type(context)(None, context.folder, log=lambda line: read_ahead.set() if "part 2" in line else None)

    found = reader.but(part_mb=1).messages(context=context)
    next(found)

    # set by the reading thread alone: nobody asked for the second part
    assert read_ahead.wait(30)
    found.close()


def test_check_names_server_and_tables_and_no_password(orders: Source, reader: Reader) -> None:
    with reader.open(source_spec({})) as connector:
        line = connector.check()

    assert line.startswith("PostgreSQL ")
    assert line.endswith("1 tables in public")
    assert str(conninfo_to_dict(reader.url)["password"]) not in line


def test_discover_tells_types_keys_and_estimates(orders: Source, reader: Reader) -> None:
    orders.execute("create view latest as select id, note::varchar(9) as short from orders")
    orders.execute("analyze orders")

    with reader.open(source_spec({})) as connector:
        latest, table = connector.discover()

    assert (table.name, table.primary_key, table.estimated_rows) == ("orders", ("id",), 100)
    assert [(c.name, c.type, c.is_nullable) for c in table.columns] == [
        ("id", "bigint", False),
        ("at", "timestamp", True),
        ("day", "date", True),
        ("note", "text", True),
    ]
    assert [c.name for c in latest.columns] == ["id", "short"]
