"""Taps that misbehave: each ends with a class, a place and a next step; sealed data stays, and the state is right."""

import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    ContractError,
    HeadwaterError,
    RateLimited,
    ResourceError,
    SourceError,
    TransientError,
)
from connectors.sync import SyncResult
from tests.singer.conftest import MakeTap
from tests.support.tapping import record, result, schema, state

N = schema("orders", n={"type": "integer"})
SEALED = (N, record("orders", n=1), record("orders", n=2), state(orders={"at": 2}))


def failed(outcome: Any, kind: type[HeadwaterError]) -> HeadwaterError:
    assert isinstance(outcome, kind), repr(outcome)
    assert outcome.hint, "no next step"
    assert outcome.sync_id, "not in the ledger"
    assert len(str(outcome).splitlines()) <= 6
    return outcome


CASES: dict[str, tuple[list[Any], type[HeadwaterError], str]] = {
    "killed": ([record("orders", n=3), {"do": "kill"}], TransientError, "ended by SIGKILL while reading 1 stream"),
    "half a line": (
        [record("orders", n=3), '{"type": "RECORD", "stream": "orders", "rec'],
        SourceError,
        "no Singer mess",
    ),
    "50 MB state": ([{"do": "big:STATE,,value,50000000"}], ContractError, "a state in a line of 50,000,0"),
    "exit 1 at the end": ([{"do": "exit:1"}], SourceError, "exit code 1"),
    "auth": ([record("orders", n=3), {"do": "fail:ValueError: 401 Unauthorized"}], AuthError, "401 Unauthorized"),
    "busy": ([{"do": "fail:requests.HTTPError: 429 Too Many Requests"}], RateLimited, "429"),
    "network": ([{"do": "fail:ConnectionError: Connection refused"}], TransientError, "Connection refused"),
    "config": ([{"do": "fail:singer_sdk.ConfigValidationError: Config validation failed"}], ConfigError, "Config"),
    "no state": ([{"type": "STATE", "value": 7}], SourceError, "a state that is int"),
    "2 MB state": ([state(orders="x" * 2_000_000)], ContractError, "limit 1,048,576"),
    "wrong type": ([schema("orders", n={"type": "whole"}), record("orders", n=3)], SourceError, "unknown type 'whole'"),
    "type of a type": ([schema("orders", n={"type": [["x"]]})], SourceError, "unknown type ['x']"),
    "format of a list": ([schema("orders", n={"type": "string", "format": ["x"]})], SourceError, "format is list"),
    "no batch": ([{"type": "BATCH", "stream": "orders", "encoding": 3}], SourceError, "a batch that is none"),
    "no properties": ([{"type": "SCHEMA", "stream": "orders", "schema": {}}], SourceError, "has no properties"),
    "no schema": (
        [{"type": "SCHEMA", "stream": "orders", "schema": "none"}, record("orders", n=3)],
        SourceError,
        "str",
    ),
}
QUICK = ("killed", "half a line", "50 MB state", "exit 1 at the end", "wrong type")


@pytest.mark.parametrize(
    ("after", "kind", "says"),
    [pytest.param(*case, id=name, marks=() if name in QUICK else pytest.mark.slow) for name, case in CASES.items()],
)
def test_what_was_sealed_stays_and_the_failure_is_classified(
    tap: MakeTap, after: list[Any], kind: type[HeadwaterError], says: str
) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={})

    error = failed(shop.say(*SEALED, *after)["orders"], kind)

    assert says in str(error)
    assert shop.rows("orders") == [(1,), (2,)]
    assert shop.position("orders") == {"stream": "orders", "bookmark": {"at": 2}}


def test_a_broken_line_is_told_without_its_values(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={"columns": {"card": {"rule": "block"}}})
    half = '{"type":"RECORD","stream":"orders","record":{"card":"4111222233334444",'

    said = str(failed(shop.say(*SEALED, half)["orders"], SourceError))

    assert '{"type":"RECORD","stream":"orders", ...' in said
    assert "4111" not in said


