"""A bespoke connector that yields records from anywhere; and how a module and its class are found."""

import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest

from connectors.contract import (
    Attestation,
    Checkpoint,
    JsonRecords,
    Message,
    Rejected,
    StreamState,
    Window,
)
from connectors.errors import AuthError, Cancelled, ConfigError, HeadwaterError, SourceError, TransientError
from connectors.registry import kind
from connectors.specs import SourceSpec
from connectors.testing.conformance import ConformanceError, assert_conforms
from tests.http.reading import context, ids, only
from tests.http.serving import records, serving
from tests.python_kind.modules import Modules, examples, source

ROWS = """
from connectors.custom import RowsConnector

ROWS = [{"id": n, "at": f"2024-01-{n:02d}T00:00:00Z"} for n in range(1, 29)]


class Ledger(RowsConnector):
    ordered = True
    batch = 10

    def rows(self, stream, since, until):
        for row in ROWS:
            if (since or "") <= row["at"] < (until or "3"):
                yield row
"""
STREAM = {
    "primary_key": "id",
    "cursor": {"field": "at"},
    "write": "merge",
    "partitions": {"by": "day", "start": "2024-01-01"},
}


def read(spec: SourceSpec, state: StreamState | None = None, window: Window | None = None) -> list[Message]:
    with kind("python").open(spec) as connector:
        return list(connector.read(spec.streams[0], state or StreamState(), context(window=window)))


def test_batches_are_sealed_when_the_records_come_in_order(modules: Modules) -> None:
    got = read(modules.source(ROWS, STREAM))
    assert [type(message) for message in got] == [JsonRecords, Checkpoint] * 2 + [JsonRecords]
    assert ids(got) == list(range(1, 29))


def test_a_connector_of_records_conforms(modules: Modules) -> None:
    report = assert_conforms(modules.source(ROWS, STREAM))
    assert (
        report.skipped
        == {"orders: new": "every record lies within cursor.lag of the newest; pass requests, or use older records"}
        or "orders: new" in report.shown
    )
    assert "orders: window" in report.shown


def test_position_and_window_bound_the_method(modules: Modules) -> None:
    spec = modules.source(ROWS, STREAM)
    assert ids(read(spec, StreamState(cursor="2024-01-27T00:00:00Z"))) == [27, 28]
    assert ids(read(spec, window=Window(datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC)))) == [3, 4]
    assert read(spec, StreamState(cursor="2025-01-01T00:00:00Z")) == [Attestation(nothing_new=True)]


def test_a_record_that_is_none_goes_to_quarantine(modules: Modules) -> None:
    body = "yield from [{'id': 1}, 7, {'id': object}, {'id': 2}]\n        return"
    text = ROWS.replace("for row in ROWS:", body + "\n        for row in ROWS:")
    got = read(modules.source(text))
    assert ids(got) == [1, 2]
    assert [item.reason.partition(":")[0] for item in only(Rejected, got)] == [
        "the record is a int, not a mapping",
        "the record is no JSON",
    ]


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (
            "ConnectionResetError('gone')",
            TransientError,
            "Ledger.rows raised ConnectionResetError after 0 records: gone",
        ),
        ("KeyError('x')", SourceError, "Ledger.rows raised KeyError after 0 records"),
        ("AuthError('ledger', 'refused')", AuthError, "ledger: refused"),
    ],
)
def test_what_the_method_raises_has_a_class(
    raised: str, error: type[HeadwaterError], message: str, modules: Modules
) -> None:
    text = ROWS.replace("for row in ROWS:", f"raise {raised}\n        for row in ROWS:")
    with pytest.raises(error, match=message):
        read(modules.source(f"from connectors.errors import AuthError\n{text}"))


def test_a_cancelled_read_ends_between_two_records(modules: Modules) -> None:
    endless = ROWS.replace("for row in ROWS:", "while True:\n            row = ROWS[0]")
    spec = modules.source(endless)
    within = context()
    with kind("python").open(spec) as connector:
        messages = connector.read(spec.streams[0], StreamState(), within)
        next(messages)
        timer = threading.Timer(0.05, within.cancelled.set)
        timer.start()
        with pytest.raises(Cancelled):
            list(messages)


