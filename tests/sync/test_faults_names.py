"""Field names that collide, are too long, are nothing, or are somebody else's."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Frame
from connectors.errors import SourceError
from connectors.sync.columns import MAX_NAME_BYTES, is_reserved, warehouse_name
from tests.support.faults import Lab, frame, lines
from tests.support.scripted import records

OWN = ["_dlt_id", "_dlt_load_id", "_dlt_loads", "_synced_at", "_row", "_valid_from", "_valid_to", "_overflow"]
SYSTEM = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"]
WORDS = ["select", "table", "user", "order", "group", "null", "primary", "columns", "oid", "constraint"]


def test_names_that_differ_in_case_get_columns_of_their_own_and_the_collision_is_reported(lab: Lab) -> None:
    stream = lab.stream()
    record = {"id": 1, "user_id": 1, "userId": 2, "USER_ID": 3, "user id": 4, "User-ID": 5}
    stream.sync(records(record))
    assert stream.drift() == [("collision", f"user_id_{n}", f"named user_id_{n}") for n in range(2, 6)]
    # the order of the second record is another; the names are remembered
    stream.sync(records({"id": 2, **dict(reversed(list(record.items())[1:]))}))
    for number, name in enumerate(["user_id", "user_id_2", "user_id_3", "user_id_4", "user_id_5"], 1):
        assert stream.values(name) == [str(number)] * 2
    assert stream.held() == []


def test_a_collision_that_turns_up_later_is_drift(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(records({"id": 1, "userId": 1}))
    stream.sync(records({"id": 2, "userId": 2, "user_id": 3}))
    assert stream.values("user_id") == ["1", "2"]
    assert stream.values("user_id_2") == [None, "3"]
    assert stream.drift() == [
        ("collision", "user_id_2", "named user_id_2"), ("new", "user_id_2", "added"),
    ]  # fmt: skip


@pytest.mark.parametrize("is_frame", [True, False])
def test_names_of_the_platform_dlt_and_postgresql_are_prefixed_and_reported(lab: Lab, is_frame: bool) -> None:
    stream = lab.stream()
    taken = [*OWN, *SYSTEM, "_Deleted"]
    record: dict[str, Any] = {"id": 1, **dict.fromkeys(taken, "mine")}
    for _ in range(2):
        stream.sync(frame(**{name: [value] for name, value in record.items()}) if is_frame else records(record))
    for name in taken:
        assert stream.values(f"src_{name.lower().lstrip('_')}") == ["mine", "mine"]
    assert {column for change, column, _ in stream.drift() if change == "collision"} == {
        f"src_{name.lower().lstrip('_')}" for name in taken
    }
    assert stream.fetch(f"select bool_and(_synced_at > now() - interval '1 hour') from raw_unit.{stream.name}") == [
        (True,)
    ]


def test_reserved_words_are_columns_like_any_other(lab: Lab) -> None:
    stream = lab.stream(write="merge", primary_key="order", cursor={"field": "group"})
    row: dict[str, Any] = {"order": 1, "group": 1, **{word: 7 for word in WORDS if word not in ("order", "group")}}
    stream.sync(records(row))
    stream.sync(records({**row, "group": 2}))
    assert stream.values("group", order="order") == ["2"]
    assert set(stream.types()) == set(WORDS)


def test_sql_in_names_and_values_is_only_text(lab: Lab) -> None:
    stream = lab.stream()
    evil = ['x"; drop table raw_unit.y; --', "'; select 1; --", "%s", "%(x)s", "{}", "a\nb", "a.b", "$1", "\\", 'a"b']
    record = {"id": 1, **{name: name for name in evil}}
    stream.sync(records(record))
    stream.sync(records(record))
    found = stream.fetch(
        f"select (to_jsonb(t) - '_synced_at' - '_deleted' - '_dlt_load_id') from raw_unit.{stream.name} t"
    )
    assert [set(row.values()) for (row,) in found] == [{1, *evil}] * 2


def test_long_names_stay_apart_and_are_remembered(lab: Lab) -> None:
    stream = lab.stream()
    names = ["a" * 80, "a" * 79 + "b", "ü" * 40, "名" * 40, "😀" * 20, "x" * 63, "X" * 63]
    record = {"id": 1, **{name: name for name in names}}
    stream.sync(records(record))
    stream.sync(records(record))
    columns = [column for column in stream.types() if column != "id"]
    assert len(columns) == len(names)
    assert all(len(column.encode()) <= MAX_NAME_BYTES for column in columns)
    assert sorted(value for column in columns for value in stream.values(column)) == sorted(names * 2)
    registry = stream.fetch(
        "select item ->> 'source_name' from ops.schema_versions, jsonb_array_elements(columns) as items (item) "
        "where stream = %s",
        stream.name,
    )
    assert {name for (name,) in registry} == {"id", *names}


def test_empty_and_odd_names_are_named_by_rule(lab: Lab) -> None:
    stream = lab.stream()
    odd = ["", " ", "_", "__", "-", "1st", "größe", "名前", "a\x00b", "\ud800", "\t"]
    body = records({"id": 1, **{name: number for number, name in enumerate(odd)}})
    for _ in range(2):
        stream.sync(body)
    assert len(stream.types()) == len(odd) + 1
    values = sorted(int(value) for column in stream.types() if column != "id" for value in stream.values(column))
    assert values == sorted([*range(len(odd))] * 2)
    assert stream.held() == []


def test_two_columns_of_one_name_in_a_frame_fail_clearly(lab: Lab) -> None:
    stream = lab.stream()
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["v", "v"])
    with pytest.raises(SourceError, match="columns of one name: v"):
        stream.sync(Frame(table, "frame 1"))


@given(
    st.lists(
        st.one_of(st.text(max_size=90), st.sampled_from([*OWN, *SYSTEM, *WORDS, "userId", "USER_ID"])), max_size=25
    )
)
def test_any_names_get_distinct_names_that_postgresql_and_dlt_leave_alone(names: list[str]) -> None:
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    naming = NamingConvention(MAX_NAME_BYTES)
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        column = warehouse_name(name, taken)
        assert column not in taken
        assert 0 < len(column.encode()) <= MAX_NAME_BYTES
        assert not is_reserved(column)
        assert naming.normalize_identifier(column) == column
        assert naming.normalize_path(column) == column
        taken.add(column)


def test_a_stream_of_frames_gets_the_names_of_a_stream_of_records(lab: Lab) -> None:
    names = ["userId", "user_id", "ctid", "", "A B", "x" * 70]
    by_frame, by_json = lab.stream(), lab.stream()
    by_frame.sync(frame(**{name: [1] for name in names}))
    by_json.sync(lines("{" + ",".join(f'"{name}":1' for name in names) + "}"))
    assert by_frame.types() == by_json.types()
