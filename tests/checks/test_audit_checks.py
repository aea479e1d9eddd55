"""Checks that judge before anything is published: a scripted source, the engine and PostgreSQL."""

from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.contract import Attestation, Window
from connectors.errors import ConfigError, ContractError
from connectors.sync import SyncResult, Verdict
from platform_assets.warehouse import Warehouse
from tests.support.scripted import Script, records, sync
from tests.support.sql import run as sql

MERGE = {"write": "merge", "primary_key": "id", "columns": {"id": {"type": "bigint"}}}


def verdict(result: SyncResult, name: str) -> Verdict:
    return next(verdict for verdict in result.verdicts if verdict.name == name)


def checked(dsn: str, script: Script, *checks: dict[str, Any], **stream: Any) -> Verdict:
    """The verdict of the first check."""
    result = sync(dsn, script, checks=list(checks), **{**MERGE, **stream})
    return verdict(result, checks[0].get("name", checks[0]["type"]))


def test_a_checksum_of_keys_sees_a_row_that_was_swapped_for_another(warehouse: Warehouse) -> None:
    from connectors.measures import key_checksum

    check = {"type": "reconcile", "against": "keys"}
    said = Attestation(measures={"keys": key_checksum([(1,), (2,)]) or ""})

    same = checked(warehouse.loader_dsn, [records({"id": 1}, {"id": 2}), said], check)
    assert (same.passed, same.explanation) == (
        True,
        "the keys of the 2 rows that were read are the same as the source's",
    )
    with pytest.raises(ContractError, match="the keys of the 2 rows that were read are not those of the source's"):
        checked(warehouse.loader_dsn, [records({"id": 1}, {"id": 3}), said], check)
    assert sql(warehouse.admin_dsn, "select array_agg(id order by id) from raw_unit.things") == [([1, 2],)]


def test_a_sum_is_compared_exactly_unless_floats_were_added(warehouse: Warehouse) -> None:
    wanted = {"0.3": True, "0.30000001": False, "3.00000000000000044e-01": True, "many": False}
    measures = {f"sum(amount_{n})": said for n, said in enumerate(wanted)} | {"sum(nothing)": "0"}
    checks = [
        {"type": "reconcile", "name": f"of_{n}", "against": f"sum( amount_{n} )", "severity": "warn"} for n in range(4)
    ]
    nothing = {"type": "reconcile", "name": "of_nothing", "against": "sum(nothing)"}
    columns = {f"amount_{n}": {"type": "decimal"} for n in range(4)} | {"nothing": {"type": "decimal"}}
    rows = ({"id": row, "nothing": None, **{f"amount_{n}": row / 10 for n in range(4)}} for row in (1, 2))

    result = sync(
        warehouse.loader_dsn, [records(*rows), Attestation(measures=measures)], write="append",
        columns=columns, checks=[*checks, nothing],
    )  # fmt: skip

    assert [verdict(result, f"of_{n}").passed for n in range(4)] == list(wanted.values())
    assert verdict(result, "of_nothing").passed


def test_what_the_source_does_not_say_is_red_and_stops_nothing(warehouse: Warehouse) -> None:
    from connectors.specs import CheckSpec, StreamSpec
    from platform_assets.checks import History, Observation, checks_of

    check = CheckSpec.model_validate({"type": "reconcile", "against": "keys"})
    result = sync(
        warehouse.loader_dsn, [records({"id": 1})], checks=[{"type": "reconcile", "against": "keys"}], **MERGE
    )
    stream = StreamSpec(name="things", primary_key=("id",), checks=(check,))

    found = checks_of(stream, "defs.yaml")[0].judge(Observation(stream, result, History()))

    assert (found.passed, found.explanation) == (False, "the source did not say its keys, 1 were read")


@pytest.mark.parametrize("write", ["merge", "replace", pytest.param("scd2", marks=pytest.mark.slow)])
def test_a_key_that_comes_twice_is_seen_although_the_table_keeps_one(warehouse: Warehouse, write: str) -> None:
    check = {"type": "duplicate_keys"}
    once = checked(warehouse.loader_dsn, [records({"id": 1}, {"id": 2})], check, write=write)
    assert once.passed
    twice = checked(warehouse.loader_dsn, [records({"id": 3}, {"id": 3, "n": 1}, {"id": 4})], check, write=write)

    assert (twice.passed, twice.blocking, twice.severity) == (False, False, "error")
    assert twice.explanation == "1 rows of 3 that came repeat a key (id)"


def test_an_append_is_looked_at_as_a_whole_and_a_blocking_check_keeps_the_doubled_row_out(
    warehouse: Warehouse,
) -> None:
    check = {"type": "duplicate_keys", "blocking": True}
    checked(warehouse.loader_dsn, [records({"id": 1}, {"id": 2})], check, write="append")

    with pytest.raises(ContractError, match=r"check duplicate_keys: 1 rows in the raw table repeat a key \(id\)"):
        checked(warehouse.loader_dsn, [records({"id": 2}, {"id": 3})], check, write="append")

    assert sql(warehouse.admin_dsn, "select count(*) from raw_unit.things") == [(2,)]


