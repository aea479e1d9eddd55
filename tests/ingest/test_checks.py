"""The judgement of each check type, on what the ledger would say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kinds.rest import RestStreamSpec
from connectors.specs import CheckSpec, StreamSpec
from connectors.sync import ObservedColumn, RowCounts, SyncResult, Verdict
from platform_assets.assets.metadata import check_result
from platform_assets.checks import History, Observation, PastSync, SchemaVersion, checks_of

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


def past(*rows: int) -> History:
    """Earlier syncs, oldest first."""
    syncs = [PastSync(NOW - timedelta(hours=age), "succeeded", count, 1.0) for age, count in enumerate(rows[::-1])]
    return History(syncs=tuple(syncs))


def versions(*decisions: str, action: str = "added") -> History:
    diff = ({"change": "retyped", "column": "amount", "before": "bigint", "after": "text", "action": action},)
    return History(
        schemas=tuple(
            SchemaVersion(number, decision, () if decision == "first" else diff, None, NOW)
            for number, decision in enumerate(decisions, start=1)
        )
    )


USUAL = past(100, 104, 98, 101, 99, 103, 97, 102)


@pytest.mark.parametrize(
    ("rows", "history", "passed"),
    [
        (100, USUAL, True),
        (50, USUAL, False),
        (200, USUAL, False),
        (0, USUAL, False),
        (0, past(100, 104), True),
        (0, past(3, 1, 2, 5, 1, 2, 4), False),
        (0, past(100, 0, 90, 110, 0, 95, 105, 0, 100), True),
        (900, past(0, 0, 12_000, 0, 0, 0, 0, 0), True),
        (0, past(0, 0, 12_000, 0, 0, 0, 0, 0), True),
        (100, past(100, 100, 100, 100, 100, 100, 100), True),
        (50, past(100, 100, 100, 100, 100, 100, 100), False),
    ],
    ids=[
        "as usual", "halved", "doubled", "silent", "still learning", "a small stream falls silent",
        "sometimes silent", "mostly silent, then rows", "mostly silent, silent again", "constant", "constant, halved",
    ],
)  # fmt: skip
def test_volume_is_judged_against_the_band_of_earlier_syncs(rows: int, history: History, passed: bool) -> None:
    assert judged("volume_anomaly", rows, history).passed is passed


def test_volume_explains_itself_with_band_sample_and_history() -> None:
    verdict = judged("volume_anomaly", 50, USUAL)

    assert verdict.severity == "warn"
    assert verdict.explanation == "50 rows, below the expected 60 to 141 (median 100 of 8 earlier syncs)"
    assert verdict.measured["rows"] == 50
    assert verdict.measured["sample"] == 8
    assert verdict.measured["history"] == [100, 104, 98, 101, 99, 103, 97, 102]
    assert verdict.measured["expected_low"] == pytest.approx(60.3, abs=0.5)
    assert judged("volume_anomaly", 5, past(1)).explanation == "5 rows; learning: 1 of 7 earlier syncs"


def test_volume_options_of_the_file_decide() -> None:
    assert judged("volume_anomaly", 110, USUAL, sensitivity=0.5).passed is False
    assert judged("volume_anomaly", 5, past(100, 100, 100), minimum=3).passed is False
    assert judged("volume_anomaly", 5, past(100, 100, 100), minimum=3, severity="error").severity == "error"


@given(st.lists(st.integers(min_value=0, max_value=10**9), min_size=7, max_size=30))
def test_the_median_of_any_history_is_never_an_anomaly(counts: list[int]) -> None:
    middle = sorted(counts)[len(counts) // 2]
    assert judged("volume_anomaly", middle, past(*counts)).passed


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
