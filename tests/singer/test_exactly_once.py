"""Killed at any place, by any hand, with its folder lost: after the next run every record is there once."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from connectors.errors import ConfigError, HeadwaterError, TransientError
from tests.singer.conftest import MakeTap
from tests.singer.test_bad_taps import eventually_gone
from tests.support.tapping import Tap, result, schema

ROWS = {"orders": 600, "items": 300}
WRITES: dict[str, dict[str, Any]] = {
    "append": {"write": "append"},
    "merge": {"write": "merge", "primary_key": "n"},
}
WINDOW = {"window": {"rows": 200}}


def is_whole(shop: Tap) -> None:
    for stream, count in ROWS.items():
        assert shop.rows(stream, "count(*), count(distinct n), min(n), max(n)") == [(count, count, 1, count)]
        orphans = f"_dlt_load_id not in (select load_id from raw_{shop.name}._dlt_loads)"
        assert shop.rows(stream, "count(*)", orphans) == [(0,)]
    assert shop.query("select count(*) from ops.pieces where source = %s", shop.name) == [(0,)]
    unbalanced = "rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined"
    assert shop.query(f"select count(*) from ops.syncs where source = %s and {unbalanced}", shop.name) == [(0,)]
    loaded = shop.query("select sum(rows_loaded) from ops.syncs where source = %s and stream = 'orders'", shop.name)
    assert loaded == [(ROWS["orders"],)]


QUICK = {("append", False, "kill"), ("append", True, "loader")}
CASES = [
    pytest.param(write, is_shared, act, marks=() if (write, is_shared, act) in QUICK else pytest.mark.slow)
    for write in WRITES
    for is_shared in (False, True)
    for act in ("kill", "fail:OSError: no", "loader")
]


@pytest.mark.parametrize(("write", "is_shared", "act"), CASES)
def test_a_rerun_makes_everything_right(tap: MakeTap, tmp_path: Path, write: str, is_shared: bool, act: str) -> None:
    shop = tap(orders=WRITES[write] | WINDOW, items=WRITES[write] | WINDOW)
    config = {"tables": ROWS, "shared": is_shared, "at": {"450": act}, "once": str(tmp_path / "once")}

    if act == "loader":
        shop.killed(config)
        eventually_gone(shop.calls[-1]["pid"])
        shutil.rmtree(os.environ["HEADWATER_WORK_DIR"])
    else:
        assert {type(outcome).__bases__[0] for outcome in shop.sync(config).values()} <= {
            HeadwaterError, TransientError.__bases__[0]
        }  # fmt: skip
        assert shop.rows("orders", "count(*)") == [(400,)], "what was sealed is published"
    outcomes = shop.sync(config)

    for outcome in outcomes.values():
        result(outcome)
    is_whole(shop)
    assert sum(result(one).rows.extracted for one in shop.sync(config).values()) == 0


def test_records_of_one_state_wait_for_a_stream_that_fails_until_it_is_mended(tap: MakeTap) -> None:
    shop = tap(orders=WINDOW, items=WINDOW | {"columns": {"v": {"type": "bigint"}}, "max_quarantined": {"rows": 0}})
    config = {"tables": ROWS, "shared": True}

    outcomes = shop.sync(config)

    assert isinstance(outcomes["items"], HeadwaterError)
    assert result(outcomes["orders"]).rows.loaded == ROWS["orders"], "its sibling goes on"
    shop.streams = {"orders": WINDOW, "items": WINDOW}
    assert result(shop.sync(config)["items"]).rows.loaded == ROWS["items"], "from what was kept: the tap sent nothing"
    is_whole(shop)


def test_records_that_were_loaded_are_not_loaded_again_when_nobody_tidied_up(tap: MakeTap) -> None:
    shop = tap(orders={})
    config = {"tables": {"orders": 50}, "shared": True}
    result(shop.sync(config)["orders"])
    # as a loader leaves it that is killed between the publication and the end of its run
    shop.execute(
        "insert into ops.pieces (piece, source, stream, body) overriding system value values (%s, %s, 'orders', %s)",
        shop.position("orders")["piece"],
        shop.name,
        b'{"n": 50, "v": "value 50"}\n',
    )

    assert result(shop.sync(config)["orders"]).rows.extracted == 0
    assert shop.query("select count(*) from ops.pieces where source = %s", shop.name) == [(0,)]


def test_streams_of_one_state_are_read_together(tap: MakeTap) -> None:
    shop = tap(orders={}, items={})
    shop.sync({"tables": ROWS, "shared": True})

    (outcome,) = shop.sync({"tables": ROWS, "shared": True}, "orders").values()

    assert isinstance(outcome, TransientError | ConfigError)
    assert "items share one position" in str(outcome)
    shop.streams = {"orders": {}}
    result(shop.sync({"tables": ROWS, "shared": True})["orders"])  # items was taken out of the source file


def test_what_an_unsorted_stream_has_seen_is_no_position(tap: MakeTap) -> None:
    shop = tap(orders={})
    fields = schema("orders", n={"type": "integer"})
    seen = {"type": "STATE", "value": {"bookmarks": {"orders": {"at": 0, "progress_markers": {"at": 2}}}}}
    start = {"type": "STATE", "value": {"bookmarks": {"orders": {"at": 0}}}}
    row = {"type": "RECORD", "stream": "orders", "record": {"n": 1}}

    assert isinstance(shop.say(start, fields, row, row, seen, {"do": "kill"})["orders"], TransientError)
    result(shop.say(fields, row, seen)["orders"])

    assert shop.rows("orders") == [(1,)]
