"""The judgement of each check type, on what the ledger would say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from connectors.errors import ConfigError
from connectors.kinds.rest import RestStreamSpec
from connectors.specs import CheckSpec, StreamSpec
from connectors.sync import ObservedColumn, RowCounts, Status, SyncResult, Verdict
from connectors.sync.checks import JUDGED_AFTER_THE_SYNC
from platform_assets.assets.metadata import check_result
from platform_assets.checks import History, Observation, PastSync, SchemaVersion, checks_of
from platform_assets.checks.data_time import DataTime, moment_of
from platform_assets.checks.registry import check_types
from platform_assets.checks.types import freshness_data

NOW = datetime(2024, 5, 1, tzinfo=UTC)


def result(rows: int = 100) -> SyncResult:
    return SyncResult(
        sync_id="c0ffee00-0000-0000-0000-000000000000",
        source="shop",
        stream="orders",
        status="succeeded" if rows else "succeeded_empty",
        rows=RowCounts(extracted=rows, loaded=rows),
        table_name="warehouse.raw_shop.orders",
        columns=(ObservedColumn("id", "bigint", is_nullable=False),),
        step_seconds={"extract": 0.5},
        received_bytes=10,
        loaded_bytes=10,
        requests=1,
        wait_seconds=0.0,
        peak_memory_bytes=1,
        windows=1,
        state_before={},
        state_after={},
        newest_cursor=None,
        schema_version=1,
        load_ids=("1",),
        verdicts=(),
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=1),
    )


def judged(name: str, rows: int, history: History, **options: Any) -> Verdict:
    stream = StreamSpec(name="orders", checks=(CheckSpec(type=name, **options),))
    check = next(check for check in checks_of(stream, "defs.yaml") if check.name == name)
    return check.judge(Observation(stream, result(rows), history))


def past(*statuses: Status, seconds: float = 10.0) -> History:
    """Earlier syncs, newest first."""
    return History(
        syncs=tuple(PastSync(NOW - timedelta(hours=age), status, 1, seconds) for age, status in enumerate(statuses))
    )


def versions(*decisions: str, action: str = "added") -> History:
    diff = ({"change": "retyped", "column": "amount", "before": "bigint", "after": "text", "action": action},)
    return History(
        schemas=tuple(
            SchemaVersion(number, decision, () if decision == "first" else diff, None, NOW)
            for number, decision in enumerate(decisions, start=1)
        )
    )


@pytest.mark.parametrize(
    ("decisions", "passed"),
    [
        ((), True),
        (("first",), True),
        (("first", "evolved"), True),
        (("first", "pending"), False),
        (("first", "pending", "evolved"), False),
        (("first", "pending", "accepted"), True),
        (("first", "pending", "accepted", "pending"), False),
        (("first", "blocked"), False),
    ],
)
def test_drift_is_red_until_somebody_accepts_it(decisions: tuple[str, ...], passed: bool) -> None:
    verdict = judged("schema_drift", 100, versions(*decisions, action="quarantined"))

    assert verdict.passed is passed
    assert verdict.severity == "error"


def test_drift_says_what_changed_and_how_to_accept_it() -> None:
    verdict = judged("schema_drift", 100, versions("first", "pending", action="quarantined"))

    assert verdict.explanation == (
        "schema version 2 waits for a decision: amount retyped from bigint to text (quarantined). "
        "Have the source changed back or change what builds on it, then accept the version: docs/checks.md says how."
    )
    assert verdict.measured["undecided_changes"] == 1


def test_drift_that_the_policy_only_warns_of_is_a_warning() -> None:
    assert judged("schema_drift", 100, versions("first", "pending", action="warn")).severity == "warn"
    strict = judged("schema_drift", 100, versions("first", "pending", action="warn"), severity="error")
    assert strict.severity == "error"


def test_some_check_types_are_on_every_stream_and_some_where_they_fit() -> None:
    plain = StreamSpec(name="orders")
    counted = RestStreamSpec(name="orders", path="/orders", total="total")

    assert {check.name for check in checks_of(plain, "defs.yaml")} == {"quarantine", "schema_drift", "volume_anomaly"}
    assert {check.name for check in checks_of(counted, "defs.yaml")} - {
        check.name for check in checks_of(plain, "defs.yaml")
    } == {"reconcile"}


def test_the_engine_knows_the_names_of_the_checks_that_it_leaves_to_the_platform() -> None:
    assert {entry.name for entry in check_types().values() if not entry.is_audit} == JUDGED_AFTER_THE_SYNC


def test_a_declared_audit_blocks_unless_it_only_warns() -> None:
    def blocking(**spec: Any) -> bool:
        stream = StreamSpec(name="orders", checks=(CheckSpec(type="row_rule", column="cents", min=0, **spec),))
        return next(check for check in checks_of(stream, "defs.yaml") if check.name == "row_rule").blocking

    assert blocking() is True
    assert blocking(severity="warn") is False
    assert blocking(blocking=False) is False


def test_a_quarantined_record_is_a_warning_with_its_share() -> None:
    stream = StreamSpec(name="orders")
    check = next(check for check in checks_of(stream, "defs.yaml") if check.name == "quarantine")
    held = replace(result(), rows=RowCounts(extracted=200, loaded=198, quarantined=2))

    verdict = check.judge(Observation(stream, held, History()))

    assert (verdict.passed, verdict.severity, verdict.measured["share"]) == (False, "warn", 0.01)
    assert verdict.explanation.startswith("2 of 200 records break the contract. See `headwater quarantine list")
    assert check.judge(Observation(stream, result(), History())).passed


def test_a_share_of_quarantined_records_can_be_fine() -> None:
    def verdict(quarantined: int) -> Verdict:
        stream = StreamSpec(name="orders", checks=(CheckSpec(type="quarantine", max_share=0.01),))
        held = replace(result(), rows=RowCounts(extracted=200, loaded=200 - quarantined, quarantined=quarantined))
        return checks_of(stream, "defs.yaml")[0].judge(Observation(stream, held, History()))

    assert verdict(2).passed
    assert not verdict(3).passed
    assert verdict(3).explanation.startswith("3 of 200 records break the contract, 1.00% is fine. See")


def test_the_error_rate_counts_the_last_syncs_and_judges_a_failed_one_too() -> None:
    stream = StreamSpec(name="orders", checks=(CheckSpec(type="error_rate", max_share=0.2, last=5),))
    check = checks_of(stream, "defs.yaml")[0]

    def rate(*statuses: Status) -> Verdict:
        return check.judge(Observation(stream, result(), past(*statuses)))

    assert rate("failed", "succeeded", "succeeded", "succeeded", "failed").passed
    assert not rate("failed", "succeeded", "cancelled", "succeeded").passed
    assert rate("failed", "failed", "failed").explanation == (
        "3 of the last 4 syncs failed, 20% is fine; learning: 4 of 5"
    )
    failed = check.judge_failed(past("failed", "succeeded", "succeeded", "succeeded", "failed", "failed"))
    assert failed is not None
    assert (failed.passed, failed.measured["failed"]) == (False, 2)


def test_a_slow_run_takes_half_as_long_again_as_the_median_of_the_good_ones() -> None:
    stream = StreamSpec(name="orders", checks=(CheckSpec(type="slow_run", slack="PT0S"),))
    check = checks_of(stream, "defs.yaml")[0]

    def verdict(seconds: float, history: History) -> Verdict:
        took = replace(result(), finished_at=NOW + timedelta(seconds=seconds))
        return check.judge(Observation(stream, took, history))

    usual = past(*["succeeded"] * 7)
    assert verdict(15.0, usual).passed
    slow = verdict(15.1, usual)
    assert (slow.passed, slow.severity) == (False, "warn")
    assert slow.explanation == (
        "15.1 s, at most 15.0 s is usual (1.5 x the median 10.0 s of 7 earlier syncs, at least 7 needed)"
    )
    assert verdict(99.0, past(*["succeeded"] * 6, "failed")).explanation == "99.0 s; learning: 6 of 7 earlier syncs"
    assert set(slow.measured) == {"seconds", "median_seconds"}


@pytest.mark.parametrize(
    ("newest", "attested", "passed", "severity", "words"),
    [
        (1, None, True, "warn", "1.0 h old, 6.0 h is fine"),
        (3, None, False, "warn", "3.0 h old, more than 2.0 h; 5 rows were read, none newer"),
        (7, None, False, "error", "7.0 h old, more than 6.0 h; 5 rows were read, none newer"),
        (7, 1, True, "warn", "that nothing is newer: 1.0 h old, 6.0 h is fine"),
        (7, 8, False, "error", "7.0 h old, more than 6.0 h; 5 rows were read, none newer"),
        (None, 1, True, "warn", "there is no value yet, and the source said at 2024-04-30 23:00 UTC"),
        (None, None, True, "warn", "no data yet"),
    ],
)
def test_data_is_as_old_as_its_newest_value_unless_the_source_says_that_nothing_is_newer(
    newest: int | None, attested: int | None, passed: bool, severity: str, words: str
) -> None:
    def ago(hours: int | None) -> datetime | None:
        return None if hours is None else NOW - timedelta(hours=hours)

    data = DataTime(ago(newest), ago(attested), has_cursor=newest is not None)
    verdict = freshness_data.judged(data, timedelta(hours=6), timedelta(hours=2), NOW, rows=5)

    assert verdict.passed is passed
    assert passed or verdict.severity == severity
    assert words in verdict.explanation


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (DataTime(has_cursor=True, has_rows=True), "the cursor is no time, so nothing tells how old the data is"),
        (DataTime(has_rows=True), "no sync has seen a value of the cursor, so nothing tells how old the data is"),
        (DataTime(), "no data yet"),
    ],
)
def test_an_age_that_nothing_tells_is_red_where_the_check_is_declared(data: DataTime, words: str) -> None:
    def verdict(**spec: Any) -> Verdict:
        stream = StreamSpec.model_validate(
            {"name": "orders", "cursor": {"field": "number"}, "freshness": {"fail_after": "PT6H"}, **spec}
        )
        check = next(check for check in checks_of(stream, "defs.yaml") if check.name == "freshness_data")
        return check.judge(Observation(stream, result(), History(data=data)))

    declared, default = verdict(checks=[{"type": "freshness_data", "blocking": True}]), verdict()

    assert (declared.passed, declared.explanation) == (data == DataTime(), words)
    assert declared.passed or (declared.severity, declared.blocking) == ("error", True)
    assert (default.passed, default.explanation) == (True, words)


def test_the_data_time_is_checked_where_a_time_cursor_and_a_freshness_are_declared() -> None:
    def has(**spec: Any) -> bool:
        stream = StreamSpec.model_validate({"name": "orders", **spec})
        return "freshness_data" in {check.name for check in checks_of(stream, "defs.yaml")}

    cursor, freshness = {"cursor": {"field": "at"}}, {"freshness": {"fail_after": "PT6H"}}
    assert has(**cursor, **freshness)
    assert not has(**cursor)
    assert not has(**freshness)
    assert not has(**cursor, **freshness, columns={"at": {"type": "bigint"}})
    assert has(**cursor, checks=[{"type": "freshness_data"}])


@pytest.mark.parametrize(
    ("cursor", "moment"),
    [
        ("2024-05-01T10:00:00Z", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("2024-05-01T10:00:00.5+02:00", datetime(2024, 5, 1, 8, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-05-01T10:00:00", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("2024-05-01", datetime(2024, 5, 2, tzinfo=UTC)),
        ("4711", None),
        ("9999-12-31", None),
        ("", None),
    ],
)
def test_a_cursor_is_a_moment_or_none(cursor: str, moment: datetime | None) -> None:
    assert moment_of(cursor) == moment


def test_a_check_has_an_owner_of_its_own_or_the_streams() -> None:
    def owner(**spec: Any) -> str | None:
        stream = StreamSpec(name="orders", checks=(CheckSpec(type="quarantine", **spec),))
        return checks_of(stream, "defs.yaml")[0].owner

    assert owner(owner="team:finance") == "team:finance"
    assert owner() is None
    with pytest.raises(ConfigError, match=r"checks\[0\]\.owner: is neither an address nor team:<name>"):
        owner(owner="finance")


def test_an_audit_that_the_engine_did_not_run_is_red_unless_there_was_nothing_to_judge() -> None:
    stream = StreamSpec(name="orders", checks=(CheckSpec(type="row_rule", column="cents", min=0),))
    check = checks_of(stream, "defs.yaml")[0]

    assert check.judge(Observation(stream, result(5), History())).passed is False
    assert check.judge(Observation(stream, result(0), History())).passed is True


def test_a_verdict_becomes_a_dagster_result_whose_numbers_plot() -> None:
    measured = {"rows": 0, "share": 0.5, "history": [1, 2], "note": "x", "nothing": None}
    verdict = Verdict("volume_anomaly", False, "error", blocking=True, explanation="why", measured=measured)

    shown = check_result(verdict, dg.AssetKey(["shop", "orders"]))

    assert (shown.passed, shown.severity, shown.description) == (False, dg.AssetCheckSeverity.ERROR, "why")
    assert {name: type(value).__name__ for name, value in shown.metadata.items()} == {
        "rows": "IntMetadataValue",
        "share": "FloatMetadataValue",
        "history": "JsonMetadataValue",
        "note": "TextMetadataValue",
        "nothing": "TextMetadataValue",
    }
    assert shown.metadata["rows"].value == 0
