"""Records that are too wide, too deep, too large, empty, broken, or no records at all."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Frame, Rejected
from connectors.errors import SourceError
from connectors.sync.decode import Decoder, has_longer_line
from connectors.sync.schema import StreamSchema
from tests.support.faults import Lab, Stream, copy_file, frame, lines
from tests.support.scripted import records, source

MIXED: list[Any] = [7, "x" * 24, True, 1.5, "2024-01-01T00:00:00Z", {"a": [1]}]


def whole_rows(stream: Stream) -> list[dict[str, Any]]:
    """Each row with its overflow unfolded, without the platform's columns and NULLs."""
    found = stream.fetch(
        "select jsonb_strip_nulls((to_jsonb(t) - array['_synced_at', '_deleted', '_dlt_load_id', '_overflow']) "
        f"|| _overflow) from raw_unit.{stream.name} t order by id"
    )
    return [row for (row,) in found]


@pytest.mark.parametrize(
    ("width", "value"),
    [
        (1_700, [7]),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(1_700, ["x" * 24]), (1_700, [True]), (10_000, [7])]
        ),
        (1_700, [True, 7]),
    ],
)
def test_columns_without_room_are_kept_in_the_overflow_with_a_warning(lab: Lab, width: int, value: list[Any]) -> None:
    stream = lab.stream(primary_key="id", write="merge")
    record = {f"c{number}": value[number % len(value)] for number in range(width)} | {"id": 1}
    result = stream.sync(records(record))
    warning = stream.warning("overflow")
    assert warning is not None
    assert result.rows.loaded == 1
    assert result.status == "succeeded_with_warnings"
    columns = len(stream.types())
    assert 300 < columns <= 1_502
    assert warning.measured["columns"] == width + 1 - (columns - 1)
    assert stream.drift() == [("new", "_overflow", f"{warning.measured['columns']} columns kept in _overflow")]
    again = stream.sync(records(record | {"id": 2}))
    assert again.status == "succeeded"
    assert whole_rows(stream) == [record, record | {"id": 2}]


def test_a_wide_record_of_every_type_and_a_wide_frame_are_whole(lab: Lab) -> None:
    by_json, by_frame = lab.stream(), lab.stream()
    record = {"id": 1} | {f"c{number}": MIXED[number % len(MIXED)] for number in range(1_700)}
    by_json.sync(records(record))
    by_frame.sync(frame(**{name: [value] for name, value in record.items()}))
    expected = record | {name: "2024-01-01T00:00:00+00:00" for name, value in record.items() if value == MIXED[4]}
    found = whole_rows(by_json)[0]
    assert {name: expected[name] for name in found if found[name] not in (expected[name], record[name])} == {}
    assert set(found) == set(record)
    assert set(whole_rows(by_frame)[0]) == set(record)
    assert by_frame.warning("overflow") is not None


def test_a_row_that_postgresql_finds_too_big_costs_itself_alone(lab: Lab) -> None:
    stream = lab.stream()
    names = [f"c{number}" for number in range(600)]
    stream.sync(records({"id": 1} | dict.fromkeys(names, "short")))
    stream.sync(records({"id": 2} | dict.fromkeys(names, "x" * 24), {"id": 3, "c0": "ok"}))
    assert stream.values("id") == ["1", "3"]
    ((reason, _, _),) = stream.held()
    assert "row is too big" in reason


@pytest.mark.parametrize(("depth", "fits"), [(400, True), (5_000, False), (100_000, False)])
def test_deep_nesting_is_jsonb_and_beyond_the_parser_quarantined(lab: Lab, depth: int, fits: bool) -> None:
    stream = lab.stream()
    nested = '{"a":' * depth + "1" + "}" * depth
    stream.sync(lines(f'{{"id":1,"v":{nested}}}', '{"id":2,"v":{}}'))
    stream.sync(lines('{"id":3,"v":[]}', f'{{"id":4,"v":{"[" * depth}{"]" * depth}}}'))
    assert stream.values("id") == (["1", "2", "3", "4"] if fits else ["2", "3"])
    if not fits:
        assert [reason for reason, _, _ in stream.held()] == ["nested deeper than the parser goes"] * 2
        assert stream.payloads()[0] == f'{{"id":1,"v":{nested}}}'


