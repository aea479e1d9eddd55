"""The ledger and the saved state: every column is filled, whatever kind reads, and no row can be out of balance."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from benchmarks import emitting
from connectors.contract import Window
from connectors.specs import parse_source
from connectors.sync import Progress, SyncRequest, sync
from connectors.sync.lifecycle import run
from tests.http.serving import Exchange, serving
from tests.support.faults import Lab
from tests.support.scripted import Checkpoint, Scripted, records, source
from tests.support.sql import run as sql

STREAM = "narrow"
ROWS = 3
CURSOR = {"cursor": {"field": "id"}}
MODULE = """
from connectors.custom import RowsConnector

class Three(RowsConnector):
    def rows(self, stream, since, until):
        return [{"id": number, "name": "n"} for number in (1, 2, 3) if number >= int(since or 0)]
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A source of three records of each kind. asks: it sends requests that it can count."""

    connector: dict[str, Any]
    stream: dict[str, Any]
    asks: bool = True


@dataclass(slots=True)
class Shops:
    """Makes the sources behind the kinds."""

    lab: Lab
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    url: str = ""

    def of(self, kind: str) -> Kind:
        return getattr(self, f"_{kind}")()

    def _rest(self) -> Kind:
        return Kind({"base_url": self.url}, {"path": "/things", "incremental": {"param": "since"}, **CURSOR})

    def _python(self) -> Kind:
        package = self.folder / "ledger_shop"
        package.mkdir()
        (package / "three.py").write_text(MODULE, encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(self.folder))
        return Kind({"module": "ledger_shop.three"}, CURSOR, asks=False)

    def _database(self) -> Kind:
        self._table()
        return Kind({"url": "env:LEDGER_URL", "schema": "raw_shop"}, CURSOR)

    def _sling(self) -> Kind:
        self._table()
        return Kind({"connection": "env:LEDGER_URL"}, {"object": f"raw_shop.{STREAM}", **CURSOR})

    def _files(self) -> Kind:
        (self.folder / "narrow.csv").write_text("id,name\n1,n\n2,n\n3,n\n", encoding="utf-8")
        return Kind({"url": str(self.folder)}, {"path": "*.csv"})

    def _webhook(self) -> Kind:
        self.monkeypatch.setenv("HOOK_SECRET", "s3cret-value")
        store = "insert into ops.webhook_inbox (delivery_id, source, event_type, body) values"
        sql(self.lab.dsn, *(f"{store} ('{n}', 'webhook_ledger', 'push', '{{\"id\": {n}}}')" for n in range(1, 4)))
        return Kind({"scheme": "github", "secret": "env:HOOK_SECRET"}, {"events": "push"})

    def _singer(self) -> Kind:
        return Kind({"executable": emitting.executable(self.folder, "singer", ROWS)}, {}, asks=False)

    def _airbyte(self) -> Kind:
        return Kind({"executable": emitting.executable(self.folder, "airbyte", ROWS)}, {}, asks=False)

    def _dlt_source(self) -> Kind:
        arguments = {"rows": ROWS}
        return Kind({"source": "benchmarks.emitting:records", "arguments": arguments}, CURSOR, asks=False)

    def _table(self) -> None:
        self.monkeypatch.setenv("LEDGER_URL", f"{_over_tcp(self.lab)}?sslmode=disable")
        sql(
            self.lab.admin_dsn,
            "create schema if not exists raw_shop",
            f"drop table if exists raw_shop.{STREAM}",
            f"create table raw_shop.{STREAM} as select n as id, 'n' as name from generate_series(1, 3) as n",
        )


def _over_tcp(lab: Lab) -> str:
    """The administrator's address as Sling takes it."""
    with psycopg.connect(lab.admin_dsn) as session:
        info, port = session.info, session.execute("show port").fetchone()
        assert port is not None
        return f"postgresql://{info.user}:{info.password}@127.0.0.1:{port[0]}/{info.dbname}"


@pytest.fixture
def shops(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shops]:
    def answer(exchange: Exchange) -> None:
        exchange.json([{"id": number, "name": "n"} for number in range(1, ROWS + 1)])

    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path / "work"))
    with serving(answer) as served:
        yield Shops(lab, tmp_path, monkeypatch, served.url)


def _found(lab: Lab, query: str, *values: str) -> list[dict[str, Any]]:
    with psycopg.connect(lab.admin_dsn) as session, session.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.encode(), values or None).fetchall()


