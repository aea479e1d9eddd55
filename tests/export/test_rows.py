"""Records on their way out: raw ones byte for byte, typed ones exactly."""

import hmac
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from connectors.contract import (
    Attestation,
    Checkpoint,
    CopyFile,
    Emptied,
    Frame,
    Hints,
    JsonRecords,
    Message,
    Rejected,
    Replaces,
)
from connectors.copy_columns import copy_columns
from connectors.errors import ConfigError
from connectors.export.position import Position
from connectors.export.rows import Rows
from connectors.specs import StreamSpec

STREAM = StreamSpec(name="things", primary_key=("id",))
BIG = "123456789012345678901234567890.123456789012345678"


def rows(*messages: Any, stream: StreamSpec = STREAM, keep: frozenset[str] | None = None) -> list[bytes]:
    found = Rows(stream, "shop.things", keep)
    return [line for message in messages for line in found.of(message)]


def exact(line: bytes) -> dict[str, Any]:
    return json.loads(line, parse_float=str, parse_int=str)


def test_raw_records_pass_byte_for_byte() -> None:
    body = b'{"id": 1,  "n": ' + BIG.encode() + b', "s": "\\u00e9"}\n\n  {"id":2e0}\n'
    assert rows(JsonRecords(body, "page 1")) == [body.splitlines()[0], b'{"id":2e0}']


def test_a_record_that_is_no_object_is_rejected_and_its_siblings_pass() -> None:
    found = Rows(STREAM, "shop.things")
    lines = list(found.of(JsonRecords(b'{"id": 1}\n{"id": \n[1]\n{"id": 2}', "page 3")))
    assert lines == [b'{"id": 1}', b'{"id": 2}']
    assert [reason.split(":")[0] for reason in found.rejected] == ["page 3, line 2", "page 3, line 3"]
    assert list(found.of(Rejected(b"x", "too long", "page 4"))) == []
    assert found.rejected[-1] == "page 4: too long"


def test_columns_that_are_blocked_or_not_selected_stay_out_and_the_others_keep_their_digits() -> None:
    stream = StreamSpec.model_validate({"name": "things", "columns": {"ssn": {"rule": "block"}}})
    record = JsonRecords(b'{"id": 1, "ssn": "123", "n": ' + BIG.encode() + b', "v": null}', "page 1")
    assert [exact(line) for line in rows(record, stream=stream)] == [{"id": "1", "n": BIG, "v": None}]
    assert [exact(line) for line in rows(record, stream=stream, keep=frozenset({"n", "ssn"}))] == [{"n": BIG}]


RULED = StreamSpec.model_validate(
    {
        "name": "things",
        "null_values": ["NA"],
        "columns": {
            "ssn": {"rule": "hash", "key": "env:HASH_KEY"},
            "card": {"rule": "mask", "keep_last": 4},
            "note": {"rule": "truncate", "length": 3},
            "pin": {"rule": "block"},
        },
    }
)
KEY = "k" * 16