def test_a_record_of_100_mb_is_quarantined_unread_and_never_copied(lab: Lab) -> None:
    stream = lab.stream()
    body = b'{"id":1,"v":"' + b"x" * 100_000_000 + b'"}\n{"id":2,"v":"ok"}'
    page = lines(body)
    tracemalloc.start()
    stream.sync(page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.2 * len(body)
    assert stream.values() == ["ok"]
    ((reason, field, position),) = stream.held()
    assert reason == "record of 100,000,015 bytes, limit 16,777,216 (payload cut to 2,000 of 100,000,015 bytes)"
    assert (field, position) == (None, "page 1, record 1")
    assert len(stream.payloads()[0]) == 2_000


def test_a_rejected_record_above_1_mb_is_cut_in_quarantine_and_says_so(lab: Lab) -> None:
    stream = lab.stream(columns={"n": {"type": "bigint"}})
    stream.sync(
        lines(f'{{"id":1,"n":"x","v":"{"y" * 2_000_000}"}}', f'{{"id":2,"v":"{"y" * 2_000_000}'),
        Rejected(b"y" * 2_000_000, "odd", "line 3"),
    )
    wide = f'{{"id":4,"n":"x","v":"{"ü" * 1_000_000}"}}'
    stream.sync(lines(wide))
    assert all("payload cut to 1,048,576 of" in reason for reason, _, _ in stream.held())
    assert [len(payload.encode()) for payload in stream.payloads()] == [1 << 20] * 3 + [(1 << 20) - 1]


def test_many_large_rejected_records_do_not_pile_up_in_memory(lab: Lab) -> None:
    stream = lab.stream(columns={"n": {"type": "bigint"}})
    stream.sync(*(lines(f'{{"id":{number},"n":"x","v":"{"y" * 1_000_000}"}}') for number in range(40)))
    sizes = [len(payload) for payload in stream.payloads()]
    assert sizes.count(2_000) == 40 - 33
    assert all(
        ("too many large ones" in reason) == (size == 2_000)
        for size, (reason, _, _) in zip(sizes, stream.held(), strict=True)
    )


def test_records_without_values_are_records(lab: Lab) -> None:
    stream = lab.stream()
    first = stream.sync(lines("{}", '{"v":null}'))
    second = stream.sync(lines("{}", '{"v":1}'), frame(v=pa.array([None, None], pa.int64())), frame(x=[None]))
    assert (first.rows.loaded, second.rows.loaded) == (2, 5)
    assert stream.values("v", order="v") == ["1"] + [None] * 6


def test_what_is_no_json_object_is_quarantined_with_its_place_and_text(lab: Lab) -> None:
    stream = lab.stream()
    bad = ["[1]", '"text"', "5", "null", "true", '{"id":', "nonsense", '{"id":01}', "{'id':1}", '{"id":1}}']
    stream.sync(lines('{"id":1}', *bad, '{"id":2,"v":"ok"}'))
    assert stream.values("id") == ["1", "2"]
    assert stream.payloads() == bad
    assert [position for _, _, position in stream.held()] == [f"page 1, record {n}" for n in range(2, 12)]


def test_positions_count_every_record_of_the_page(lab: Lab) -> None:
    stream = lab.stream(columns={"n": {"type": "bigint"}})
    stream.sync(lines("[1]", '{"n":1}', '{"n":"x"}', "[2]", '{"n":"y"}'))
    assert [position for _, _, position in stream.held()] == [f"page 1, record {n}" for n in (1, 3, 4, 5)]


def test_what_the_connector_rejects_keeps_its_reason(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(Rejected(b"a;b\xff;c", "line of 3 fields, header has 2", "line 7"), lines('{"id":1}'))
    assert stream.held() == [("line of 3 fields, header has 2", None, "line 7")]
    assert stream.payloads() == ["a;b\ufffd;c"]


@pytest.mark.parametrize("rows", [1, 3])
def test_a_copied_file_of_more_or_fewer_rows_than_counted_loads_nothing(lab: Lab, tmp_path: Path, rows: int) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1}'))
    for body in ("2\n3\n", "2\nx\n"):
        with pytest.raises(SourceError, match=f"the file has 2 rows, its connector counted {rows}"):
            stream.sync(copy_file(tmp_path / "a.csv", body, rows=rows, id=pa.int64()))
    assert stream.values("id") == ["1"]


@pytest.mark.parametrize("mark", ['"false"', '"true"', "0", "1", "{}"])
def test_only_true_marks_a_record_as_deleted_and_nothing_like_it(lab: Lab, mark: str) -> None:
    stream = lab.stream(write="merge", primary_key="id")
    stream.sync(lines('{"id":1}', '{"id":2}', '{"id":3}'))
    table = pa.table({"id": [3], "_deleted": [None]}).cast(pa.schema([("id", pa.int64()), ("_deleted", pa.bool_())]))
    stream.sync(lines(f'{{"id":1,"_deleted":{mark}}}', '{"id":2,"_deleted":true}'), Frame(table, "frame 1"))
    assert stream.values("_deleted") == ["false", "true", "false"]
    assert [field for _, field, _ in stream.held()] == ["_deleted"]


def test_a_page_of_one_bad_record_takes_no_good_one_with_it() -> None:
    spec = source().streams[0]
    decoder = Decoder(StreamSchema("unit.things", spec, ()), (), 1 << 20)
    good = [json.dumps({"id": number, "v": "x"}) for number in range(1_000)]
    decoder.json(lines(*good))
    decoded = decoder.json(lines(*good[:500], '{"id":"x"}', *good[500:]))
    assert sum(table.num_rows for table in decoded.tables) == 1_000
    assert [reject.position for reject in decoded.rejects] == ["page 1, record 501"]


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(1, 10))
def test_the_longest_line_decides_whether_a_page_is_taken_as_a_whole(lengths: list[int], limit: int) -> None:
    body = b"\n".join(b"x" * length for length in lengths)
    assert has_longer_line(body, limit) == any(length > limit for length in lengths)
