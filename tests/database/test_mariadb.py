"""MySQL's family by Arrow, shown on a real MariaDB."""

import json
import threading
from collections.abc import Generator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.contract import Checkpoint, Frame, Message, Rejected, StreamState, Window
from connectors.errors import AuthError, Cancelled, ConfigError, HeadwaterError, ResourceError, TransientError
from tests.database import mariadb
from tests.database.dropping_proxy import dropping_after
from tests.database.mariadb import MariaServer
from tests.database.reading import Reader, checkpoints, source_spec

pytestmark = pytest.mark.skipif(not mariadb.is_installed(), reason=mariadb.REASON)
pymysql = pytest.importorskip("pymysql", reason="the driver pymysql is not installed")


@pytest.fixture(scope="module")
def maria() -> Generator[MariaServer]:
    with mariadb.running_mariadb() as server:
        yield server


@pytest.fixture
def shop(maria: MariaServer) -> Generator[Any]:
    """A cursor at the source, in a fresh database `shop`."""
    session = pymysql.connect(host="127.0.0.1", port=maria.port, user="root", autocommit=True)
    with session.cursor() as cursor:
        cursor.execute("create database shop character set utf8mb4")
        cursor.execute("use shop")
        cursor.execute("set sql_mode = '', time_zone = '+02:00'")
        yield cursor
        cursor.execute("drop database shop")
    session.close()


@pytest.fixture
def reader(maria: MariaServer, tmp_path: Path) -> Reader:
    return Reader(maria.url(), tmp_path)


@pytest.fixture
def orders(shop: Any) -> Any:
    shop.execute("create table orders (id int primary key, at datetime(6), note varchar(3000), index (at))")
    shop.executemany(
        "insert into orders values (%s, timestamp('2024-01-01') + interval %s hour, %s)",
        [(number, number, f"n{number}") for number in range(100)],
    )
    return shop


def table_of(messages: list[Message]) -> pa.Table:
    return pa.concat_tables([message.table for message in messages if isinstance(message, Frame)])


def ids(messages: list[Message]) -> list[int]:
    return table_of(messages).column("id").to_pylist()


def failure(reader: Reader, stream: dict[str, Any] | None = None) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as caught:
        reader.read(stream)
    assert len(str(caught.value).splitlines()) <= 6
    return caught.value


def test_every_type_gets_its_exact_column(shop: Any, reader: Reader) -> None:
    shop.execute(
        "create table orders (id bigint unsigned primary key, tiny tinyint, flag boolean, medium mediumint unsigned, "
        "whole int unsigned, price decimal(12,2), big decimal(65,30), ratio double, small float, name varchar(20), "
        "code char(5), body longtext, kind enum('a','b,c'), tags set('x','y'), day date, at datetime(6), "
        "moment timestamp(3) null, clock time(6), y year, data varbinary(10), picture longblob, bits bit(12), "
        "wide bit(64))"
    )
    shop.execute(
        "insert into orders values (18446744073709551615, -128, true, 16777215, 4294967295, 9999999999.99, "
        "99999999999999999999999999999999999.999999999999999999999999999999, 1.7976931348623157e308, 0.5, 'ü🦆', "
        "'ab', 'line\nbreak', 'b,c', 'x,y', '9999-12-31', '2024-02-29 12:00:00.123456', '2024-03-31 12:00:00.123', "
        "'23:59:59.999999', 2155, x'00ff', x'', b'100000000001', b'1')"
    )

    table = table_of(reader.read())

    assert {item.name: item.metadata[b"pg_type"].decode() for item in table.schema} == {
        "id": "numeric(20,0)", "tiny": "smallint", "flag": "smallint", "medium": "integer", "whole": "bigint",
        "price": "numeric(12,2)", "big": "numeric(65,30)", "ratio": "double precision", "small": "double precision",
        "name": "character varying(20)", "code": "character varying(5)", "body": "text", "kind": "text",
        "tags": "text", "day": "date", "at": "timestamp without time zone", "moment": "timestamp with time zone",
        "clock": "time without time zone", "y": "smallint", "data": "bytea", "picture": "bytea", "bits": "smallint",
        "wide": "numeric(20,0)",
    }  # fmt: skip
    (row,) = table.to_pylist()
    assert row == {
        "id": Decimal("18446744073709551615"), "tiny": -128, "flag": 1, "medium": 16777215, "whole": 4294967295,
        "price": Decimal("9999999999.99"),
        "big": Decimal("99999999999999999999999999999999999.999999999999999999999999999999"),
        "ratio": 1.7976931348623157e308, "small": 0.5, "name": "ü🦆", "code": "ab", "body": "line\nbreak",
        "kind": "b,c", "tags": "x,y", "day": date(9999, 12, 31),
        "at": datetime(2024, 2, 29, 12, 0, 0, 123456),  # noqa: DTZ001 as the column is
        # stored from a session at +02:00
        "moment": datetime(2024, 3, 31, 10, 0, 0, 123000, tzinfo=UTC),
        "clock": time(23, 59, 59, 999999), "y": 2155, "data": b"\x00\xff", "picture": b"", "bits": 2049,
        "wide": Decimal(1),
    }  # fmt: skip