QUICK = ("rest", "database", "files")
KINDS = ("rest", "python", "database", "sling", "files", "webhook", "singer", "airbyte", "dlt_source")


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in KINDS])
def test_a_sync_of_any_kind_fills_its_row_and_keeps_its_state(shops: Shops, kind: str) -> None:
    lab, given, name = shops.lab, shops.of(kind), f"{kind}_ledger"
    attributes = {
        "source": name, "owner": "team:test", "connector": {"kind": kind, **given.connector},
        "streams": [{"name": STREAM, "write": "append", **given.stream}],
    }  # fmt: skip
    spec = parse_source(attributes, "tests/unit.yaml")

    result = sync(SyncRequest(spec, spec.streams[0], "cli", "run-1"), lab.dsn)

    (row,) = _found(lab, "select * from ops.syncs where source = %s", name)
    (state,) = _found(lab, "select * from ops.stream_state where source = %s and stream = %s", name, STREAM)
    loads = _found(lab, f"select load_id from raw_{name}._dlt_loads")
    rows = _found(lab, f"select _synced_at, _deleted, _dlt_load_id from raw_{name}.{STREAM}")
    exact = {
        "source": name, "stream": STREAM, "kind": kind, "trigger": "cli", "run_id": "run-1", "epoch": 1, "step": "done",
        "rows_extracted": ROWS, "rows_loaded": ROWS, "rows_updated": 0, "rows_deleted": 0, "rows_deduplicated": 0,
        "rows_filtered": 0, "rows_quarantined": 0, "windows": len(loads), "schema_version": 1, "status": "succeeded",
        "failure_class": None, "message": None, "window_start": None, "window_end": None, "wait_seconds": 0,
        "state_before": {}, "state_after": state["state"], "newest_cursor": "3" if "cursor" in given.stream else None,
        "load_ids": [load["load_id"] for load in loads],
    }  # fmt: skip
    assert {key: row[key] for key in exact} == exact
    assert set(row["step_seconds"]) == {"start", "extract", "land", "audit", "publish", "finalize"}
    assert row["started_at"] <= row["heartbeat_at"] <= datetime.now(UTC)
    assert row["started_at"] < row["finished_at"]
    filled = ("received_bytes", "loaded_bytes", "peak_memory_bytes", *(["requests"] if given.asks else []))
    assert {key: row[key] for key in filled if not row[key]} == {}
    assert {item["name"] for item in row["verdicts"]} >= {"schema_drift"}
    assert all(row["started_at"] < found["_synced_at"] < row["finished_at"] for found in rows)
    assert [(found["_deleted"], found["_dlt_load_id"] in row["load_ids"]) for found in rows] == [(False, True)] * ROWS
    # with what it was read by, by which sync, and how large it is
    assert (state["engine"], state["sync_id"], state["version"]) == (kind, row["sync_id"], 1)
    assert 0 < state["size_bytes"] < 64 << 10
    # and the result says what the ledger says
    assert (str(row["sync_id"]), row["step_seconds"]) == (result.sync_id, dict(result.step_seconds))
    assert row["peak_memory_bytes"] == result.peak_memory_bytes


def test_the_row_of_a_partition_names_its_window_and_what_fell_outside(lab: Lab) -> None:
    spec = source(name="windowed", write="append", cursor={"field": "at"})
    window = Window(datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 3, tzinfo=UTC))
    rows = records(*({"at": f"2024-01-0{day}T00:00:00Z"} for day in (1, 2, 3)))
    request = SyncRequest(spec, spec.streams[0], "backfill", None, window)

    run(request, lab.dsn, Progress(), Scripted([rows, Checkpoint()]))

    query = "select window_start, window_end, trigger, rows_loaded, rows_filtered from ops.syncs where stream = %s"
    with psycopg.connect(lab.dsn) as session:
        assert session.execute(query, ["windowed"]).fetchall() == [(window.start, window.end, "backfill", 1, 2)]


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("rows_loaded = rows_loaded + 1", "syncs_rows_balance"),
        ("rows_extracted = rows_extracted + 1", "syncs_rows_balance"),
        ("status = 'failed'", "syncs_failed_has_class"),
        ("finished_at = null", "syncs_finished"),
    ],
)
def test_the_warehouse_itself_refuses_a_row_that_is_out_of_balance(lab: Lab, change: str, constraint: str) -> None:
    stream = lab.stream()
    stream.sync(records({"id": 1}))
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        stream.execute(f"update ops.syncs set {change} where stream = %s", stream.name)
    assert caught.value.diag.constraint_name == constraint
