"""Text that PostgreSQL cannot store as it comes: cleaned and counted, or quarantined; never dropped in silence."""

from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.faults import Lab, copy_file, frame, lines


def test_nul_is_stripped_from_text_and_json_and_counted(lab: Lab) -> None:
    stream = lab.stream()
    page = (
        r'{"id":1,"v":"a\u0000b","j":{"k\u0000":"x\u0000y","n":1}}',
        r'{"id":2,"v":"ok \\u0000","j":["\\u0000"]}',
    )
    # record by record, then as whole columns; then Arrow
    for sync in (1, 2):
        stream.sync(lines(*(record.replace('"id":', f'"id":{sync}') for record in page)))
        warning = stream.warning("cleaned_text")
        assert warning is not None
        assert dict(warning.measured) == {"nul": 2, "names": 1}
        assert stream.results[-1].status == "succeeded_with_warnings"
        assert "texts lost NUL" in stream.results[-1].message
    stream.sync(frame(id=[31, 32], v=["a\x00b", "c"]))
    assert stream.values() == ["ab", r"ok \u0000", "ab", r"ok \u0000", "ab", "c"]
    assert stream.values("j")[:2] == ['{"k": "xy", "n": 1}', r'["\\u0000"]']
    assert stream.held() == []


def test_clean_text_raises_no_warning(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(r'{"id":1,"v":"\ud83d\ude00 ok"}'))
    assert stream.values() == ["😀 ok"]
    assert stream.results[-1].status == "succeeded"


def test_lone_surrogates_are_replaced_and_counted(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(r'{"id":1,"v":"a\ud800b","j":{"k\udc00":"x\udfff"}}', r'{"id":2,"v":"\ud83d\ude00"}'))
    first = stream.warning("cleaned_text")
    stream.sync(lines(r'{"id":3,"v":"\udc00","j":{"a":"\uDABC"}}', '{"id":4,"v":"ok"}'))
    stream.sync(lines(b'{"id":5,"v":"x\xed\xa0\x80y"}'), lines(r'{"id":6,"j":{"a":"\udc00"}}'))
    assert first is not None
    assert dict(first.measured) == {"surrogates": 2, "names": 1}
    assert stream.values() == ["a\ufffdb", "😀", "\ufffd", "ok", "x\ufffdy", None]
    assert stream.values("j")[0] == '{"k\ufffd": "x\ufffd"}'
    assert stream.held() == []


def test_names_that_are_one_after_cleaning_are_quarantined_rather_than_merged(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(
        lines(r'{"id":1,"v":1,"v\u0000":2}', r'{"id":2,"j":{"a":1,"a\u0000":2}}', r'{"id":3,"w\ud800":1}', '{"id":4}')
    )
    assert stream.values("id") == ["3", "4"]
    assert [reason for reason, _, _ in stream.held()] == ["two field names are one without NUL and lone surrogates"] * 2


@pytest.mark.parametrize("is_first", [True, False])
def test_bytes_that_are_not_utf8_cost_their_own_record_alone(lab: Lab, is_first: bool, tmp_path: Path) -> None:
    stream = lab.stream()
    if not is_first:
        stream.sync(lines('{"id":0,"v":"x","j":{}}'))
    stream.sync(lines(b'{"id":1,"v":"x\xff"}', b'{"id":2,"j":{"a":"\xfe"}}', b'{"id":3,"v":"ok"}'))
    bad = pa.StringArray.from_buffers(2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xffa"))
    stream.sync(frame(id=[4, 5], v=bad))
    stream.sync(copy_file(tmp_path / "a.csv", b'6,"\xff\n"\n7,ok\n', rows=2, id=pa.int64(), v=pa.string()))
    assert stream.values("id") == ["0", "3", "5", "7"][is_first:]
    assert len(stream.held()) == 4
    assert all("utf" in reason.lower() for reason, _, _ in stream.held())
    assert "\ufffd" in stream.payloads()[0]


def test_nul_in_a_copied_file_is_quarantined_and_the_rest_loads(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream()
    stream.sync(copy_file(tmp_path / "a.csv", b"1,a\x00b\n2,ok\n", id=pa.int64(), v=pa.string()))
    assert stream.values() == ["ok"]
    ((reason, _, position),) = stream.held()
    assert "0x00" in reason
    assert position == "file 1, row 1"


def test_a_raw_control_character_is_no_json_and_is_quarantined(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(b'{"id":1,"v":"x\x00y"}', b'{"id":2,"v":"\x01"}', b'{"id":3,"v":"ok"}'))
    assert stream.values() == ["ok"]
    assert [position for _, _, position in stream.held()] == ["page 1, record 1", "page 1, record 2"]


def test_a_byte_order_mark_is_not_part_of_the_data(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(b'\xef\xbb\xbf{"id":1,"v":"x"}', b'{"id":2,"v":"\xef\xbb\xbfy"}'))
    assert stream.types() == {"id": "bigint", "v": "text"}
    assert stream.values() == ["x", "\ufeffy"]


def test_empty_text_null_and_lookalikes_stay_apart(lab: Lab, tmp_path: Path) -> None:
    texts = ["", None, "NULL", "null", "\\N", "\\.", '"', "a,b", "a\nb", "a\r\nb", " x ", "'; drop table t; --"]
    stream = lab.stream()
    stream.sync(frame(id=list(range(len(texts))), v=texts))
    alone = lab.stream()
    alone.sync(frame(v=["a", "\\.", "", "b"]))
    copied = lab.stream()
    copied.sync(copy_file(tmp_path / "a.csv", '1,\n2,""\n3,"\\."\n', id=pa.int64(), v=pa.string()))
    assert stream.values() == texts
    assert sorted(alone.values(order="v")) == ["", "\\.", "a", "b"]
    assert copied.values() == [None, "", "\\."]


def test_null_values_mean_null_and_nothing_else_does(lab: Lab) -> None:
    stream = lab.stream(null_values=["NA"])
    stream.sync(lines('{"id":1,"v":"NA"}', '{"id":2,"v":"NAN"}', '{"id":3,"v":""}'))
    stream.sync(frame(id=[4, 5], v=["NA", "x"]))
    assert stream.values() == [None, "NAN", "", None, "x"]


def test_a_long_text_is_whole(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines(f'{{"id":1,"v":"{"x" * 5_000_000}"}}'))
    assert stream.fetch(f"select length(v) from raw_unit.{stream.name}") == [(5_000_000,)]


def test_of_two_equal_keys_in_one_object_the_last_counts_as_everywhere_in_json(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1,"v":"a","v":"b","j":{"k":1,"k":2}}'))
    stream.sync(lines('{"id":2,"v":"a","v":"b","j":{"k":1,"k":2}}'))
    assert stream.values() == ["b", "b"]
    assert stream.values("j") == ['{"k": 2}', '{"k": 2}']
