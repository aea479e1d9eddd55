"""What Sling reads arrives exactly: every value, every row, from the position asked for."""

import json
import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import Checkpoint, CopyFile, Frame, Rejected, StreamState, Window
from connectors.registry import kind
from tests.database import mariadb
from tests.sling.reading import read, reading, slings, source

TYPES = """
create table everything (
    id bigint primary key, small smallint, price numeric(12, 2), tiny numeric, wide numeric(60, 30),
    ratio double precision, ok boolean, local timestamp, moment timestamptz, day date, at time,
    label text, fixed char(5), doc jsonb, raw bytea,
    key uuid, parts text[], "Weird Name;""x" text)
"""
FULL = """
insert into everything values (9223372036854775807, -32768, 1234567890.12, 0.00000000000000000001,
    123456789012345678901234567890.123456789012345678901234567891, 0.1, true, '2024-01-01 12:00:00.123456',
    '2024-06-01 12:00:00.123456+02', '2024-02-29', '23:59:59.999999', E'line1\\nline2\\r\\n"q", \\t\\\\N NULL', 'ab',
    '{"a": [1, 2.50], "b": null}', '\\x00ff10', '12345678-1234-1234-1234-123456789abc', '{a,"b,c"}', ' ünï😀 ')
"""


def test_every_value_arrives_exactly(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute(TYPES)
    shop.execute(FULL)
    shop.execute("insert into everything (id, label) values (2, '')")

    rows = read(tmp_path, source({"name": "everything", "object": "public.everything"})).rows

    assert rows[0] == {
        "id": "9223372036854775807",
        "small": "-32768",
        "price": "1234567890.12",
        "tiny": "0.00000000000000000001",
        "wide": "123456789012345678901234567890.123456789012345678901234567891",
        "ratio": "0.1",
        "ok": "true",
        "local": "2024-01-01T12:00:00.123456Z",
        "moment": "2024-06-01T10:00:00.123456Z",
        "day": "2024-02-29",
        "at": "23:59:59.999999",
        "label": 'line1\nline2\r\n"q", \t\\N NULL',
        "fixed": "ab   ",
        "doc": '{"a": [1, 2.50], "b": null}',
        "raw": "\\x00ff10",
        "key": "12345678-1234-1234-1234-123456789abc",
        "parts": '{a,"b,c"}',
        'Weird Name;"x': " ünï😀 ",
    }
    assert rows[1] == {**dict.fromkeys(rows[0]), "id": "2", "label": ""}


def test_columns_carry_their_exact_types(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute(TYPES)
    shop.execute(FULL)

    columns = read(tmp_path, source({"name": "everything", "object": "public.everything"})).columns

    exact = {column.name: (column.type, column.pg_type) for column in columns}
    assert exact["small"] == ("bigint", "smallint")
    assert exact["price"] == ("decimal", "numeric(12,2)")
    assert exact["tiny"] == ("decimal", "numeric")
    assert exact["wide"] == ("decimal", "numeric(60,30)")
    assert exact["moment"] == ("timestamp", "timestamp with time zone")
    assert exact["doc"] == ("json", "jsonb")
    assert exact["key"] == ("text", "uuid")
    assert exact["raw"] == ("binary", "bytea")
    assert exact["label"] == ("text", "text")


def test_values_at_the_edges_keep_their_meaning(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table odd (id int, amount numeric(12,2), ratio float8, moment timestamptz)")
    shop.execute("insert into odd values (1, 'NaN', 'NaN', 'infinity'), (2, 1.5, '-inf', '2024-01-01Z')")
    shop.execute("insert into odd values (3, 0, 1.7976931348623157e308, '0001-01-01 00:00:00Z'), (4, 0, 5e-324, null)")

    found = read(tmp_path, source({"name": "odd", "object": "public.odd"}))

    (part,) = found.of(CopyFile)
    shop.execute("create table back (like odd)")
    with part.path.open("rb") as file, shop.cursor().copy("copy back from stdin (format csv)") as copy:
        copy.write(file.read())
    # 5e-324, the smallest of all, comes as a text that rounds to it
    assert shop.execute("table odd except table back").fetchall() == []
    assert shop.execute("select count(*) from back").fetchone() == (4,)


def test_a_large_table_arrives_in_parts_and_is_attested(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id, md5(i::text) as note from generate_series(1, 120001) i")

    found = read(tmp_path, source({"name": "big", "object": "public.big"}))

    assert [part.rows for part in found.of(CopyFile)] == [50_000, 50_000, 20_001]
    assert [part.position for part in found.of(CopyFile)][-1] == "rows 100,001 to 120,001"
    assert found.attested.rows == 120_001
    assert sum(int(row["id"]) for row in found.rows) == 120_001 * 120_002 // 2
    assert not slings()


def test_an_empty_table_still_says_its_types(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table nothing (id int, amount numeric(5,2))")

    found = read(tmp_path, source({"name": "nothing", "object": "public.nothing"}))

    (frame,) = found.of(Frame)
    assert frame.table.num_rows == 0
    assert [str(field.type) for field in frame.table.schema] == ["int64", "decimal128(5, 2)"]
    assert found.attested.rows == 0
    assert not found.attested.nothing_new


def test_an_incremental_read_asks_from_the_position_on(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute('create table orders (id int primary key, "Changed At" timestamptz)')
    shop.execute(
        "insert into orders select i, '2024-01-01Z'::timestamptz + i * interval '1 hour' from generate_series(0, 9) i"
    )
    stream = {
        "name": "orders",
        "object": "public.orders",
        "cursor": {"field": "Changed At"},
        "primary_key": "id",
        "write": "merge",
        "where": "id <> 8",
    }

    found = read(tmp_path, source(stream), StreamState(cursor="2024-01-01T07:00:00Z"))
    later = read(tmp_path, source(stream), StreamState(cursor="2024-02-01T00:00:00Z"))

    assert [row["id"] for row in found.rows] == ["7", "9"]
    assert later.attested.nothing_new


def test_a_text_position_is_compared_by_code_points_whatever_its_type_thinks(
    shop: psycopg.Connection, tmp_path: Path
) -> None:
    shop.execute("create type size as enum ('B', 'a0', 'ZA', 'Za')")
    shop.execute("create table orders (id int primary key, code size)")
    shop.execute("insert into orders values (0, 'B'), (1, 'ZA'), (2, 'a0'), (3, 'Za')")
    stream = {"name": "orders", "object": "public.orders", "cursor": {"field": "code"}, "order": True}

    found = read(tmp_path, source(stream), StreamState(cursor="Za"))

    assert [row["id"] for row in found.rows] == ["3", "2"]


@pytest.mark.slow
@pytest.mark.skipif(not mariadb.is_installed(), reason=mariadb.REASON)
def test_mariadb_is_read_with_its_types_and_from_a_text_position_on(tmp_path: Path) -> None:
    pymysql = pytest.importorskip("pymysql", reason="the driver pymysql is not installed")
    with mariadb.running_mariadb() as server:
        session = pymysql.connect(host="127.0.0.1", port=server.port, user="root", autocommit=True)
        with session, session.cursor() as cursor:
            cursor.execute("create database shop character set utf8mb4")
            cursor.execute("create table shop.orders (id int primary key, code varchar(9), price decimal(8, 3))")
            rows = [(0, "B", "1.250"), (1, "ZA", "2"), (2, "a0", "99999.999"), (3, "Za", None), (4, "ü'\\", "0")]
            cursor.executemany("insert into shop.orders values (%s, %s, %s)", rows)
        stream = {"name": "orders", "object": "shop.orders", "cursor": {"field": "code"}, "order": True}
        connector = {"connection": f"mariadb://root@127.0.0.1:{server.port}/shop"}

        found = read(tmp_path / "a", source(stream, connector), StreamState(cursor="Za"))
        last = read(tmp_path / "b", source(stream, connector), StreamState(cursor="ü'\\"))

    assert [list(row.values()) for row in found.rows] == [
        ["3", "Za", None],
        ["2", "a0", "99999.999"],
        ["4", "ü'\\", "0.000"],
    ]
    assert [column.pg_type for column in found.columns][::2] == ["bigint", "numeric"]
    assert [row["id"] for row in last.rows] == ["4"]


def test_a_partition_reads_its_window_alone(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table orders as select i as id, '2024-01-01'::date + i as day from generate_series(0, 9) i")
    stream = {
        "name": "orders",
        "object": "public.orders",
        "cursor": {"field": "day"},
        "primary_key": "id",
        "write": "merge",
        "partitions": {"by": "day", "start": "2024-01-01"},
    }
    window = Window(datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC))

    found = read(tmp_path, source(stream), StreamState(cursor="2024-01-09"), window)

    assert [row["id"] for row in found.rows] == ["2", "3"]


@pytest.mark.parametrize("sql", ["select id, n from t where {incremental_where_cond}", "select id, n from t;"])
def test_a_query_takes_the_position(shop: psycopg.Connection, tmp_path: Path, sql: str) -> None:
    shop.execute("create table t as select i as id, i / 10.0 as n from generate_series(1, 5) i")
    stream = {"name": "t", "sql": sql, "cursor": {"field": "id"}, "primary_key": "id", "write": "merge"}

    found = read(tmp_path, source(stream), StreamState(cursor="4"))

    assert [row["id"] for row in found.rows] == ["4", "5"]
    assert [Decimal(row["n"]) for row in found.rows] == [Decimal("0.4"), Decimal("0.5")]


@pytest.mark.parametrize("position", ["x' or 'a'='a", "'; drop table codes; --"])
def test_a_position_is_quoted_whatever_it_contains(shop: psycopg.Connection, tmp_path: Path, position: str) -> None:
    shop.execute('create table codes ("co""de" text primary key)')
    shop.execute("insert into codes values ('a'), (%s)", [position])
    stream = {"name": "codes", "object": "public.codes", "cursor": {"field": 'co"de'}, "primary_key": 'co"de'}

    found = read(tmp_path, source(stream), StreamState(cursor=position))

    expected = shop.execute('select "co""de" from codes where "co""de" >= %s', [position]).fetchall()
    assert sorted(row['co"de'] for row in found.rows) == sorted(row[0] for row in expected)


def test_an_ordered_read_seals_where_the_cursor_moves_on(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table ticks as select i as id, i / 60000 as minute from generate_series(119999, 0, -1) i")
    stream = {
        "name": "ticks",
        "object": "public.ticks",
        "cursor": {"field": "minute"},
        "primary_key": "id",
        "write": "merge",
        "order": True,
    }

    found = read(tmp_path, source(stream))

    # frames of 50,000 rows: 0 | 0 and 1 | 1; no frame begins with a new minute, so no checkpoint would be clean
    assert not found.of(Checkpoint)
    shop.execute("update ticks set minute = id")
    again = read(tmp_path, source(stream), StreamState(cursor="10"))
    assert len(again.of(Checkpoint)) == 2
    assert [int(row["id"]) for row in again.rows] == list(range(10, 120_000))


def test_selected_columns_alone_are_read(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute('create table people (id int, name text, "Secret" text)')
    shop.execute("insert into people values (1, 'a', 'b')")

    found = read(tmp_path, source({"name": "people", "object": "public.people", "select": ["id", "name"]}))

    assert found.rows == [{"id": "1", "name": "a"}]


@pytest.mark.parametrize("order", [False, True])
def test_a_column_with_a_minus_is_left_out_beside_a_blocked_one(
    shop: psycopg.Connection, tmp_path: Path, order: bool
) -> None:
    shop.execute('create table people (id int, name text, "Secret" text)')
    shop.execute("insert into people values (1, 'a', 'b')")
    stream = {
        "name": "people",
        "object": "public.people",
        "cursor": {"field": "id"},
        "order": order,
        "select": ["-name"],
    }
    spec = source({**stream, "columns": {"Secret": {"rule": "block"}}})

    found = read(tmp_path, spec)

    assert found.rows == [{"id": "1"}]
    asked = json.loads((tmp_path / "sling" / "replication.json").read_text())
    assert "Secret" not in json.dumps({**next(iter(asked["streams"].values())), "columns": None})


@pytest.mark.parametrize("options", [{}, {"order": True}, {"select": ["id", "Secret", "name"]}])
def test_a_blocked_column_never_leaves_the_source(
    shop: psycopg.Connection, tmp_path: Path, options: dict[str, Any]
) -> None:
    shop.execute('create table people (id int, name text, "Secret" text)')
    shop.execute("insert into people values (1, 'a', 'b')")
    stream = {"name": "people", "object": "public.people", "cursor": {"field": "id"}, **options}

    found = read(tmp_path, source({**stream, "columns": {"Secret": {"rule": "block"}}}))

    assert found.rows == [{"id": "1", "name": "a"}]


def test_null_values_become_null(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table codes as select unnest(array['a', 'n/a', null]) as code")

    found = read(tmp_path, source({"name": "codes", "object": "public.codes", "null_values": ["n/a"]}))

    assert [row["code"] for row in found.rows] == ["a", None, None]


def test_a_transform_of_sling_is_applied(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table people as select 1 as id, '  a ' as name")

    found = read(
        tmp_path, source({"name": "people", "object": "public.people", "transforms": {"name": ["trim_space"]}})
    )

    assert found.rows == [{"id": "1", "name": "a"}]


def test_sqlite_is_read_with_all_digits(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("create table places (id integer primary key, lat real, seen timestamp)")
        database.execute("insert into places values (1, 41.1304722, '2024-01-01 10:00:00'), (2, -0.5, null)")
        database.execute("insert into places values (3, 1e300, '2024-01-02T10:00:00Z')")
    connector = {"connection": f"sqlite://{path}"}
    stream = {"name": "places", "object": "main.places"}
    newer = {**stream, "cursor": {"field": "seen"}, "primary_key": "id", "write": "merge"}

    rows = read(tmp_path / "a", source(stream, connector)).rows
    later = read(tmp_path / "b", source(newer, connector), StreamState(cursor="2024-01-02T00:00:00Z")).rows

    assert [row["lat"] for row in rows] == ["41.1304722", "-0.5", f"{10**300}"]
    assert rows[0]["seen"] == "2024-01-01T10:00:00Z"
    assert [row["id"] for row in later] == ["3"]


def test_a_time_of_sqlites_that_is_none_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("create table places (id integer, seen timestamp, day date)")
        database.execute("insert into places values (1, '2024-01-01 10:00:00', '2024-01-01'), (2, 'yesterday', null)")
        database.execute("insert into places values (3, null, 'today'), (4, null, null)")

    found = read(
        tmp_path / "a", source({"name": "places", "object": "main.places"}, {"connection": f"sqlite://{path}"})
    )

    assert [row["id"] for row in found.rows] == ["1", "4"]
    assert [message.reason.split()[0] for message in found.of(Rejected)] == ["seen", "day"]


def test_text_that_is_no_utf8_is_rejected_alone(tmp_path: Path) -> None:
    path = tmp_path / "shop.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("create table notes (id integer primary key, note text, raw blob)")
        database.execute("insert into notes values (1, 'fine', x'00ff'), (2, cast(x'ff41' as text), x'01')")

    found = read(tmp_path / "w", source({"name": "notes", "object": "main.notes"}, {"connection": f"sqlite://{path}"}))

    assert found.rows == [{"id": "1", "note": "fine", "raw": "\\x00ff"}]
    (rejected,) = found.of(Rejected)
    assert rejected.reason == "note is not UTF-8 text"
    assert rejected.position == "rows 1 to 2, record 2"


def test_a_preview_stops_after_its_pages(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id from generate_series(1, 2000000) i")

    with reading(tmp_path, source({"name": "big", "object": "public.big"}), page_limit=1) as (messages, _):
        found = list(messages)

    assert len(found) == 1
    assert not slings()


def test_check_names_the_place_without_credentials(shop: psycopg.Connection) -> None:
    with kind("sling").open(source({"name": "t"})) as connector:
        told = connector.check()

    assert told.startswith("Sling reached postgresql://127.0.0.1:")
    assert "@" not in told


def test_discover_lists_tables_with_house_types(shop: psycopg.Connection) -> None:
    shop.execute("create table orders (id int, price numeric(12,2), doc jsonb)")

    with kind("sling").open(source({"name": "t"})) as connector:
        (found,) = connector.discover()

    assert found.name == "public.orders"
    assert [(column.name, column.type) for column in found.columns] == [
        ("id", "bigint"),
        ("price", "decimal"),
        ("doc", "json"),
    ]
