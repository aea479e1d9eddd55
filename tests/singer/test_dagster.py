"""A tap in Dagster: one op with a subset, an asset for each stream, and an outcome for each of them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import pytest
import yaml

from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write, load, write_source
from tests.support.sql import run as sql
from tests.support.tapping import executable, record, schema, state

__all__ = ["write_source"]
ORDERS, ITEMS = dg.AssetKey(["shop", "orders"]), dg.AssetKey(["shop", "items"])
N = {"n": {"type": "integer"}}
Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def run(
    warehouse: Warehouse, env: dict[str, str], write_source: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """run(what the tap says, selected keys): one run."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    def go(said: Sequence[object], keys: Sequence[dg.AssetKey], retries: int = 0) -> dg.ExecuteInProcessResult:
        config = {"say": list(said), "streams": ["orders", "items"], "log": str(tmp_path / "calls"),
                  "once": str(tmp_path / "once")}  # fmt: skip
        connector = {"kind": "singer", "executable": executable(tmp_path), "config": config}
        streams = [
            {"name": name, "retries": retries, "checks": [{"type": "volume_anomaly"}]} for name in ("orders", "items")
        ]
        attributes = {"source": "shop", "owner": "team:data", "connector": connector, "streams": streams}
        text = yaml.safe_dump({"type": "platform_assets.components.Source", "attributes": attributes}, sort_keys=False)
        job = load(write_source(text)).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(asset_selection=list(keys), raise_on_error=False)

    return go


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, int]:
    return {
        event.asset_key.path[-1]: event.step_materialization_data.materialization.metadata["rows_loaded"].value
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def test_the_chosen_streams_are_selected_and_each_is_an_asset_of_its_own(run: Run, tmp_path: Path) -> None:
    items = [record("items", n=n) for n in (1, 2)]
    said = [schema("orders", **N), record("orders", n=1), schema("items", **N), *items]

    both = run(said, [ORDERS, ITEMS])

    assert both.success
    assert materialized(both) == {"orders": 1, "items": 2}
    assert {(check.asset_key, check.check_name, check.passed) for check in both.get_asset_check_evaluations()} >= {
        (ORDERS, "volume_anomaly", True), (ITEMS, "volume_anomaly", True),
    }  # fmt: skip
    assert {event.step_key for event in both.all_events if event.step_key} == {"shop"}

    one = run(said, [ITEMS])

    assert one.success
    assert materialized(one) == {"items": 2}
    catalog = json.loads((tmp_path / "calls").read_text().splitlines()[-1])["given"]["--catalog"]
    assert [entry["stream"] for entry in catalog["streams"] if entry["selected"]] == ["items"]


def test_one_failing_stream_leaves_its_sibling_materialized(run: Run, warehouse: Warehouse) -> None:
    result = run([schema("orders", **N), record("items", n=1), record("orders", n=1)], [ORDERS, ITEMS])

    assert not result.success
    assert materialized(result) == {"orders": 1}
    (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "shop.items: a record came before the stream's schema" in str(failure.event_specific_data)
    assert sql(warehouse.admin_dsn, "select stream, status from ops.syncs order by 1") == [
        ("items", "failed"), ("orders", "succeeded"),
    ]  # fmt: skip


def test_what_fails_all_streams_is_told_once_with_their_names(run: Run) -> None:
    result = run([{"do": "fail:ValueError: bad luck"}], [ORDERS, ITEMS])

    (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    told = str(failure.step_failure_data.user_failure_data.description)
    assert told.count("bad luck") == 1
    assert told.startswith(("shop.items, shop.orders: ", "shop.orders, shop.items: "))


@pytest.mark.slow
def test_a_retry_reads_only_the_stream_that_it_can_help(run: Run, warehouse: Warehouse, tmp_path: Path) -> None:
    # the first attempt: orders breaks the protocol for good, items is cut off; the second reads items alone
    said = [schema("items", **N), record("items", n=1), state(items={"at": 1}), record("orders", n=1),
            {"do": "kill", "once": True}, record("items", n=2)]  # fmt: skip

    result = run(said, [ORDERS, ITEMS], retries=1)

    assert not result.success
    assert materialized(result) == {"items": 2}
    syncs = sql(warehouse.admin_dsn, "select stream, status from ops.syncs order by stream, started_at")
    assert syncs == [("items", "failed"), ("items", "succeeded"), ("orders", "failed")]
    (failure,) = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert "shop.orders" in str(failure.event_specific_data)