def catalog(tap: MakeTap) -> str:
    """A catalog file, which saves the discovery."""
    path = tap().folder / "catalog.json"
    path.write_text(
        '{"streams": [{"tap_stream_id": "orders", "stream": "orders", "schema": {"properties": {"n": {}}}},'
        '{"tap_stream_id": "items", "stream": "items", "schema": {"properties": {"n": {}}}}]}',
        encoding="utf-8",
    )
    return str(path)


def test_a_stream_that_breaks_the_protocol_takes_nothing_from_its_siblings(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={}, items={})

    outcome = shop.say(
        record("items", n=9), *SEALED, record("items", n=8), record("orders", n=3), state(orders={"at": 3})
    )

    assert "before the stream's schema" in str(failed(outcome["items"], SourceError))
    assert result(outcome["orders"]).rows.loaded == 3
    assert shop.rows("orders") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "odd",
    [
        schema("items", n={"type": ["string", {"a": 1}]}),
        {"type": "BATCH", "stream": "items", "manifest": 3, "encoding": {"format": "jsonl"}},
    ],
    ids=lambda odd: str(odd["type"]),
)
def test_an_odd_shape_takes_nothing_from_the_siblings(tap: MakeTap, odd: dict[str, Any]) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={}, items={})

    outcome = shop.say(schema("items", n={}), *SEALED, odd, record("orders", n=3), state(orders={"at": 3}))

    failed(outcome["items"], SourceError)
    assert result(outcome["orders"]).rows.loaded == 3


def test_a_stream_whose_audit_fails_takes_nothing_from_its_siblings(tap: MakeTap) -> None:
    shop = tap(
        {"catalog": catalog(tap)},
        orders={},
        items={"max_quarantined": {"rows": 0}, "columns": {"n": {"type": "bigint"}}},
    )

    outcome = shop.say(schema("items", n={}), record("items", n="no number"), *SEALED)

    failed(outcome["items"], ContractError)
    assert result(outcome["orders"]).status == "succeeded"


def test_noise_is_logged_and_a_schema_of_no_property_is_fine(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap), "env": {"PASS": "env:HOME"}}, orders={})
    home = os.environ["HOME"]

    outcome = shop.say(
        "Starting the tap ...", {"do": "flood:5000"}, schema("orders"), "",
        record("orders", n=1), {"type": "NEWS"}, f"secret {home}", schema("others", n={}), record("others", n=7),
    )  # fmt: skip

    assert result(outcome["orders"]).rows.loaded == 1
    log = "\n".join(shop.lines)
    assert "printed by the tap: Starting the tap ..." in log
    assert "more than 2,000 lines on stderr: the rest is not shown" in log
    assert "line 1999 of stderr" in log
    assert "line 2001 of stderr" not in log
    assert "records of others, which was not selected, are dropped" in log


def test_a_huge_record_is_quarantined_and_the_rest_is_loaded(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={"max_record_bytes": 4096, "max_quarantined": {"share": 1}})

    outcome = shop.say(
        *SEALED, {"do": "big:RECORD,orders,record,3000000"}, record("orders", n=3), state(orders={"at": 3})
    )

    assert result(outcome["orders"]).status == "succeeded_with_warnings"
    assert result(outcome["orders"]).rows.quarantined == 1
    assert shop.rows("orders") == [(1,), (2,), (3,)]


@pytest.mark.slow
def test_a_tap_that_hangs_is_given_up_with_its_whole_group(tap: MakeTap) -> None:
    # as long as a slow machine may need to start it
    shop = tap({"catalog": catalog(tap), "stall_timeout": "PT12S"}, orders={})

    error = failed(shop.say(*SEALED, {"do": "hang"})["orders"], TransientError)

    assert "nothing came for 12 s while reading 1 stream" in str(error)
    assert shop.rows("orders") == [(1,), (2,)]
    eventually_gone(shop.calls[-1]["pid"])