def rows_at(*ids_and_days: tuple[int, int]) -> Any:
    return records(*({"id": number, "at": f"2024-01-{day:02}T00:00:00Z"} for number, day in ids_and_days))


def test_rows_before_the_position_are_late_when_their_keys_are_new(warehouse: Warehouse) -> None:
    stream: dict[str, Any] = {
        "cursor": {"field": "at", "lag": "P3D"}, "columns": {"at": {"type": "timestamp"}, "id": {"type": "bigint"}},
    }  # fmt: skip
    check = {"type": "late_data", "minimum": 2, "max_share": 0.3}

    first = checked(warehouse.loader_dsn, [rows_at((1, 1), (2, 5))], check, **stream)
    again = checked(warehouse.loader_dsn, [rows_at((2, 5), (3, 4), (4, 6), (5, 7), (6, 8))], check, **stream)
    late = checked(warehouse.loader_dsn, [rows_at((7, 6), (8, 9))], check, **stream)

    assert first.measured["late_rows"] == 0
    assert (again.passed, again.explanation) == (True, "1 of 4 new rows are late (25.0%, 30.0% is fine)")
    assert (late.passed, late.severity) == (False, "warn")


def test_rows_that_are_new_in_a_partition_that_was_read_before_are_late(warehouse: Warehouse) -> None:
    stream: dict[str, Any] = {
        "cursor": {"field": "at"}, "columns": {"at": {"type": "timestamp"}, "id": {"type": "bigint"}},
        "partition": Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)),
    }  # fmt: skip
    check = {"type": "late_data", "minimum": 1, "max_share": 0}

    assert checked(warehouse.loader_dsn, [rows_at((1, 1))], check, **stream).passed
    assert checked(warehouse.loader_dsn, [rows_at((1, 1))], check, **stream).passed
    assert not checked(warehouse.loader_dsn, [rows_at((1, 1), (2, 1))], check, **stream).passed


def test_a_reference_has_a_lag_a_tolerance_and_words_for_a_parent_that_is_not_there(warehouse: Warehouse) -> None:
    dsn = warehouse.loader_dsn
    script = [records({"id": 1, "carrier": "AA"}, {"id": 2, "carrier": "ZZ"}, {"id": 3, "carrier": None})]
    check = {"type": "reference", "column": "carrier", "to": "airlines.code"}

    assert checked(dsn, script, check).explanation == "raw_unit.airlines is not there yet"
    sql(dsn, "create table raw_unit.airlines (kode text, _deleted boolean, _valid_to timestamptz)")
    assert checked(dsn, script, check).explanation == "raw_unit.airlines has no column 'code'"
    sql(dsn, "alter table raw_unit.airlines rename kode to code")
    sql(dsn, "insert into raw_unit.airlines values ('AA', false, null), ('ZZ', false, now())")

    found = checked(dsn, script, check)
    assert (found.passed, found.severity, found.blocking) == (False, "error", False)
    assert found.explanation == "1 of 2 rows have a carrier that airlines.code has not: ZZ"
    assert checked(dsn, script, {**check, "tolerance": 0.5}).passed
    assert checked(dsn, script, {**check, "lag": "PT1H"}).passed
    assert checked(dsn, script, {**check, "to": "unit.airlines.code"}).measured["orphans"] == 1
    with pytest.raises(ContractError, match="1 of 2 rows have a carrier"):
        checked(dsn, script, {**check, "blocking": True})


def test_a_check_on_a_column_that_is_gone_says_so_and_stops_no_sync(warehouse: Warehouse) -> None:
    dsn, said = warehouse.loader_dsn, Attestation(measures={"sum(amount)": "1"})
    checks = [
        {"type": "row_rule", "column": "amount", "min": 0},
        {"type": "reconcile", "against": "sum(amount)"},
        {"type": "reference", "column": "amount", "to": "things.id"},
    ]
    there = sync(dsn, [records({"id": 1, "amount": 1}), said], checks=checks, **MERGE)
    assert [verdict(there, check["type"]).passed for check in checks] == [True, True, True]

    gone = sync(dsn, [records({"id": 2})], checks=checks, **MERGE)

    for check in checks:
        found = verdict(gone, check["type"])
        assert (found.passed, found.severity, found.blocking) == (False, "error", False)
        assert found.explanation == "column amount is gone: none of 1 records has it, so there is nothing to judge"
    assert sql(warehouse.admin_dsn, "select count(*) from raw_unit.things") == [(2,)]
    patient = sync(dsn, [records({"id": 3})], checks=checks[:1], drift={"missing": "ignore"}, **MERGE)
    assert verdict(patient, "row_rule").passed


