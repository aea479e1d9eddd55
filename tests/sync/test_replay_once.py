"""A record is held once however often the source sends it, and a replay puts nothing old over what is newer."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from connectors.contract import Message, Window
from connectors.specs import parse_source
from connectors.sync import Progress, SyncRequest, SyncResult, replay
from connectors.sync.lifecycle import run
from tests.support.faults import Lab, Stream, lines
from tests.support.scripted import Scripted, source, sync

COLUMNS: dict[str, Any] = {"n": {"type": "bigint"}}
TIMED: dict[str, Any] = {"columns": {**COLUMNS, "at": {"type": "timestamp"}}, "cursor": {"field": "at"}}
WRITES = ["merge", pytest.param("scd2", marks=pytest.mark.slow)]


def statuses(stream: Stream) -> list[str]:
    """Of the stream's records in quarantine, oldest first."""
    found = stream.fetch("select status from ops.quarantine where stream = %s order by quarantine_id", stream.name)
    return [status for (status,) in found]


def replayed(stream: Stream, **mended: int) -> SyncResult | None:
    """Replay what is held, after the texts named in `mended` were made numbers."""
    for text, number in mended.items():
        stream.execute(
            "update ops.quarantine set payload = replace(payload, %s, %s) where stream = %s and status = 'held'",
            f'"{text}"', str(number), stream.name,
        )  # fmt: skip
    spec = source(**{"write": "append", **stream.options, "name": stream.name})
    result = replay.replay(SyncRequest(spec, spec.streams[0], trigger="replay"), stream.dsn)
    if result is not None:
        rows = result.rows
        assert rows.extracted == rows.loaded + rows.deduplicated + rows.filtered + rows.quarantined
    return result


def rows(stream: Stream, columns: str = "id, n") -> list[tuple[Any, ...]]:
    return stream.fetch(f"select {columns} from raw_unit.{stream.name} order by {columns}")


def moment(day: int) -> str:
    return f"2024-01-{day:02}T00:00:00Z"


def day(number: int) -> Window:
    start = datetime(2024, 1, number, tzinfo=UTC)
    return Window(start, start + timedelta(days=1))


def read_window(stream: Stream, window: Window, *records: str) -> SyncResult:
    return sync(stream.dsn, [lines(*records)], partition=window, name=stream.name, **stream.options)


def test_an_append_that_reads_its_boundary_again_holds_a_record_once(lab: Lab) -> None:
    stream = lab.stream(columns=COLUMNS, cursor={"field": "at"})
    for _ in range(3):
        result = stream.sync(lines('{"id":1,"at":1,"n":1}', '{"id":2,"at":1,"n":"x"}'))
        assert result.rows.quarantined == 1
    assert statuses(stream) == ["superseded", "superseded", "held"]
    found = stream.fetch(
        "select sync_id, resolved_by from ops.quarantine where stream = %s order by quarantine_id", stream.name
    )
    assert [by for _, by in found] == [found[1][0], found[2][0], None]
    replayed(stream, x=2)
    assert rows(stream) == [(1, 1), (2, 2)]
    assert replayed(stream) is None


def test_records_that_are_equal_within_one_sync_are_as_many_in_the_table(lab: Lab) -> None:
    stream = lab.stream(columns=COLUMNS)
    stream.sync(lines('{"id":1,"n":"x"}', '{"id":1,"n":"x"}'))
    stream.sync(lines('{"id":1,"n":"x"}', '{"id":1,"n":"x"}'))
    assert statuses(stream) == ["superseded", "superseded", "held", "held"]
    replayed(stream, x=2)
    assert rows(stream) == [(1, 2), (1, 2)]


def test_a_record_known_by_a_piece_alone_is_not_taken_for_another(lab: Lab) -> None:
    cut = lab.stream(max_record_bytes=1024)
    large = '{"text":"' + "x" * 4000 + '","n":'
    cut.sync(lines(large + "1}"))
    cut.sync(lines(large + "2}"))
    assert statuses(cut) == ["held", "held"]
    withheld = lab.stream(columns={"ssn": {"type": "text", "rule": "block"}})
    withheld.sync(lines("[1]"))
    withheld.sync(lines("[2]"))
    assert statuses(withheld) == ["held", "held"]


