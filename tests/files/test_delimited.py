"""CSV as it really comes: every oddity is a value, a rejected line, or a clear failure; never a silent loss."""

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import CopyFile, Frame
from connectors.errors import MAX_LINES, ConfigError, ResourceError, SourceError
from tests.files.reading import put, read, table_of

CSV = {"path": "*.csv"}


def test_columns_are_typed_and_codes_stay_text(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.csv",
        "id,price,zip,ok,day,at,big,flag,note\n"
        "1,10.357019999999999,00123,true,2024-02-29,2024-02-29T10:00:00Z,12345678901234567890,yes,a\n"
        "-2,1e3,99999,FALSE,2024-03-01,2024-02-29 10:00:00.5+02,1,no,b\n",
    )

    found = read(tmp_path, CSV)

    assert found.rows == [
        {
            "id": 1,
            "price": 10.357019999999999,
            "zip": "00123",
            "ok": True,
            "day": date(2024, 2, 29),
            "at": datetime(2024, 2, 29, 10, tzinfo=UTC),
            "big": "12345678901234567890",
            "flag": "yes",
            "note": "a",
        },
        {
            "id": -2,
            "price": 1000.0,
            "zip": "99999",
            "ok": False,
            "day": date(2024, 3, 1),
            "at": datetime(2024, 2, 29, 8, 0, 0, 500_000, UTC),
            "big": "1",
            "flag": "no",
            "note": "b",
        },
    ]


def test_declared_types_win(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "code,price,at\n1,10.10,2024-01-01\n")
    columns = {
        "code": {"type": "text"},
        "price": {"type": "decimal", "precision": 10, "scale": 2},
        "at": {"type": "timestamp"},
    }

    (row,) = read(tmp_path, {**CSV, "columns": columns}).rows

    assert row == {"code": "1", "price": Decimal("10.10"), "at": datetime(2024, 1, 1, tzinfo=UTC)}


def test_null_empty_and_quoted_texts_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", 'id,note,n\n1,,NA\n2,"",3\n3,"NA",NA\n4,NA,5\n')

    found = read(tmp_path, {**CSV, "null_values": ["NA"]})

    assert [row["note"] for row in found.rows] == [None, "", "NA", None]
    assert [row["n"] for row in found.rows] == [None, 3, None, 5]


