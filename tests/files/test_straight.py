"""A block of a CSV that goes to COPY as it is holds the very values that the careful way would have found in it."""

import io
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import CopyFile, Frame, ReadContext, Rejected
from connectors.files.columns import ColumnTypes
from connectors.files.delimited import DelimitedReader
from connectors.files.straight import StraightReader
from connectors.kinds.files import FilesStreamSpec
from connectors.sync.decode import Decoder
from connectors.sync.schema import StreamSchema
from connectors.texts import declared
from tests.files.reading import put, read, source
from tests.support.servers import TestServer

GOOD = {"i": "7", "n": "1.50", "f": "0.25", "b": "true", "d": "2024-02-29", "t": "2024-01-01T00:00:00Z", "s": "text"}
TYPES = {
    "i": "bigint", "n": "numeric(5,2)", "f": "double precision", "b": "boolean", "d": "date",
    "t": "timestamp with time zone", "s": "text",
}  # fmt: skip
COLUMNS = {"n": {"type": "decimal", "precision": 5, "scale": 2}}
HEADER = ",".join(GOOD) + "\n" + ",".join(GOOD.values()) + "\n"
# what pyarrow, PostgreSQL and Python read differently, or one of them not at all
ODD = {
    "i": ["", "007", "-0", "+5", " 8", "8 ", "0x1F", "0X1f", "1_0", "1e3", "8.0", "9223372036854775807",
          "9223372036854775808", '"9"', '""', "\t8", "NULL", "NA", "\uff11"],
    "n": ["", "+5", ".5", "5.", "1e2", "1e-9", "1.555", "1.550", "999.99", "1000", "-0", "007.5", " 1.5", "NaN",
          "Infinity", "0x10", "1_0", '"1.5"', '""', "0" * 40 + "1", "9" * 39, "1e400", "1E2"],
    "f": ["", "1e5", "1e400", "1e-400", "5e-324", "NaN", "nan", "inf", "-Infinity", "9007199254740993", ".5", "5.",
          "+5", " 1.5", "0.1", "0x1p3", '"1.5"', '""', "1,5"],
    "b": ["", "t", "f", "T", "TRUE", "tRUE", "1", "0", "yes", "on", '"true"', '""', " true"],
    "d": ["", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "2024-2-1", "2023-02-29", "20240201",
          "01/02/2024", "infinity", "today", "2024-02-01 BC", '"2024-02-01"', '""', " 2024-02-01"],
    "t": ["", "2024-01-01 00:00:00+02:30", "2024-01-01 05+00", "2024-01-01T00:00:00.123456Z",
          "2024-01-01T00:00:00.1234567Z", "2024-01-01T00:00:00", "2024-01-01", "0000-12-31T00:00:00Z", "now",
          "2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "infinity", '"2024-01-01T00:00:00Z"', '""',
          "2024-03-31T02:30:00+0200"],
    "s": ["", '""', '"a,b"', '"a""b"', '"line\nbreak"', 'a"b', 'a"b"c', '"a"b', '"a" ', ' "a"', "\\N", "\\.", "NA",
          '"NA"', " padded ", "tab\there", "ünïcödé 🦆", "NULL", "x\x00y", "\ufeff", "'", '"\n\n"', "a\rb", "a,b"],
}  # fmt: skip


def spec() -> FilesStreamSpec:
    (stream,) = source({"path": "a.csv", "columns": COLUMNS, "null_values": ["NA"]}, "/").streams
    assert isinstance(stream, FilesStreamSpec)
    return stream


