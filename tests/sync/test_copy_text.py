"""What is written for COPY is what PostgreSQL reads, and what we read ourselves when it refuses a row."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from connectors.sync.copy_text import lines, values
from platform_assets.warehouse import Warehouse

ROWS: list[dict[str, Any]] = [
    {
        "text": "tab\tline\nreturn\r\\N \\. \\\\t \"quoted\", 'é' 😀 \x01\x7f",
        "json": '{"a": "\\n\\u00e9\\"\\\\", "b": [1.5, 1000]}',
        "whole": 2**63 - 1,
        "float": 1e-320,
        "number": "-123456789012345678901234567890.0010",
        "truth": True,
        "at": datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
        "local": datetime(1, 1, 1),  # noqa: DTZ001 a column without a zone
        "day": date(9999, 12, 31),
        "clock": time(23, 59, 59, 999999),
        "raw": b"\x00\\\t\n\xff",
    },
    {"text": "", "json": "[]", "float": float("inf"), "number": "NaN", "truth": False, "raw": b"", "whole": 0},
    {"text": "\\N", "json": '"\\\\N"', "float": -0.0, "number": "0", "truth": None, "whole": -(2**63)},
    {},
    {"text": "\\.", "float": 0.1 + 0.2},
]
TYPES: dict[str, tuple[Any, str]] = {
    "text": (pa.string(), "text"),
    "json": (pa.string(), "jsonb"),
    "whole": (pa.int64(), "bigint"),
    "float": (pa.float64(), "double precision"),
    "number": (pa.string(), "numeric"),
    "truth": (pa.bool_(), "boolean"),
    "at": (pa.timestamp("us", "UTC"), "timestamptz"),
    "local": (pa.timestamp("us"), "timestamp"),
    "day": (pa.date32(), "date"),
    "clock": (pa.time64("us"), "time"),
    "raw": (pa.binary(), "bytea"),
}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name) for row in rows], kind) for name, (kind, _) in TYPES.items()})


def copied(warehouse: Warehouse, found: pa.Table, max_bytes: int = 1 << 28) -> list[dict[str, Any]]:
    """The table's rows as PostgreSQL has them, in order."""
    with psycopg.connect(warehouse.loader_dsn) as session:
        columns = ", ".join(f"{name} {kind}" for name, (_, kind) in TYPES.items())
        session.execute(f"create temporary table copied ({columns}, n serial)".encode())
        with session.cursor().copy(f"copy copied ({', '.join(TYPES)}) from stdin".encode()) as copy:
            for block in lines(found, max_bytes):
                copy.write(block)
        query = f"select {', '.join(TYPES)} from copied order by n"
        return session.cursor(row_factory=dict_row).execute(query.encode()).fetchall()


def expected(row: dict[str, Any]) -> dict[str, Any]:
    whole = dict.fromkeys(TYPES) | row
    number, document = whole["number"], whole["json"]
    return whole | {"number": number and Decimal(number), "json": document and json.loads(document)}


@pytest.mark.parametrize("max_bytes", [1, 1 << 28], ids=["row by row", "in one go"])
def test_every_type_arrives_as_it_is(warehouse: Warehouse, max_bytes: int) -> None:
    found = copied(warehouse, table(ROWS), max_bytes)

    assert [repr(row) for row in found] == [repr(expected(row)) for row in ROWS]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), min_size=1, max_size=8
    )
)
def test_every_text_arrives_as_it_is(warehouse: Warehouse, texts: list[str | None]) -> None:
    # a slice of a table in pieces: Arrow's buffers begin before it and end behind it
    around = pa.chunked_array([["before\\", *texts[:2]], [*texts[2:], "behind\t"]], pa.string())
    whole = table([{}] * (len(texts) + 2)).set_column(0, "text", around)

    found = [row["text"] for row in copied(warehouse, whole.slice(1, len(texts)))]

    assert found == texts


def test_a_line_is_read_back_as_it_was_written() -> None:
    written = b"".join(lines(table(ROWS)))

    rows = [dict(zip(TYPES, values(line), strict=True)) for line in written.splitlines(keepends=True)]

    assert [row["text"] for row in rows] == [row.get("text") for row in ROWS]
    assert [row["json"] for row in rows] == [row.get("json") for row in ROWS]
    assert rows[0]["raw"] == "\\x005c090aff"
    assert rows[3] == dict.fromkeys(TYPES)


def test_a_moment_is_told_in_utc() -> None:
    moment = datetime(2024, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    column = pa.array([moment], pa.timestamp("us", "America/New_York"))

    assert b"".join(lines(pa.table({"at": column}))) == b"2023-12-31 23:59:59.999999Z\n"
