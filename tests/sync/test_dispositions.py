"""Write dispositions end to end: what the raw table holds, and what the ledger says of it."""

from typing import Any

import psycopg
import pytest

from connectors.contract import Replaces
from connectors.errors import ConfigError, ContractError, HeadwaterError
from platform_assets.warehouse import Warehouse
from tests.support.scripted import Attestation, Checkpoint, records, source, sync


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as connection:
        return connection.execute(query).fetchall()


def test_append_adds_every_record_with_its_types(warehouse: Warehouse) -> None:
    result = sync(
        warehouse.loader_dsn,
        [
            records(
                {"id": 1, "price": 1.5, "at": "2024-01-01T00:00:00Z", "tags": ["a"], "none": None},
                {"id": 2, "ok": True},
            )
        ],
        write="append",
    )
    assert result.status == "succeeded"
    assert (result.rows.extracted, result.rows.loaded) == (2, 2)
    found = rows(warehouse, "select id, price, at::text, tags, ok, _deleted from raw_unit.things order by id")
    assert found == [(1, 1.5, "2024-01-01 00:00:00+00", ["a"], None, False), (2, None, None, None, True, False)]


def test_merge_updates_changed_rows_and_leaves_equal_rows_alone(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1, "v": "a"}, {"id": 2, "v": "b"})], write="merge", primary_key="id")
    again = sync(
        warehouse.loader_dsn,
        [records({"id": 1, "v": "a"}, {"id": 2, "v": "B"}, {"id": 3, "v": "c"}, {"id": 3, "v": "C"})],
        write="merge",
        primary_key="id",
    )
    assert (again.rows.extracted, again.rows.loaded, again.rows.updated, again.rows.deduplicated) == (4, 2, 1, 2)
    assert rows(warehouse, "select id, v from raw_unit.things order by id") == [(1, "a"), (2, "B"), (3, "C")]


def test_delete_marks_are_soft_or_hard(warehouse: Warehouse) -> None:
    for deletes, expected in (("soft", [(1, "a", True), (2, "b", False)]), ("hard", [(2, "b", False)])):
        options = {"write": "merge", "primary_key": "id", "deletes": deletes}
        with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
            connection.execute("drop table if exists raw_unit.things")
        sync(warehouse.loader_dsn, [records({"id": 1, "v": "a"}, {"id": 2, "v": "b"})], **options)
        gone = sync(warehouse.loader_dsn, [records({"id": 1, "_deleted": True})], **options)
        assert gone.rows.deleted == 1
        assert rows(warehouse, "select id, v, _deleted from raw_unit.things order by id") == expected


def test_a_snapshot_finds_deletes(warehouse: Warehouse) -> None:
    options = {"write": "merge", "primary_key": "id", "snapshot": True}
    sync(warehouse.loader_dsn, [records({"id": 1}, {"id": 2})], **options)
    second = sync(warehouse.loader_dsn, [records({"id": 2})], **options)
    assert second.rows.deleted == 1
    assert rows(warehouse, "select id, _deleted from raw_unit.things order by id") == [(1, True), (2, False)]


@pytest.mark.parametrize("write", ["merge", "scd2"])
def test_a_snapshot_with_records_in_quarantine_says_that_it_did_not_look_for_deletes(
    warehouse: Warehouse, write: str
) -> None:
    options: dict[str, Any] = {"write": write, "primary_key": "id", "snapshot": True}
    sync(warehouse.loader_dsn, [records({"id": 1}, {"id": 2})], **options)
    skipped = sync(warehouse.loader_dsn, [records({"id": 2}, {"id": None}, {"v": 1})], **options)
    said = "deletes were not looked for, because 2 records are in quarantine"
    assert (skipped.rows.deleted, skipped.status) == (0, "succeeded_with_warnings")
    assert said in skipped.message
    ((verdict,),) = rows(
        warehouse, "select v from ops.syncs, jsonb_array_elements(verdicts) v where v ->> 'name' = 'deletes'"
    )
    assert (verdict["passed"], verdict["severity"], verdict["measured"]) == (False, "warn", {"quarantined": 2})
    found = sync(warehouse.loader_dsn, [records({"id": 2})], **options)
    assert found.rows.deleted == 1
    assert "deletes" not in {verdict.name for verdict in found.verdicts}


