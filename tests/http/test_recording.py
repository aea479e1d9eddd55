"""Traffic is recorded without secrets and personal values, and replayed without network; what is new is all it asks."""

import json
import socket
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import StreamState
from connectors.errors import ConfigError
from connectors.specs import SourceSpec, parse_source
from connectors.testing.recording import NotRecordedError, assert_replays, record, replaying
from demo.release import Release
from demo.stack import DemoStack
from platform_assets.sources import find_source
from tests.cli.conftest import Project, project
from tests.http.reading import source
from tests.http.serving import Exchange, serving

__all__ = ["project"]

SECRET = "s3cret+/value"
PEOPLE: list[Mapping[str, Any]] = [
    {
        "id": number,
        "at": f"2024-01-0{number}T00:00:00Z",
        "email": f"ada+{number}@example.com",
        "born": f"1815-12-{9 + number}",
        "phone": 440_000_000 + number,
        "address": {"city": "London", "line": f"{number} St James's Square"},
        "boss": "ada+1@example.com",
        "price": 1.10,
    }
    for number in range(1, 6)
]
STREAM: Mapping[str, Any] = {
    "records": "data",
    "params": {"tenant": "env:THINGS_SECRET"},
    "pagination": {"type": "keyset", "param": "after", "field": "email", "size_param": "n", "size": 2},
    "incremental": {"param": "since", "end_param": "until", "ordered": True},
    "cursor": {"field": "at"},
    "primary_key": "id",
    "write": "merge",
    "columns": {
        "email": {"pii": "personal"},
        "boss": {"pii": "personal"},
        "born": {"pii": "sensitive"},
        "phone": {"pii": "personal"},
        "address": {"pii": "personal"},
    },
}
AUTH = {"type": "bearer", "token": "env:THINGS_SECRET"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_SECRET", SECRET)


def people(exchange: Exchange) -> None:
    """Two a page, after the e-mail address; the token is echoed, and every fourth request fails first."""
    if exchange.number % 4 == 0:
        exchange.json({"error": "busy"}, 429, retry_after="0.05")
        return
    assert exchange.headers["authorization"] == f"Bearer {SECRET}"
    rows = [row for row in PEOPLE if row["at"] >= exchange.query.get("since", "")]
    rows = [row for row in rows if row["email"] > exchange.query.get("after", "")]
    page = {"data": rows[:2], "token": SECRET, "self": f"http://127.0.0.1:{exchange.port}{exchange.handler.path}"}
    exchange.json(page, set_cookie=f"session={SECRET}", x_note=SECRET)


def recorded(folder: Path, stream: Mapping[str, Any] = STREAM, **connector: Any) -> tuple[SourceSpec, str]:
    """The source, and its recording's text; the server is gone afterwards."""
    with serving(people) as server:
        spec = source(f"{server.url}/v1", {**stream, "path": "/people"}, auth=AUTH, **connector)
        record(spec, spec.streams[0], folder)
    return spec, (folder / "things.jsonl").read_text("utf-8")


def test_a_recording_has_neither_secrets_nor_personal_values(tmp_path: Path) -> None:
    _, text = recorded(tmp_path)
    for hidden in (SECRET, "s3cret", "example.com", "St James", "London", "1815", "44000000", "127.0.0.1", "session"):
        assert hidden not in text, hidden
    # a pause that was asked for then is waited for by nobody now
    assert '"retry-after": "0"' in text
    # what is not personal is as the source said it
    assert '\\"price\\":1.1' in text
    assert '\\"at\\":\\"2024-01-05T00:00:00Z\\"' in text


def test_a_recording_is_replayed_without_network_secret_or_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = recorded(tmp_path)
    monkeypatch.delenv("THINGS_SECRET")
    with replaying(spec, spec.streams[0], tmp_path) as replayed:
        rows = replayed.read()
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]
    # equal values are equal still, of their own types
    assert len({row["email"] for row in rows}) == 5
    assert {row["boss"] for row in rows} == {rows[0]["email"]}
    assert {(type(row["phone"]), type(row["born"]), type(row["address"])) for row in rows} == {(int, str, dict)}
    date.fromisoformat(rows[0]["born"])
    assert_replays(spec, tmp_path)


