"""Saved positions: kept with the data, moved only on purpose, never by two writers."""

from datetime import UTC, datetime

import psycopg
import pytest

from connectors.contract import Checkpoint
from connectors.errors import ConfigError, ContractError, LoaderError
from connectors.sync import statebook
from platform_assets.warehouse import Warehouse
from tests.support.scripted import Scripted, records, source, sync

CURSOR = {"write": "merge", "primary_key": "id", "cursor": {"field": "at", "lag": "PT1H"}}


def at(hour: int, number: int = 0) -> dict[str, object]:
    return {"id": hour * 100 + number, "at": f"2024-01-01T{hour:02d}:00:00Z"}


def test_the_next_sync_asks_from_the_committed_cursor_minus_the_lag(warehouse: Warehouse) -> None:
    first = sync(warehouse.loader_dsn, [records(at(5), at(7))], **CURSOR)
    assert first.state_after["cursor"]["value"] == "2024-01-01T07:00:00Z"
    spec = source(**CURSOR)
    reader = Scripted([])
    from connectors.sync import Progress, SyncRequest
    from connectors.sync.lifecycle import run

    second = run(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn, Progress(), reader)
    assert reader.state is not None
    assert reader.state.cursor == "2024-01-01T06:00:00Z"
    assert second.status == "succeeded_empty"
    assert second.state_after["cursor"]["value"] == "2024-01-01T07:00:00Z"


def test_a_row_of_the_far_future_is_kept_but_its_position_is_not(warehouse: Warehouse) -> None:
    result = sync(warehouse.loader_dsn, [records(at(5), {"id": 9, "at": "2099-01-01T00:00:00Z"})], **CURSOR)
    assert result.rows.loaded == 2
    assert result.state_after["cursor"]["value"] == "2024-01-01T05:00:00Z"


def test_a_text_cursor_of_numbers_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ContractError, match="9 comes after 10"):
        sync(warehouse.loader_dsn, [records({"n": "9"}, {"n": "10"})], write="append", cursor={"field": "n"})


def test_state_stays_small_with_many_equal_cursor_values(warehouse: Warehouse) -> None:
    rows = [{"n": 1, "v": number} for number in range(5_000)]
    sync(warehouse.loader_dsn, [records(*rows)], write="append", cursor={"field": "n"})
    again = sync(warehouse.loader_dsn, [records(*rows, {"n": 1, "v": -1})], write="append", cursor={"field": "n"})
    assert (again.rows.loaded, again.rows.deduplicated) == (1, 5_000)
    with psycopg.connect(warehouse.loader_dsn) as connection:
        assert max(item.size_bytes for item in statebook.newest(connection)) < 100


def test_rewind_undo_and_reset_are_versions_of_their_own(warehouse: Warehouse) -> None:
    first = sync(warehouse.loader_dsn, [records(at(1))], **CURSOR)
    between = datetime.now(UTC)
    sync(warehouse.loader_dsn, [records(at(2))], **CURSOR)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        for target in ({"to_time": between}, {"to_sync": first.sync_id}, {"to_version": 1}):
            move = statebook.plan_rewind(connection, "unit", "things", **target)
            assert move.after["cursor"]["value"] == "2024-01-01T01:00:00Z"
        move = statebook.plan_rewind(connection, "unit", "things", to_value="2024-01-01T01:30:00Z")
        assert move.changes == [("cursor.value", '"2024-01-01T02:00:00Z"', '"2024-01-01T01:30:00Z"')]
        assert statebook.apply(connection, move) == 3
        assert statebook.apply(connection, statebook.plan_undo(connection, "unit", "things")) == 4
        assert statebook.current(connection, "unit", "things").cursor == "2024-01-01T02:00:00Z"
        statebook.apply(connection, statebook.plan_reset(connection, "unit", "things"))
        assert [item.reason for item in statebook.history(connection, "unit", "things")] == [
            "reset", "undo", "rewind", "sync", "sync",
        ]  # fmt: skip
        with pytest.raises(ConfigError, match="no state of 99"):
            statebook.plan_rewind(connection, "unit", "things", to_version=99)
        with pytest.raises(ConfigError, match="keeps no cursor"):
            statebook.plan_rewind(connection, "unit", "things", to_value="soon")


def test_the_second_of_two_writers_is_refused(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records(at(1))], **CURSOR)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        move = statebook.plan_reset(connection, "unit", "things")
        sync(warehouse.loader_dsn, [records(at(2))], **CURSOR)
        with pytest.raises(LoaderError, match="changed by somebody else"):
            statebook.apply(connection, move)

        def reset_meanwhile() -> None:
            statebook.apply(connection, statebook.plan_reset(connection, "unit", "things"))

        with pytest.raises(LoaderError, match="changed by somebody else"):
            sync(warehouse.loader_dsn, [records(at(3)), reset_meanwhile], **CURSOR)
        assert connection.execute("select max(id) from raw_unit.things").fetchone() == (200,)


def test_exported_states_are_imported_elsewhere(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records(at(4)), Checkpoint(connector={"files": {"a.csv": 1}})], **CURSOR)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        text = statebook.export(statebook.newest(connection))
        assert statebook.plan_import(connection, text) == []
        statebook.apply(connection, statebook.plan_reset(connection, "unit", "things"))
        (move,) = statebook.plan_import(connection, text)
        statebook.apply(connection, move)
        restored = statebook.current(connection, "unit", "things")
        assert restored.cursor == "2024-01-01T04:00:00Z"
        assert restored.state["connector"] == {"files": {"a.csv": 1}}
        with pytest.raises(ConfigError, match="not a headwater-state-1 file"):
            statebook.plan_import(connection, "[]")
