"""Keys and cursors: late, NULL, absent, twice, retyped, out of order, from the future."""

from pathlib import Path

import pyarrow as pa
import pytest

from connectors.errors import ConfigError, ContractError
from tests.support.faults import Lab, Stream, copy_file, frame, lines
from tests.support.scripted import records, source

MERGE = {"write": "merge", "primary_key": "id"}
AT = {"cursor": {"field": "at"}}


def position(stream: Stream) -> str:
    return stream.results[-1].state_after["cursor"]["value"]


def test_late_rows_inside_the_lag_are_merged_and_nothing_doubles(lab: Lab) -> None:
    stream = lab.stream(**MERGE, cursor={"field": "at", "lag": "PT1H"})
    stream.sync(records({"id": 1, "at": "2024-01-01T05:00:00Z"}))
    result = stream.sync(records({"id": 2, "at": "2024-01-01T04:30:00Z"}, {"id": 1, "at": "2024-01-01T05:00:00Z"}))
    assert (result.rows.loaded, result.rows.deduplicated) == (1, 1)
    assert stream.values("id") == ["1", "2"]
    assert position(stream) == "2024-01-01T05:00:00Z"


@pytest.mark.parametrize("write", ["append", "merge"])
def test_a_row_dated_2099_is_kept_once_and_never_becomes_the_position(lab: Lab, write: str) -> None:
    stream = lab.stream(**AT, write=write, **({"primary_key": "id"} if write == "merge" else {}))
    far = {"id": 2, "at": "2099-01-01T00:00:00Z"}
    stream.sync(records({"id": 1, "at": "2024-01-01T00:00:00Z"}, far))
    assert position(stream) == "2024-01-01T00:00:00Z"
    # the source is asked from the position on, so it sends both again
    again = stream.sync(records({"id": 1, "at": "2024-01-01T00:00:00Z"}, {"id": 3, "at": "2024-01-02T00:00:00Z"}, far))
    assert (again.rows.loaded, again.rows.deduplicated) == (1, 2)
    assert stream.values("id") == ["1", "2", "3"]
    assert position(stream) == "2024-01-02T00:00:00Z"


def test_a_cursor_that_is_null_absent_or_of_another_type_quarantines_the_row(lab: Lab) -> None:
    stream = lab.stream(**AT)
    stream.sync(records({"id": 1, "at": "2024-01-01T00:00:00Z"}))
    stream.sync(
        records(
            {"id": 2, "at": None},
            {"id": 3},
            {"id": 4, "at": 5},
            {"id": 5, "at": "soon"},
            {"id": 6, "at": "2024-01-03T00:00:00Z"},
        )
    )
    assert stream.values("id") == ["1", "6"]
    assert sorted((reason, field) for reason, field, _ in stream.held()) == [
        ("cursor at is NULL", "at"), ("cursor at is NULL", "at"), ("not a timestamp, or out of range", "at"),
        ("number does not fit timestamp", "at"),
    ]  # fmt: skip
    assert position(stream) == "2024-01-03T00:00:00Z"


def test_numbers_as_text_are_no_cursor_also_when_each_sync_brings_one_length(lab: Lab) -> None:
    stream = lab.stream(cursor={"field": "n"})
    stream.sync(records({"n": "9"}))
    with pytest.raises(ContractError, match="9 comes after 10"):
        stream.sync(records({"n": "10"}))
    typed = lab.stream(cursor={"field": "n"}, columns={"n": {"type": "bigint"}})
    typed.sync(records({"n": "9"}))
    typed.sync(records({"n": "9"}, {"n": "10"}))
    assert typed.values("n", order="n") == ["9", "10"]
    assert position(typed) == "10"


def test_a_text_cursor_is_ordered_by_code_points_whatever_the_locale_of_the_database(lab: Lab) -> None:
    stream = lab.stream(cursor={"field": "k"})
    stream.sync(records({"k": "A"}))
    # the embedded server has no such collation, other servers do
    if stream.fetch("select 1 from pg_collation where collname = 'en-x-icu'"):
        stream.execute(f'alter table raw_unit.{stream.name} alter column k type text collate "en-x-icu"')
    stream.sync(records({"k": "A"}, {"k": "a"}, {"k": "B"}))
    assert position(stream) == "a"
    stream.sync(records({"k": "a"}, {"k": "Z"}))
    assert position(stream) == "a"


def test_mixed_time_zones_are_compared_in_utc(lab: Lab) -> None:
    stream = lab.stream(**AT)
    stream.sync(
        records(
            {"id": 1, "at": "2024-01-01T10:00:00+09:00"},
            {"id": 2, "at": "2024-01-01T02:00:00Z"},
            {"id": 3, "at": "2023-12-31T20:30:00-05:00"},
        )
    )
    assert position(stream) == "2024-01-01T02:00:00Z"


