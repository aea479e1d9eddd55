"""An Airbyte source through the engine: what is in the tables and in the saved positions after each sync."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import KeepsConfig
from connectors.errors import AuthError, ConfigError, SourceError, TransientError
from connectors.http.vault import new_key
from connectors.registry import kind
from connectors.sync import SyncResult
from tests.airbyte.conftest import succeeded, sync
from tests.airbyte.scripting import record, scripted, shared_state, state, status, stream, trouble
from tests.support import sql

CATALOG = [stream("things"), stream("others"), stream("whole", "full_refresh")]


def ids(dsn: str, name: str, table: str = "things") -> list[int]:
    return [row[0] for row in sql.run(dsn, f"select id from raw_{name}.{table} order by 1")]


def merged(stream_name: str) -> dict[str, Any]:
    return {"name": stream_name, "primary_key": "id", "write": "merge"}


@pytest.mark.parametrize(
    "end", ["kill", pytest.param("trace", marks=pytest.mark.slow), pytest.param("exit", marks=pytest.mark.slow)]
)
def test_a_read_goes_on_after_the_last_state_and_nothing_is_doubled(
    tmp_path: Path, dsn: str, name: str, end: str
) -> None:
    ends = {"trace": trouble("it broke"), "kill": {"do": "kill"}, "exit": {"do": "exit", "code": 1}}
    source = scripted(
        tmp_path,
        catalog=CATALOG,
        reads=[
            [record("things", 1), record("things", 2), state("things", {"at": 2}), record("things", 3), ends[end]],
            [record("things", 3), record("things", 4), state("things", {"at": 4}), status("things", "COMPLETE")],
        ],
    )
    spec = source.spec({"name": "things"}, source=name)
    expected = {"trace": SourceError, "kill": TransientError, "exit": SourceError}[end]
    assert isinstance(sync(spec, dsn)["things"], expected)
    assert ids(dsn, name) == [1, 2]
    assert succeeded(sync(spec, dsn))
    assert ids(dsn, name) == [1, 2, 3, 4]
    assert [given["state"] for given in source.seen] == [
        None,
        [{"type": "STREAM", "stream": {"stream_descriptor": {"name": "things"}, "stream_state": {"at": 2}}}],
    ]


def test_a_global_state_commits_all_streams_together_and_is_handed_back_as_one(
    tmp_path: Path, dsn: str, name: str
) -> None:
    position = {
        "shared_state": {"lsn": 7},
        "stream_states": [{"stream_descriptor": {"name": "things"}, "stream_state": {"x": 1}}],
    }
    source = scripted(
        tmp_path,
        catalog=CATALOG,
        reads=[
            [
                record("things", 1), record("others", 1), shared_state("GLOBAL", position),
                record("things", 2), status("things", "COMPLETE"), record("others", 2), trouble("it broke"),
            ],
            [
                record("things", 2), record("others", 2), shared_state("GLOBAL", {"shared_state": {"lsn": 9}}),
                status("things", "COMPLETE"), status("others", "COMPLETE"),
            ],
        ],
    )  # fmt: skip
    spec = source.spec({"name": "things"}, {"name": "others"}, source=name)
    assert not [outcome for outcome in sync(spec, dsn).values() if isinstance(outcome, SyncResult)]
    # complete or not: behind the shared position nothing of this run is kept
    assert (ids(dsn, name), ids(dsn, name, "others")) == ([1], [1])
    assert succeeded(sync(spec, dsn))
    assert (ids(dsn, name), ids(dsn, name, "others")) == ([1, 2], [1, 2])
    assert source.seen[1]["state"] == [{"type": "GLOBAL", "global": position}]


def test_a_legacy_state_is_handed_back_as_the_object_it_was(tmp_path: Path, dsn: str, name: str) -> None:
    said = [record("things", 1), record("others", 1), shared_state("LEGACY", {"things": {"at": 1}})]
    source = scripted(tmp_path, catalog=CATALOG, reads=[said])
    spec = source.spec(merged("things"), merged("others"), source=name)
    assert succeeded(sync(spec, dsn))
    assert succeeded(sync(spec, dsn))
    assert [given["state"] for given in source.seen] == [None, {"things": {"at": 1}}]
    assert (ids(dsn, name), ids(dsn, name, "others")) == ([1], [1])


def test_a_complete_stream_is_committed_without_any_state(tmp_path: Path, dsn: str, name: str) -> None:
    said = [
        record("whole", 1), state("whole", {"__ab_no_cursor_state_message": True}), status("whole", "COMPLETE"),
        record("others", 1), status("others", "COMPLETE"),
        trouble("things broke", name="things"), status("things", "INCOMPLETE"), trouble("some streams failed"),
        {"do": "exit", "code": 1},
    ]  # fmt: skip
    source = scripted(tmp_path, catalog=CATALOG, reads=[said])
    outcomes = sync(source.spec({"name": "whole"}, {"name": "others"}, {"name": "things"}, source=name), dsn)
    assert isinstance(outcomes["things"], SourceError)
    assert "things broke" in str(outcomes["things"])
    assert isinstance(outcomes["whole"], SyncResult)
    assert isinstance(outcomes["others"], SyncResult)
    assert (ids(dsn, name, "whole"), ids(dsn, name, "others")) == ([1], [1])


def test_an_error_trace_after_a_whole_read_fails_it_though_the_program_ends_with_0(
    tmp_path: Path, dsn: str, name: str
) -> None:
    said = [record("things", 1), state("things", {"at": 1}), record("things", 2), trouble("401 Unauthorized")]
    outcomes = sync(scripted(tmp_path, catalog=CATALOG, reads=[said]).spec({"name": "things"}, source=name), dsn)
    assert isinstance(outcomes["things"], AuthError)
    assert ids(dsn, name) == [1]


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        ("append", [1, 1, 2, 2]),
        pytest.param("merge", [1, 2], marks=pytest.mark.slow),
        pytest.param("replace", [1, 2], marks=pytest.mark.slow),
    ],
)
def test_a_full_refresh_is_written_as_the_stream_says(
    tmp_path: Path, dsn: str, name: str, write: str, expected: list[int]
) -> None:
    said = [record("whole", 1), record("whole", 2), state("whole", {"__ab_full_refresh_sync_complete": True})]
    source = scripted(tmp_path, catalog=CATALOG, reads=[[*said, status("whole", "COMPLETE")]])
    spec = source.spec({"name": "whole", "write": write, "primary_key": "id"}, source=name)
    assert succeeded(sync(spec, dsn))
    assert succeeded(sync(spec, dsn))
    assert ids(dsn, name, "whole") == expected
    assert [given["state"] for given in source.seen] == [None, None]


def test_a_row_deleted_at_the_source_is_marked_and_may_come_back(tmp_path: Path, dsn: str, name: str) -> None:
    source = scripted(
        tmp_path,
        catalog=CATALOG,
        reads=[
            [record("things", 1), record("things", 2), state("things", {"at": 1})],
            [record("things", 1, _ab_cdc_deleted_at="2024-01-02T03:04:05Z"), state("things", {"at": 2})],
            [record("things", 1, _ab_cdc_deleted_at=None), state("things", {"at": 3})],
        ],
    )
    spec = source.spec(merged("things"), source=name)
    deleted = list[list[int]]()
    for _ in range(3):
        assert succeeded(sync(spec, dsn))
        deleted.append([row[0] for row in sql.run(dsn, f"select id from raw_{name}.things where _deleted")])
    assert deleted == [[], [1], []]


def test_the_streams_of_a_run_are_those_of_the_configured_catalog(tmp_path: Path, dsn: str, name: str) -> None:
    source = scripted(tmp_path, catalog=CATALOG, reads=[[status("others", "RUNNING", "RATE_LIMITED")]])
    log: list[str] = []
    assert succeeded(sync(source.spec({"name": "others"}, source=name), dsn, log))
    assert [entry["stream"]["name"] for entry in source.seen[0]["catalog"]["streams"]] == ["others"]
    assert any("RATE_LIMITED" in line for line in log)


def test_a_stream_that_the_source_does_not_offer_fails_alone(tmp_path: Path, dsn: str, name: str) -> None:
    said = [record("things", 1), state("things", {"at": 1}), status("things", "COMPLETE")]
    source = scripted(tmp_path, catalog=CATALOG, reads=[said])
    outcomes = sync(source.spec({"name": "things"}, {"name": "thing"}, source=name), dsn)
    assert isinstance(outcomes["thing"], ConfigError)
    assert "Did you mean 'things'" in str(outcomes["thing"])
    assert isinstance(outcomes["things"], SyncResult)
    assert ids(dsn, name) == [1]


def test_a_program_that_says_nothing_is_no_success(tmp_path: Path, dsn: str, name: str) -> None:
    source = scripted(tmp_path, catalog=CATALOG, reads=[[]])
    assert isinstance(sync(source.spec({"name": "things"}, source=name), dsn)["things"], SourceError)


def test_a_source_that_cannot_be_installed_explains_itself_in_the_ledger_of_each_stream(
    tmp_path: Path, dsn: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (("UV_OFFLINE", "1"), ("UV_NO_INDEX", "1"), ("HEADWATER_CONNECTORS", str(tmp_path))):
        monkeypatch.setenv(variable, value)
    spec = scripted(tmp_path).spec(
        {"name": "things"}, {"name": "others"}, source=name, executable=None, package="source-nowhere==1.0"
    )
    outcomes = sync(spec, dsn)
    assert all(isinstance(outcome, ConfigError) for outcome in outcomes.values()), outcomes
    rows = sql.run(dsn, f"select stream, failure_class, message from ops.syncs where source = '{name}' order by 1")
    assert [row[:2] for row in rows] == [("others", "config"), ("things", "config")]
    assert all("source-nowhere" in row[2] and len(row[2].splitlines()) <= 6 for row in rows)


def test_a_configuration_that_the_source_changes_is_kept_encrypted_until_its_author_changes_it(
    tmp_path: Path, dsn: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotated = "rotated-token-0815"
    source = scripted(tmp_path, catalog=CATALOG)
    config = {"script": str(source.script), "token": "env:TOKEN"}
    changed = {"connectorConfig": {"config": {"script": str(source.script), "token": rotated}}, "emitted_at": 1.5}
    control = {"type": "CONTROL", "control": {"type": "CONNECTOR_CONFIG", **changed}}
    told = {"type": "LOG", "log": {"level": "INFO", "message": f"now {rotated}"}}
    source.write(catalog=CATALOG, reads=[[control, told, record("things", 1), state("things", {"at": 1})]])
    spec = source.spec({"name": "things", "primary_key": "id", "write": "merge"}, source=name, config=config)
    monkeypatch.setenv("TOKEN", "first-token-4711")

    def token_of_a_sync() -> tuple[str, str]:
        log: list[str] = []
        assert succeeded(sync(spec, dsn, log))
        assert rotated not in "".join(log)
        return source.seen[-1]["config"]["token"], "".join(log)

    monkeypatch.delenv("HEADWATER_SECRET_KEY", raising=False)
    token, log = token_of_a_sync()
    assert token == "first-token-4711"
    assert "not kept: HEADWATER_SECRET_KEY is not set" in log
    monkeypatch.setenv("HEADWATER_SECRET_KEY", new_key())
    assert token_of_a_sync()[0] == "first-token-4711"
    assert token_of_a_sync()[0] == rotated
    ((sealed,),) = sql.run(dsn, f"select sealed from ops.tokens where name = '{name}: connector.config'")
    assert rotated.encode() not in bytes(sealed)
    with kind("airbyte").open(spec) as connector:
        assert isinstance(connector, KeepsConfig)
        connector.keep_config(lambda: psycopg.connect(dsn, autocommit=True))
        connector.check()
    monkeypatch.setenv("TOKEN", "second-token-4712")
    assert token_of_a_sync()[0] == "second-token-4712"