BROKEN = {
    "new": (ROWS.replace('(since or "")', '""'), "new: 27 of 28 records of the second read lie before its position"),
    "window": (ROWS.replace('(until or "3")', '"3"'), r"window: .* has 18 records, the read 19"),
    "checkpoints": (ROWS.replace("in ROWS:", "in reversed(ROWS):"), "checkpoints: after checkpoint 1 at"),
    "read": (ROWS.replace('"id": n, ', ""), "read: record 1 has no id; its keys are at"),
    "empty": (ROWS.replace("range(1, 29)", "range(1, 1)"), "read: no record came"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found_and_named(rule: str, modules: Modules) -> None:
    text, message = BROKEN[rule]
    with pytest.raises(ConformanceError, match=message):
        assert_conforms(modules.source(text, STREAM))


def test_a_connector_that_does_not_hear_of_its_end_is_found(modules: Modules) -> None:
    deaf = ROWS + "\n    def read(self, stream, state, context):\n"
    deaf += "        context.cancelled.clear()\n        yield from super().read(stream, state, context)\n"
    with pytest.raises(ConformanceError, match="cancel: 3 payloads came after it was cancelled"):
        assert_conforms(modules.source(deaf, {**STREAM, "partitions": None}))


def test_a_raw_exception_is_found(modules: Modules) -> None:
    raw = """
from connectors.custom import HttpConnector


class Shop(HttpConnector):
    def check(self):
        try:
            return super().check()
        except Exception:
            raise ValueError("no answer") from None
"""
    with (
        serving(lambda e: e.json(records(0, 2))) as server,
        pytest.raises(ConformanceError, match="errors: dead address: raised ValueError: no answer"),
    ):
        assert_conforms(modules.source(raw, base_url=server.url))


def test_keys_of_rest_are_refused_where_nothing_reads_them(modules: Modules) -> None:
    with pytest.raises(ConfigError, match=r"base_url: .*Ledger does not read over HTTP"):
        read(modules.source(ROWS, base_url="https://api.example.com"))
    with pytest.raises(ConfigError, match=r"pagination: .*Ledger does not read over HTTP"):
        read(modules.source(ROWS, {"pagination": {"type": "offset"}}))


@pytest.mark.parametrize(
    ("text", "suffix", "message"),
    [
        ("x = 1", "", "has no connector class"),
        (ROWS + "\n\nclass Other(Ledger):\n    pass\n", "", "has 2\nName one: module: .*:Ledger, module: .*:Other"),
        (ROWS, ":Leger", "has no connector class Leger"),
        ("import nowhere_at_all", "", "needs a module that is not installed: nowhere_at_all"),
        ("1 / 0", "", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_a_module_without_its_class_is_told(text: str, suffix: str, message: str, modules: Modules) -> None:
    with pytest.raises(ConfigError, match=message):
        read(source(modules.write(text) + suffix))


def test_a_module_that_is_not_there_is_told_with_the_command_that_writes_one() -> None:
    with pytest.raises(ConfigError, match=r"no module connectors\.custom\.nowhere\n`headwater new connector NAME`"):
        read(source("nowhere"))


def test_one_of_two_classes_is_named_after_a_colon(modules: Modules) -> None:
    name = modules.write(ROWS + "\n\nclass Other(Ledger):\n    pass\n")
    assert len(ids(read(source(f"{name}:Other")))) == 28


def test_the_second_example_of_the_docs_is_a_connector(modules: Modules) -> None:
    stub = "\n\ndef open_ledger(*said):\n    return [type('Line', (), {'number': 1, 'booked_at': None, 'cents': 5})]\n"
    spec = modules.source(
        examples()[1] + stub, {"options": {"book": "a"}}, options={"host": "h"}, secrets={"password": "env:PATH"}
    )
    assert ids(read(spec)) == [1]


def test_declaring_loads_neither_the_module_nor_a_network_library() -> None:
    code = (
        "import sys; import connectors.specs as s;"
        "s.parse_source({'source': 'a', 'owner': 'team:o', 'connector': {'kind': 'python', 'module': 'nowhere'},"
        " 'streams': [{'name': 't'}]}, 'x');"
        "print([m for m in ('httpx', 'tenacity', 'msgspec', 'ssl', 'connectors.custom') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