def test_a_fractional_cursor_goes_on_and_nan_and_infinity_never_become_the_position(lab: Lab) -> None:
    stream = lab.stream(cursor={"field": "n"})
    stream.sync(lines('{"id":1,"n":9.5}', '{"id":2,"n":NaN}', '{"id":3,"n":Infinity}'))
    assert position(stream) == "9.5"
    result = stream.sync(lines('{"id":1,"n":9.5}', '{"id":4,"n":10.25}'))
    assert (result.rows.loaded, result.rows.deduplicated) == (1, 1)
    assert position(stream) == "10.25"


def test_infinite_and_ancient_timestamps_of_a_copied_file_never_become_the_position(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream(**AT)
    body = "1,infinity\n2,2024-01-01 00:00:00+00\n3,-infinity\n4,20000-01-01 00:00:00+00\n5,4000-01-01 00:00:00+00 BC\n"
    stream.sync(copy_file(tmp_path / "a.csv", body, id=pa.int64(), at=pa.timestamp("us", "UTC")))
    assert len(stream.values("id")) == 5
    assert position(stream) == "2024-01-01T00:00:00Z"


def test_a_cursor_column_that_is_another_type_now_is_refused_before_a_row_loads(lab: Lab) -> None:
    stream = lab.stream(cursor={"field": "k"})
    stream.sync(records({"k": "b"}))
    stream.execute(f"drop table raw_unit.{stream.name}")
    stream.execute("delete from ops.schema_versions where stream = %s", stream.name)
    with pytest.raises(ContractError, match="the saved position is a text, the column holds a number"):
        stream.sync(records({"k": 5}))


@pytest.mark.parametrize("merge", ["upsert", "delete-insert"])
def test_of_one_key_twice_in_a_batch_the_last_by_cursor_stays_and_the_other_is_counted(lab: Lab, merge: str) -> None:
    stream = lab.stream(**MERGE, **AT, merge=merge)
    result = stream.sync(
        records(
            {"id": 1, "at": "2024-01-02T00:00:00Z", "v": "newest"}, {"id": 1, "at": "2024-01-01T00:00:00Z", "v": "old"},
            {"id": 2, "at": "2024-01-01T00:00:00Z", "v": "first"}, {"id": 2, "at": "2024-01-01T00:00:00Z", "v": "last"},
        )
    )  # fmt: skip
    assert (result.rows.extracted, result.rows.loaded, result.rows.deduplicated) == (4, 2, 2)
    assert stream.values() == ["newest", "last"]


@pytest.mark.parametrize("message", ["json", "frame", "copy"])
def test_a_key_that_is_null_or_absent_quarantines_the_row_and_the_others_load(
    lab: Lab, message: str, tmp_path: Path
) -> None:
    stream = lab.stream(**MERGE)
    stream.sync(records({"id": 1, "v": "a"}))
    match message:
        case "json":
            stream.sync(records({"id": None, "v": "x"}, {"v": "y"}, {"id": 2, "v": "b"}))
        case "frame":
            stream.sync(frame(id=[None, 2], v=["x", "b"]), frame(v=["y"]))
        case _:
            files = [
                copy_file(tmp_path / "a.csv", ",x\n2,b\n", id=pa.int64(), v=pa.string()),
                copy_file(tmp_path / "b.csv", "y\n", v=pa.string()),
            ]
            stream.sync(*files)
    assert stream.values() == ["a", "b"]
    assert [reason for reason, _, _ in stream.held()] == ["key id is NULL"] * 2
    assert ['"x"' in stream.payloads()[0], '"y"' in stream.payloads()[1]] == [True, True]


def test_a_first_sync_without_any_key_quarantines_everything(lab: Lab) -> None:
    stream = lab.stream(**MERGE, columns={"id": {"type": "bigint"}})
    result = stream.sync(records({"v": "x"}, {"v": "y"}))
    assert (result.rows.loaded, result.rows.quarantined) == (0, 2)


@pytest.mark.parametrize("policy", ["quarantine", "evolve", "freeze"])
def test_a_key_of_another_type_never_reaches_the_table(lab: Lab, policy: str) -> None:
    stream = lab.stream(**MERGE, drift={"retyped": policy})
    stream.sync(records({"id": 1, "v": "a"}))
    page = records({"id": "x1", "v": "x"}, {"id": "1", "v": "A"}, {"id": 2, "v": "b"})
    if policy == "freeze":
        with pytest.raises(ContractError, match=r"drift\.retyped: freeze"):
            stream.sync(page)
        assert stream.values() == ["a"]
        return
    stream.sync(page)
    assert stream.values() == ["A", "b"]
    assert len(stream.held()) == 1
    assert '"x1"' in stream.payloads()[0]


@pytest.mark.parametrize("stream", [{"write": "merge"}, {"write": "scd2"}, {"write": "append", "snapshot": True}])
def test_a_merge_without_a_key_is_refused_before_anything_is_read(stream: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"needs a primary_key|finds deletes by key"):
        source(**stream)