def test_a_column_that_is_null_so_far_is_decided_by_the_first_value(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,gust\n1,NA\n", hour=1)
    put(tmp_path, "b.csv", "id,gust\n2,9.5\n", hour=2)
    put(tmp_path, "c.csv", "id,gust\n3,7\n", hour=3)

    found = read(tmp_path, {**CSV, "null_values": ["NA"]})

    assert [str(frame.table.schema.field("gust").type) for frame in found.of(Frame)] == ["null", "double", "double"]


def test_types_stay_the_same_from_file_to_file_and_sync_to_sync(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,price\n1,1.5\n", hour=1)
    first = read(tmp_path, CSV)
    put(tmp_path, "b.csv", "id,price\n2,2\n", hour=2)

    second = read(tmp_path, CSV, first.state)

    assert second.table.schema == first.table.schema


def test_a_value_that_does_not_convert_leaves_its_column_text(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,n\n1,1\n", hour=1)
    put(tmp_path, "b.csv", "id,n\n2,2\n3,oops\n", hour=2)

    found = read(tmp_path, CSV)

    assert found.error is None
    assert found.of(Frame)[1].table.to_pylist() == [{"id": 2, "n": "2"}, {"id": 3, "n": "oops"}]


def test_lines_of_wrong_length_are_rejected_with_their_number(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,note\n1,a\n2\n3,c,d\n4,e\n")

    found = read(tmp_path, CSV)

    assert [row["id"] for row in found.rows] == [1, 4]
    assert found.rejected == [
        ("a.csv line 3", b"2", "1 fields where the header has 2"),
        ("a.csv line 4", b"3,c,d", "3 fields where the header has 2"),
    ]


def test_line_numbers_count_rejected_lines_and_skipped_ones(tmp_path: Path) -> None:
    lines = [f"{number},{'x' * 100}" for number in range(100_000)]
    lines[50] = "bad"
    lines[99_998] = "worse,1,2"
    put(tmp_path, "a.csv", "made by export\nid,note\n" + "\n".join(lines) + "\n")

    found = read(tmp_path, {**CSV, "skip_rows": 1})

    assert [position for position, *_ in found.rejected] == ["a.csv line 53", "a.csv line 100001"]
    assert len(found.rows) == 99_998
    pieces = found.of((Frame, CopyFile))
    assert len(pieces) > 2
    for piece in pieces:
        ids = table_of(piece)["id"].to_pylist()
        first = int(piece.position.removeprefix("a.csv line "))
        numbers = (isinstance(piece, Frame) and piece.numbers) or range(1, len(ids) + 1)
        assert [first + number - 1 for number in numbers] == [number + 3 for number in ids]


def test_bytes_that_are_no_text_cost_their_row_alone(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", b"id,note\n1,fine\n2,\xff\xfe\n3,also\n")

    found = read(tmp_path, CSV)

    assert [row["id"] for row in found.rows] == [1, 3]
    ((position, payload, reason),) = found.rejected
    assert (position, payload) == ("a.csv line 3", b"2,\xff\xfe")
    assert "note is not utf-8" in reason


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("\ufeffid,note\n1,ä\n".encode(), {}),
        ("id,note\r\n1,ä\r\n".encode(), {}),
        ("id,note\n1,ä".encode(), {}),
        ("id;note\n1;ä\n".encode(), {"delimiter": ";"}),
        ("id\tnote\n1\tä\n".encode(), {"delimiter": "\t"}),
        ("id,note\n1,ä\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("id,note\n1,ä\n".encode("utf-16"), {"encoding": "utf-16"}),
        ("id,note\n1,'ä'\n".encode(), {"quote": "'"}),
        ("1,ä\n".encode(), {"header": False, "names": ["id", "note"]}),
        ("a,b\n1,ä\n".encode(), {"names": ["id", "note"]}),
        ("# made\n# by\nid,note\n1,ä\n".encode(), {"skip_rows": 2}),
    ],
)
def test_dialects_and_encodings(tmp_path: Path, content: bytes, options: dict[str, Any]) -> None:
    put(tmp_path, "a.csv", content)

    found = read(tmp_path, {**CSV, **options})

    assert found.error is None
    assert found.rows == [{"id": 1, "note": "ä"}]


def test_newlines_and_quotes_inside_quotes_are_kept(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", 'id,note\r\n1,"a\r\nb ""c"", d"\r\n2,e\r\n')

    assert [row["note"] for row in read(tmp_path, CSV).rows] == ['a\r\nb "c", d', "e"]


@pytest.mark.parametrize("content", ['id,note\n1,a\n2,"b\n3,c\n4,d\n', 'id,note\n1,a\n2,"b'])
def test_a_quote_that_never_ends_fails_and_says_where(tmp_path: Path, content: str) -> None:
    put(tmp_path, "a.csv", content)

    found = read(tmp_path, CSV)

    assert isinstance(found.error, SourceError)
    assert "a.csv ends inside quotes: its last record began at line 3" in found.error.what
    assert not found.sealed_rows


def test_a_quote_that_never_ends_fails_also_when_its_record_was_rejected(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", 'id,note,x\n1,a,b\n2,"b,c\n3,c,d\n4,d,e\n')

    assert isinstance(read(tmp_path, CSV).error, SourceError)


def test_a_stray_quote_inside_a_field_is_a_value(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", 'id,note\n1,5" disk\n2,b\n')

    assert [row["note"] for row in read(tmp_path, CSV).rows] == ['5" disk', "b"]


def test_duplicate_and_empty_header_names_are_numbered(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "id,total,,total\n1,2,3,4\n")

    assert read(tmp_path, CSV).rows == [{"id": 1, "total": 2, "column_3": 3, "total_2": 4}]


@pytest.mark.parametrize("content", ["", "\n", "id,note\n", "id,note"])
def test_a_file_without_records_is_read_and_sealed(tmp_path: Path, content: str) -> None:
    put(tmp_path, "a.csv", content)

    found = read(tmp_path, CSV)

    assert found.error is None
    assert not found.rows
    assert read(tmp_path, CSV, found.state).messages[0].nothing_new  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("content", "options", "failure", "says"),
    [
        (b"id;note\n1;a\n", {}, ConfigError, "Set delimiter: ';'"),
        ("id,note\n1,a\n".encode("utf-16"), {}, ConfigError, "Set encoding: utf-16"),
        (b"id,note\n1,\xe4\n", {"encoding": "ascii"}, ConfigError, "Set encoding"),
        (b"id,note\n1," + b"x" * 20_000_000 + b"\n", {}, ResourceError, "max_record_bytes"),
    ],
)
def test_what_does_not_fit_says_what_to_set(
    tmp_path: Path, content: bytes, options: dict[str, Any], failure: type[Exception], says: str
) -> None:
    put(tmp_path, "a.csv", content)

    error = read(tmp_path, {**CSV, **options}).error

    assert isinstance(error, failure)
    assert says in str(error)
    assert str(error).startswith("drop.t: a.csv")
    assert len(str(error).splitlines()) <= MAX_LINES


def test_the_weather_of_a_month_arrives_whole(tmp_path: Path) -> None:
    lines = ["origin,temp,wind_gust,time_hour"]
    lines += [f"JFK,{20 + day / 8},{'NA' if day % 3 else 23.5},2013-01-{day:02}T06:00:00Z" for day in range(1, 32)]
    put(tmp_path, "weather_2013_01.csv.gz", gzip.compress("\n".join(lines).encode()))

    found = read(tmp_path, {"path": "weather_*.csv.gz", "null_values": ["NA"]})

    assert len(found.rows) == 31
    assert found.rows[0] == {
        "origin": "JFK",
        "temp": 20.125,
        "wind_gust": None,
        "time_hour": datetime(2013, 1, 1, 6, tzinfo=UTC),
    }
    assert found.of(Frame)[0].position == "weather_2013_01.csv.gz line 2"
