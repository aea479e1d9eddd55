"""A column that changes its type, and what each drift policy makes of it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.errors import ContractError
from connectors.sync import SyncRequest, replay
from tests.support.faults import Lab, copy_file, frame, lines
from tests.support.scripted import source

# first value, value of another type, its reason under quarantine, column and type under evolve
FLIPS = {
    "int turns string": ("1", '"abc"', "text does not fit bigint", "v_v_text", "text"),
    "int turns fraction": ("1", "1.5", "a number with a fraction", "v_v_double", "double precision"),
    "int turns boolean": ("1", "true", "bool does not fit bigint", "v_v_bool", "boolean"),
    "boolean turns string": ("true", '"yes"', "text does not fit boolean", "v_v_text", "text"),
    "boolean turns int": ("true", "1", "number does not fit boolean", "v_v_bigint", "bigint"),
    "scalar turns object": ("1", '{"a": 1}', "object does not fit bigint", "v_v_json", "jsonb"),
    "scalar turns array": ("1.5", "[1]", "array does not fit double", "v_v_json", "jsonb"),
    "timestamp turns number": ('"2024-01-01T00:00:00Z"', "5", "number does not fit timestamp", "v_v_bigint", "bigint"),
}


QUICK = ("int turns string", "int turns fraction", "scalar turns object", "timestamp turns number")


@pytest.mark.parametrize("flip", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in FLIPS])
def test_a_value_of_another_type_follows_the_policy(lab: Lab, flip: str) -> None:
    first, other, reason, variant, kind = FLIPS[flip]
    page = lines(f'{{"id":1,"v":{first}}}'), lines(f'{{"id":2,"v":{other}}}', f'{{"id":3,"v":{first}}}')
    held, evolved, frozen = (lab.stream(drift={"retyped": policy}) for policy in ("quarantine", "evolve", "freeze"))
    for stream in (held, evolved, frozen):
        stream.sync(page[0])
    kept = held.values()[0]

    assert held.sync(page[1]).status == "succeeded_with_warnings"
    assert held.values() == [kept, kept]
    ((why, field, position),) = held.held()
    assert why.startswith(reason)
    assert (field, position) == ("v", "page 1, record 1")
    assert held.payloads() == [f'{{"id":2,"v":{other}}}']
    assert held.drift() == [("retyped", "v", "quarantined")]
    assert held.decisions() == ["first", "pending"]

    evolved.sync(page[1])
    assert evolved.held() == []
    assert evolved.values() == [kept, None, kept]
    assert evolved.values(variant) == [None, other.strip('"'), None]
    assert evolved.types()[variant] == kind

    with pytest.raises(ContractError, match=r"drift\.retyped: freeze"):
        frozen.sync(page[1])
    assert frozen.values() == [kept]


def test_a_variant_is_remembered_and_used_again(lab: Lab) -> None:
    stream = lab.stream(drift={"retyped": "evolve"})
    stream.sync(lines('{"id":1,"v":1}'))
    stream.sync(lines('{"id":2,"v":"x"}'))
    stream.sync(lines('{"id":3,"v":"y"}', '{"id":4,"v":4}'))
    assert stream.values("v_v_text") == [None, "x", "y", None]
    assert stream.values() == ["1", None, None, "4"]


def test_a_text_column_holds_everything_as_its_json_text_and_says_so(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1,"v":"x"}'))
    stream.sync(lines('{"id":2,"v":{"a": 1.50}}', '{"id":3,"v":3}', '{"id":4,"v":true}'))
    stream.sync(frame(id=[5, 6], v=[1.0, 2.5]))
    assert stream.values() == ["x", '{"a":1.50}', "3", "true", "1.0", "2.5"]
    assert stream.drift() == [("retyped", "v", "kept as text")] * 4
    assert stream.decisions() == ["first", "evolved", "evolved"]
    frozen = lab.stream(drift={"retyped": "freeze"})
    frozen.sync(lines('{"id":1,"v":"x"}'))
    for message in (lines('{"id":2,"v":3}'), frame(id=[2], v=[3])):
        with pytest.raises(ContractError, match=r"drift\.retyped: freeze"):
            frozen.sync(message)


def test_scalars_and_objects_on_the_first_page_share_one_jsonb(lab: Lab) -> None:
    stream = lab.stream()
    stream.sync(lines('{"id":1,"v":1}', '{"id":2,"v":{"a":[1]}}', '{"id":3,"v":"x"}', '{"id":4,"v":null}'))
    assert stream.types() == {"id": "bigint", "v": "jsonb"}
    assert stream.values() == ["1", '{"a": [1]}', '"x"', None]


def test_numbers_as_text_that_fit_without_loss_are_read_as_numbers(lab: Lab) -> None:
    stream = lab.stream(columns={"n": {"type": "bigint"}, "d": {"type": "decimal"}, "b": {"type": "bool"}})
    stream.sync(lines('{"id":1,"n":"12","d":"1.10","b":"true"}', '{"id":2,"n":2.0,"d":5,"b":false}'))
    stream.sync(frame(id=[3, 4], n=["-7", None], d=["0.5", "2"], b=["f", "TRUE"]))
    assert stream.values("n") == ["12", "2", "-7", None]
    assert stream.values("d") == ["1.10", "5", "0.5", "2"]
    assert stream.values("b") == ["true", "false", "false", "true"]
    assert stream.held() == []


def test_a_copied_file_of_another_type_is_never_coerced(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream()
    stream.sync(copy_file(tmp_path / "a.csv", "1,t,5\n", id=pa.int64(), b=pa.bool_(), n=pa.int64()))
    body = "2,yes,6\n3,true,7\n4,f,1.5\n"
    stream.sync(copy_file(tmp_path / "b.csv", body, id=pa.int64(), b=pa.string(), n=pa.float64()))
    assert stream.values("b") == ["true", "true"]
    assert stream.values("n") == ["5", "7"]
    assert [field for _, field, _ in stream.held()] == ["b", "n"]
    assert stream.payloads()[0] == '{"id": "2", "b": "yes", "n": "6"}'


def test_a_record_of_a_frame_can_be_replayed_from_its_payload(lab: Lab) -> None:
    columns: dict[str, Any] = {name: {"type": kind} for name, kind in (("v", "bigint"), ("raw", "binary"))}
    stream = lab.stream(columns=columns, drift={"retyped": "quarantine"})
    moment = pa.array([0, 1], pa.timestamp("us", "UTC"))
    stream.sync(frame(id=[1, 2], v=["1", "x"], raw=[b"\x00\xff", b"abc"], t=moment, f=[1.5, float("nan")]))
    assert stream.values("id") == ["1"]
    attributes = {"name": stream.name, "write": "append", "max_quarantined": {"share": 1}, "columns": columns}
    spec = source(**attributes | {"columns": columns | {"v": {"type": "bigint"}}})
    stream.execute("update ops.quarantine set payload = replace(payload, '\"x\"', '2') where stream = %s", stream.name)
    result = replay.replay(SyncRequest(spec, spec.streams[0], trigger="replay"), stream.dsn)
    assert result is not None
    assert result.rows.loaded == 1
    assert stream.values("v") == ["1", "2"]
    assert stream.values("raw") == ["\\x00ff", "\\x616263"]
    assert stream.values("f") == ["1.5", "NaN"]
    assert stream.values("t")[1] == "1970-01-01 00:00:00.000001+00"


@pytest.mark.parametrize("message", ["json", "frame", "copy"])
def test_a_new_column_follows_the_policy(lab: Lab, message: str, tmp_path: Path) -> None:
    def arrive() -> Any:
        match message:
            case "json":
                return lines('{"id":2,"new":"x"}', '{"id":3}')
            case "frame":
                return frame(id=[2, 3], new=["x", None])
            case _:
                return copy_file(tmp_path / "a.csv", "2,x\n3,\n", id=pa.int64(), new=pa.string())

    policies = ("evolve", "ignore", "quarantine", "freeze")
    evolve, ignore, quarantine, freeze = (lab.stream(drift={"new": policy}) for policy in policies)
    for stream in (evolve, ignore, quarantine, freeze):
        stream.sync(lines('{"id":1}'))
    evolve.sync(arrive())
    assert evolve.values("new") == [None, "x", None]
    assert (evolve.drift(), evolve.decisions()) == ([("new", "new", "added")], ["first", "evolved"])
    ignore.sync(arrive())
    assert ignore.types() == {"id": "bigint"}
    assert ignore.values("id") == ["1", "2", "3"]
    assert ignore.drift() == [("new", "new", "ignored")]
    quarantine.sync(arrive())
    assert quarantine.values("id") == ["1", "3"]
    assert [(reason, field) for reason, field, _ in quarantine.held()] == [
        ("new column, and the stream says drift.new: quarantine", "new")
    ]
    with pytest.raises(ContractError, match=r"drift\.new: freeze"):
        freeze.sync(arrive())
    assert freeze.values("id") == ["1"]


@pytest.mark.parametrize("null", [True, False])
def test_a_column_that_disappears_is_noticed_on_every_path_and_null_is_not_missing(lab: Lab, null: bool) -> None:
    warn, ignore, freeze = (lab.stream(drift={"missing": policy}) for policy in ("warn", "ignore", "freeze"))
    for stream in (warn, ignore, freeze):
        stream.sync(lines('{"id":1,"v":"a"}'))
    page = lines('{"id":2,"v":null}') if null else lines('{"id":2}')
    result = warn.sync(page)
    ignore.sync(page)
    if null:
        freeze.sync(page)
        assert result.status == "succeeded"
        assert warn.drift() == []
        return
    assert result.status == "succeeded_with_warnings"
    assert warn.drift() == [("missing", "v", "warn")]
    assert ignore.drift() == [("missing", "v", "ignore")]
    assert ignore.decisions() == ["first", "evolved"]
    with pytest.raises(ContractError, match=r"drift\.missing: freeze"):
        freeze.sync(page)
    assert freeze.values("id") == ["1"]
    assert warn.values() == ["a", None]
