"""What COPY reads out of every type, COPY reads back as the same values into the columns that the schema names."""

from typing import Any, LiteralString, cast

import psycopg
import pyarrow as pa
import pytest
from psycopg import sql

from connectors.contract import CopyFile
from connectors.database.pg_catalog import read_table
from tests.database.reading import Reader

NASTY_TEXTS = (
    "",
    " ",
    "NULL",
    "null",
    "\\N",
    "\\.",
    '"',
    '""',
    ",",
    "a,b",
    "line\nbreak",
    "carriage\rreturn",
    "both\r\n",
    "\ttab",
    "'quoted'",
    "\\backslash\\",
    "ünïcödé 🦆 \u202e",
    "\x01\x7f",
    "x" * 100_000,
)

# type, values as SQL; what the warehouse's column must be called; expression that must survive unchanged
TYPES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("boolean", ("true", "false"), "boolean"),
    ("smallint", ("-32768", "32767"), "smallint"),
    ("integer", ("-2147483648", "2147483647"), "integer"),
    ("bigint", ("-9223372036854775808", "9223372036854775807"), "bigint"),
    ("real", ("1e-45", "3.4028235e38", "'NaN'", "'-Infinity'", "0.1"), "real"),
    (
        "double precision",
        ("5e-324", "1.7976931348623157e308", "'NaN'", "'Infinity'", "'-0'", "0.1"),
        "double precision",
    ),
    ("numeric(12,2)", ("-9999999999.99", "0.01", "'NaN'"), "numeric(12,2)"),
    ("numeric(38,10)", ("9999999999999999999999999999.9999999999",), "numeric(38,10)"),
    ("numeric(76,20)", ("-1e55",), "numeric(76,20)"),
    ("numeric(200,50)", ("1e149",), "numeric(200,50)"),
    ("numeric(5,-2)", ("1234500",), "numeric(5,-2)"),
    ("numeric", ("1e131071", "-1e-16383", "'Infinity'", "'NaN'", "123.4500"), "numeric"),
    ("text", tuple(f"$nasty${text}$nasty$" for text in NASTY_TEXTS), "text"),
    ("varchar(7)", ("'abc'", "''"), "character varying(7)"),
    ("char(5)", ("'ab'", "''"), "character(5)"),
    ("name", ("'somebody'",), "text"),
    ('"char"', ("'x'",), "text"),
    ("bytea", ("'\\x00ff10'", "''"), "bytea"),
    ("date", ("'4713-01-01 BC'", "'5874897-12-31'", "'infinity'", "'2024-02-29'"), "date"),
    ("time", ("'00:00'", "'23:59:59.999999'", "'24:00'"), "time without time zone"),
    ("timetz", ("'23:59:59.999999-15:59'",), "time with time zone"),
    ("timestamp", ("'0044-03-15 BC'", "'294276-12-31 23:59:59.999999'", "'-infinity'"), "timestamp without time zone"),
    ("timestamptz", ("'2024-03-31 02:30+02'", "'infinity'", "'0001-01-01 BC'"), "timestamp with time zone"),
    ("timestamp(3)", ("'2024-01-01 00:00:00.123'",), "timestamp(3) without time zone"),
    ("interval", ("'178000000 years'", "'-1 mon 3 days 04:05:06.789'"), "text"),
    ("uuid", ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",), "uuid"),
    ("json", ("""'{"b": 1, "a": "\\u0041", "a": 2}'""",), "json"),
    ("jsonb", ("""'{"b": 1e400, "a": [null, "x,\\"y"]}'""", "'null'", """'""'"""), "jsonb"),
    ("inet", ("'::1/64'", "'10.0.0.1'"), "inet"),
    ("cidr", ("'10.0.0.0/8'",), "cidr"),
    ("macaddr", ("'08:00:2b:01:02:03'",), "macaddr"),
    ("bit(3)", ("B'101'",), "bit(3)"),
    ("varbit", ("B''", "B'0110'"), "bit varying"),
    ("oid", ("4294967295",), "bigint"),
    ("money", ("'-92233720368547758.08'",), "numeric"),
    ("point", ("'(1.5,-2)'",), "text"),
    ("tsvector", ("'a fat cat'",), "text"),
    ("int4range", ("'[1,10)'", "'empty'"), "text"),
    ("xid8", ("'5'",), "text"),
    ("text[]", ("""'{a,"b,c",NULL,"\\"q\\""}'""", "'{}'", "'{{a},{b}}'"), "jsonb"),
    ("numeric(10,3)[]", ("'{1.500,NaN}'",), "jsonb"),
    ("mood", ("'happy, not sad'",), "text"),
    ("pair", ("row(1, 'a \"b\"')",), "text"),
    ("positive", ("5.25",), "numeric(8,3)"),
    ("positives", ("'{1}'",), "jsonb"),
)
CUSTOM = (
    """create type mood as enum ('happy, not sad', 'sad')""",
    "create type pair as (a int, b text)",
    "create domain amount as numeric(8,3) not null",
    "create domain positive as amount check (value > 0)",
    "create domain positives as int[]",
)