@pytest.fixture(scope="module")
def session(server: TestServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.admin_url("postgres"), autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        columns = ", ".join(f"{name} {kind}" for name, kind in TYPES.items())
        connection.execute(f"create temporary table straight ({columns})".encode())
        yield connection


def delimited(body: bytes, types: ColumnTypes) -> Iterator[Frame | Rejected]:
    return DelimitedReader("unit.t", "a.csv", spec(), types).read(io.BufferedReader(io.BytesIO(body)))


def careful(body: bytes) -> list[dict[str, Any]] | None:
    """What the engine makes of the careful way's frames; None when a record was rejected or changed the schema."""
    stream = spec()
    schema = StreamSchema("unit.t", stream, ())
    decoder = Decoder(schema, stream.null_values, stream.max_record_bytes)
    found: list[dict[str, Any]] = []
    types = ColumnTypes(declared(stream.columns), {})
    for message in (*delimited(HEADER.encode(), types), *delimited(body, types)):
        if isinstance(message, Rejected) or (decoded := decoder.frame(message)).rejects:
            return None
        found += [row for table in decoded.tables for row in table.to_pylist()]
    return found[1:] if len(schema.columns) == len(GOOD) else None


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in ODD.items() for field in fields])
def test_what_goes_straight_is_what_the_careful_way_finds(
    session: psycopg.Connection[Any], tmp_path: Path, name: str, field: str
) -> None:
    body = (HEADER + ",".join((GOOD | {name: field}).values()) + "\n").encode()
    stream = spec()
    types = ColumnTypes(declared(stream.columns), {})
    reader = StraightReader("unit.t", "a.csv", stream, types, ReadContext(None, tmp_path), 2 * len(HEADER))
    messages = list(reader.read(io.BufferedReader(io.BytesIO(body))))
    assert isinstance(messages[0], Frame)
    parts = [message for message in messages if isinstance(message, CopyFile)]
    if not parts:
        return
    (part,) = parts
    session.execute("truncate straight")
    with session.cursor() as cursor:
        with cursor.copy("copy straight from stdin (format csv)") as copy:
            copy.write(part.path.read_bytes())
        assert cursor.rowcount == part.rows == 1
    found = session.execute("select i, n::text, f, b, d, t, s from straight").fetchall()
    expected = careful(body)
    assert expected is not None
    row = dict(zip(GOOD, found[0], strict=True))
    wanted = expected[1]
    numbers = [value and Decimal(value) for value in (row.pop("n"), wanted.pop("n"))]
    assert numbers[0] == numbers[1]
    assert row == wanted


def test_plain_values_do_go_straight(tmp_path: Path) -> None:
    lines = "".join(f'{row},1.5,0.5,false,2024-01-01,2024-01-01 00:00+00,"a ""b"", c"\n' for row in range(100))
    stream = spec()
    types = ColumnTypes(declared(stream.columns), {})
    reader = StraightReader("unit.t", "a.csv", stream, types, ReadContext(None, tmp_path), 2 * len(HEADER))
    body = (HEADER + lines).encode()
    first, part, *rest = reader.read(io.BufferedReader(io.BytesIO(body)))
    assert (type(first), rest) == (Frame, [])
    assert isinstance(part, CopyFile)
    assert (part.rows, part.path.read_bytes(), part.position) == (100, lines.encode(), "a.csv line 3")


def test_odd_blocks_and_lines_keep_their_order_and_their_numbers(tmp_path: Path) -> None:
    lines = [f"{row},{'x' * 100}" for row in range(120_000)]
    lines[60_000], lines[80_000], lines[119_999] = "60000", '80000,"it is ""odd"" x"y', '119999,"a\nb"'
    put(tmp_path, "a.csv", ("i,s\n" + "\n".join(lines)).encode())
    found = read(tmp_path, {"path": "*.csv"})
    assert len(found.of(CopyFile)) > 1
    assert len(found.of(Frame)) > 1
    assert [row["i"] for row in found.rows] == [row for row in range(120_000) if row != 60_000]
    assert found.rejected == [("a.csv line 60002", b"60000", "1 fields where the header has 2")]


@pytest.mark.parametrize("rule", [{"rule": "block"}, {"rule": "mask"}])
def test_a_file_with_a_protected_column_is_never_copied_to_disk(tmp_path: Path, rule: dict[str, str]) -> None:
    lines = [f"{row},{'x' * 100}" for row in range(100_000)]
    put(tmp_path, "a.csv", "i,s\n" + "\n".join(lines))
    assert read(tmp_path, {"path": "*.csv"}).of(CopyFile)
    found = read(tmp_path, {"path": "*.csv", "columns": {"s": rule}})
    assert found.of(CopyFile) == []
    assert len(found.rows) == len(lines)
