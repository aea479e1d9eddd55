"""`headwater tap inspect`: every byte goes through, and the report names what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

from connectors.singer.inspect import Inspector, backwards
from tests.support.tapping import record, schema, state

ROOT = Path(__file__).parents[2]
MESSAGES = [
    record("items", n=1),
    schema("orders", n={"type": "integer"}, v={"type": "string"}, w={"type": "string"}),
    record("orders", n=1, v="a"),
    record("orders", n=2, v="bb", extra=True),
    record("orders", n=None, v="c"),
    state(orders={"at": "2024-02-01", "rows": 5}),
    state(orders={"at": "2024-01-01", "rows": 6}),
    record("orders", n=3, v="d"),
]


def lines() -> bytes:
    spelt = [json.dumps(message, indent=None) for message in MESSAGES]
    spelt[2] = spelt[2].replace(": ", " :  ")  # white space of the tap's own
    return "\n".join([*spelt, "a word of the tap", '{"type": "NEWS"}']).encode() + b"\n"


def test_messages_pass_unchanged_and_the_report_goes_to_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", "tap", "inspect"],
        input=lines(), capture_output=True, check=True, cwd=ROOT, timeout=60,
    )  # fmt: skip

    assert done.stdout == lines()
    said = done.stderr.decode()
    assert "10 messages: 1 (no message), 1 NEWS, 5 RECORD, 1 SCHEMA, 2 STATE" in said
    assert "orders: 4 records of 23 bytes, the largest 34" in said
    assert "1 schemas, 3 fields, key n" in said
    assert "declared, never sent: w" in said
    assert "1 records after the last state" in said
    assert "state: 2 checkpoints, the largest of 58 bytes" in said


def test_anomalies_are_named_once_with_their_first_line() -> None:
    inspector = Inspector()
    for line in lines().splitlines():
        inspector.take(line)

    assert [(item.first_line, item.what) for item in inspector.anomalies] == [
        (1, "items: a record before its schema"),
        (4, "orders: field 'extra' is not in the schema"),
        (5, "orders: a record without its key 'n'"),
        (7, "state bookmarks.orders.at went backwards: '2024-02-01' to '2024-01-01'"),
        (9, "a line that is no message: 'a word of the tap'"),
        (10, "unknown message type 'NEWS'"),
    ]


def test_only_what_has_an_order_goes_backwards() -> None:
    assert list(backwards({"a": 2, "b": "10", "c": [3], "d": True}, {"a": 1, "b": "9", "c": [1], "d": False})) == [
        ("a", 2, 1)
    ]


def test_messages_of_another_protocol_are_told_as_such() -> None:
    inspector = Inspector()
    inspector.take(b'{"type": "RECORD", "record": {"stream": "a", "data": {}, "emitted_at": 1}}')
    inspector.take(b'{"type": "STATE", "state": {"type": "STREAM"}}')

    assert [item.what for item in inspector.anomalies] == [
        "a message without what Singer's has: is this an Airbyte source?"
    ]
