"""Quarantine: nothing disappears, nothing secret is kept, a replay loads exactly once."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from connectors.contract import Attestation, Checkpoint, Message
from connectors.errors import ContractError, LoaderError
from connectors.specs import parse_source
from connectors.sync import Progress, SyncRequest, Trigger, replay
from connectors.sync.lifecycle import run
from platform_assets.warehouse import Warehouse
from tests.support.faults import Lab, Stream, copy_file, lines
from tests.support.scripted import Scripted, records, source, sync

STREAM: dict[str, Any] = {"write": "merge", "primary_key": "id", "columns": {"amount": {"type": "bigint"}}}


def fetch(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as connection:
        return connection.execute(query).fetchall()


def test_a_retyped_value_is_held_with_reason_position_and_payload(warehouse: Warehouse) -> None:
    result = sync(warehouse.loader_dsn, [records({"id": 1, "amount": 1}, {"id": 2, "amount": "much"})], **STREAM)
    assert (result.rows.extracted, result.rows.loaded, result.rows.quarantined) == (2, 1, 1)
    held = fetch(warehouse, "select field, reason, position, payload, schema_version from ops.quarantine")
    assert held == [("amount", "text does not fit bigint", "page 1, record 2", '{"id": 2, "amount": "much"}', 1)]


def test_more_bad_records_than_allowed_fail_the_sync_and_load_nothing(warehouse: Warehouse) -> None:
    limits = {**STREAM, "max_quarantined": {"rows": 2}}
    rows = [{"id": number, "amount": "x" if number < 3 else 1} for number in range(10)]
    with pytest.raises(ContractError, match=r"max_quarantined\.rows is 2"):
        sync(warehouse.loader_dsn, [records(*rows)], **limits)
    with pytest.raises(ContractError, match=r"max_quarantined\.share is 5"):
        sync(
            warehouse.loader_dsn,
            [records(*[{**row, "id": row["id"] + 100 * n} for n in range(3) for row in rows])],
            **STREAM,
        )
    assert fetch(warehouse, "select to_regclass('raw_unit.things')") == [(None,)] or fetch(
        warehouse, "select count(*) from raw_unit.things"
    ) == [(0,)]
    assert fetch(warehouse, "select status, failure_class from ops.syncs") == [("failed", "contract")] * 2


def test_replay_loads_exactly_once_and_again_does_nothing(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1, "amount": 1}, {"id": 2, "amount": "2x"}, {"userId": 7})], **STREAM)
    assert fetch(warehouse, "select count(*) from ops.quarantine where status = 'held'") == [(2,)]
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as connection:
        connection.execute("update ops.quarantine set payload = replace(payload, '2x', '2')")
    spec = source(**STREAM)
    request = SyncRequest(spec, spec.streams[0], trigger="replay")
    result = replay.replay(request, warehouse.loader_dsn)
    assert result is not None
    assert (result.rows.extracted, result.rows.loaded, result.rows.quarantined) == (2, 1, 1)
    assert fetch(warehouse, "select id, amount from raw_unit.things order by id") == [(1, 1), (2, 2)]
    assert fetch(warehouse, "select status, count(*) from ops.quarantine group by 1 order by 1") == [
        ("held", 1), ("replayed", 2),
    ]  # fmt: skip
    assert '"userId"' in fetch(warehouse, "select payload from ops.quarantine where status = 'held'")[0][0]
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        assert replay.discard(connection, "unit", "things") == 1
    assert replay.replay(request, warehouse.loader_dsn) is None
    assert fetch(warehouse, "select count(*) from raw_unit.things") == [(2,)]


def test_a_record_that_leaves_quarantine_while_it_is_replayed_is_not_loaded(lab: Lab) -> None:
    """Discarded meanwhile, or loaded by another replay that had read it before."""
    stream = lab.stream(columns={"n": {"type": "bigint"}})
    stream.sync(lines('{"id":1,"n":"x"}', '{"id":2,"n":2}'))
    (held,) = stream.fetch("select quarantine_id from ops.quarantine where stream = %s", stream.name)

    def replayed(*script: Any) -> None:
        spec = source(name=stream.name, write="append", columns={"n": {"type": "bigint"}})
        run(SyncRequest(spec, spec.streams[0], "replay"), stream.dsn, Progress(), Scripted(script), resolves=held)

    def discard() -> None:
        with psycopg.connect(stream.dsn, autocommit=True) as connection:
            assert replay.discard(connection, "unit", stream.name) == 1

    record = lines('{"id":1,"n":3}')
    with pytest.raises(LoaderError, match="1 of 1 records left quarantine"):
        replayed(record, discard)
    assert stream.values("n") == ["2"]
    stream.execute("update ops.quarantine set status = 'held' where quarantine_id = %s", *held)
    replayed(record)
    with pytest.raises(LoaderError, match="1 of 1 records left quarantine"):
        replayed(record)
    assert stream.values("n") == ["3", "2"]


def test_a_record_with_a_masked_secret_is_not_loaded_as_if_it_had_come_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIT_TOKEN", "s3cret")
    connector = {
        "kind": "rest", "base_url": "http://127.0.0.1:9", "auth": {"type": "bearer", "token": "env:UNIT_TOKEN"},
    }  # fmt: skip

    def request(kind: str, trigger: Trigger) -> SyncRequest:
        stream = {"name": "told", "path": "/", "write": "append", "columns": {"n": {"type": kind}}}
        attributes = {"source": "unit", "owner": "team:test", "connector": connector, "streams": [stream]}
        spec = parse_source(attributes, "tests/unit.yaml")
        return SyncRequest(spec, spec.streams[0], trigger)

    page = lines('{"n":"x","said":"s3cret"}', '{"n":"y","said":"no"}', '{"n":1,"said":"s3cret"}')
    run(request("bigint", "cli"), lab.dsn, Progress(), Scripted([page]))

    with psycopg.connect(lab.admin_dsn, autocommit=True) as connection:
        connection.execute("alter table raw_unit.told alter column n type text")
        connection.execute("delete from ops.schema_versions where stream = 'told'")
    result = replay.replay(request("text", "replay"), lab.dsn)

    assert result is not None
    assert (result.rows.loaded, result.rows.quarantined) == (1, 1)
    with psycopg.connect(lab.admin_dsn) as connection:
        assert connection.execute("select n, said from raw_unit.told order by 1").fetchall() == [
            ("1", "s3cret"), ("y", "no"),
        ]  # fmt: skip


def test_blocked_columns_reach_neither_table_nor_quarantine(warehouse: Warehouse) -> None:
    stream = {**STREAM, "columns": {**STREAM["columns"], "ssn": {"type": "text", "rule": "block"}}}
    rows = records({"id": 1, "amount": 1, "ssn": "078-05-1120"}, {"id": 2, "amount": "x", "ssn": "078-05-1120"})
    sync(warehouse.loader_dsn, [rows], **stream)
    assert "ssn" not in {name for (name,) in fetch(
        warehouse, "select column_name from information_schema.columns where table_name = 'things'"
    )}  # fmt: skip
    (payload,) = fetch(warehouse, "select payload from ops.quarantine")[0]
    assert "078" not in payload


def test_contract_rules_quarantine_single_rows(warehouse: Warehouse) -> None:
    columns = {
        "state": {"type": "text", "accepted_values": ["open", "shut"]},
        "who": {"type": "text", "nullable": False},
    }
    rows = [
        {"id": 1, "state": "open", "who": "a"}, {"id": 2, "state": "ajar", "who": "b"}, {"id": 3, "state": "shut"},
    ]  # fmt: skip
    result = sync(warehouse.loader_dsn, [records(*rows)], write="merge", primary_key="id", columns=columns)
    assert (result.rows.loaded, result.rows.quarantined) == (1, 2)


def test_a_failing_row_rule_publishes_nothing_and_keeps_the_last_good_data(warehouse: Warehouse) -> None:
    stream = {"write": "merge", "primary_key": "id", "checks": [{"type": "row_rule", "column": "n", "min": 0}]}
    sync(warehouse.loader_dsn, [records({"id": 1, "n": 5})], **stream)
    with pytest.raises(ContractError, match="1 rows with n outside min 0") as caught:
        sync(warehouse.loader_dsn, [records({"id": 1, "n": 6}, {"id": 2, "n": -1})], **stream)
    assert [verdict.passed for verdict in caught.value.verdicts] == [False]  # type: ignore[attr-defined] AuditFailedError
    assert fetch(warehouse, "select id, n from raw_unit.things") == [(1, 5)]


def test_a_blocking_volume_check_keeps_half_a_load_out(warehouse: Warehouse) -> None:
    stream = {
        "write": "merge", "primary_key": "id", "window": {"rows": 1},
        "checks": [{"type": "volume_anomaly", "severity": "error", "blocking": True, "minimum": 3}],
    }  # fmt: skip

    def day(number: int, rows: int) -> list[Message]:
        pages = [records(*[{"id": 1000 * number + n} for n in range(half, rows, 2)]) for half in (0, 1)]
        return [pages[0], Checkpoint(), pages[1]]

    for number in range(3):
        sync(warehouse.loader_dsn, day(number, 100), **stream)
    with pytest.raises(ContractError, match="50 rows, below the expected"):
        sync(warehouse.loader_dsn, day(3, 50), **stream)
    assert fetch(warehouse, "select count(*) from raw_unit.things") == [(300,)]
    assert sync(warehouse.loader_dsn, day(3, 98), **stream).rows.loaded == 98


def test_a_declared_reconciliation_that_fails_shows_nothing_of_the_read(warehouse: Warehouse) -> None:
    stream = {"write": "append", "window": {"rows": 1}, "checks": [{"type": "reconcile"}]}
    with pytest.raises(ContractError, match="the source says 3 rows, 2 were read"):
        sync(warehouse.loader_dsn, [records({"n": 1}), Checkpoint(), records({"n": 2}), Attestation(rows=3)], **stream)
    found = fetch(warehouse, "select coalesce(sum(rows_loaded), 0) from ops.syncs")
    assert found == [(0,)]


def test_a_row_that_postgresql_refuses_is_held_as_its_record_and_replays(lab: Lab, tmp_path: Path) -> None:
    columns = {
        "n": {"type": "bigint"}, "paid": {"type": "bool"}, "extra": {"type": "json"}, "raw": {"type": "binary"},
    }  # fmt: skip
    stream = lab.stream(columns=columns)
    body = '1,5,t,"{""a"": [1.50]}",\\x00ff,"x, ""y"""\n2,much,f,null,,""\n3,9,true,7,\\x61,\n'
    kinds: dict[str, Any] = {"id": pa.int64(), "n": pa.int64(), "paid": pa.bool_(), "extra": (pa.string(), "jsonb")}
    file = copy_file(tmp_path / "c.csv", body.replace("1,5", "1,many"), **kinds, raw=pa.binary(), theName=pa.string())
    stream.sync(file)
    assert [position for _, _, position in stream.held()] == ["file 1, row 1", "file 1, row 2"]
    assert stream.payloads() == [
        '{"id":"1","n":"many","paid":"t","extra":{"a":[1.50]},"raw":"AP8=","theName":"x, \\"y\\""}',
        '{"id":"2","n":"much","paid":"f","theName":""}',
    ]
    stream.execute("update ops.quarantine set payload = replace(replace(payload, 'many', '5'), 'much', '6')")
    spec = source(name=stream.name, write="append", columns=columns)
    result = replay.replay(SyncRequest(spec, spec.streams[0], trigger="replay"), stream.dsn)
    assert result is not None
    assert (result.rows.loaded, result.rows.quarantined) == (2, 0)
    found = stream.fetch(f"select id, n, paid, extra::text, raw, the_name from raw_unit.{stream.name} order by id")
    assert found == [
        (1, 5, True, '{"a": [1.50]}', b"\x00\xff", 'x, "y"'),
        (2, 6, False, None, None, ""),
        (3, 9, True, "7", b"a", None),
    ]