def test_dates_and_times_that_are_none_reject_their_row_alone(shop: Any, reader: Reader) -> None:
    shop.execute("create table orders (id int, day date, at datetime, clock time)")
    shop.execute(
        "insert into orders values (1, '2024-01-01', '2024-01-01', '01:00'), (2, '0000-00-00', null, null), "
        "(3, null, '2024-00-01 00:00:00', null), (4, null, null, '800:00:00'), (5, null, null, '-01:00:00')"
    )

    messages = reader.read()

    assert ids(messages) == [1]
    rejected = [message for message in messages if isinstance(message, Rejected)]
    assert [json.loads(reject.payload)["id"] for reject in rejected] == [2, 3, 4, 5]
    assert rejected[0].reason == "day: '0000-00-00' is not a time of ISO 8601 for date"


def test_a_position_is_read_again_itself(orders: Any, reader: Reader) -> None:
    stream = {"cursor": {"field": "at"}, "write": "merge", "primary_key": "id"}

    messages = reader.read(stream, StreamState(cursor="2024-01-05T01:00:00Z"))

    assert ids(messages) == [97, 98, 99]
    # an index leads with the cursor, so each batch is a checkpoint
    assert [checkpoint.is_ordered for checkpoint in checkpoints(messages)] == [True]


@pytest.mark.parametrize("order", [None, True])
def test_a_text_position_is_compared_by_code_points_whatever_the_collation(
    shop: Any, reader: Reader, order: bool | None
) -> None:
    # to the column itself a0 comes before Za, and Za is ZA and "Za "
    shop.execute(
        "create table orders (id int primary key, code varchar(20) character set latin1 collate latin1_swedish_ci, "
        "index (code))"
    )
    codes = ["B", "ZA", "Za", "Za ", "a0", "ü"]
    shop.executemany("insert into orders values (%s, %s)", list(enumerate(codes)))
    stream = {"cursor": {"field": "code"}, "write": "merge", "primary_key": "id", "order": order}

    assert sorted(ids(reader.read(stream, StreamState(cursor="Za")))) == [2, 3, 4, 5]
    assert ids(reader.read(stream, StreamState(cursor="aa"))) == [5]


def test_a_resumed_window_keeps_to_a_text_positions_own_order(shop: Any, reader: Reader) -> None:
    shop.execute("create table orders (id int primary key, code varchar(20))")
    shop.executemany("insert into orders values (%s, %s)", list(enumerate(["B", "Za", "C", "a", "D"])))
    stream = {"keyset": {"rows": 2}, "cursor": {"field": "code"}, "write": "merge", "primary_key": "id"}
    first = next(message for message in reader.read(stream) if isinstance(message, Checkpoint))
    assert first.connector is not None
    shop.execute("insert into orders values (9, 'b')")

    # b is later than a, the greatest of the beginning; Za is not, whatever the collation thinks
    assert ids(reader.read(stream, StreamState(connector=first.connector))) == [2, 3, 4]


def test_windows_tile_without_gap_or_overlap(orders: Any, reader: Reader) -> None:
    stream = {"cursor": {"field": "at"}, "partitions": {"by": "hour", "start": "2024-01-01"}}
    edges = [datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (0, 5, 6)] + [datetime(2024, 2, 1, tzinfo=UTC)]

    found = [number for pair in pairwise(edges) for number in ids(reader.read(stream, window=Window(*pair)))]

    assert sorted(found) == list(range(100))


def test_keyset_windows_resume_and_keep_to_their_beginning(orders: Any, reader: Reader) -> None:
    stream = {"keyset": {"rows": 40}, "cursor": {"field": "at"}, "write": "merge", "primary_key": "id"}
    first = next(message for message in reader.read(stream) if isinstance(message, Checkpoint))
    assert first.connector is not None
    orders.execute("update orders set at = '2025-01-01' where id = 90")

    rest = reader.read(stream, StreamState(connector=first.connector))

    assert ids(rest) == [number for number in range(40, 100) if number != 90]


