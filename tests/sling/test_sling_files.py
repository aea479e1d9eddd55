"""Files as Sling reads them: digits, rules, and every option of its readers."""

import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from connectors.contract import Rejected
from connectors.kinds.sling import SOURCE_OPTIONS
from tests.sling.reading import read, source


def test_a_blocked_column_of_a_file_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("id,secret\n1,x\n")
    stream = {"name": "people", "object": "people.csv", "columns": {"secret": {"rule": "block"}}}

    assert read(tmp_path / "w", source(stream, {"connection": f"file://{tmp_path}"})).rows == [{"id": "1"}]


def test_a_file_is_read_with_all_digits(tmp_path: Path) -> None:
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "wind.csv").write_text("id,speed,gust\n1,10.357019999999999,NA\n2,8.05,9.5\n")
    connector = {"connection": f"file://{tmp_path}/drop"}
    stream = {"name": "wind", "object": "wind.csv", "source_options": {"null_if": "NA"}}

    found = read(tmp_path / "work", source(stream, connector))

    assert found.rows == [
        {"id": "1", "speed": "10.357019999999999", "gust": None},
        {"id": "2", "speed": "8.05", "gust": "9.5"},
    ]
    assert [column.type for column in found.columns] == ["bigint", "double", "double"]


SHORT = ("delimiter",)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


def workbook(**sheets: list[list[Any]]) -> bytes:
    book: Any = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(body := io.BytesIO())
    return body.getvalue()


OPTIONS: Sequence[tuple[str, str | bytes, Mapping[str, Any]]] = [
    ("a.dat", packed("id,name\n1,a\n"), {"compression": "gzip", "format": "csv"}),
    ("a.csv", "at,name\n02/01/2024,a\n", {"datetime_format": "02/01/2006"}),
    ("a.csv", "id;name\n1;a\n", {"delimiter": ";"}),
    ("a.csv", "id,name\n1,\n", {"empty_as_null": True}),
    ("a.csv", 'id,name\n1,"a\\"b"\n', {"escape": "\\"}),
    ("a.csv", "id,name\n1\n", {"fields_per_rec": -1}),
    ("a.json", '[{"id": 1, "name": {"first": "a"}}]', {"flatten": True}),
    ("a.csv", "1,a\n", {"header": False}),
    ("a.json", '{"data": [{"id": 1, "name": {"first": "a"}}]}', {"jmespath": "data", "flatten": True}),
    ("a.csv", "id,name\n1,a\n2,b\n", {"limit": 1}),
    ("a.csv", "id,name\n1,NA\n", {"null_if": "NA"}),
    ("a.xlsx", workbook(one=[["id"], [9]], two=[["id", "name"], [1, "a"]]), {"sheet": "two"}),
    ("a.csv", "id,name\n\n1,a\n", {"skip_blank_lines": True}),
    ("a.csv", "id,name\n1, a \n", {"transforms": {"name": ["trim_space"]}}),
]
READ: Mapping[str, list[str | None]] = {
    "datetime_format": ["2024-01-02", "a"], "empty_as_null": ["1", None], "escape": ["1", 'a"b'],
    "fields_per_rec": ["1", None], "null_if": ["1", None],
}  # fmt: skip
# for each a process or two of Sling's: the plainest in the short set
ALL_OPTIONS = [
    pytest.param(*case, id=next(iter(case[2])), marks=() if next(iter(case[2])) in SHORT else pytest.mark.slow)
    for case in OPTIONS
]


@pytest.mark.parametrize(("file", "content", "options"), ALL_OPTIONS)
def test_a_source_option_of_sling_does_what_its_manual_says(
    tmp_path: Path, file: str, content: str | bytes, options: Mapping[str, Any]
) -> None:
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    stream = {"name": "things", "object": file, "source_options": options}

    found = read(tmp_path / "work", source(stream, {"connection": f"file://{tmp_path}"}))

    assert [list(row.values()) for row in found.rows] == [READ.get(next(iter(options)), ["1", "a"])]


def test_every_option_that_sling_heeds_is_tried() -> None:
    assert {name for _, _, options in OPTIONS for name in options} == SOURCE_OPTIONS


def test_a_time_that_the_format_does_not_read_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,at\n" + "1,02/01/2024\n" * 1_000 + "2,oops\n")
    stream = {"name": "things", "object": "a.csv", "source_options": {"datetime_format": "02/01/2006"}}

    found = read(tmp_path / "work", source(stream, {"connection": f"file://{tmp_path}"}))

    ((reason, position),) = [(message.reason, message.position) for message in found.of(Rejected)]
    assert "at could not be read by datetime_format" in reason
    assert position.endswith("record 1001")
    assert {row["at"] for row in found.rows} == {"2024-01-02"}
