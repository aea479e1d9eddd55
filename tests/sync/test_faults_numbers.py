"""Numbers that a column cannot hold: kept exactly, kept elsewhere, or quarantined with the reason."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.errors import ContractError
from tests.support.faults import Lab, copy_file, frame, lines

BEYOND = 2**63


def test_integers_beyond_bigint_make_the_first_column_numeric_and_stay_exact(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(f'{{"id":1,"v":{BEYOND}}}', '{"id":2,"v":1}'))
    stream.sync(lines('{"id":3,"v":123456789012345678901234567890}'))
    assert stream.types()["v"] == "numeric"
    assert stream.values() == [str(BEYOND), "1", "123456789012345678901234567890"]


@pytest.mark.parametrize("source", ["json", "frame"])
def test_a_later_integer_beyond_bigint_is_quarantined_by_default(lab: Lab, source: str) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1,"v":1}'))
    later = {
        "json": lines(f'{{"id":2,"v":{BEYOND}}}', '{"id":3,"v":3}'),
        "frame": frame(id=[2, 3], v=pa.array([BEYOND, 3], pa.uint64())),
    }
    result = stream.sync(later[source])
    assert result.status == "succeeded_with_warnings"
    assert stream.values() == ["1", "3"]
    ((reason, field, position),) = stream.held()
    assert (reason, field) == ("number beyond bigint", "v")
    assert position.endswith("1, record 1")
    assert ("retyped", "v", "quarantined") in stream.drift()
    assert stream.decisions() == ["first", "pending"]


def test_a_later_integer_beyond_bigint_gets_a_column_of_its_own_under_evolve(lab: Lab) -> None:
    stream = lab.stream(drift={"retyped": "evolve"})
    stream.sync(lines('{"id":1,"v":1}'))
    stream.sync(lines(f'{{"id":2,"v":{BEYOND}}}', '{"id":3,"v":3}'))
    assert stream.types() == {"id": "bigint", "v": "bigint", "v_v_decimal": "numeric"}
    assert stream.values() == ["1", None, "3"]
    assert stream.values("v_v_decimal") == [None, str(BEYOND), None]
    assert ("retyped", "v", "kept in v_v_decimal") in stream.drift()


def test_a_later_integer_beyond_bigint_fails_under_freeze_and_loads_nothing(lab: Lab) -> None:
    stream = lab.stream(drift={"retyped": "freeze"})
    stream.sync(lines('{"id":1,"v":1}'))
    with pytest.raises(ContractError, match=r"drift\.retyped: freeze"):
        stream.sync(lines('{"id":3,"v":3}', f'{{"id":2,"v":{BEYOND}}}'))
    assert stream.values() == ["1"]


def test_decimals_of_1000_digits_are_exact_and_longer_ones_are_quarantined(lab: Lab) -> None:
    stream = lab.stream(columns={"v": {"type": "decimal"}})
    long = "9" * 500 + "." + "8" * 500
    result = stream.sync(
        lines(
            f'{{"id":1,"v":{long}}}', f'{{"id":2,"v":"{long}"}}', '{"id":3,"v":1.10}', f'{{"id":4,"v":{"9" * 1_001}}}',
            f'{{"id":5,"v":{"9" * 5_000}}}', '{"id":6,"v":1e-999}', f'{{"id":7,"v":0.{"0" * 1_000}1}}',
        )
    )  # fmt: skip
    assert stream.values() == [long, long, "1.10", f"0.{'0' * 998}1"]
    assert result.rows.quarantined == 3
    assert {reason for reason, _, _ in stream.held()} == {"number of more than 1,000 digits"}


def test_an_exponent_of_nine_digits_costs_no_memory_and_is_quarantined(lab: Lab) -> None:
    kinds = {"b": "bigint", "d": "decimal", "f": "double", "j": "json"}
    stream = lab.stream(columns={name: {"type": kind} for name, kind in kinds.items()})
    bombs = ["1e999999999", "-1e400000000", "1e99999999999999999999999"]
    bad = [f'{{"id":-1,"{name}":{bomb}}}' for bomb in bombs for name in "bdf"]
    bad += [f'{{"id":-1,"{name}":"{bomb}"}}' for bomb in bombs for name in "bdf"]
    bad += [f'{{"id":-1,"j":{{"a":[{bomb}]}}}}' for bomb in bombs]
    stream.sync(lines('{"id":1}', *bad))
    # pages of one record: what a whole column would make of each
    stream.sync(*(lines(record) for record in (*bad, '{"id":2}')))
    assert stream.values("id") == ["1", "2"]
    assert len(stream.held()) == 2 * len(bad)


def test_nan_and_infinity_stay_in_doubles(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1,"v":1.5}', '{"id":2,"v":NaN}', '{"id":3,"v":Infinity}', '{"id":4,"v":-Infinity}'))
    stream.sync(frame(id=[5, 6], v=[float("nan"), float("-inf")]))
    stream.sync(copy_file(tmp_path / "a.csv", "7,NaN\n8,Infinity\n", id=pa.int64(), v=pa.float64()))
    assert stream.values() == ["1.5", "NaN", "Infinity", "-Infinity", "NaN", "-Infinity", "NaN", "Infinity"]
    assert stream.held() == []


@pytest.mark.parametrize("kind", ["bigint", "decimal", "json"])
def test_nan_and_infinity_are_quarantined_everywhere_else(lab: Lab, kind: str) -> None:
    stream = lab.stream(columns={"v": {"type": kind}})
    wrap = '{"a":[%s]}' if kind == "json" else "%s"
    bad = [f'{{"id":{number},"v":{wrap % text}}}' for number, text in enumerate(("NaN", "Infinity", "-Infinity"))]
    stream.sync(lines(*bad, f'{{"id":9,"v":{wrap % 9}}}'))
    stream.sync(frame(id=[4, 10], v=[[float("nan")], [1.0]] if kind == "json" else [float("nan"), 1.0]))
    assert stream.values("id") == ["9", "10"]
    assert [field for _, field, _ in stream.held()] == ["v"] * 4
    assert '"v": NaN' in stream.payloads()[3] or "[NaN]" in stream.payloads()[3]


def test_an_integer_that_a_double_would_round_is_quarantined_or_kept_in_its_own_column(lab: Lab) -> None:
    odd = 2**53 + 1
    stream, evolving = lab.stream(), lab.stream(drift={"retyped": "evolve"})
    for one in (stream, evolving):
        one.sync(lines('{"id":1,"v":1.5}', f'{{"id":2,"v":{2**53}}}', '{"id":3,"v":1e300}'))
        one.sync(lines(f'{{"id":4,"v":{odd}}}', '{"id":5,"v":5}'), frame(id=[6, 7], v=[odd, 7]))
    assert stream.values() == ["1.5", "9.007199254740992e+15", "1e+300", "5", "7"]
    assert len(stream.held()) == 2
    assert evolving.values("v_v_bigint") == [None, None, None, str(odd), None, str(odd), None]


def test_a_decimal_is_never_rounded_into_its_bounds(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream(columns={"v": {"type": "decimal", "precision": 38, "scale": 2}})
    digits = "123456789012345678901234567890123456"
    stream.sync(lines(f'{{"id":1,"v":{digits}.12}}', f'{{"id":2,"v":{digits}.123}}', '{"id":3,"v":1.50000}'))
    narrow = lab.stream(columns={"v": {"type": "decimal", "precision": 5, "scale": 2}})
    file = copy_file(
        tmp_path / "b.csv", "1,1.234\n2,1.2\n3,99999\n", id=pa.int64(), v=(pa.decimal128(20, 4), "numeric(20,4)")
    )
    narrow.sync(file)
    assert stream.values() == [f"{digits}.12", "1.50"]
    assert narrow.values() == ["1.20"]
    assert len(stream.held()) == 1
    assert len(narrow.held()) == 2


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("bigint", pa.array(["0x1F", "7"])),
        ("bigint", pa.array([True, False])),
        ("double", pa.array(["1e400", "7"])),
        ("bool", pa.array([2, 7])),
        ("bool", pa.array(["yes", "1"])),
        ("timestamp", pa.array([5, 7])),
        ("date", pa.array([20240101, 7], pa.int32())),
        ("time", pa.array([12, 7])),
    ],
)
def test_arrow_casts_that_guess_are_not_used(lab: Lab, kind: str, bad: Any) -> None:
    stream = lab.stream(columns={"v": {"type": kind}})
    stream.sync(frame(id=[1, 2], v=bad))
    expected = [None, "7"] if bad.type == pa.string() and kind in ("bigint", "double") else [None, None]
    assert stream.values("id") == ["2"][: sum(value is not None for value in expected)]
    assert all(field == "v" for _, field, _ in stream.held())


def test_a_number_that_postgresql_refuses_in_a_copied_file_costs_its_own_row_alone(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream(columns={"v": {"type": "bigint"}})
    stream.sync(copy_file(tmp_path / "c.csv", f"1,1\n2,{BEYOND}\n3,\n4,x\n5,5\n", id=pa.int64(), v=pa.int64()))
    assert stream.values() == ["1", None, "5"]
    assert [(field, position) for _, field, position in stream.held()] == [
        ("v", "file 1, row 2"),
        ("v", "file 1, row 4"),
    ]
    assert stream.payloads() == [f'{{"id":"2","v":"{BEYOND}"}}', '{"id":"4","v":"x"}']