def test_windows_are_of_one_moment(orders: Any, reader: Reader) -> None:
    found = reader.messages({"keyset": {"rows": 10}})
    first = next(found)
    orders.execute("delete from orders where id > 5")

    assert ids([first, *found]) == list(range(100))


def test_the_authors_condition_may_hold_percent_and_colon(orders: Any, reader: Reader) -> None:
    orders.execute("insert into orders values (200, null, 'a:b%')")

    assert ids(reader.read({"where": "note like '%:b%'"})) == [200]


def test_a_wrong_password_is_auth(maria: MariaServer, orders: Any, tmp_path: Path) -> None:
    error = failure(Reader(maria.url("nobody", "s3cret-word"), tmp_path))

    assert isinstance(error, AuthError)
    assert "s3cret-word" not in str(error)


def test_a_table_that_the_user_may_not_read_is_auth(maria: MariaServer, orders: Any, tmp_path: Path) -> None:
    orders.execute("create table other (id int)")
    orders.execute("create or replace user limited identified by 'word'")
    orders.execute("grant select (id) on shop.orders to limited")
    orders.execute("grant select on shop.other to limited")

    error = failure(Reader(maria.url("limited", "word"), tmp_path), {"where": "note is not null"})

    assert isinstance(error, AuthError)


def test_a_missing_table_names_the_nearest_one(orders: Any, reader: Reader) -> None:
    error = failure(reader, {"table": "order"})

    assert isinstance(error, ConfigError)
    assert error.hint == "Did you mean 'orders'?"


def test_a_missing_database_is_config(maria: MariaServer, orders: Any, tmp_path: Path) -> None:
    assert isinstance(failure(Reader(maria.url(database="nowhere"), tmp_path)), ConfigError)


def test_a_refused_connection_is_transient(orders: Any, tmp_path: Path) -> None:
    assert isinstance(failure(Reader("mysql+pymysql://root@127.0.0.1:1/shop", tmp_path)), TransientError)


def test_a_statement_timeout_is_resource(orders: Any, reader: Reader) -> None:
    error = failure(reader.but(statement_timeout="PT0.2S"), {"where": "sleep(1) = 0"})

    assert isinstance(error, ResourceError)
    assert "max_statement_time" in error.what


def test_a_connection_cut_midway_keeps_the_sealed_windows(
    maria: MariaServer, orders: Any, reader: Reader, tmp_path: Path
) -> None:
    orders.execute("update orders set note = repeat('x', 3000)")
    stream = {"keyset": {"rows": 10}}
    kept: list[Message] = []
    with dropping_after(("127.0.0.1", maria.port), 200_000) as port:
        through = Reader(MariaServer(port).url(), tmp_path)
        with pytest.raises(TransientError, match="while reading orders after"):
            _collect(through, stream, kept)

    sealed = [message for message in kept if isinstance(message, Checkpoint)]
    assert sealed[-1].connector is not None
    rest = reader.read(stream, StreamState(connector=sealed[-1].connector))
    assert ids(kept[: kept.index(sealed[-1])]) + ids(rest) == list(range(100))


def test_a_reader_that_leaves_early_waits_for_no_row(orders: Any, reader: Reader) -> None:
    orders.execute("insert into orders select 100 + seq, null, null from seq_1_to_60000")
    # the second batch would take minutes
    early = reader.messages({"where": "id < 59000 or sleep(60) = 0"})
    assert isinstance(next(early), Frame)

    early.close()

    # what is killed ends at the server's next look; were it not, this would wait for minutes
    while _running(orders):
        continue


def test_a_cancelled_read_stops_a_source_that_sends_nothing(orders: Any, reader: Reader) -> None:
    cancelled = threading.Event()

    def cancel_when_running() -> None:
        while not _running(orders):
            continue
        cancelled.set()

    watcher = threading.Thread(target=cancel_when_running)
    watcher.start()

    with pytest.raises(Cancelled):
        reader.read({"where": "sleep(60) = 0"}, cancelled=cancelled)

    watcher.join()


def _running(cursor: Any) -> list[str]:
    """Reads of the table that the server works on."""
    cursor.execute("select info from information_schema.processlist where info like 'select %orders%where (%'")
    return [row[0] for row in cursor.fetchall() if "processlist" not in row[0]]


def test_check_names_server_and_tables(orders: Any, reader: Reader) -> None:
    with reader.open(source_spec({})) as connector:
        assert connector.check().endswith("/shop: 1 tables")


def _collect(reader: Reader, stream: dict[str, Any], kept: list[Message]) -> None:
    for message in reader.messages(stream):
        kept.append(message)  # noqa: PERF402 extend would lose them with the error