def test_a_partition_read_again_says_anew_what_it_holds(lab: Lab) -> None:
    stream = lab.stream(write="append", **TIMED)
    first = '{"id":1,"at":"2024-01-01T01:00:00Z","n":1}'
    read_window(stream, day(1), first, '{"id":2,"at":"2024-01-01T02:00:00Z","n":"x"}')
    read_window(stream, day(2), '{"id":3,"at":"2024-01-02T01:00:00Z","n":"y"}')
    assert statuses(stream) == ["held", "held"]
    read_window(stream, day(1), first, '{"id":2,"at":"2024-01-01T02:00:00Z","n":"x"}')
    assert statuses(stream) == ["superseded", "held", "held"]
    mended, other = '{"id":2,"at":"2024-01-01T02:00:00Z","n":2}', '{"id":4,"at":"2024-01-01T03:00:00Z","n":"z"}'
    read_window(stream, day(1), first, mended, other)
    assert statuses(stream) == ["superseded", "held", "superseded", "held"]
    replayed(stream, y=3, z=4)
    assert rows(stream) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_what_a_replay_put_back_belongs_to_the_window_that_read_it(lab: Lab) -> None:
    stream = lab.stream(write="append", **TIMED)
    read_window(stream, day(1), '{"id":1,"at":"2024-01-01T01:00:00Z","n":"x"}')
    replayed(stream)
    replayed(stream)
    assert statuses(stream) == ["replayed", "replayed", "held"]
    read_window(stream, day(1), '{"id":1,"at":"2024-01-01T01:00:00Z","n":1}')
    assert statuses(stream) == ["replayed", "replayed", "superseded"]
    assert replayed(stream) is None
    assert rows(stream) == [(1, 1)]


@pytest.mark.parametrize("keys", [pytest.param({}, marks=pytest.mark.slow), {"primary_key": "id"}])
def test_a_full_read_says_anew_all_that_is_held(lab: Lab, keys: dict[str, Any]) -> None:
    stream = lab.stream(write="replace", columns=COLUMNS, **keys)
    for bad in ("x", "y"):
        stream.sync(lines('{"id":1,"n":1}', f'{{"id":2,"n":"{bad}"}}'))
    assert statuses(stream) == ["superseded", "held"]
    stream.sync(lines('{"id":1,"n":1}', '{"id":2,"n":2}', '{"id":3,"n":"z"}'))
    assert statuses(stream) == ["superseded", "superseded", "held"]
    replayed(stream, z=3)
    assert rows(stream) == [(1, 1), (2, 2), (3, 3)]


def test_a_full_read_that_is_not_published_supersedes_nothing(lab: Lab) -> None:
    stream = lab.stream(write="replace", columns=COLUMNS)
    stream.sync(lines('{"id":1,"n":1}', '{"id":2,"n":"x"}'))
    with pytest.raises(Exception, match="sent no rows"):
        stream.sync(lines())
    assert statuses(stream) == ["held"]


def test_a_replay_into_a_replaced_table_leaves_the_keys_that_are_there(lab: Lab) -> None:
    stream = lab.stream(write="replace", primary_key="id", columns=COLUMNS)
    stream.sync(lines('{"id":1,"n":"x"}', '{"id":1,"n":1}', '{"id":2,"n":"y"}'))
    result = replayed(stream, x=7, y=2)
    assert result is not None
    assert (result.rows.extracted, result.rows.loaded, result.rows.deduplicated) == (2, 1, 1)
    assert rows(stream) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("write", WRITES)
def test_a_snapshot_says_anew_all_that_is_held(lab: Lab, write: str) -> None:
    stream = lab.stream(write=write, primary_key="id", snapshot=True, columns=COLUMNS)
    stream.sync(lines('{"id":1,"n":1}', '{"id":2,"n":"x"}', '{"id":3,"n":"y"}'))
    stream.sync(lines('{"id":1,"n":1}', '{"id":3,"n":"z"}'))
    assert statuses(stream) == ["superseded", "superseded", "held"]
    replayed(stream, z=3)
    assert rows(stream) == [(1, 1), (3, 3)]


def test_a_merge_with_lag_holds_a_record_once(lab: Lab) -> None:
    stream = lab.stream(write="merge", primary_key="id", **TIMED | {"cursor": {"field": "at", "lag": "P3D"}})
    for _ in range(4):
        stream.sync(lines(f'{{"id":1,"at":"{moment(1)}","n":1}}', f'{{"id":2,"at":"{moment(1)}","n":"x"}}'))
    assert statuses(stream) == ["superseded"] * 3 + ["held"]
    result = replayed(stream, x=2)
    assert result is not None
    assert (result.rows.extracted, result.rows.loaded) == (1, 1)
    assert rows(stream) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("write", ["merge", "scd2"])
def test_a_replay_puts_no_older_record_over_a_newer_one(lab: Lab, write: str) -> None:
    stream = lab.stream(write=write, primary_key="id", columns=COLUMNS, cursor={"field": "at"})
    stream.sync(lines('{"id":1,"at":1,"n":"x"}', '{"id":1,"at":5,"n":5}', '{"id":2,"at":1,"n":1}'))
    stream.sync(lines('{"id":2,"at":6,"n":"y"}'))
    assert statuses(stream) == ["held", "held"]
    result = replayed(stream, x=1, y=6)
    assert result is not None
    assert (result.rows.extracted, result.rows.loaded, result.rows.deduplicated) == (2, 1, 1)
    assert statuses(stream) == ["replayed", "replayed"]
    if write == "merge":
        assert rows(stream, "id, at, n") == [(1, 5, 5), (2, 6, 6)]
    else:
        found = stream.fetch(f"select id, at, n, _valid_to is null from raw_unit.{stream.name} order by id, at")
        assert found == [(1, 5, 5, True), (2, 1, 1, False), (2, 6, 6, True)]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("cursor", [{}, {"cursor": {"field": "at"}}])