@pytest.mark.parametrize(("kind", "values", "expected"), TYPES, ids=[item[0] for item in TYPES])
def test_every_type_reads_back_as_the_same_values(
    source: psycopg.Connection[Any], reader: Reader, kind: str, values: tuple[str, ...], expected: str
) -> None:
    for statement in CUSTOM:
        source.execute(statement)  # pyright: ignore[reportArgumentType] test data
    source.execute(sql.SQL("create table orders (id int, v {})").format(sql.SQL(kind)))  # pyright: ignore[reportArgumentType]
    for number, value in enumerate(values):
        source.execute(sql.SQL("insert into orders values ({}, {})").format(number, sql.SQL(value)))  # pyright: ignore[reportArgumentType]
    if kind != "positive":
        source.execute("insert into orders values (-1, null)")

    (part,) = [message for message in reader.read() if isinstance(message, CopyFile)]
    assert part.columns[-1].pg_type == expected
    _load(source, "copied", part)
    context = reader.context(takes_binary=part.columns.__eq__)
    (binary,) = [message for message in reader.messages(context=context) if isinstance(message, CopyFile)]
    assert (part.format, binary.format, part.rows) == ("csv", "binary", binary.rows)
    _load(source, "copied_binary", binary)
    cast = "to_jsonb(v)" if expected == "jsonb" else "v"
    # the source's own texts, in the session's form that COPY used for intervals
    source.execute("set intervalstyle = iso_8601")
    query = "select id, {}::text, v is null from {} order by id"
    before = source.execute(sql.SQL(query).format(sql.SQL(_same(kind, cast)), sql.Identifier("orders"))).fetchall()  # pyright: ignore[reportArgumentType]
    for table in ("copied", "copied_binary"):
        after = source.execute(sql.SQL(query).format(sql.SQL("v"), sql.Identifier(table))).fetchall()  # pyright: ignore[reportArgumentType]
        assert after == before, table


def _same(kind: str, cast: str) -> str:
    return "v::numeric" if kind == "money" else cast


def test_a_single_column_of_nulls_and_dots_keeps_every_row(source: psycopg.Connection[Any], reader: Reader) -> None:
    source.execute("create table orders (v text)")
    source.execute("insert into orders select unnest(array[null, '', '\\.', null, E'\\n'])")

    (part,) = [message for message in reader.read() if isinstance(message, CopyFile)]

    _load(source, "copied", part)
    assert part.rows == 5
    assert source.execute("select v from copied").fetchall() == [(None,), ("",), ("\\.",), (None,), ("\n",)]


def test_names_of_any_kind_are_quoted(source: psycopg.Connection[Any], reader: Reader) -> None:
    source.execute('create schema "Odd ""Schema"')
    source.execute('create table "Odd ""Schema"."orders; drop table x" ("select" int, "a ""b"" {}" text, "ü" int)')
    source.execute("""insert into "Odd ""Schema"."orders; drop table x" values (1, 'x', 2)""")

    messages = reader.read({"schema": 'Odd "Schema', "table": "orders; drop table x"})

    (part,) = [message for message in messages if isinstance(message, CopyFile)]
    assert part.names == ["select", 'a "b" {}', "ü"]
    assert part.path.read_text() == "1,x,2\n"


def test_types_are_exact(source: psycopg.Connection[Any], reader: Reader) -> None:
    source.execute(
        "create table orders (id bigint not null, amount numeric(12,2), big numeric(60,5), free numeric, "
        "at timestamptz, local timestamp(3), day date, clock time(0), flag boolean, small real, bytes bytea)"
    )

    shape = read_table(source, "public", "orders", "unit")

    assert {column.name: (column.arrow_type, column.house_type, column.pg_type) for column in shape.columns} == {
        "id": (pa.int64(), "bigint", "bigint"),
        "amount": (pa.decimal128(12, 2), "decimal", "numeric(12,2)"),
        "big": (pa.decimal256(60, 5), "decimal", "numeric(60,5)"),
        "free": (pa.string(), "decimal", "numeric"),
        "at": (pa.timestamp("us", "UTC"), "timestamp", "timestamp with time zone"),
        "local": (pa.timestamp("us"), "timestamp", "timestamp(3) without time zone"),
        "day": (pa.date32(), "date", "date"),
        "clock": (pa.time64("us"), "time", "time(0) without time zone"),
        "flag": (pa.bool_(), "bool", "boolean"),
        "small": (pa.float32(), "double", "real"),
        "bytes": (pa.binary(), "binary", "bytea"),
    }


def _load(session: psycopg.Connection[Any], table: str, part: CopyFile) -> None:
    """A table of the schema's own types, filled by COPY, as the engine does."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(item.name), sql.SQL(cast("LiteralString", item.pg_type)))
        for item in part.columns  # pyright: ignore[reportArgumentType] a type of the catalog
    )
    session.execute(sql.SQL("create table {} ({})").format(sql.Identifier(table), columns))
    with session.cursor() as cursor:
        statement = sql.SQL("copy {} from stdin (format {})").format(sql.Identifier(table), sql.SQL(part.format))
        with cursor.copy(statement) as copy:
            copy.write(part.path.read_bytes())
        assert cursor.rowcount == part.rows
