"""Any SQLAlchemy database by Arrow, shown on SQLite: exact types, and rows that a loose column cannot hold."""

import json
import sqlite3
import threading
from collections.abc import Generator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy.exc import OperationalError

from connectors.contract import Checkpoint, Frame, Message, Rejected, StreamState, Window
from connectors.errors import Cancelled, ConfigError, TransientError
from tests.database.reading import Reader, attestations, checkpoints, source_spec


@pytest.fixture
def shop(tmp_path: Path) -> Generator[sqlite3.Connection]:
    session = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    yield session
    session.close()


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(f"sqlite:///{tmp_path}/shop.db", tmp_path)


@pytest.fixture
def orders(shop: sqlite3.Connection) -> sqlite3.Connection:
    shop.execute("create table orders (id integer primary key, at timestamp, note varchar(3))")
    shop.executemany(
        "insert into orders values (?, ?, ?)",
        [(number, f"2024-01-{1 + number // 24:02d} {number % 24:02d}:00:00", f"n{number}") for number in range(100)],
    )
    return shop


def table_of(messages: list[Message]) -> pa.Table:
    return pa.concat_tables([message.table for message in messages if isinstance(message, Frame)])


def rejects_of(messages: list[Message]) -> list[Rejected]:
    return [message for message in messages if isinstance(message, Rejected)]


def ids(messages: list[Message]) -> list[int]:
    return table_of(messages).column("id").to_pylist()


def test_every_declared_type_gets_its_exact_column(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute(
        "create table orders (id integer primary key, small smallint, price decimal(10,2), ratio real, flag boolean, "
        "name varchar(20), day date, at datetime, clock time, data blob, info json, anything)"
    )
    shop.execute(
        "insert into orders values (9223372036854775807, -1, 12.5, 0.1, 1, 'ünï, \"x\"', '2024-02-29', "
        "'2024-02-29 12:00:00.5', '23:59:59', x'00ff', '{\"a\": 1.50}', 'x'), "
        "(2, 3, '0.10', 1, 0, '', '0001-01-01', '2024-03-31T02:30:00+02:00', '00:00', x'', null, 5), "
        "(3, null, null, null, null, null, null, null, null, null, null, null)"
    )

    table = table_of(reader.read())

    assert {item.name: (str(item.type), item.metadata[b"pg_type"].decode()) for item in table.schema} == {
        "id": ("int64", "bigint"),
        "small": ("int64", "bigint"),
        "price": ("string", "numeric"),
        "ratio": ("double", "double precision"),
        "flag": ("bool", "boolean"),
        "name": ("string", "text"),
        "day": ("date32[day]", "date"),
        "at": ("timestamp[us]", "timestamp without time zone"),
        "clock": ("time64[us]", "time without time zone"),
        "data": ("binary", "bytea"),
        "info": ("string", "jsonb"),
        "anything": ("string", "text"),
    }
    first, second, third = table.sort_by([("small", "ascending")]).to_pylist()
    assert tuple(first.values()) == (
        9223372036854775807, -1, "12.5", 0.1, True, 'ünï, "x"', date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 0, 0, 500_000), time(23, 59, 59), b"\x00\xff", '{"a": 1.50}', "x",  # noqa: DTZ001 as the column is
    )  # fmt: skip
    assert tuple(second.values())[2:9] == (
        "0.1", 1.0, False, "", date(1, 1, 1), datetime(2024, 3, 31, 0, 30), time(0, 0),  # noqa: DTZ001 as the column is
    )  # fmt: skip
    assert set(tuple(third.values())[1:]) == {None}