UNASKABLE: list[tuple[dict[str, Any], str]] = [
    ({"type": "row_rule", "column": "amuont", "min": 0}, "column 'amuont' is not in the data"),
    ({"type": "row_rule", "column": "id", "pattern": "1"}, "cannot be judged: operator does not exist"),
    ({"type": "row_rule", "column": "name", "pattern": "x{2"}, "cannot be judged: invalid regular expression"),
    ({"type": "row_rule", "column": "id", "min": "a"}, "cannot be judged: invalid input syntax"),
    ({"type": "reconcile", "against": "sum(name)"}, "cannot be judged: invalid input syntax for type numeric"),
    ({"type": "reference", "column": "name", "to": "things.id"}, "cannot be judged: operator does not exist"),
]


def test_a_question_that_cannot_be_asked_is_red_and_no_crash(warehouse: Warehouse) -> None:
    checks = [{**check, "severity": "warn", "name": f"number_{n}"} for n, (check, _) in enumerate(UNASKABLE)]
    script = [records({"id": 1, "name": "x"}), Attestation(measures={"sum(name)": "1"})]

    # nothing declares the columns' types, so that only PostgreSQL can tell
    result = sync(warehouse.loader_dsn, script, checks=checks, **{**MERGE, "columns": {}})

    for number, (_, words) in enumerate(UNASKABLE):
        found = verdict(result, f"number_{number}")
        assert (found.passed, found.explanation[: len(words)]) == (False, words)


@pytest.mark.parametrize(
    ("check", "place", "words"),
    [
        ({"type": "rwo_rule", "column": "id"}, "checks[0].type", "unknown check 'rwo_rule'\nDid you mean 'row_rule'?"),
        ({"type": "row_rule", "column": "id", "mn": 3}, "checks[0].mn", "unknown key\nDid you mean 'min'?"),
        ({"type": "row_rule", "column": "id"}, "checks[0]", "needs min, max or pattern"),
    ],
)
def test_a_check_that_the_engine_does_not_understand_fails_the_sync_before_it_reads(
    warehouse: Warehouse, check: dict[str, Any], place: str, words: str
) -> None:
    def never() -> None:
        raise AssertionError("the source was read")

    with pytest.raises(ConfigError) as caught:
        sync(warehouse.loader_dsn, [never, records({"id": 1})], checks=[check], **MERGE)

    assert str(caught.value).startswith(f"unit.things: {place}: {words}")
    assert sql(warehouse.admin_dsn, "select status, failure_class from ops.syncs") == [("failed", "config")]
    assert sql(warehouse.admin_dsn, "select to_regclass('raw_unit.things')") == [(None,)]


def test_a_failed_sync_and_the_one_that_goes_on_after_it_are_one_observation_of_volume(warehouse: Warehouse) -> None:
    from connectors.contract import Checkpoint
    from connectors.errors import SourceError

    dsn = warehouse.loader_dsn
    check = {"type": "volume_anomaly", "minimum": 3}
    stream: dict[str, Any] = {"write": "append", "primary_key": (), "window": {"rows": 1}}

    def batch(count: int) -> Any:
        return records(*({"id": n} for n in range(count)))

    for _ in range(4):
        checked(dsn, [batch(100)], check, **stream)
    with pytest.raises(SourceError):
        checked(dsn, [batch(60), Checkpoint(), SourceError("unit", "broke off")], check, **stream)
    resumed = checked(dsn, [batch(40)], check, **stream)

    assert (resumed.passed, resumed.measured["rows"]) == (True, 100)
    assert not checked(dsn, [batch(40)], check, **stream).passed


def test_partitions_are_compared_by_what_they_have_and_not_by_what_a_run_loaded(warehouse: Warehouse) -> None:
    dsn = warehouse.loader_dsn
    check = {"type": "volume_anomaly", "minimum": 3}

    def day(number: int, count: int) -> Verdict:
        rows = (((number * 1000 + n), number) for n in range(count))
        window = Window(datetime(2024, 1, number, tzinfo=UTC), datetime(2024, 1, number + 1, tzinfo=UTC))
        stream: dict[str, Any] = {"cursor": {"field": "at"}, "columns": {"at": {"type": "timestamp"}}}
        return checked(dsn, [rows_at(*rows)], check, partition=window, **stream)

    for number in (5, 4, 2, 1):
        day(number, 100)
    again = day(4, 100)
    assert (again.passed, again.measured["rows"]) == (True, 100)
    assert not day(3, 30).passed
    assert day(3, 101).passed


def test_an_empty_sync_says_in_the_ledger_whether_the_source_had_nothing_new(warehouse: Warehouse) -> None:
    sync(warehouse.loader_dsn, [records({"id": 1}), Attestation(nothing_new=True)], **MERGE)
    sync(warehouse.loader_dsn, [], **MERGE)
    sync(warehouse.loader_dsn, [Attestation(nothing_new=True)], **MERGE)

    found = sql(warehouse.admin_dsn, "select nothing_new from ops.syncs order by started_at")
    assert found == [(False,), (False,), (True,)]
