"""Saved positions: kept with the data, moved only on purpose, never by two writers."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from psycopg.sql import Identifier

from connectors.contract import Checkpoint, CopyFile
from connectors.errors import ConfigError, ContractError, LoaderError
from connectors.specs import parse_source
from connectors.sync import Progress, SyncRequest, statebook
from connectors.sync import sync as sync_source
from connectors.sync.state import MAX_FOREIGN_STATE_BYTES, append_version
from connectors.sync.tables import Tables
from platform_assets.settings import Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.support.faults import Lab, copy_file, lines
from tests.support.scripted import Scripted, records, source, sync
from tests.support.servers import SYSTEM_SERVERS, short_folder, system_server
from tests.support.sql import run as sql

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


def test_a_state_that_a_program_committed_can_be_put_back_however_large(warehouse: Warehouse) -> None:
    """A Singer tap keeps a position for every partition of its stream; 64 KB is the bound of our own states."""
    large = {"connector": {"partitions": ["x" * 100] * 5_000}}
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        append = partial(append_version, connection, "unit", "things", engine="singer", sync_id=None, reason="sync")
        with pytest.raises(ContractError, match="limit 65,536"):
            append(0, large)
        assert append(0, large, limit=MAX_FOREIGN_STATE_BYTES) == 1
        statebook.apply(connection, statebook.plan_reset(connection, "unit", "things"))
        statebook.apply(connection, statebook.plan_undo(connection, "unit", "things"))
        assert statebook.current(connection, "unit", "things").state == large


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


def test_rows_that_never_become_a_position_are_appended_once(lab: Lab) -> None:
    future = ['{"id":1,"at":"2099-01-01T00:00:00Z"}', '{"id":2,"at":"2098-01-01T00:00:00Z"}']
    stream = lab.stream(cursor={"field": "at"})
    assert stream.sync(lines(*future)).rows.loaded == 2
    again = stream.sync(lines(*future, future[0], '{"id":3,"at":"2024-01-01T00:00:00Z"}'), lines(*future))
    assert (again.rows.loaded, again.rows.deduplicated) == (4, 2)
    numbers = lab.stream(cursor={"field": "n"}, columns={"n": {"type": "double"}})
    odd = ['{"id":1,"n":NaN}', '{"id":2,"n":-Infinity}', '{"id":3,"n":Infinity}']
    assert numbers.sync(lines(*odd)).rows.loaded == 3
    assert numbers.sync(lines(*odd)).rows.deduplicated == 3


def test_a_rewound_append_loads_what_comes_again_once_over_all_its_windows(lab: Lab) -> None:
    stream = lab.stream(cursor={"field": "n"}, window={"rows": 1})
    pages = [records(*({"n": n, "v": 0} for n in (page, page, page + 1)), position=str(page)) for page in range(9)]
    read = [item for page in pages for item in (page, Checkpoint())]
    assert stream.sync(*read).rows.loaded == 27
    with psycopg.connect(stream.dsn, autocommit=True) as connection:
        statebook.apply(connection, statebook.plan_rewind(connection, "unit", stream.name, to_value="0"))
    again = stream.sync(*read, records({"n": 4, "v": 1}))
    assert (again.windows, again.rows.loaded, again.rows.deduplicated) == (10, 1, 27)


def test_a_text_position_is_compared_by_code_points_and_any_other_as_it_is() -> None:
    def position(cursor_type: str) -> str:
        return Tables(Identifier("a"), Identifier("b"), ("n",), (), "n", cursor_type).position.as_string()

    assert position("text") == position("character varying(9)") == '"n" collate "C"'
    assert position("bigint") == position("uuid") == '"n"'


@pytest.mark.slow
@pytest.mark.skipif(not SYSTEM_SERVERS, reason="needs a PostgreSQL of the system, and root")
def test_text_positions_mean_the_same_where_texts_sort_as_in_a_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `a` comes before `B`; by code points, for Python and for ISO dates `B` comes first."""
    with (
        short_folder() as folder,
        system_server(
            SYSTEM_SERVERS[-1], folder, "--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US"
        ) as url,
    ):
        warehouse = ensure_warehouse(Settings(home=tmp_path / "home", warehouse_url=url))
        english = Lab(warehouse.loader_dsn, warehouse.admin_dsn)
        stream = english.stream(cursor={"field": "n"})
        assert stream.fetch("select 'a' < 'B', 'a' < 'B' collate \"C\"") == [(True, False)]
        rows = [{"n": n, "v": v} for n, v in (("a", 1), ("B", 2), ("b", 3))]
        assert stream.sync(records(*rows)).state_after["cursor"]["value"] == "b"
        with psycopg.connect(stream.dsn, autocommit=True) as connection:
            statebook.apply(connection, statebook.plan_rewind(connection, "unit", stream.name, to_value="a"))
        assert stream.sync(records(*rows[::2])).rows.deduplicated == 2
        merged = english.stream(write="merge", primary_key="id", cursor={"field": "n"})
        merged.sync(records({"id": 1, "n": "a", "v": "last"}, {"id": 1, "n": "B", "v": "first"}))
        assert merged.values() == ["last"]

        monkeypatch.setenv("LETTERS_URL", warehouse.loader_dsn)
        # and the source is asked in the same order: `B` is no news behind `a`
        sql(
            stream.dsn,
            "create schema raw_shop",
            "create table raw_shop.letters (n text)",
            "insert into raw_shop.letters values ('a'), ('B'), ('b')",
        )
        letters = parse_source(
            {
                "source": "unit", "owner": "team:test",
                "connector": {"kind": "database", "url": "env:LETTERS_URL", "schema": "raw_shop"},
                "streams": [{"name": "letters", "table": "letters", "write": "append", "cursor": {"field": "n"}}],
            },
            "tests/unit.yaml",
        )  # fmt: skip
        request = SyncRequest(letters, letters.streams[0], trigger="cli")
        assert sync_source(request, stream.dsn, Progress()).rows.loaded == 3
        sql(stream.dsn, "insert into raw_shop.letters values ('c'), ('C')")
        again = sync_source(request, stream.dsn, Progress())
        assert (again.rows.extracted, again.rows.loaded, again.rows.deduplicated) == (2, 1, 1)


@pytest.mark.slow
def test_a_million_equal_cursor_values_leave_no_trace_in_the_state(lab: Lab, tmp_path: Path) -> None:
    """What the state would have to remember of ten million, the table itself does: ten rows or a million, as small."""
    stream = lab.stream(cursor={"field": "n"})

    def file(rows: int) -> CopyFile:
        path = tmp_path / f"{rows}.csv"
        return copy_file(path, "".join(f"1,{row}\n" for row in range(rows)), n=pa.int64(), v=pa.int64())

    few = stream.sync(file(10)).state_after
    many = stream.sync(file(1_000_000))
    again = stream.sync(file(1_000_001))
    assert (many.rows.loaded, again.rows.loaded, again.rows.deduplicated) == (999_990, 1, 1_000_000)
    assert few == many.state_after == again.state_after
    with psycopg.connect(stream.dsn) as connection:
        assert statebook.current(connection, "unit", stream.name).size_bytes < 100