def test_a_value_that_its_column_cannot_hold_rejects_its_row_alone(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute("create table orders (id integer, n integer, at datetime, flag boolean, price decimal(5,2), t text)")
    good = (1, 1, "2024-01-01", 1, 1.5, "ok")
    bad = [
        (2, "many", None, None, None, None),
        (3, 1.5, None, None, None, None),
        (4, None, "yesterday", None, None, None),
        (5, None, 1704067200, None, None, None),
        (6, None, None, 7, None, None),
        (7, None, None, None, "1,50", None),
        (8, None, None, None, float("inf"), None),
    ]
    shop.executemany("insert into orders values (?, ?, ?, ?, ?, ?)", [good, *bad, (9, *good[1:])])
    shop.execute("insert into orders values (10, null, null, null, null, cast(x'ff41' as text))")

    messages = reader.read()

    assert ids(messages) == [1, 9]
    rejected = rejects_of(messages)
    assert [json.loads(reject.payload)["id"] for reject in rejected] == [2, 3, 4, 5, 6, 7, 8, 10]
    reasons = [reject.reason for reject in rejected]
    assert reasons[0] == "n: str does not fit bigint"
    assert reasons[2] == "at: 'yesterday' is not a time of ISO 8601 for timestamp without time zone"
    assert reasons[7] == "t: bytes that are not UTF-8 do not fit text"
    assert rejected[1].position == "orders rows 1-10, row 3"


def test_the_contracts_type_wins_over_the_declared_one(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute("create table orders (id integer, at datetime, price text)")
    shop.execute("insert into orders values (1, 1704067200, '12.50')")

    columns = {"at": {"type": "bigint"}, "price": {"type": "decimal", "precision": 6, "scale": 2}}
    table = table_of(reader.read({"columns": columns}))

    assert table.to_pylist() == [{"id": 1, "at": 1704067200, "price": Decimal("12.50")}]
    assert table.schema.field("price").type == pa.decimal128(6, 2)


def test_a_position_is_read_again_itself_whatever_the_spelling(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute("create table orders (id integer, at timestamp)")
    shop.executemany(
        "insert into orders values (?, ?)",
        [(1, "2024-01-01 05:59:59"), (2, "2024-01-01T06:00:00"), (3, "2024-01-01 08:00:00+02:00"), (4, "2024-01-02")],
    )

    assert ids(reader.read({"cursor": {"field": "at"}}, StreamState(cursor="2024-01-01T06:00:00Z"))) == [2, 3, 4]


def test_a_text_position_is_compared_by_code_points_whatever_the_collation(
    shop: sqlite3.Connection, reader: Reader
) -> None:
    shop.execute("create table orders (id integer primary key, code text collate nocase)")
    shop.executemany("insert into orders values (?, ?)", list(enumerate(["B", "ZA", "Za", "a0"])))
    stream = {"cursor": {"field": "code"}, "write": "merge", "primary_key": "id", "order": True}

    assert ids(reader.read(stream, StreamState(cursor="Za"))) == [2, 3]
    assert ids(reader.read(stream)) == [0, 1, 2, 3]


def test_windows_tile_without_gap_or_overlap(orders: sqlite3.Connection, reader: Reader) -> None:
    stream = {"cursor": {"field": "at"}, "partitions": {"by": "hour", "start": "2024-01-01"}}
    edges = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (0, 5, 6)] + [datetime(2024, 2, 1, tzinfo=UTC)]

    found = [number for pair in pairwise(edges) for number in ids(reader.read(stream, window=Window(*pair)))]

    assert found == list(range(100))


def test_selection_condition_and_preview_narrow_the_read(orders: sqlite3.Connection, reader: Reader) -> None:
    orders.executemany("insert into orders values (?, null, 'a:b')", [(number,) for number in range(100, 3000)])

    table = table_of(reader.read({"select": ["note", "id"], "where": "note like '%:%' and id < 103"}))

    assert table.to_pylist() == [{"note": "a:b", "id": number} for number in (100, 101, 102)]
    assert len(ids(reader.read(page_limit=1))) == 1000


def test_keyset_windows_seal_each_and_resume(orders: sqlite3.Connection, reader: Reader) -> None:
    stream = {"keyset": {"rows": 40}, "checks": [{"type": "reconcile"}]}
    messages = reader.read(stream)
    assert ids(messages) == list(range(100))
    assert [checkpoint.is_ordered for checkpoint in checkpoints(messages)] == [False, False, True]
    first = next(message for message in messages if isinstance(message, Checkpoint))
    assert first.connector is not None

    rest = reader.read(stream, StreamState(connector=first.connector))

    assert ids(rest) == list(range(40, 100))
    assert [attestation.rows for attestation in attestations(rest)] == [60]


def test_a_composite_key_of_texts_and_numbers_is_windowed(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute("create table orders (a text not null, b integer not null, id integer, primary key (a, b))")
    shop.executemany("insert into orders values (?, ?, ?)", [(f"k{n % 4}'", n // 4, n) for n in range(50)])

    assert sorted(ids(reader.read({"keyset": {"rows": 7}}))) == list(range(50))


def test_an_indexed_number_as_cursor_makes_every_batch_a_checkpoint(orders: sqlite3.Connection, reader: Reader) -> None:
    stream = {"cursor": {"field": "id"}, "write": "merge", "primary_key": "id"}

    messages = reader.read(stream, StreamState(cursor="97"))

    assert ids(messages) == [97, 98, 99]
    assert [checkpoint.is_ordered for checkpoint in checkpoints(messages)] == [True]


def test_windows_are_of_one_moment(orders: sqlite3.Connection, reader: Reader) -> None:
    orders.execute("pragma journal_mode = wal")
    found = reader.messages({"keyset": {"rows": 10}})
    first = next(found)
    orders.execute("delete from orders where id > 5")

    assert ids([first, *found]) == list(range(100))


def test_nothing_after_the_position_is_attested(orders: sqlite3.Connection, reader: Reader) -> None:
    messages = reader.read({"cursor": {"field": "at"}}, StreamState(cursor="2030-01-01T00:00:00Z"))

    assert [attestation.nothing_new for attestation in attestations(messages)] == [True]


def test_a_first_read_of_an_empty_table_still_tells_its_columns(shop: sqlite3.Connection, reader: Reader) -> None:
    shop.execute("create table orders (id integer, at datetime)")

    (frame,) = reader.read()

    assert isinstance(frame, Frame)
    assert (frame.table.num_rows, frame.table.column_names) == (0, ["id", "at"])


def test_check_and_discover_tell_what_is_there(orders: sqlite3.Connection, reader: Reader, tmp_path: Path) -> None:
    orders.execute("create view latest as select * from orders")

    with reader.open(source_spec({})) as connector:
        line = connector.check()
        latest, table = connector.discover()

    assert line.endswith(f"at {tmp_path}/shop.db: 2 tables")
    assert (latest.name, table.name, table.primary_key) == ("latest", "orders", ("id",))
    assert [(column.name, column.type, column.is_nullable) for column in table.columns] == [
        ("id", "bigint", False),
        ("at", "timestamp", True),
        ("note", "text", True),
    ]


def test_a_file_that_is_not_there_is_not_made(reader: Reader, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*shop.db"):
        reader.read()

    assert not (tmp_path / "shop.db").exists()


def test_a_file_that_is_no_database_is_config(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_text("no database, but long enough to be looked at" * 100)

    with pytest.raises(ConfigError, match="file is not a database"):
        reader.read()


def test_a_source_cannot_be_written_to(orders: sqlite3.Connection, reader: Reader) -> None:
    with (
        reader.open(source_spec({})) as connector,
        connector._connected("shop") as session,  # pyright: ignore[reportAttributeAccessIssue] no message can ask for it
        pytest.raises(OperationalError, match="readonly"),
    ):
        session.exec_driver_sql("delete from orders")


@pytest.mark.parametrize(
    ("stream", "what", "hint"),
    [
        ({"table": "order"}, "no table 'order' in the database", "Did you mean 'orders'?"),
        ({"select": ["ids"]}, "orders has no column 'ids'", "Did you mean 'id'?"),
        (
            {"where": "missing_one > 1"},
            "no such column: missing_one while reading orders after 0 rows",
            "Correct the stream's",
        ),
    ],
)
def test_a_wrong_name_is_config(
    orders: sqlite3.Connection, reader: Reader, stream: dict[str, Any], what: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        reader.read(stream)

    assert caught.value.what == what
    assert caught.value.hint.startswith(hint)


def test_a_locked_file_is_transient(orders: sqlite3.Connection, reader: Reader) -> None:
    orders.execute("begin exclusive")

    with pytest.raises(TransientError, match="database is locked"):
        reader.but(lock_timeout="PT0.1S").read()


def test_a_cancelled_read_stops_at_the_next_batch(orders: sqlite3.Connection, reader: Reader) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(Cancelled):
        reader.read(cancelled=cancelled)


def test_a_cancelled_read_stops_a_query_that_yields_nothing(orders: sqlite3.Connection, reader: Reader) -> None:
    cancelled = threading.Event()
    endless = "exists (with recursive n(x) as (select 1 union all select x + 1 from n) select 1 from n where x < 0)"
    found = reader.messages({"where": endless}, context=reader.context(cancelled=cancelled))
    threading.Timer(0.1, cancelled.set).start()

    with pytest.raises(Cancelled):
        next(found)


def test_a_driver_that_is_missing_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the driver oracledb is not installed") as caught:
        Reader("oracle+oracledb://user:s3cret@host/x", tmp_path).read()

    assert "uv add oracledb" in caught.value.hint
    assert "s3cret" not in str(caught.value)


def test_a_dialect_that_nobody_knows_is_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no dialect for 'nothing'"):
        Reader("nothing://host/x", tmp_path).read()
