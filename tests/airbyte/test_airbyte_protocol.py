"""What an Airbyte source says, and what is made of it; a source of the tests, no warehouse."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.airbyte.catalog import choose, column_type
from connectors.contract import Checkpoint, Hints, JsonRecords, Rejected, StreamState
from connectors.errors import (
    MAX_LINES,
    AuthError,
    ConfigError,
    HeadwaterError,
    RateLimited,
    SourceError,
    TransientError,
)
from connectors.kinds.airbyte import AirbyteStreamSpec
from connectors.registry import kind
from tests.airbyte.scripting import read, record, scripted, state, status, stream, trouble

SECRET = "hunter2-very-secret"
SPECIFICATION = {
    "type": "object",
    "required": ["script", "token"],
    "additionalProperties": False,
    "properties": {
        "script": {"type": "string"},
        "token": {"type": "string", "airbyte_secret": True},
        "port": {"type": "integer", "maximum": 65535},
        "login": {
            "oneOf": [
                {"type": "object", "properties": {"password": {"type": "string", "airbyte_secret": True}}},
                {"type": "object", "properties": {"kind": {"const": "none"}}},
            ]
        },
    },
}


def _check(spec: Any) -> str:
    with kind("airbyte").open(spec) as connector:
        return connector.check()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("HTTP 401: Unauthorized", AuthError),
        ("429 Too Many Requests", RateLimited),
        ("HTTPSConnectionPool: Max retries exceeded, connection refused", TransientError),
        ("start_date must be a date", ConfigError),
    ],
)
def test_a_failed_check_has_the_class_of_its_words_though_the_program_ends_with_0(
    tmp_path: Path, said: str, expected: type[HeadwaterError]
) -> None:
    source = scripted(tmp_path, check={"status": "FAILED", "message": said})
    with pytest.raises(expected, match="the check failed"):
        _check(source.spec())


def test_a_check_that_succeeds_says_so(tmp_path: Path) -> None:
    assert "succeeded" in _check(scripted(tmp_path).spec())


def test_a_configuration_is_judged_by_the_sources_own_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scripted(tmp_path, spec=SPECIFICATION, reads=[[status("things", "COMPLETE")]])
    given = {"script": str(source.script)}
    monkeypatch.setenv("TOKEN", SECRET)
    monkeypatch.setenv("PORT", "5432")

    def refused(config: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            read(source.spec(config={**given, **config}))
        assert SECRET not in str(caught.value)
        assert len(str(caught.value).splitlines()) <= MAX_LINES
        return str(caught.value)

    assert "config.token is a secret" in refused({"token": SECRET})
    assert "config.login.password is a secret" in refused({"token": "env:TOKEN", "login": {"password": SECRET}})
    assert "'token' is a required property" in refused({})
    assert "'tokn' was unexpected" in refused({"token": "env:TOKEN", "tokn": "x"})
    assert "port must have maximum 65535" in refused({"token": "env:TOKEN", "port": 70000})
    monkeypatch.setenv("PORT", "many")
    assert "port must have type" in refused({"token": "env:TOKEN", "port": "env:PORT"})
    monkeypatch.setenv("PORT", "5432")
    read(source.spec(config={**given, "token": "env:TOKEN", "port": "env:PORT"}))
    assert source.seen[-1]["config"] == {**given, "token": SECRET, "port": 5432}


@pytest.mark.parametrize("specification", [["token"], "token", 3, {"type": "objekt"}, {"properties": ["token"]}])
def test_a_specification_that_is_no_schema_is_the_sources_fault(tmp_path: Path, specification: object) -> None:
    with pytest.raises(SourceError, match="its specification is"):
        _check(scripted(tmp_path, spec=specification).spec())


@pytest.mark.parametrize(
    ("write", "sync_mode", "can", "expected"),
    [
        ("append", None, ("full_refresh", "incremental"), ("incremental", "append")),
        ("append", None, ("full_refresh",), ("full_refresh", "append")),
        ("append", "full_refresh", ("full_refresh", "incremental"), ("full_refresh", "append")),
        ("merge", None, ("full_refresh", "incremental"), ("incremental", "append_dedup")),
        ("merge", "full_refresh", ("full_refresh", "incremental"), ("full_refresh", "append_dedup")),
        ("scd2", None, ("full_refresh",), ("full_refresh", "append_dedup")),
        ("replace", None, ("full_refresh", "incremental"), ("full_refresh", "overwrite")),
    ],
)
def test_how_rows_are_written_decides_the_modes(
    write: str, sync_mode: str | None, can: tuple[str, ...], expected: tuple[str, str]
) -> None:
    given = AirbyteStreamSpec.model_validate(
        {"name": "things", "write": write, "sync_mode": sync_mode, "primary_key": "id"}
    )
    chosen = choose(given, [stream("things", *can)], "unit.things").configured
    assert (chosen["sync_mode"], chosen["destination_sync_mode"]) == expected
    assert chosen["primary_key"] == [["id"]]


@pytest.mark.parametrize(
    ("fields", "catalog", "said"),
    [
        ({"name": "thingz"}, [stream("things")], "Did you mean 'things'"),
        ({"name": "things"}, [stream("things", namespace="a"), stream("things", namespace="b")], "2 namespaces"),
        ({"name": "things", "sync_mode": "incremental"}, [stream("things", "full_refresh")], "full_refresh only"),
        ({"name": "things", "write": "replace"}, [stream("things", "incremental")], "incremental only"),
        ({"name": "things"}, [stream("things", source_defined_cursor=False)], "none is set"),
    ],
)
def test_a_stream_that_cannot_be_read_as_asked_is_refused(
    fields: dict[str, Any], catalog: list[dict[str, Any]], said: str
) -> None:
    given = AirbyteStreamSpec.model_validate({"write": "append", **fields})
    with pytest.raises(ConfigError, match=said):
        choose(given, catalog, "unit.things")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer"}, "bigint"),
        ({"type": ["null", "number"]}, "decimal"),
        ({"type": "number", "airbyte_type": "integer"}, "bigint"),
        ({"type": "string", "airbyte_type": "big_integer"}, "decimal"),
        ({"type": "string", "format": "date-time"}, "timestamp"),
        ({"type": "string", "format": "time", "airbyte_type": "time_with_timezone"}, "text"),
        ({"oneOf": [{"type": "null"}, {"type": "object"}]}, "json"),
        ({"type": ["string", "integer"]}, None),
        (True, None),
    ],
)
def test_a_column_has_a_type_where_its_schema_says_exactly_one(schema: object, expected: str | None) -> None:
    assert column_type(schema) == expected


def test_lines_that_are_no_messages_are_noted_and_a_broken_record_is_rejected(tmp_path: Path) -> None:
    said = [
        "Downloading model weights...",
        '{"type": "LOG", "log": {"level": "WARN", "message": "slow\\ntrace"}}',
        '{"level": "info", "json": "of a library"}',
        record("things", 1),
        state("things", {"at": 1}),
        '{"type": "RECORD", "record": {"stream": "things", "data": {"id": 2, "v": NaN}, "emitted_at": 1}}',
        record("things", 3),
        state("things", {"at": 3}),
    ]
    log: list[str] = []
    messages = read(scripted(tmp_path, reads=[said]).spec(), log)
    rows = b"\n".join(message.body for message in messages if isinstance(message, JsonRecords))
    assert [json.loads(row)["id"] for row in rows.splitlines() if row] == [1, 3]
    (rejected,) = [message for message in messages if isinstance(message, Rejected)]
    assert rejected.payload == said[5].encode()  # type: ignore[union-attr]  # a text
    assert any("Downloading model weights" in line for line in log)
    assert "WARN: slow" in log
    assert Hints({"id": "bigint", "v": "text"}) in messages


@pytest.mark.parametrize(
    "line", ['{"type": "STATE", "state": {"type": "STREAM", ', '{"type": "RECORD", "record": {"data"']
)
def test_a_broken_message_that_nobody_can_place_ends_the_read(tmp_path: Path, line: str) -> None:
    with pytest.raises(SourceError):
        read(scripted(tmp_path, reads=[[record("things", 1), line]]).spec())


@pytest.mark.parametrize(
    ("message", "failure_type", "expected", "code"),
    [
        ("Something odd happened", "system_error", SourceError, 0),
        ("Something odd happened", "transient_error", TransientError, 0),
        ("Something odd happened", "config_error", ConfigError, 1),
        ("Something odd happened", None, SourceError, 1),
        ("403 Forbidden for url", "system_error", AuthError, 1),
        ("connection reset by peer", "system_error", TransientError, 0),
        ("rate limit exceeded", "config_error", RateLimited, 0),
    ],
)
def test_an_error_trace_fails_the_read_whatever_the_exit_code(
    tmp_path: Path, message: str, failure_type: str | None, expected: type[HeadwaterError], code: int
) -> None:
    said = [record("things", 1), trouble(message, failure_type), {"do": "exit", "code": code}]
    with pytest.raises(expected) as caught:
        read(scripted(tmp_path, reads=[said]).spec())
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) <= MAX_LINES


def test_no_secret_shows_in_what_a_source_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    told = {"type": "LOG", "log": {"level": "INFO", "message": f"GET /x?token={SECRET}"}}
    said = [told, f"printed {SECRET}", trouble(f"403 for /x?token={SECRET}")]
    source = scripted(tmp_path, reads=[said], check={"status": "FAILED", "message": f"bad {SECRET}"})
    spec = source.spec(config={"script": str(source.script), "token": "env:TOKEN"})
    log: list[str] = []
    with pytest.raises(AuthError) as caught:
        read(spec, log)
    with pytest.raises(ConfigError) as refused:
        _check(spec)
    assert len(log) == 2
    assert SECRET not in "\n".join([*log, str(caught.value), str(refused.value)])


def test_what_a_source_logged_last_explains_an_exit_code(tmp_path: Path) -> None:
    told = {
        "type": "LOG",
        "log": {"level": "FATAL", "message": "psycopg.OperationalError: password authentication failed"},
    }
    with pytest.raises(AuthError, match="exit code 3"):
        read(scripted(tmp_path, reads=[[told, {"do": "exit", "code": 3}]]).spec())


def test_an_incomplete_stream_is_a_failure_though_the_program_ends_with_0(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="things incomplete"):
        read(scripted(tmp_path, reads=[[record("things", 1), status("things", "INCOMPLETE")]]).spec())


def test_a_deleted_row_is_marked_and_one_that_came_back_is_not(tmp_path: Path) -> None:
    said = [
        record("things", 1, _ab_cdc_deleted_at="2024-01-02T03:04:05Z"),
        record("things", 2, _ab_cdc_deleted_at=None),
        record("things", 3),
        state("things", {"at": 3}),
    ]
    messages = read(scripted(tmp_path, reads=[said]).spec())
    rows = b"\n".join(message.body for message in messages if isinstance(message, JsonRecords))
    assert [json.loads(row).get("_deleted") for row in rows.splitlines() if row] == [True, False, None]


@pytest.mark.parametrize(
    "position", [{"__ab_no_cursor_state_message": True}, {"__ab_full_refresh_sync_complete": True}, None]
)
def test_a_state_that_holds_no_position_is_none(tmp_path: Path, position: Any) -> None:
    said = [record("things", 1), state("things", position), status("things", "COMPLETE")]
    checkpoints = [
        message for message in read(scripted(tmp_path, reads=[said]).spec()) if isinstance(message, Checkpoint)
    ]
    assert all(checkpoint.connector == {} for checkpoint in checkpoints)


def test_a_saved_position_is_handed_back_as_the_list_that_sources_take(tmp_path: Path) -> None:
    source = scripted(tmp_path, reads=[[status("things", "COMPLETE")]])
    read(source.spec(), state=StreamState(connector={"stream_state": {"at": 7}}))
    assert source.seen[-1]["state"] == [
        {"type": "STREAM", "stream": {"stream_descriptor": {"name": "things"}, "stream_state": {"at": 7}}}
    ]


def test_an_image_needs_a_container_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = scripted(tmp_path).spec(executable=None, image="airbyte/source-faker:7.2.1")
    with pytest.raises(ConfigError, match="neither is on PATH"):
        _check(spec)


def test_an_image_runs_with_its_files_mounted_and_its_environment_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is a stand-in: it undoes the mount and runs the program of the tests."""
    source = scripted(tmp_path, reads=[[record("things", 1), state("things", {"at": 1})]])
    client = tmp_path / "docker"
    client.write_text(
        f"""#!{sys.executable}
import os, sys
words = sys.argv[1:]
(tmp_path := os.path.dirname(__file__))
open(tmp_path + "/words", "a").write(repr(words) + "\\n")
source = next(word for word in words if word.startswith("type=bind")).split("source=")[1].split(",")[0]
at = words.index("airbyte/source-scripted:1")
assert os.environ["SCRIPT"] and "SCRIPT" in words[:at]
arguments = [word.replace("/headwater", source) for word in words[at + 1:]]
os.execv(tmp_path + "/source-scripted", [tmp_path + "/source-scripted", *arguments])
"""
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    messages = read(source.spec(executable=None, image="airbyte/source-scripted:1"))
    assert Checkpoint(connector={"stream_state": {"at": 1}}) in messages
    assert "--rm" in (tmp_path / "words").read_text()


@pytest.mark.parametrize(
    ("says", "error", "expected"),
    [
        ("Cannot connect to the Docker daemon at unix:///x. Is it running?", ConfigError, "engine does not answer"),
        ("docker: Error response from daemon: pull access denied for a/b", ConfigError, "image cannot be run"),
        ("docker: Error response from daemon: lookup x on 1.1.1.1:53: no such host", TransientError, "cannot be run"),
        ("Error: initializing source docker://a/b:1: dial tcp: connection refused", TransientError, "cannot be run"),
    ],
)
def test_what_keeps_an_image_from_running_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, error: type[HeadwaterError], expected: str
) -> None:
    client = tmp_path / "docker"
    client.write_text(f"#!/bin/sh\necho '{says}' >&2\necho \"Run 'docker run --help'\" >&2\nexit 125\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(error, match=expected) as caught:
        _check(scripted(tmp_path).spec(executable=None, image="airbyte/source-faker:7.2.1"))
    assert len(str(caught.value).splitlines()) <= MAX_LINES
    assert "--help" not in str(caught.value) or "does not answer" in str(caught.value)


def test_an_engine_that_does_not_answer_leaves_its_place_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("docker", "exit 1"), ("podman", "echo podman was asked >&2; exit 3")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="podman was asked"):
        _check(scripted(tmp_path).spec(executable=None, image="airbyte/source-faker:7.2.1"))


@pytest.mark.parametrize(
    ("connector", "said"),
    [
        ({"executable": None}, "needs package"),
        ({"image": "a/b:1"}, "holds the whole source"),
        ({"components": "c.py"}, "add manifest"),
        ({"package": "not a requirement"}, "no requirement"),
    ],
)
def test_a_stanza_that_runs_nothing_or_two_things_is_refused(
    tmp_path: Path, connector: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        scripted(tmp_path).spec(**connector)