def test_a_cancelled_run_ends_the_tap_and_the_next_one_has_everything_once(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={}, items={})
    shop.cancel_at = "everything is said"

    outcomes = shop.say(*SEALED, record("orders", n=3), "everything is said", {"do": "hang"})

    for outcome in outcomes.values():
        failed(outcome, Cancelled)
    eventually_gone(shop.calls[-1]["pid"])
    shop.cancel_at = ""
    unread = SEALED[1:3] if shop.position("orders") is None else ()
    result(shop.say(N, *unread, record("orders", n=3), state(orders={"at": 3}))["orders"])
    assert shop.rows("orders") == [(1,), (2,), (3,)]


def test_limits_of_time_and_memory_end_the_process(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap), "time_limit": "PT0.5S"}, orders={})
    assert "connector.time_limit" in str(failed(shop.say({"do": "hang"})["orders"], ResourceError))
    shop.connector = {"catalog": catalog(tap), "memory_mb": 64}
    error = failed(shop.say({"do": "eat:200"}, {"do": "hang"})["orders"], ResourceError)
    assert "connector.memory_mb is 64" in str(error)
    eventually_gone(shop.calls[-1]["pid"])


@pytest.mark.slow
def test_a_limit_of_time_keeps_what_was_sealed(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap), "time_limit": "PT12S"}, orders={})
    failed(shop.say(*SEALED, {"do": "hang"})["orders"], ResourceError)
    assert shop.rows("orders") == [(1,), (2,)]


def eventually_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid):
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("connector", "config", "kind", "says"),
    [
        ({"catalog": "/nowhere/catalog.json"}, {}, ConfigError, "connector.catalog"),
        ({}, {"discovery": "Usage: tap"}, SourceError, "discovery gave no JSON"),
        ({}, {"discovery": "[1]"}, SourceError, "no catalog of streams"),
        ({}, {"discovery": '{"streams": [{"stream": "orders", "metadata": [1]}]}'}, SourceError, "breaks the protocol"),
        ({}, {"streams": ["other"]}, ConfigError, "no stream 'orders'\nKnown: other."),
        ({}, {"discover_fails": "fail:KeyError: 'password' is a required property"}, ConfigError, "required property"),
        ({"executable": "/nowhere/tap"}, {}, ConfigError, "does not exist"),
        ({"config": {"token": "env:NOT_SET_ANYWHERE"}}, {}, ConfigError, "NOT_SET_ANYWHERE is not set"),
    ],
    ids=["catalog file", "words", "list", "protocol", "stream", "config", "executable", "reference"],
)  # fmt: skip
def test_a_tap_that_cannot_be_read_says_what_to_correct(
    tap: MakeTap, connector: dict[str, Any], config: dict[str, Any], kind: type[HeadwaterError], says: str
) -> None:
    shop = tap({key: value for key, value in connector.items() if key != "config"}, orders={})

    error = failed(shop.say(*SEALED, **config, **connector.get("config", {}))["orders"], kind)

    assert says in str(error)
    assert shop.position("orders") is None


def test_a_rename_onto_another_column_is_refused(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={"rename": {"m": "n"}})
    outcome = shop.say(schema("orders", n={}, m={}), record("orders", n=1, m=2))
    assert "rename of 'm' to 'n'" in str(failed(outcome["orders"], ConfigError))


def test_an_undisturbed_run_leaves_no_process_and_no_folder(tap: MakeTap) -> None:
    shop = tap({"catalog": catalog(tap)}, orders={})
    assert isinstance(shop.say(*SEALED)["orders"], SyncResult)
    eventually_gone(shop.calls[-1]["pid"])
    assert not list(Path(os.environ["HEADWATER_WORK_DIR"]).iterdir())
