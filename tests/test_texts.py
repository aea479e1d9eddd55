"""Text columns become typed ones exactly or not at all."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.specs import ColumnType
from connectors.texts import TextType, convert, decoded, infer


def texts(*values: str | None) -> Any:
    return pa.array(values, pa.string())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "-20", None], "bigint"),
        (["9223372036854775807"], "bigint"),
        (["9223372036854775808"], "text"),
        (["007"], "text"),
        (["+1"], "text"),
        (["0x10"], "text"),
        (["1", "2.5"], "double"),
        ([".5", "5.", "1e-7"], "double"),
        (["01.5"], "text"),
        (["nan"], "text"),
        (["true", "FALSE"], "bool"),
        (["yes"], "text"),
        (["2024-02-29"], "date"),
        (["2024-02-30"], "text"),
        (["29/02/2024"], "text"),
        (["2024-02-29T10:00:00Z", "2024-02-29 10:00"], "timestamp"),
        (["2024-02-29", "2024-02-29T10:00:00Z"], "text"),
        (["", "1"], "text"),
    ],
)
def test_the_narrowest_type_of_all_values_is_inferred(values: list[str | None], expected: ColumnType) -> None:
    assert infer(texts(*values)) == TextType(expected)


def test_nothing_is_inferred_from_nothing() -> None:
    assert infer(texts(None, None)) is None


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("2024-01-01T12:00:00.123456789Z", TextType("timestamp"), datetime(2024, 1, 1, 12, 0, 0, 123456, UTC)),
        ("2024-01-01 12:00:00+02", TextType("timestamp"), datetime(2024, 1, 1, 10, tzinfo=UTC)),
        ("2024-01-01", TextType("timestamp"), datetime(2024, 1, 1, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", TextType("timestamp"), datetime(1, 1, 1, tzinfo=UTC)),
        ("23:59:59.999999", TextType("time"), time(23, 59, 59, 999999)),
        ("1.10", TextType("decimal", 5, 2), Decimal("1.10")),
        ("1" * 50, TextType("decimal", 60, 0), Decimal("1" * 50)),
        ("1.125", TextType("decimal"), "1.125"),
        ('{"a": 1}', TextType("json"), '{"a": 1}'),
    ],
)
def test_a_value_converts_exactly(text: str, wanted: TextType, expected: Any) -> None:
    assert convert(texts(text, None), wanted).to_pylist() == [expected, None]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1.125", TextType("decimal", 5, 2)),
        ("NaN", TextType("decimal", 5, 2)),
        ("0x10", TextType("bigint")),
        ("1.0", TextType("bigint")),
        ("24:00:00", TextType("time")),
        ("infinity", TextType("timestamp")),
        ("maybe", TextType("bool")),
    ],
)
def test_one_value_that_does_not_convert_leaves_the_column_as_it_is(text: str, wanted: TextType) -> None:
    column = texts("1", text)
    assert convert(column, wanted) is column


def test_a_column_of_nulls_takes_the_wanted_type() -> None:
    for name in ("bigint", "time", "timestamp", "date", "bool"):
        assert not pa.types.is_string(convert(texts(None), TextType(name)).type)


def test_bytes_that_are_no_text_are_named_by_row() -> None:
    column, bad = decoded(pa.array([b"a", b"\xff", None, b"\xc3\xa4"]))
    assert column.to_pylist() == ["a", None, None, "ä"]
    assert bad == [1]


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1))
def test_integers_survive(values: list[int | None]) -> None:
    column = texts(*(None if value is None else str(value) for value in values))
    assert convert(column, TextType("bigint")).to_pylist() == values


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_floats_survive(values: list[float]) -> None:
    assert convert(texts(*map(repr, values)), TextType("double")).to_pylist() == values


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))  # noqa: DTZ001 hypothesis asks for naive
def test_moments_survive(value: datetime) -> None:
    for text in (value.isoformat(), value.isoformat(" "), f"{value.isoformat()}Z", f"{value.isoformat()}+00:00"):
        assert convert(texts(text), TextType("timestamp")).to_pylist() == [value.replace(tzinfo=UTC)]


@pytest.mark.parametrize("text", ["9" * 39, "9" * 501, "-7374045097666597366411255", "8730966686475901762628e38"])
def test_a_number_with_more_digits_than_its_decimal_holds_stays_text(text: str) -> None:
    column = pa.array([text])
    assert convert(column, TextType("decimal", 38, 20)) is column
