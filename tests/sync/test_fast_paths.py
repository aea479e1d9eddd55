"""What is decoded by whole columns must be what value by value would have given."""

from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pyarrow as pa
import pytest

from connectors.contract import Frame, JsonRecords
from connectors.sync.columns import Column
from connectors.sync.columnwise import dates, decimal_texts, raw_numbers
from connectors.sync.decode import Decoder
from connectors.sync.flat import FlatReader
from connectors.sync.schema import StreamSchema
from connectors.sync.values import UnfitError, convert
from platform_assets.warehouse import Warehouse
from tests.support.scripted import records, source, sync

BOUNDED = Column("n", "n", "decimal", "numeric(5,2)")
WIDE = Column("n", "n", "decimal", "numeric(38,20)")
FREE = Column("n", "n", "decimal", "numeric")
NUMBERS = [
    "0", "-0", "1.5", "1.550", "1.555", "999.99", "1000", "+5", ".5", "5.", "1e2", "1e-9", "1e400", " 1", "", "-",
    "NaN", "Infinity", "0x10", "1_0", "true", "null", "007.5", "0" * 40 + "1", "9" * 39, "9" * 60, "9" * 501,
    "12345678901234567890.5", "-7374045097666597366411255",
]  # fmt: skip


@pytest.mark.parametrize("column", [BOUNDED, WIDE, FREE], ids=lambda column: column.pg_type)
@pytest.mark.parametrize("text", NUMBERS)
def test_a_decimal_text_that_passes_as_a_column_passes_alone_with_the_same_value(text: str, column: Column) -> None:
    try:
        (found,) = decimal_texts(pa.array([text]), column).to_pylist()
    except (pa.ArrowException, UnfitError):
        return
    assert Decimal(found) == Decimal(convert(text, column))


@pytest.mark.parametrize(
    "array",
    [
        pa.array([Decimal("1.50"), None]),
        pa.array([Decimal("-999.99")], pa.decimal128(30, 2)),
        pa.array([1, None], pa.int64()),
        pa.array([2**64 - 1], pa.uint64()),
        pa.array(["1.5", None]),
    ],
    ids=lambda array: str(array.type),
)
def test_decimals_of_every_arrow_type_keep_their_value(array: Any) -> None:
    found = [None if text is None else Decimal(text) for text in decimal_texts(array, FREE).to_pylist()]
    assert found == [None if value is None else Decimal(value) for value in array.to_pylist()]


@pytest.mark.parametrize("array", [pa.array([Decimal("1.555")]), pa.array([1000]), pa.array(["1000"]), pa.array([1.5])])
def test_decimals_beyond_their_bounds_are_left_to_the_slow_path(array: Any) -> None:
    with pytest.raises((pa.ArrowException, UnfitError)):
        decimal_texts(array, BOUNDED)


def test_json_numbers_keep_their_own_digits() -> None:
    raws = [msgspec.Raw(text) for text in (b"1.10", b'"2.20"', b"null", b"", b"-0", b"true")]
    assert raw_numbers(raws).to_pylist() == ["1.10", "2.20", None, None, "-0", "true"]


@pytest.mark.parametrize("text", ["2024-02-29", "0001-01-01", "0000-12-31", "2024-2-1", "2023-02-29", "99999-01-01"])
def test_a_date_that_passes_as_a_column_passes_alone(text: str) -> None:
    try:
        (found,) = dates(pa.array([text])).to_pylist()
    except (pa.ArrowException, UnfitError):
        with pytest.raises(UnfitError):
            convert(text, Column("d", "d", "date", "date"))
        return
    assert found == convert(text, Column("d", "d", "date", "date"))


def decoder(limit: int = 1 << 20, **columns: Any) -> Decoder:
    spec = source(columns=columns).streams[0]
    return Decoder(StreamSchema("unit.things", spec, ()), spec.null_values, limit)


@pytest.mark.slow
def test_a_page_larger_than_one_record_may_be_is_decoded_all_the_same() -> None:
    body = b"\n".join(b'{"id": %d, "text": "%s"}' % (number, b"x" * 200) for number in range(1_000))
    decoded = decoder(limit=1_024).json(JsonRecords(body, "page 1"))
    assert [table.num_rows for table in decoded.tables] == [1_000]
    assert decoded.rejects == []


def test_the_first_page_is_typed_by_all_of_its_records() -> None:
    reading = decoder(price={"type": "decimal"}, day={"type": "date"})
    first = b'{"id": 1, "new": null, "price": 1.10}\n{"id": 2.5, "new": "x", "day": "2024-01-31"}'
    decoded = reading.json(JsonRecords(first, "page 1"))
    assert decoded.tables[0].to_pylist() == [
        {"price": "1.10", "day": None, "id": 1.0, "new": None},
        {"price": None, "day": date(2024, 1, 31), "id": 2.5, "new": "x"},
    ]