def test_a_replacement_by_version_with_a_record_in_quarantine_says_that_it_did_not_look_for_deletes(
    warehouse: Warehouse,
) -> None:
    options: dict[str, Any] = {"write": "merge", "primary_key": "id", "deletes": "hard", "snapshot": True}
    sync(warehouse.loader_dsn, [records({"id": 1, "version": 1}, {"id": 2, "version": 1})], **options)
    newer = [records({"id": 1, "version": 2}, {"version": 2}), Replaces("version", 2)]
    result = sync(warehouse.loader_dsn, newer, **options)
    assert [verdict.name for verdict in result.verdicts].count("deletes") == 1
    assert rows(warehouse, "select id from raw_unit.things order by id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("write", "does"), [("scd2", "closes"), ("append", "adds every record"), ("replace", "exactly what was read")]
)
def test_hard_deletes_are_refused_where_they_have_no_effect(write: str, does: str) -> None:
    said = rf"streams\[things\]: deletes: hard has no effect with write: {write}, .*{does}.*set write: merge"
    with pytest.raises(ConfigError, match=said):
        source(write=write, primary_key="id", deletes="hard")


@pytest.mark.parametrize("write", ["append", "replace"])
def test_where_nothing_is_deleted_by_key_a_delete_mark_is_a_row(warehouse: Warehouse, write: str) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1, "v": "a"}, {"id": 1, "_deleted": True})], write=write)
    assert rows(warehouse, "select id, v, _deleted from raw_unit.things order by v") == [
        (1, "a", False),
        (1, None, True),
    ]


def test_replace_swaps_and_refuses_to_empty_the_table(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1}), Checkpoint(), records({"id": 2})], write="replace")
    sync(warehouse.loader_dsn, [records({"id": 3})], write="replace")
    assert rows(warehouse, "select id from raw_unit.things") == [(3,)]
    with pytest.raises(ContractError, match="sent no rows"):
        sync(warehouse.loader_dsn, [], write="replace")
    assert rows(warehouse, "select id from raw_unit.things") == [(3,)]
    sync(warehouse.loader_dsn, [], write="replace", allow_empty=True)
    assert rows(warehouse, "select id from raw_unit.things") == []


def test_scd2_keeps_every_version(warehouse: Warehouse) -> None:
    options = {"write": "scd2", "primary_key": "id"}
    sync(warehouse.loader_dsn, [records({"id": 1, "v": "a"}, {"id": 2, "v": "b"})], **options)
    second = sync(warehouse.loader_dsn, [records({"id": 1, "v": "A"}, {"id": 2, "v": "b"})], **options)
    assert (second.rows.loaded, second.rows.updated, second.rows.deduplicated) == (1, 1, 1)
    found = rows(warehouse, "select id, v, _valid_to is null from raw_unit.things order by id, _valid_from")
    assert found == [(1, "a", False), (1, "A", True), (2, "b", True)]


@pytest.mark.parametrize("deletes", ["mark", "snapshot"])
def test_scd2_closes_the_version_of_a_deleted_key_and_opens_one_when_it_is_back(
    warehouse: Warehouse, deletes: str
) -> None:
    options = {"write": "scd2", "primary_key": "id", "cursor": {"field": "at"}, "snapshot": deletes == "snapshot"}
    kept, gone = {"id": 1, "at": 1}, {"id": 2, "at": 2}
    sync(warehouse.loader_dsn, [records(kept, {"id": 2, "at": 1}, gone)], **options)
    marks = [gone | {"_deleted": True}] if deletes == "mark" else []
    closed = sync(warehouse.loader_dsn, [records(kept, *marks)], **options)
    back = sync(warehouse.loader_dsn, [records(kept, gone)], **options)
    assert (closed.rows.deleted, back.rows.loaded, back.rows.updated) == (1, 1, 0)
    found = rows(warehouse, "select id, at, _valid_to is null from raw_unit.things order by id, _valid_from")
    assert found == [(1, 1, True), (2, 2, False), (2, 2, True)]


def test_rows_without_a_key_are_quarantined_and_the_sync_goes_on(warehouse: Warehouse) -> None:
    result = sync(
        warehouse.loader_dsn, [records({"id": 1}, {"id": None, "v": "x"}, {"v": "y"})], write="merge", primary_key="id"
    )
    assert result.status == "succeeded_with_warnings"
    assert (result.rows.loaded, result.rows.quarantined) == (1, 2)
    held = rows(warehouse, "select reason, payload::jsonb ->> 'v' from ops.quarantine order by quarantine_id")
    assert held == [("key id is NULL", "x"), ("key id is NULL", "y")]


