"""PostgreSQL takes the rows while dlt still builds its package, and nothing is committed before dlt has."""

from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from connectors.errors import HeadwaterError
from connectors.sync import SyncResult
from platform_assets.warehouse import Warehouse
from tests.crash.victim import eventually
from tests.support.scripted import Checkpoint, records, sync
from tests.support.sql import run

DISPOSITIONS: dict[str, dict[str, Any]] = {
    "append": {"write": "append"},
    "append by cursor": {"write": "append", "cursor": {"field": "id"}},
    "merge": {"write": "merge", "primary_key": "id"},
    "replace": {"write": "replace"},
    "scd2": {"write": "scd2", "primary_key": "id"},
}
OURS = "select pid from pg_stat_activity where application_name = 'headwater unit.things'"
COPIED = f"""
    select 1 from pg_locks
    where pid in ({OURS}) and locktype = 'relation' and mode = 'RowExclusiveLock'
        and (relation = to_regclass('raw_unit.things') or not exists (select from pg_class where oid = relation))
"""
"""Rows went into the raw table, or into one that nobody else sees yet."""
DLT_WAITS = f"{OURS} and wait_event = 'advisory'"


@contextmanager
def dlt_held_up(warehouse: Warehouse) -> Generator[None]:
    """Somebody else makes tables in the dataset, so that dlt waits for its turn."""
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        session.execute("select pg_advisory_lock(hashtextextended('raw_unit', 8))")
        yield


@contextmanager
def syncing(warehouse: Warehouse, row: dict[str, Any], **stream: Any) -> Generator[Future[SyncResult]]:
    """A sync of one record beside us; it has ended afterwards."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(sync, warehouse.loader_dsn, [records(row), Checkpoint()], **stream)


def ids(warehouse: Warehouse) -> set[int]:
    return {row[0] for row in run(warehouse.loader_dsn, "select id from raw_unit.things")}


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_rows_are_copied_while_dlt_builds_and_committed_when_it_has(warehouse: Warehouse, disposition: str) -> None:
    stream = DISPOSITIONS[disposition]
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint()], **stream)

    with syncing(warehouse, {"id": 2}, **stream) as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, COPIED)
            eventually(warehouse.admin_dsn, DLT_WAITS)
            assert ids(warehouse) == {1}
        assert second.result().rows.loaded == 1

    assert ids(warehouse) == ({2} if disposition == "replace" else {1, 2})


def test_a_first_replacement_is_filled_before_there_is_a_raw_table(warehouse: Warehouse) -> None:
    run(warehouse.loader_dsn, "create schema if not exists raw_unit")

    with syncing(warehouse, {"id": 2, "v": "a"}, write="replace") as first:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, COPIED)
            assert run(warehouse.loader_dsn, "select to_regclass('raw_unit.things')") == [(None,)]
        load_ids = first.result().load_ids

    rows = "select id, v, _deleted, _dlt_load_id, _synced_at is not null from raw_unit.things"
    assert run(warehouse.loader_dsn, rows) == [(2, "a", False, load_ids[0], True)]
    sync(warehouse.loader_dsn, [records({"id": 3, "v": "b"}), Checkpoint()], write="replace")
    assert ids(warehouse) == {3}


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_a_table_that_dlt_has_to_widen_is_not_locked_against_it(warehouse: Warehouse, disposition: str) -> None:
    stream = DISPOSITIONS[disposition]
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint()], **stream)
    locked = f"select mode from pg_locks where relation = 'raw_unit.things'::regclass and pid in ({OURS})"

    with syncing(warehouse, {"id": 2, "new": "a"}, **stream) as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, DLT_WAITS)
            eventually(warehouse.admin_dsn, f"{OURS} and state = 'idle in transaction'")
            assert run(warehouse.admin_dsn, locked) == []
        assert second.result().rows.loaded == 1

    assert run(warehouse.loader_dsn, "select new from raw_unit.things where id = 2") == [("a",)]


@pytest.mark.parametrize("disposition", DISPOSITIONS)
def test_what_dlt_fails_with_ends_the_sync_and_leaves_nothing(warehouse: Warehouse, disposition: str) -> None:
    stream = DISPOSITIONS[disposition]
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint()], **stream)

    with syncing(warehouse, {"id": 2}, **stream) as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, COPIED)
            eventually(warehouse.admin_dsn, DLT_WAITS)
            run(warehouse.admin_dsn, f"select pg_terminate_backend(pid) from ({DLT_WAITS}) as waiting")
        with pytest.raises(HeadwaterError, match="terminat"):
            second.result()

    assert ids(warehouse) == {1}
    assert sync(warehouse.loader_dsn, [records({"id": 2}), Checkpoint()], **stream).rows.loaded == 1


def test_no_other_table_is_locked_while_dlt_is_waited_for(warehouse: Warehouse) -> None:
    run(warehouse.admin_dsn, "create schema if not exists raw_unit", "create table raw_unit.parents (id bigint)")
    run(warehouse.admin_dsn, "grant usage on schema raw_unit to public", "grant all on raw_unit.parents to public")
    run(
        warehouse.admin_dsn, "grant create on schema raw_unit to public", "insert into raw_unit.parents values (1), (2)"
    )
    child = {"write": "append", "checks": [{"type": "reference", "column": "id", "to": "parents.id"}]}
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint()], **child)
    locked = f"select mode from pg_locks where relation = 'raw_unit.parents'::regclass and pid in ({OURS})"

    with syncing(warehouse, {"id": 2}, **child) as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, COPIED)
            eventually(warehouse.admin_dsn, DLT_WAITS)
            eventually(warehouse.admin_dsn, f"{OURS} and state = 'idle in transaction'")
            assert run(warehouse.admin_dsn, locked) == []
        assert second.result().rows.loaded == 1


def test_an_index_changes_only_after_dlt_has_had_its_turn(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1, "k": 1}), Checkpoint()], write="append", cursor={"field": "id"})
    run(warehouse.admin_dsn, "delete from ops.stream_state")
    exclusive = f"select 1 from pg_locks where mode = 'AccessExclusiveLock' and pid in ({OURS})"

    with syncing(warehouse, {"id": 2, "k": 2}, write="append", cursor={"field": "k"}) as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, DLT_WAITS)
            eventually(warehouse.admin_dsn, f"{OURS} and state = 'idle in transaction'")
            assert run(warehouse.admin_dsn, exclusive) == []
        assert second.result().rows.loaded == 1


def test_the_next_table_of_one_stream_is_in_nobodys_way(warehouse: Warehouse) -> None:
    """A table has an array type too, whose name begins with an underscore."""
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint()], write="replace")

    with syncing(warehouse, {"id": 2}, write="replace") as second:
        with dlt_held_up(warehouse):
            eventually(warehouse.admin_dsn, COPIED)
            run(warehouse.loader_dsn, "set lock_timeout = '20s'; create table raw_unit.next_things (id bigint)")
        assert second.result().rows.loaded == 1
