"""Column rules: the plain value is nowhere on disk, whatever kind of message it came in."""

import hashlib
import hmac
import logging
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import JsonRecords, Message, Rejected
from connectors.errors import ConfigError, ContractError
from connectors.specs import ColumnSpec, SourceSpec
from connectors.sync import Progress, SyncRequest, replay
from connectors.sync.common import EngineCommon
from connectors.sync.lifecycle import run
from connectors.sync.protect import Protector
from tests.support.faults import Lab, copy_file, frame, lines
from tests.support.scripted import Scripted, source
from tests.support.servers import TestServer

KEY = "a key that nobody knows"
RULES: dict[str, dict[str, Any]] = {
    "block": {"rule": "block"},
    "hash": {"rule": "hash", "key": "env:HASH_KEY"},
    "truncate": {"rule": "truncate", "length": 3},
    "mask": {"rule": "mask", "keep_last": 4},
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HASH_KEY", KEY)


def hashed(text: str) -> str:
    return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()


def stream(rule: str, **options: Any) -> SourceSpec:
    columns = {"ssn": RULES[rule], "n": {"type": "bigint"}} | options.pop("columns", {})
    limits = {"max_quarantined": {"share": 1}}
    return source(**{"write": "merge", "primary_key": "id", "columns": columns} | limits | options)


def files_with(folder: Path, text: bytes) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        try:
            if path.is_file() and text in path.read_bytes():
                found.append(path)
        except FileNotFoundError:
            continue  # the server's own files come and go
    return found


@pytest.mark.parametrize("rule", RULES)
def test_the_plain_value_is_nowhere_on_disk_or_in_logs(
    lab: Lab, server: TestServer, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    work = tmp_path / "work"
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(work))
    secret = f"{uuid4().int % 10**20:020}"
    spec = stream(rule, name=f"everywhere_{rule}")
    parts: list[Path] = []

    def look() -> None:
        parts.extend(path for path in work.rglob("part_*.copy"))
        assert files_with(work, secret.encode()) == []

    script: list[Message | Any] = [
        lines(f'{{"id": 1, "ssn": "{secret}", "n": 1}}', f'{{"id": 2, "ssn": {{"deep": ["{secret}"]}}, "n": 2}}'),
        frame(id=[3], ssn=[secret], n=[3]),
        copy_file(tmp_path / "given.csv", f"4,{secret},4\n", id=pa.int64(), ssn=pa.string(), n=pa.int64()),
        # what goes to quarantine: a value that does not fit, no key, half a record, no record, a connector's own
        lines(f'{{"id": 5, "ssn": "{secret}", "n": "many"}}', f'{{"id": null, "ssn": "{secret}"}}'),
        lines(f'{{"id": 6, "ssn": "{secret}", '),
        lines(f'["{secret}"]', f'{{"id": 7, "s\\u0000sn": "{secret}", "n": NaN, "n": 1e999999999999}}'),
        Rejected(f'{{"id": 8, "ssn": "{secret}"}}'.encode(), f"{secret[:40]} is odd", "row 8"),
        Rejected(f"8;{secret}".encode(), "odd", "row 9"),
        look,
    ]
    result = run(SyncRequest(spec, spec.streams[0], trigger="cli"), lab.dsn, Progress(), Scripted(script))

    assert (result.rows.loaded, result.rows.quarantined) == (4, 7)
    assert parts
    assert files_with(server.settings.home, secret.encode()) == []
    assert files_with(work, secret.encode()) == []
    assert secret not in caplog.text
    assert secret not in repr(result)


@pytest.mark.parametrize(
    ("rule", "stored"),
    [("hash", hashed("078-05-1120")), ("truncate", "078"), ("mask", "*******1120")],
)
def test_one_value_is_stored_alike_from_every_kind_of_message(lab: Lab, rule: str, stored: str, tmp_path: Path) -> None:
    spec = stream(rule, name=f"alike_{rule}", null_values=["NA"])
    script = [
        lines('{"id": 1, "ssn": "078-05-1120"}', '{"id": 4, "ssn": null}', '{"id": 5, "ssn": "NA"}', '{"id": 6}'),
        frame(id=[2], ssn=["078-05-1120"]),
        copy_file(tmp_path / "given.csv", "3,078-05-1120\n7,\n", id=pa.int64(), ssn=pa.string()),
    ]
    run(SyncRequest(spec, spec.streams[0], trigger="cli"), lab.dsn, Progress(), Scripted(script))

    with psycopg.connect(lab.dsn) as connection:
        found = connection.execute(f"select id, ssn from raw_unit.alike_{rule} order by id").fetchall()
    assert found == [(1, stored), (2, stored), (3, stored), (4, None), (5, None), (6, None), (7, None)]


def test_a_hashed_number_joins_whatever_it_came_through(tmp_path: Path) -> None:
    protect = Protector({"n": ColumnSpec(**RULES["hash"])}, "unit.things")
    from_json = protect.json(lines('{"n": 42}', '{"n": "42"}', '{"n": 42.50, "other": 1.10}')).body

    assert from_json.decode().count(hashed("42")) == 2
    assert b"1.10" in from_json
    assert protect.frame(frame(n=[42])).table.to_pylist() == [{"n": hashed("42")}]


def test_a_replayed_record_keeps_its_hash(lab: Lab) -> None:
    spec = stream("hash", name="replayed")
    request = SyncRequest(spec, spec.streams[0], trigger="cli")
    script = [lines('{"id": 1, "ssn": "078-05-1120", "n": "1x"}', '{"id": 2, "ssn": "5", "n": 2}')]
    run(request, lab.dsn, Progress(), Scripted(script))
    with psycopg.connect(lab.admin_dsn, autocommit=True) as connection:
        connection.execute("update ops.quarantine set payload = replace(payload, '1x', '1') where stream = 'replayed'")

    replay.replay(SyncRequest(spec, spec.streams[0], trigger="replay"), lab.dsn)

    with psycopg.connect(lab.dsn) as connection:
        found = connection.execute("select id, ssn from raw_unit.replayed order by id").fetchall()
    assert found == [(1, hashed("078-05-1120")), (2, hashed("5"))]


def test_records_that_wait_for_their_stream_are_protected_already_and_hashed_once(lab: Lab, tmp_path: Path) -> None:
    spec = stream("hash", name="waiting")
    common = EngineCommon(spec, lab.dsn, tmp_path, print)
    common.commit({"waiting": [b'{"id": 1, "ssn": "078-05-1120"}\n{"id": 2, "ssn": "078-05-1120", \n']}, {"data": {}})
    ((_, body),) = list(common.backlog("waiting", 0))
    assert b"078-05" not in body

    run(SyncRequest(spec, spec.streams[0]), lab.dsn, Progress(), Scripted([JsonRecords(body, "piece 1")]))

    with psycopg.connect(lab.dsn) as connection:
        found = connection.execute("select id, ssn from raw_unit.waiting").fetchall()
        held = connection.execute("select payload from ops.quarantine where stream = 'waiting'").fetchall()
    assert found == [(1, hashed("078-05-1120"))]
    assert len(held) == 1


def test_a_forged_seal_is_hashed_like_any_text() -> None:
    forged = f"headwater-hash:{'0' * 64}:{'0' * 64}"
    protect = Protector({"v": ColumnSpec(**RULES["hash"])}, "unit.things")

    assert protect.frame(frame(v=[forged])).table.to_pylist() == [{"v": hashed(forged)}]


def test_a_column_that_is_in_the_table_as_a_number_cannot_be_hashed_into_it(lab: Lab) -> None:
    plain = source(name="too_late", columns={"n": {"type": "bigint"}})
    run(SyncRequest(plain, plain.streams[0]), lab.dsn, Progress(), Scripted([lines('{"id": 1, "n": 5}')]))
    late = source(name="too_late", columns={"n": RULES["hash"]})

    with pytest.raises(ContractError, match=r"rule: hash stores text, but the raw table has bigint"):
        run(SyncRequest(late, late.streams[0]), lab.dsn, Progress(), Scripted([lines('{"id": 2, "n": 6}')]))


def test_a_hash_without_its_key_stops_before_anything_is_read(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HASH_KEY")
    spec = stream("hash", name="keyless")
    with pytest.raises(ConfigError, match=r"unit\.keyless: columns\.ssn\.key: environment variable HASH_KEY is not"):
        run(SyncRequest(spec, spec.streams[0]), lab.dsn, Progress(), Scripted([lines('{"id": 1}')]))


@pytest.mark.parametrize(
    ("options", "text", "stored"),
    [
        ({}, "secret", "******"),
        ({"keep_last": 4}, "12", "**"),
        ({"keep_last": 4}, "1234", "****"),
        ({"keep_pattern": "@.*$"}, "ann@example.com", "***@example.com"),
        ({"keep_pattern": "^.|-"}, "078-05", "0**-**"),
    ],
)
def test_a_mask_keeps_what_it_says_and_no_more(options: dict[str, Any], text: str, stored: str) -> None:
    protect = Protector({"v": ColumnSpec(rule="mask", **options)}, "unit.things")
    assert protect.frame(frame(v=[text])).table.to_pylist() == [{"v": stored}]


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(st.dictionaries(st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3), max_size=5))
def test_every_other_field_of_a_record_stays_as_it_is(record: dict[str, Any]) -> None:
    import json

    protect = Protector({"ssn": ColumnSpec(rule="block")}, "unit.things")
    raw = json.dumps(record | {"ssn": "078-05-1120"})
    kept = {name: value for name, value in record.items() if re.sub("\x00", "", name) != "ssn"}

    assert json.dumps(json.loads(protect.json(lines(raw)).body or b"{}")) == json.dumps(kept)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ({"rule": "hash"}, "rule: hash needs a key"),
        ({"rule": "hash", "key": "literal"}, "must be a reference"),
        ({"rule": "truncate"}, "rule: truncate needs a length"),
        ({"rule": "keep", "length": 3}, "length belongs to rule: truncate"),
        ({"rule": "mask", "type": "bigint"}, "rule: mask stores text"),
        ({"rule": "mask", "keep_pattern": "("}, "no regular expression"),
        ({"rule": "block", "nullable": False}, "rule: block contradicts nullable: false"),
        ({"rule": "mask", "accepted_values": ["a"]}, "accepted_values contradicts rule: mask"),
        ({"type": "bigint", "accepted_values": ["1", "two"]}, "'two' is not of type bigint"),
        ({"type": "json", "accepted_values": ["1"]}, "do not work with type: json"),
        ({"type": "uuid"}, r"the warehouse has no type 'uuid'. Did you mean 'text'"),
        ({"type": "bigin"}, r"no type 'bigin'. Did you mean 'bigint'"),
        ({"type": "bigint", "precision": 3}, "precision belongs to"),
        ({"type": "decimal", "precision": 2, "scale": 3}, "scale needs"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(column: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        source(columns={"v": column})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"columns": {"id": {"nullable": True}}}, r"columns\.id\.nullable: true contradicts primary_key"),
        ({"columns": {"id": {"rule": "mask"}}}, r"columns\.id\.rule: mask contradicts primary_key"),
        ({"columns": {"n": {}}, "drift": {"new": "freeze"}}, "primary_key id is not in columns"),
        (
            {"columns": {"at": RULES["hash"]}, "cursor": {"field": "at"}},
            r"columns\.at\.rule: hash contradicts cursor",
        ),
    ],
)
def test_a_contract_that_contradicts_the_key_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        source(write="merge", primary_key="id", **options)