def test_a_record_that_breaks_a_rule_has_its_place_in_the_source(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream(write="merge", primary_key="id", columns={"n": {"type": "bigint"}})
    stream.sync(
        lines('{"id":1}', '{"id":2,"n":"x"}', '{"n":3}', position="page 1"),
        lines('{"id":4}', '{"n":5}', position="page 2"),
        copy_file(tmp_path / "c.csv", "6,1\n7,x\n,8\n9,y\n,10\n", id=pa.int64(), n=pa.int64()),
        lines('{"n":11}', position="page 3"),
    )
    assert sorted((position, json.loads(payload).get("n")) for (_, _, position), payload in zip(
        stream.held(), stream.payloads(), strict=True
    )) == [
        ("file 1, row 2", "x"), ("file 1, row 3", 8), ("file 1, row 4", "y"), ("file 1, row 5", 10),
        ("page 1, record 2", "x"), ("page 1, record 3", 3), ("page 2, record 2", 5), ("page 3, record 1", 11),
    ]  # fmt: skip


FLOODS: dict[str, tuple[dict[str, Any], list[str]]] = {
    # what is too much, and where: while reading, by a rule, at the end, or because a check failed
    "read": ({"max_quarantined": {"rows": 0}}, ['{"id":1,"n":"x"}']),
    "rule": ({"max_quarantined": {"rows": 0}}, ['{"n":1}', '{"n":2}']),
    "share": ({"max_quarantined": {"rows": 9, "share": 0.01}}, ['{"id":1,"n":"x"}', '{"n":2}']),
    "check": (
        {"max_quarantined": {"share": 1}, "checks": [{"type": "row_rule", "column": "id", "max": 9}]},
        ['{"id":1,"n":"x"}', '{"n":2}'],
    ),
}


@pytest.mark.parametrize("write", ["merge", "replace"])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_failed_sync_leaves_examples_that_no_replay_loads(lab: Lab, flood: str, write: str) -> None:
    options, bad = FLOODS[flood]
    stream = lab.stream(write=write, primary_key="id", columns={"n": {"type": "bigint"}})
    good = [f'{{"id":{number}}}' for number in range(5, 30)]
    with pytest.raises(ContractError) as caught:
        stream.sync(lines(*good, *bad, position="page 7"), **options)
    assert stream.held() == []
    with psycopg.connect(stream.dsn, autocommit=True) as connection:
        found = replay.examples(connection, "unit", stream.name)
        assert [item.position for item in found] == [f"page 7, record {26 + number}" for number in range(len(bad))]
        assert [json.loads(item.payload) for item in found] == [json.loads(record) for record in bad]
        shown = [verdict for verdict in caught.value.verdicts if verdict.name == "quarantine"]  # type: ignore[attr-defined] AuditFailedError
        assert [len(verdict.measured["examples"]) for verdict in shown] == [len(bad)]
        assert replay.replay(_replaying(stream), stream.dsn) is None
        stream.sync(lines(*good))
        assert replay.examples(connection, "unit", stream.name) == []


def test_examples_show_neither_secrets_nor_blocked_columns(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_TOKEN", "s3cret")
    connector = {
        "kind": "rest", "base_url": "http://127.0.0.1:9", "auth": {"type": "bearer", "token": "env:UNIT_TOKEN"},
    }  # fmt: skip
    stream = {
        "name": "masked", "path": "/", "write": "append", "max_quarantined": {"rows": 0},
        "columns": {"ssn": {"type": "text", "rule": "block"}, "n": {"type": "bigint"}},
    }  # fmt: skip
    attributes = {"source": "unit", "owner": "team:test", "connector": connector, "streams": [stream]}
    spec = parse_source(attributes, "tests/unit.yaml")
    request = SyncRequest(spec, spec.streams[0], trigger="cli")
    with pytest.raises(ContractError):
        run(request, lab.dsn, Progress(), Scripted([lines('{"id":1,"n":"x","ssn":"078-05","token":"s3cret"}')]))
    with psycopg.connect(lab.dsn) as connection:
        ((shown,),) = connection.execute("select verdicts::text from ops.syncs where stream = 'masked'").fetchall()
    assert "page 1, record 1" in shown
    assert "078" not in shown
    assert "s3cret" not in shown


def test_of_a_flood_a_few_examples_stay(lab: Lab, tmp_path: Path) -> None:
    stream = lab.stream(max_quarantined={"rows": 50})
    with pytest.raises(ContractError):
        stream.sync(copy_file(tmp_path / "c.csv", "x\n" * 100, id=pa.int64()))
    with pytest.raises(ContractError):
        stream.sync(lines(*["[]"] * 100))
    with psycopg.connect(stream.dsn) as connection:
        assert len(replay.examples(connection, "unit", stream.name)) == 20
        assert stream.fetch("select max(pg_column_size(verdicts)) < 10000 from ops.syncs") == [(True,)]


def _replaying(stream: Stream) -> SyncRequest:
    spec = source(name=stream.name, write="merge", primary_key="id")
    return SyncRequest(spec, spec.streams[0], trigger="replay")