def test_streams_of_other_formats_and_below_others_are_recorded_and_replayed(tmp_path: Path) -> None:
    """Personal values of JSON lines are masked, also where they become a part of a path."""

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/people":
            exchange.send(
                b"".join(json.dumps({"email": row["email"], "id": row["id"]}).encode() + b"\n" for row in PEOPLE)
            )
        elif exchange.path == "/table":
            exchange.send(b"id,note\n1,a\n2,b\n")
        else:
            exchange.json([{"number": number} for number in range(2)])

    with serving(answer) as server:
        spec = source(server.url, {"path": "/people", "format": "jsonl", "columns": {"email": {"pii": "personal"}}})
        below = {"name": "notes", "path": "/people/{parent.email}/notes", "parent": {"stream": "things"}}
        table = {"name": "table", "path": "/table", "format": "csv"}
        things = spec.streams[0].model_dump(exclude_unset=True)
        connector = spec.connector.model_dump(exclude_unset=True)
        whole = {"source": "crm", "owner": "team:data", "connector": connector, "streams": [things, below, table]}
        spec = parse_source(whole, "defs.yaml")
        for stream in spec.streams:
            record(spec, stream, tmp_path)
        personal = {**table, "columns": {"note": {"pii": "personal"}}}
        refused = parse_source({**whole, "streams": [personal]}, "defs.yaml")
        with pytest.raises(ConfigError, match="personal columns of csv cannot be masked"):
            record(refused, refused.streams[0], tmp_path / "refused")
    for path in tmp_path.glob("*.jsonl"):
        assert "example.com" not in path.read_text("utf-8"), path.stem
    assert_replays(spec, tmp_path)


def test_an_incremental_sync_asks_only_for_what_is_new(tmp_path: Path) -> None:
    spec, _ = recorded(tmp_path)
    with replaying(spec, spec.streams[0], tmp_path) as replayed:
        first, second = replayed.reads
        assert (first.cursor, second.cursor) == (None, "2024-01-05T00:00:00Z")
        replayed.read()
        asked = len(replayed.requests)
        assert [row["id"] for row in replayed.read(StreamState(cursor=second.cursor))] == [5]
        log = replayed.requests[asked:]
    assert log
    assert all("since=2024-01-05T00%3A00%3A00Z" in line for line in log)


def test_a_request_that_was_not_recorded_fails_the_test(tmp_path: Path) -> None:
    spec, _ = recorded(tmp_path)
    with (
        replaying(spec, spec.streams[0], tmp_path) as replayed,
        pytest.raises(NotRecordedError, match=r"GET /v1/people\?.*since=2023.* was not recorded; recorded are 7"),
    ):
        replayed.read(StreamState(cursor="2023-01-01T00:00:00Z"))
    with replaying(spec, spec.streams[0], tmp_path) as replayed:
        replayed.read()
        with pytest.raises(NotRecordedError, match="was recorded fewer times"):
            replayed.read()


def test_a_recording_that_reads_differently_now_is_found(tmp_path: Path) -> None:
    spec, text = recorded(tmp_path)
    (tmp_path / "things.jsonl").write_text(text.replace('"rows": 5', '"rows": 6'), encoding="utf-8")
    with pytest.raises(AssertionError, match="read 1 of its recording had 6 records, now 5"):
        assert_replays(spec, tmp_path)


def test_replaying_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = recorded(tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert_replays(spec, tmp_path)


@pytest.mark.parametrize("spoilt", ["", "{}", '{"recording": {"base": "", "pages": null}}\n{"request": {}}'])
def test_a_spoilt_or_missing_recording_is_told(spoilt: str, tmp_path: Path) -> None:
    spec = source("http://127.0.0.1:1")
    with (
        pytest.raises(ConfigError, match=r"no recording at .*\n`headwater record"),
        replaying(spec, spec.streams[0], tmp_path),
    ):
        pass
    (tmp_path / "things.jsonl").write_text(spoilt, encoding="utf-8")
    with (
        pytest.raises(ConfigError, match=r"things\.jsonl, line \d: is no recording"),
        replaying(spec, spec.streams[0], tmp_path),
    ):
        pass


def test_the_command_records_the_demos_api_and_refuses_what_is_no_api(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "platform_assets/defs/ingest/nyc_flights/defs.yaml").read_text("utf-8")
    project.source(text, "nyc_flights")
    project.source(
        "type: platform_assets.components.Source\nattributes:\n  source: drop\n  owner: team:data\n"
        "  connector: {kind: files, url: /tmp}\n  streams: [{name: a, path: a.csv}]\n",
        "drop",
    )
    with DemoStack(tmp_path / "demo") as stack:
        stack.release(Release(date(2013, 1, 3)))
        done = project.run("record", "nyc_flights.flights", "--pages", "2", **stack.environment())
    assert done.returncode == 0, done.stderr
    assert "2,000 and" in done.stdout
    folder = project.root / "tests" / "recordings" / "nyc_flights"
    assert stack.environment()["FLIGHTS_API_TOKEN"] not in (folder / "flights.jsonl").read_text("utf-8")
    assert_replays(find_source("nyc_flights"), folder)
    refused = project.run("record", "drop")
    assert refused.returncode == 3
    assert "kind files has no HTTP traffic" in refused.stderr
