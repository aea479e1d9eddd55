"""A killed sync's row says what an undisturbed one's would: the warnings, and what it cost until then."""

import signal
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from connectors.contract import Attestation, Checkpoint, Message, ReadContext, StreamState
from connectors.specs import StreamSpec
from connectors.sync import Progress, SyncRequest
from connectors.sync.lease import connect
from connectors.sync.lifecycle import run
from connectors.sync.settle import settle_lost
from platform_assets.warehouse import Warehouse
from tests.crash.victim import PATIENCE_SECONDS, die, eventually, started
from tests.support.faults import Lab, Stream
from tests.support.scripted import Script, Scripted, records, source

Row = dict[str, Any]
Steps = Callable[[str], None]

COUNTED = {"checks": [{"type": "reconcile", "severity": "warn"}]}
OPTIONS: Row = {"write": "append", "max_quarantined": {"share": 1}}
ENDINGS: dict[str, tuple[str, Row, Sequence[Message]]] = {
    "a check that warns": ("succeeded_with_warnings", COUNTED, [records({"id": 1}), Attestation(rows=2)]),
    "cleaned text": ("succeeded_with_warnings", {}, [records({"id": 1, "v": "a\0b"})]),
    "a type that waits for a decision": ("succeeded_with_warnings", {}, [records({"id": "x"})]),
    "a warning of the connector": ("succeeded_with_warnings", {}, [records({"id": 1})]),
    "quarantine": ("succeeded_with_warnings", {"columns": {"id": {"type": "bigint"}}}, [records({"id": "x"})]),
    "nothing": ("succeeded_empty", {}, []),
    "nothing to say": ("succeeded", COUNTED, [records({"id": 1}), Attestation(rows=1)]),
}
QUICK = ("a check that warns", "nothing")


class Spending(Scripted):
    """Says that it has cost something when its read begins, and warns of it when `warns`."""

    def __init__(self, script: Script, *, warns: bool = False) -> None:
        super().__init__(script)
        self._warns = warns

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        context.usage.requests, context.usage.received_bytes, context.usage.wait_seconds = 7, 700, 0.5
        if self._warns:
            context.usage.warnings["replication_slot"] = "it holds much"
        yield from super().read(stream, state, context)


def _sync(dsn: str, name: str, reader: Scripted, on_step: Steps = lambda step: None, **options: Any) -> None:
    spec = source(name=name, **OPTIONS | options)
    run(SyncRequest(spec, spec.streams[0], "cli"), dsn, Progress(on_step=on_step), reader)


def _die_in_finalize(dsn: str, name: str, reader: Scripted, options: Row) -> None:
    def on_step(step: str) -> None:
        if step == "finalize":
            die()

    _sync(dsn, name, reader, on_step, **options)


def _die_on_cue(dsn: str, name: str, reader: Scripted, options: Row) -> None:
    _sync(dsn, name, reader, **options)


def _settled(lab: Lab, killed: Callable[..., None], stream: Stream, reader: Scripted, **options: Any) -> Row:
    """The row of a sync in a process of its own that was killed, once it is settled."""
    child = started(killed, lab.dsn, stream.name, reader, options)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == -signal.SIGKILL
    gone = "select 1 where not exists (select 1 from pg_stat_activity where application_name like 'headwater unit%')"
    eventually(lab.admin_dsn, gone)
    assert len(settle_lost(lab.dsn, silent_for=timedelta(0))) == 1
    return _row(lab, stream)


def _row(lab: Lab, stream: Stream) -> Row:
    with psycopg.connect(lab.admin_dsn) as session, session.cursor(row_factory=dict_row) as cursor:
        query = "select * from ops.syncs where stream = %s order by started_at desc limit 1"
        row = cursor.execute(query, [stream.name]).fetchone()
        assert row is not None
        return row


def _said(row: Row) -> list[Row]:
    """The verdicts without plots, which show the minutes of the syncs."""
    measured = [{name: value for name, value in said["measured"].items() if name != "plot"} for said in row["verdicts"]]
    return [said | {"measured": kept} for said, kept in zip(row["verdicts"], measured, strict=True)]


