"""Cursors that play tricks, from an API that plays them to the table: nothing lost, nothing doubled."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from connectors.contract import Checkpoint
from connectors.errors import ConfigError, ContractError, TransientError
from connectors.specs import SourceSpec
from connectors.sync import SyncRequest, SyncResult, sync
from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.http.reading import only, read, source
from tests.http.serving import Exchange, Served, serving
from tests.support import sql
from tests.support.servers import TestServer, clean_environment, database_pair

Row = dict[str, Any]
NOW = datetime.now(UTC).replace(microsecond=0)


def at(hours: float, zone: str = "Z") -> str:
    """So many hours before now."""
    return (NOW - timedelta(hours=hours)).isoformat().replace("+00:00", zone)


class Api:
    """Serves `rows` by `at`, two a page, from `since` on; after it when `is_strict`. fails_on_page: 503 there."""

    def __init__(self, *rows: Row, is_strict: bool = False) -> None:
        self.rows = list(rows)
        self.is_strict = is_strict
        self.fails_on_page = 0

    def __call__(self, exchange: Exchange) -> None:
        since, page = exchange.query.get("since"), int(exchange.query["page"])
        if page == self.fails_on_page:
            exchange.json({}, 503)
            return
        found = [row for row in self.rows if since is None or not self._is_before(row, since)]
        exchange.json({"data": found[2 * page - 2 : 2 * page]})

    def _is_before(self, row: Row, since: str) -> bool:
        try:
            when, from_ = datetime.fromisoformat(row["at"]), datetime.fromisoformat(since)
        except (TypeError, ValueError):
            return False
        return when <= from_ if self.is_strict else when < from_


def things(server: Served, write: str = "merge", lag: str = "PT0S", **incremental: Any) -> SourceSpec:
    stream = {
        "records": "data",
        "pagination": {"type": "page_number"},
        "incremental": {"param": "since", **incremental},
        "cursor": {"field": "at", "lag": lag},
        "write": write,
        "max_quarantined": {"share": 1},
        **({"primary_key": "id"} if write == "merge" else {}),
    }
    return source(server.url, stream)


@pytest.fixture(scope="module")
def warehouse(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """One for all of this file: every source has a name of its own."""
    home = str(tmp_path_factory.mktemp("home"))
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        yield ensure_warehouse(load_settings(clean_environment() | pair | {"HEADWATER_HOME": home}))


@pytest.fixture
def synced(warehouse: Warehouse) -> Callable[[SourceSpec], SyncResult]:
    return lambda spec: sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)


def loaded(warehouse: Warehouse, spec: SourceSpec) -> list[int]:
    return [row[0] for row in sql.run(warehouse.loader_dsn, f"select id from raw_{spec.source}.things order by 1")]


def position(warehouse: Warehouse, spec: SourceSpec) -> str:
    query = f"select state -> 'cursor' ->> 'value' from ops.stream_state where source = '{spec.source}'"
    return sql.run(warehouse.loader_dsn, query + " order by version desc limit 1")[0][0]


Synced = Callable[[SourceSpec], SyncResult]


@pytest.mark.parametrize("write", ["merge", "append"])
def test_a_record_that_comes_later_with_the_value_of_the_position_is_loaded_once(
    warehouse: Warehouse, synced: Synced, write: str
) -> None:
    api = Api({"id": 1, "at": at(3)}, {"id": 2, "at": at(2)}, {"id": 3, "at": at(2)})
    with serving(api) as server:
        spec = things(server, write)
        synced(spec)
        api.rows.append({"id": 4, "at": at(2)})
        synced(spec)
        assert loaded(warehouse, spec) == [1, 2, 3, 4]
        synced(spec)
    assert loaded(warehouse, spec) == [1, 2, 3, 4]


def test_where_the_source_means_after_the_lag_reads_the_value_of_the_position_again(
    warehouse: Warehouse, synced: Synced
) -> None:
    api = Api({"id": 1, "at": at(3)}, {"id": 2, "at": at(2)}, is_strict=True)
    with serving(api) as server:
        spec = things(server, lag="PT1S")
        synced(spec)
        api.rows.append({"id": 3, "at": at(2)})
        synced(spec)
    assert loaded(warehouse, spec) == [1, 2, 3]


@pytest.mark.parametrize("is_strict", [False, True], ids=["from", "after"])
def test_equal_values_over_the_end_of_a_page_survive_a_sync_that_ends_there(
    warehouse: Warehouse, synced: Synced, is_strict: bool
) -> None:
    api = Api(*({"id": n, "at": at({1: 9, 6: 7}.get(n, 8))} for n in range(1, 7)), is_strict=is_strict)
    api.fails_on_page = 2
    with serving(api) as server:
        spec = things(server, ordered=True)
        with pytest.raises(TransientError, match="HTTP 503 on page 2"):
            synced(spec)
        # what lies before the value that page 2 goes on with is kept
        assert loaded(warehouse, spec) == [1]
        assert position(warehouse, spec) == at(9)
        api.fails_on_page = 0
        synced(spec)
    assert loaded(warehouse, spec) == [1, 2, 3, 4, 5, 6]


def test_no_checkpoint_parts_records_of_one_value() -> None:
    api = Api(*({"id": n, "at": at(5)} for n in range(1, 6)))
    with serving(api) as server:
        spec = things(server, ordered=True)
        assert only(Checkpoint, read(spec)) == []
        api.rows += [{"id": 6, "at": at(4)}, {"id": 7, "at": None}]
        assert len(only(Checkpoint, read(spec))) == 1


def test_a_source_that_breaks_the_order_it_promised_is_refused_by_name(warehouse: Warehouse, synced: Synced) -> None:
    api = Api({"id": 1, "at": at(3)}, {"id": 2, "at": at(2)}, {"id": 3, "at": at(1)}, {"id": 4, "at": at(4)})
    with serving(api) as server:
        message = r"things: not in the order of at on page 2: .*, then .*\nRemove incremental.ordered"
        with pytest.raises(ConfigError, match=message):
            synced(things(server, ordered=True))
        # disorder within the lag is read again, and what is not declared is no promise
        assert synced(things(server, lag="PT4H", ordered=True)).rows.loaded == 4
        spec = things(server)
        assert synced(spec).rows.loaded == 4
    assert position(warehouse, spec) == at(1)


def test_numbers_and_zones_are_in_order_by_value_and_not_by_text() -> None:
    """The text of each comes before that of the one before it."""
    rows = [{"id": 1, "at": 9}, {"id": 2, "at": 10}, {"id": 3, "at": 10.5}]
    zoned = [
        {"id": 1, "at": "2024-01-01T09:00:00+05:00"},
        {"id": 2, "at": "2024-01-01T05:00:00Z"},
        {"id": 3, "at": "2024-01-01T04:00:00-03:00"},
    ]
    for served in (rows, zoned):
        with serving(Api(*served)) as server:
            assert len(only(Checkpoint, read(things(server, ordered=True)))) == 2


def test_a_cursor_that_goes_back_does_not_take_the_position_along(warehouse: Warehouse, synced: Synced) -> None:
    api = Api({"id": 1, "at": at(5)}, {"id": 2, "at": at(1)})
    with serving(api) as server:
        spec = things(server)
        synced(spec)
        # the source was restored from a backup, and goes on from there
        api.rows = [{"id": 1, "at": at(5)}, {"id": 3, "at": at(3)}]
        assert synced(spec).status == "succeeded_empty"
        assert position(warehouse, spec) == at(1)
        api.rows.append({"id": 4, "at": at(0.5)})
        synced(spec)
        assert (loaded(warehouse, spec), position(warehouse, spec)) == ([1, 2, 4], at(0.5))


def test_a_source_that_ignores_the_position_moves_it_nowhere_back(warehouse: Warehouse, synced: Synced) -> None:
    api = Api({"id": 1, "at": at(2)})
    with serving(lambda e: e.json({"data": api.rows if e.query["page"] == "1" else []})) as server:
        spec = things(server)
        synced(spec)
        api.rows = [{"id": 2, "at": at(7)}]
        synced(spec)
    assert (loaded(warehouse, spec), position(warehouse, spec)) == ([1, 2], at(2))


def test_null_other_types_zones_and_the_far_future_leave_the_right_position(
    warehouse: Warehouse, synced: Synced
) -> None:
    api = Api(
        {"id": 1, "at": at(4)},
        {"id": 2, "at": None},
        {"id": 3},
        {"id": 4, "at": 1_700_000_000},
        {"id": 5, "at": True},
        {"id": 6, "at": (NOW - timedelta(hours=2)).astimezone().isoformat()},
        {"id": 7, "at": (datetime.fromisoformat(at(3, "+00:00")) + timedelta(hours=9)).isoformat()[:-6] + "+09:00"},
        {"id": 8, "at": "2099-01-01T00:00:00Z"},
        {"id": 9, "at": "soon"},
    )
    with serving(api) as server:
        spec = things(server)
        result = synced(spec)
        assert (result.rows.loaded, result.rows.quarantined) == (4, 5)
        assert loaded(warehouse, spec) == [1, 6, 7, 8]
        assert position(warehouse, spec) == at(2)
        asked = len(server.seen)
        api.rows = [{"id": 10, "at": at(1)}]
        synced(spec)
        assert f"since={at(2)}".replace(":", "%3A") in server.seen[asked]
    assert loaded(warehouse, spec) == [1, 6, 7, 8, 10]


def test_numbers_as_text_are_no_cursor(warehouse: Warehouse, synced: Synced) -> None:
    """9 would come after 10, and records be lost."""
    with serving(Api({"id": 1, "at": "9"}, {"id": 2, "at": "10"})) as server:
        spec = things(server)
        with pytest.raises(ContractError, match="at"):
            synced(spec)
    assert loaded(warehouse, spec) == []


def test_late_records_come_within_the_lag_and_not_beyond_it(warehouse: Warehouse, synced: Synced) -> None:
    api = Api({"id": 1, "at": at(1)})
    with serving(api) as server:
        spec = things(server, lag="PT2H")
        synced(spec)
        api.rows = [{"id": 2, "at": at(8)}, {"id": 3, "at": at(2)}, {"id": 1, "at": at(1)}]
        synced(spec)
    assert (loaded(warehouse, spec), position(warehouse, spec)) == ([1, 3], at(1))