def test_one_value_that_does_not_fit_rejects_its_record_alone() -> None:
    reading = decoder(price={"type": "decimal", "precision": 5, "scale": 2})
    body = b'{"id": 1, "price": "1.5"}\n{"id": 2, "price": 1.555}\n{"id": 3, "price": 10000}\n{"id": 4}'
    decoded = reading.json(JsonRecords(body, "page 1"))
    assert [row["id"] for table in decoded.tables for row in table.to_pylist()] == [1, 4]
    assert [reject.field for reject in decoded.rejects] == ["price", "price"]
    frame = decoder(price={"type": "decimal", "precision": 5, "scale": 2}).frame(
        Frame(pa.table({"id": [1, 2], "price": ["1.5", "1.555"]}), "file row 1")
    )
    assert [row["price"] for table in frame.tables for row in table.to_pylist()] == ["1.5"]


def test_a_replacement_is_handed_on_in_pieces_without_checkpoints_and_seen_whole(warehouse: Warehouse) -> None:
    seen: list[int] = []

    def look() -> None:
        with psycopg.connect(warehouse.loader_dsn) as session:
            seen.extend(count for (count,) in session.execute("select count(*) from raw_unit.things"))

    options = {"write": "replace", "primary_key": "id", "window": {"rows": 1}}
    sync(warehouse.loader_dsn, [records({"id": 0})], **options)
    text = "x" * 180_000
    pages = [records(*({"id": page * 100 + row, "text": text} for row in range(100))) for page in range(10)]
    result = sync(warehouse.loader_dsn, [*pages, look], **options)
    assert result.windows > 1
    assert result.rows.loaded == 1_000
    assert seen == [1]


PLAIN: dict[str, Any] = {
    "i": {"type": "bigint"}, "n": {"type": "decimal", "precision": 5, "scale": 2}, "f": {"type": "double"},
    "b": {"type": "bool"}, "d": {"type": "date"}, "t": {"type": "timestamp"}, "s": {"type": "text"},
}  # fmt: skip
ODD_VALUES = [
    "1", "-0", "01", "1.0", "1e2", "1E400", "1e-400", "9223372036854775808", "9007199254740993", "1000", "1.555",
    "1.550", "NaN", "Infinity", "+5", ".5", "5.", "null", "true", '"true"', '"1"', '"1.50"', '""', '" 1"', '"1e2"',
    '"2024-02-29"', '"2023-02-29"', '"0000-01-01"', '"2024-01-01T00:00:00Z"', '"2024-01-01T00:00:00.1234567Z"',
    '"2024-01-01 00:00:00+02:30"', '"a\\u0000b"', '"a\\ud800b"', '"\\u00fc\\ud83e\\udd86"', '"ü"', '"NA"', "{}", "[1]",
    '"x", "s": "twice"',
    '"x", "new": 1', '"x", "_deleted": true', '"x", "_deleted": 1', '"x"} {"i": 1', '"x"}\n\n{"i": 1',
    '"x"},{"i": 1', '"x"}//', "1" * 50, "-" + "9" * 30,
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_records_of_plain_values_read_in_one_go_are_those_that_structs_hold(name: str) -> None:
    for odd in [*ODD_VALUES, b'"\xff"'.decode("latin-1")]:
        line = f'{{"i": 7, "{name}": {odd}}}'.encode("latin-1" if odd == '"\xff"' else "utf-8")
        for body in (b'{"s": "first"}\n' + line, line + b'\n{"s": "last"}\n'):
            in_one_go, by_structs = decoder(**PLAIN), decoder(**PLAIN, other={"type": "json"})
            for reading in (in_one_go, by_structs):
                reading.json(JsonRecords(b'{"i": 1}', "page 0"))
            found, expected = (reading.json(JsonRecords(body, "page 1")) for reading in (in_one_go, by_structs))
            assert _rows(found.tables) == _rows(expected.tables), odd
            assert [reject.reason for reject in found.rejects] == [reject.reason for reject in expected.rejects], odd
            assert in_one_go.cleaning == by_structs.cleaning, odd


def _rows(tables: list[Any]) -> list[dict[str, Any]]:
    """Decimals by their value: `1e2` and `100` are one. NaN as text: it equals nothing. -0 of a double is 0."""
    rows = [row for table in tables for row in table.to_pylist()]
    return [{name: _plain(name, value) for name, value in row.items() if value is not None} for row in rows]


def _plain(name: str, value: Any) -> Any:
    return Decimal(value) if name == "n" else str(value + 0.0) if isinstance(value, float) else value


def test_records_of_plain_values_are_read_in_one_go() -> None:
    reader = FlatReader([Column("id", "Id", "bigint", "bigint"), BOUNDED], ["never"])
    arrays, rows = reader.arrays(b'{"Id": 1, "n": "1.5", "never": null}\n{"n": 2.25}\n{"_deleted": true}\n')
    assert rows == 3
    assert {name: array.to_pylist() for name, array in arrays.items()} == {
        "Id": [1, None, None], "n": [Decimal("1.50"), Decimal("2.25"), None], "_deleted": [False, False, True],
    }  # fmt: skip