@pytest.mark.parametrize("why", [pytest.param(w, marks=[] if w in QUICK else pytest.mark.slow) for w in ENDINGS])
def test_a_sync_killed_before_its_end_is_written_has_the_status_and_verdicts_of_an_undisturbed_one(
    lab: Lab, why: str
) -> None:
    status, options, script = ENDINGS[why]
    undisturbed, disturbed = lab.stream(), lab.stream()
    if why == "a type that waits for a decision":
        undisturbed.sync(records({"id": 1}))
        disturbed.sync(records({"id": 1}))

    def reader() -> Scripted:
        return Spending(script, warns=why == "a warning of the connector")

    _sync(lab.dsn, undisturbed.name, reader(), **options)
    row = _settled(lab, _die_in_finalize, disturbed, reader(), **options)

    expected = _row(lab, undisturbed)
    assert row["status"] == expected["status"] == status
    assert row["failure_class"] is None
    assert _said(row) == _said(expected)
    assert row["message"].startswith("The process ended after the last publication; settled afterwards.")
    assert row["message"].endswith(expected["message"] or "settled afterwards.")
    spent = ("requests", "received_bytes", "wait_seconds")
    assert [row[name] for name in spent] == [expected[name] for name in spent] == [7, 700, 0.5]
    assert set(row["step_seconds"]) >= {"start", "extract", "audit", "publish"}
    assert row["peak_memory_bytes"] > 0


def test_a_sync_killed_between_its_windows_has_failed_with_the_verdicts_and_the_cost_until_then(lab: Lab) -> None:
    stream = lab.stream()

    def die_behind_the_first_window() -> None:
        eventually(lab.dsn, "select 1 from ops.syncs where stream = %s and windows = 1", [stream.name])
        die()

    rule = {"type": "row_rule", "name": "small", "column": "id", "max": 1, "severity": "warn"}
    reader = Spending([records({"id": 1}, {"id": 2}), Checkpoint(), die_behind_the_first_window, records({"id": 3})])
    row = _settled(lab, _die_on_cue, stream, reader, window={"rows": 1}, checks=[rule])

    assert (row["status"], row["failure_class"], row["requests"], row["rows_loaded"]) == ("failed", "transient", 7, 2)
    assert [(said["name"], said["passed"]) for said in row["verdicts"]] == [("small", False)]
    assert row["step_seconds"]["extract"] > 0


def test_a_sync_killed_before_any_publication_counts_in_the_usage_what_its_heartbeat_wrote(lab: Lab) -> None:
    stream = lab.stream()

    def die_behind_a_heartbeat() -> None:
        eventually(lab.dsn, "select 1 from ops.syncs where stream = %s and requests = 7", [stream.name])
        die()

    row = _settled(lab, _die_on_cue, stream, Spending([records({"id": 1}), die_behind_a_heartbeat]))

    assert (row["status"], row["windows"], row["step"]) == ("failed", 0, "extract")
    assert row["step_seconds"]["extract"] > 0
    assert row["peak_memory_bytes"] > 0
    query = "select syncs, requests, received_bytes, wait_seconds, rows_loaded from ops.usage where stream = %s"
    assert stream.fetch(query, stream.name) == [(1, 7, 700, 0.5, 0)]


def test_the_server_gives_up_a_vanished_machine_within_a_minute(warehouse: Warehouse) -> None:
    """Over TCP; a Unix socket has no such settings, and nobody on it can vanish."""
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")

    def settings(dsn: str) -> list[int]:
        with connect(dsn, "unit", autocommit=False) as session:
            # again in a transaction of its own: they last as long as the session
            session.rollback()
            query = "select setting::int from pg_settings where name = any (%s) order by array_position(%s, name)"
            return [value for (value,) in session.execute(query, [list(names), list(names)])]

    idle, interval, number, unanswered = settings(warehouse.tcp_dsn("loader"))

    assert 0 < idle + interval * number < 60
    assert 0 < unanswered < 60_000
    assert settings(warehouse.loader_dsn) == [0, 0, 0, 0]


def test_deletes_that_a_snapshot_shows_are_no_part_of_the_loaded_rows_and_the_ledger_says_so(lab: Lab) -> None:
    stream = lab.stream(write="merge", primary_key="id", snapshot=True)
    stream.sync(records({"id": 1}, {"id": 2}))

    counts = stream.sync(records({"id": 1})).rows

    assert (counts.loaded, counts.deduplicated, counts.deleted) == (0, 1, 1)
    ((said,),) = stream.fetch("select obj_description('ops.syncs'::regclass)")
    assert "rows_updated is a part of it" in said
    assert "found because a snapshot or a replacement has the row no more are not" in said