def test_a_key_that_a_later_sync_loads_is_out_of_date_in_quarantine(
    lab: Lab, write: str, cursor: dict[str, Any]
) -> None:
    stream = lab.stream(write=write, primary_key=["id", "kind"], columns=COLUMNS, **cursor)
    held = ['{"id":1,"kind":"a","at":1,"n":"x"}', '{"id":1,"kind":"b","at":1,"n":"y"}', '{"kind":"c","at":1}', "[]"]
    stream.sync(lines(*held))
    stream.sync(lines('{"id":1,"kind":"a","at":1,"n":1}', '{"id":"1","kind":"d","at":1,"n":1}'))
    assert statuses(stream) == ["superseded", "held", "held", "held"]
    replayed(stream, y=2)
    assert rows(stream, "kind, n") == [("a", 1), ("b", 2), ("d", 1)]


def test_a_key_that_a_later_sync_deletes_is_not_brought_back(lab: Lab) -> None:
    stream = lab.stream(write="merge", primary_key="id", deletes="hard", columns=COLUMNS, cursor={"field": "at"})
    stream.sync(lines('{"id":1,"at":1,"n":1}', '{"id":2,"at":1,"n":1}'))
    stream.sync(lines('{"id":1,"at":2,"n":"x"}'))
    stream.sync(lines('{"id":1,"_deleted":true}'))
    assert statuses(stream) == ["superseded"]
    assert replayed(stream) is None
    assert rows(stream) == [(2, 1)]


@pytest.mark.parametrize(
    ("kind", "older", "newer"),
    [
        ("timestamp", "2024-01-01T10:00:00+02:00", "2024-01-01T09:00:00Z"),
        pytest.param("date", "2024-01-01", "2024-01-02", marks=pytest.mark.slow),
        pytest.param("decimal", 9, 10.5, marks=pytest.mark.slow),
        pytest.param("text", "B", "a", marks=pytest.mark.slow),
    ],
)
def test_an_older_record_of_the_key_supersedes_nothing(lab: Lab, kind: str, older: Any, newer: Any) -> None:
    stream = lab.stream(
        write="merge", primary_key="id", cursor={"field": "at"}, columns={**COLUMNS, "at": {"type": kind}},
    )  # fmt: skip

    def record(number: int, at: Any, n: Any) -> str:
        return json.dumps({"id": number, "at": at, "n": n})

    stream.sync(lines(record(1, newer, "x"), record(2, older, "y")))
    stream.sync(lines(record(1, older, 1), record(2, newer, 2)))
    assert statuses(stream) == ["held", "superseded"]
    replayed(stream, x=7)
    assert rows(stream) == [(1, 7), (2, 2)]


def test_a_record_that_a_replay_puts_back_is_known_when_the_source_sends_it_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIT_TOKEN", "s3cret")
    connector = {
        "kind": "rest", "base_url": "http://127.0.0.1:9", "auth": {"type": "bearer", "token": "env:UNIT_TOKEN"},
    }  # fmt: skip
    stream = lab.stream(write="append", columns=COLUMNS)
    attributes = {"source": "unit", "owner": "team:test", "connector": connector}
    spec = parse_source(
        {**attributes, "streams": [{"name": stream.name, "path": "/", **stream.options}]}, "tests/unit.yaml"
    )
    secret = lines('{"id":1,"n":"x","said":"s3cret"}')

    def read(*messages: Message) -> None:
        run(SyncRequest(spec, spec.streams[0], "cli"), stream.dsn, Progress(), Scripted(messages))

    read(secret, secret)
    (first, _) = stream.fetch("select quarantine_id from ops.quarantine where stream = %s order by 1", stream.name)
    replay.replay(SyncRequest(spec, spec.streams[0], "replay"), stream.dsn, first)
    assert statuses(stream) == ["replayed", "held", "held"]
    replay.replay(SyncRequest(spec, spec.streams[0], "replay"), stream.dsn)
    assert statuses(stream) == ["replayed", "replayed", "replayed", "held", "held"]
    read(secret)
    assert statuses(stream) == ["replayed", "replayed", "replayed", "superseded", "superseded", "held"]


def test_the_plan_of_a_replay_says_what_it_does_with_keys_that_are_there() -> None:
    def said(**stream: Any) -> str:
        return replay.effect(source(**stream).streams[0])

    keyed = {"primary_key": "id"}
    assert said(write="append", **keyed) == said(write="replace")
    assert said(write="replace", **keyed) == "A key that the table has stays as the last full read left it."
    assert said(write="merge", cursor={"field": "at"}, **keyed) == said(write="scd2", cursor={"field": "at"}, **keyed)
    assert all("There is no cursor" in said(write=write, **keyed) for write in ("merge", "scd2"))