@pytest.mark.parametrize("form", ["json", "frame", "file"])
def test_column_rules_and_null_values_hold_as_in_the_warehouse(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASH_KEY", KEY)
    record = {"id": "1", "ssn": "078-05", "card": "4111222233334444", "note": "abcdef", "pin": "1234", "temp": "NA"}
    table = pa.table({name: [value] for name, value in record.items()})
    path = tmp_path / "part.csv"
    path.write_text(",".join(record.values()) + "\n")
    message = {
        "json": JsonRecords(json.dumps(record).encode(), "page 1"),
        "frame": Frame(table, "part 1"),
        "file": CopyFile(path, copy_columns(table.schema), 1, "part 1"),
    }[form]
    (line,) = rows(message, stream=RULED)
    hashed = hmac.digest(KEY.encode(), b"078-05", "sha256").hex()
    assert json.loads(line) == {
        "id": "1", "ssn": hashed, "card": "************4444", "note": "abc", "temp": None,
    }  # fmt: skip


def test_no_protected_value_is_in_the_reason_of_a_rejected_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", KEY)
    found = Rows(RULED, "shop.things")
    list(found.of(Rejected(b'{"id": 1, "ssn": "078-05"}', "cannot read '078-05'", "page 4")))
    assert "078-05" not in found.rejected[0]
    monkeypatch.delenv("HASH_KEY")
    with pytest.raises(ConfigError, match="HASH_KEY"):
        Rows(RULED, "shop.things")


def test_typed_records_are_written_exactly() -> None:
    table = pa.table({
        "id": pa.array([2**63 - 1, None], pa.int64()),
        "amount": pa.array([Decimal(BIG), Decimal("1.10")], pa.decimal256(60, 18)),
        "at": pa.array([1704164645678901, None], pa.timestamp("us")),
        "zoned": pa.array([datetime(2024, 1, 2, tzinfo=UTC)] * 2, pa.timestamp("ns", "UTC")),
        "day": pa.array([date(2024, 2, 29)] * 2, pa.date32()),
        "clock": pa.array([time(1, 2, 3)] * 2, pa.time64("us")),
        "raw": pa.array([b"\x00\xff", None], pa.binary()),
        "share": pa.array([0.1, float("nan")], pa.float64()),
        "tree": pa.array([{"a": [b"x", None]}, None], pa.struct([("a", pa.list_(pa.binary()))])),
    })  # fmt: skip
    lines = rows(Frame(table, "part 1"))
    assert b'"amount":' + BIG.encode() in lines[0]
    first, second = map(exact, lines)
    assert first == {
        "id": "9223372036854775807", "amount": BIG, "at": "2024-01-02T03:04:05.678901Z",
        "zoned": "2024-01-02T00:00:00Z", "day": "2024-02-29", "clock": "01:02:03", "raw": "AP8=", "share": "0.1",
        "tree": {"a": ["eA==", None]},
    }  # fmt: skip
    assert (second["id"], second["share"], second["at"]) == (None, None, None)
    assert Decimal(second["amount"]) == Decimal("1.10")


def test_a_copy_file_is_written_exactly_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    path.write_text('1,12345678901234567890.10,2013-01-01 05:00:00+00,t,"{""a"": [1.50]}",,"",\\x00ff,infinity\n')
    moment = pa.timestamp("us", "UTC")
    schema = pa.schema([
        pa.field("id", pa.int64()), pa.field("n", pa.string(), metadata={b"pg_type": b"numeric"}),
        pa.field("at", moment), pa.field("ok", pa.bool_()),
        pa.field("doc", pa.string(), metadata={b"pg_type": b"jsonb"}), pa.field("nothing", pa.string()),
        pa.field("empty", pa.string()), pa.field("raw", pa.binary()), pa.field("end", moment),
    ])  # fmt: skip
    (line,) = rows(CopyFile(path, copy_columns(schema), 1, "part 1"))
    assert exact(line) == {
        "id": "1", "n": "12345678901234567890.10", "at": "2013-01-01T05:00:00Z", "ok": True, "doc": {"a": ["1.50"]},
        "nothing": None, "empty": "", "raw": "AP8=", "end": "infinity",
    }  # fmt: skip
    assert not path.exists()


def test_the_marks_of_deleted_rows_in_a_copy_file_stay_true(tmp_path: Path) -> None:
    path = tmp_path / "part.csv"
    path.write_text("1,t,t\n2,f,f\n")
    schema = pa.schema([("id", pa.int64()), ("_deleted", pa.bool_()), ("ok", pa.bool_())])
    assert [json.loads(line) for line in rows(CopyFile(path, copy_columns(schema), 2, "part 1"))] == [
        {"id": 1, "_deleted": True, "ok": True}, {"id": 2, "_deleted": False, "ok": False},
    ]  # fmt: skip


@pytest.mark.parametrize("message", [Emptied(), Emptied(by_snapshot=True), Replaces("version", 2)])
def test_what_takes_rows_away_is_refused_and_never_passed_over(message: Message) -> None:
    with pytest.raises(ConfigError, match=r"shop\.things: .* rows are gone") as caught:
        rows(message)
    assert caught.value.hint
    assert rows(Attestation(rows=1), Hints({"id": "bigint"})) == []


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (
            ["2024-01-02T00:00:00Z", "2024-01-03T00:00:00+02:00", "2999-01-01T00:00:00Z"],
            "timestamp",
            "2024-01-02T22:00:00Z",
        ),
        ([9, 10, Decimal("9.5")], "number", "10"),
        (["2024-01-02", "2024-02-01"], "date", "2024-02-01"),
        (["a", "c", "b", None], "text", "c"),
    ],
)
def test_the_position_is_the_greatest_value_that_was_passed_on(values: list[Any], kind: str, expected: str) -> None:
    stream = StreamSpec.model_validate({"name": "things", "cursor": {"field": "at"}})
    position = Position(stream, {}, "shop.things")
    for value in values:
        position.saw(value)
    state = position.seal(Checkpoint(connector={"page": 3}))
    assert state == {"cursor": {"field": "at", "value": expected, "kind": kind}, "connector": {"page": 3}}
    again = Position(stream, state, "shop.things")
    assert again.for_read().cursor == expected
    assert again.seal(Checkpoint()) == state


def test_what_came_out_of_order_moves_the_position_only_at_the_end() -> None:
    stream = StreamSpec.model_validate({"name": "things", "cursor": {"field": "at"}})
    position = Position(stream, {}, "shop.things")
    position.saw(5)
    assert position.seal(Checkpoint(is_ordered=False)) == {}
    assert position.seal(Checkpoint())["cursor"]["value"] == "5"


def test_a_state_of_another_cursor_is_refused() -> None:
    stream = StreamSpec.model_validate({"name": "things", "cursor": {"field": "at"}})
    with pytest.raises(ConfigError, match="of field before"):
        Position(stream, {"cursor": {"field": "before", "value": "1", "kind": "number"}}, "shop.things")