def test_an_empty_first_sync_makes_the_table_and_says_empty(warehouse: Warehouse) -> None:
    result = sync(
        warehouse.loader_dsn, [Attestation(nothing_new=True)], write="append", columns={"id": {"type": "bigint"}}
    )
    assert result.status == "succeeded_empty"
    assert rows(warehouse, "select count(*) from raw_unit.things") == [(0,)]


def test_incremental_append_neither_loses_nor_doubles_the_boundary(warehouse: Warehouse) -> None:
    options = {"write": "append", "cursor": {"field": "n"}}
    sync(warehouse.loader_dsn, [records({"n": 1, "v": "a"}, {"n": 2, "v": "b"}, {"n": 2, "v": "b"})], **options)
    again = sync(
        warehouse.loader_dsn,
        [records({"n": 2, "v": "b"}, {"n": 2, "v": "b"}, {"n": 2, "v": "late"}, {"n": 3, "v": "c"})],
        **options,
    )
    assert (again.rows.loaded, again.rows.deduplicated) == (2, 2)
    found = rows(warehouse, "select n, v from raw_unit.things order by n, v")
    assert found == [(1, "a"), (2, "b"), (2, "b"), (2, "late"), (3, "c")]


def test_a_failed_sync_publishes_what_was_sealed_and_resumes_there(warehouse: Warehouse) -> None:
    options = {"write": "append", "cursor": {"field": "n"}}
    with pytest.raises(HeadwaterError):
        sync(
            warehouse.loader_dsn,
            [records({"n": 1}), Checkpoint(), records({"n": 2}), RuntimeError("boom")],
            **options,
        )
    assert rows(warehouse, "select n from raw_unit.things") == [(1,)]
    state = rows(warehouse, "select state -> 'cursor' ->> 'value' from ops.stream_state order by version desc limit 1")
    assert state == [("1",)]
    status = rows(warehouse, "select status, failure_class, rows_loaded from ops.syncs")
    assert status == [("failed", "source", 1)]


def test_replace_over_several_windows_swaps_once_and_follows_a_growing_schema(warehouse: Warehouse) -> None:
    seen: list[int] = []

    def look() -> None:
        seen.extend(count for (count,) in rows(warehouse, "select count(*) from raw_unit.things"))

    options = {"write": "replace", "primary_key": "id", "window": {"rows": 1}}
    sync(warehouse.loader_dsn, [records({"id": 0})], **options)
    pages = [
        records({"id": 1}), Checkpoint(), look, records({"id": 2, "new": "x"}, {"id": None}), Checkpoint(), look,
        records({"id": 1, "new": "last"}), Checkpoint(), look,
    ]  # fmt: skip
    result = sync(warehouse.loader_dsn, pages, **options)
    assert seen == [1, 1, 1]
    assert rows(warehouse, "select id, new from raw_unit.things order by id") == [(1, "last"), (2, "x")]
    counts = result.rows
    assert (counts.extracted, counts.loaded, counts.deduplicated, counts.quarantined) == (4, 2, 1, 1)
    assert result.windows == 3
    # a replacement is one load, however many windows it was filled in
    loads = rows(
        warehouse, "select distinct load_id from raw_unit._dlt_loads join raw_unit.things on load_id = _dlt_load_id"
    )
    assert loads == [(load_id,) for load_id in result.load_ids]


def test_identical_rows_at_a_boundary_inside_one_read_are_all_kept(warehouse: Warehouse) -> None:
    options = {"write": "append", "cursor": {"field": "n"}, "window": {"rows": 1}}
    sync(warehouse.loader_dsn, [records({"n": 1}, {"n": 2})], **options)
    again = sync(
        warehouse.loader_dsn,
        [
            records({"n": 2}),
            Checkpoint(),
            records({"n": 2}, {"n": 3}),
            Checkpoint(),
            records({"n": 3, "new": 1}, {"n": 3}),
        ],
        **options,
    )
    assert (again.rows.loaded, again.rows.deduplicated) == (4, 1)
    found = rows(warehouse, "select n, count(*) from raw_unit.things group by n order by n")
    assert found == [(1, 1), (2, 2), (3, 3)]
