"""What sensors find, and what becomes of it: each reason on a ledger that shows it."""

import json
from typing import Any, get_args

import pytest

from connectors.specs import BackfillSpec
from platform_assets.backfills.reasons import NAMES
from tests.backfills.ledger import DAYS, OK, Ledger, day, found


def test_the_reasons_are_those_of_the_source_file() -> None:
    annotation = BackfillSpec.model_fields["reasons"].annotation
    assert get_args(get_args(annotation)[0]) == NAMES


def test_nothing_launches_unless_the_file_names_the_reason(ledger: Ledger) -> None:
    (suggestion,) = ledger.look("missing")

    assert suggestion.is_due
    assert suggestion.action == "off: add missing to backfill.reasons"
    assert ledger.look("missing", launch=True) == []
    assert ledger.launched() == []


def test_missing_windows_are_launched_newest_first_up_to_the_days_bound_and_then_wait(ledger: Ledger) -> None:
    ledger.declare(reasons=["missing"], daily_windows=3)
    ledger.read(2, 4)

    (dry,) = ledger.look("missing")
    (suggestion,) = ledger.look("missing", launch=True)

    # without the newest, which the schedule reads
    assert suggestion.partitions == dry.partitions == (day(3), day(5), day(6))
    assert dry.action == "its sensor launches it"
    assert suggestion.action == f"launched as backfill {suggestion.backfill_id}"
    title = f"shop.orders missing: {day(3)}, {day(5)}, {day(6)}: never read"
    assert ledger.launched() == [(title, [day(3), day(5), day(6)])]
    (again,) = ledger.look("missing", launch=True)
    assert "cools down until" in again.action
    ledger.connection.execute("update ops.backfills set created_at = now() - interval '7 hours'")
    ledger.connection.execute("update ops.backfills set created_at = greatest(created_at, date_trunc('day', now()))")
    ledger.declare(reasons=["missing"], daily_windows=3, cool_down="PT0S")
    (again,) = ledger.look("missing", launch=True)
    assert again.action == "today's 3 windows are launched already (daily_windows)"
    assert len(ledger.launched()) == 1


@pytest.mark.parametrize("failure", ["config", "auth", "contract", "source"])
def test_a_permanent_failure_is_not_tried_again_until_the_stream_works(ledger: Ledger, failure: str) -> None:
    ledger.read(*range(2, DAYS))
    ledger.read(DAYS, failure=failure)
    (told,) = ledger.look("missing")
    command = f"headwater backfill run shop.orders --from {day(DAYS)} --to {day(DAYS)} --missing"
    assert told.why == (
        f"never read: 1 window failed with class {failure} (tried 1 times at most), e.g. {day(DAYS)}: HTTP 500"
    )
    assert (told.action, told.is_due) == (f"given up until the stream succeeds again; mend it, then `{command}`", False)

    for _ in range(4):
        ledger.read(1)
        assert found(ledger.look("missing")) == [("never read", (day(DAYS),))]
        ledger.read(DAYS, failure=failure)
    ledger.read(1)
    (told,) = ledger.look("missing")
    assert told.action == f"given up; mend it, then `{command}`"


def test_a_passing_failure_is_tried_again_for_ever_in_the_end_once_a_day(ledger: Ledger) -> None:
    ledger.read(*range(3, DAYS))
    ledger.read(2, failure="transient")
    for _ in range(4):
        assert found(ledger.look("missing")) == [("never read", (day(2), day(DAYS)))]
        ledger.read(2, failure="transient")
    never, told = ledger.look("missing")
    assert (never.partitions, told.action) == ((day(DAYS),), "tried once a day")
    assert (
        told.why == f"never read: 1 window failed with class transient (tried 5 times at most), e.g. {day(2)}: HTTP 500"
    )

    ledger.connection.execute("update ops.syncs set started_at = started_at - interval '25 hours'")
    ledger.declare(reasons=["missing"], daily_windows=1)
    # what was never tried goes first
    never, daily = ledger.look("missing", launch=True)
    assert (never.partitions, daily.why) == ((day(DAYS),), "never read, failed 5 times or more")
    assert ledger.launched()[0][1] == [day(DAYS)]
    ledger.end()
    ledger.read(DAYS)
    assert [item.partitions for item in ledger.look("missing", launch=True)] == [(day(2),)]


def test_a_window_that_does_not_agree_with_the_source_is_read_again_once(ledger: Ledger) -> None:
    ledger.declare(reasons=["late"], cool_down="PT0S")
    ledger.read(1, 2, 3, verdicts=[OK])
    ledger.read(3, verdicts=[OK | {"passed": False, "explanation": "the source says 6 rows, 4 were read"}])

    ledger.look("late", launch=True)

    assert ledger.launched() == [
        (f"shop.orders late: {day(3)}: reconciliation: the source says 6 rows, 4 were read", [day(3)])
    ]  # fmt: skip
    ledger.end()
    (again,) = ledger.look("late", launch=True)
    assert again.action == "acted on before"
    ledger.read(3, verdicts=[OK])
    assert ledger.look("late") == []


def test_a_reasons_findings_of_one_stream_are_one_backfill_that_names_its_windows(ledger: Ledger) -> None:
    ledger.declare(reasons=["late"], cool_down="PT6H", daily_windows=4)
    for number in range(1, 6):
        ledger.read(number, verdicts=[OK | {"passed": False, "explanation": f"{number} rows are missing"}])

    suggestions = ledger.look("late", launch=True)

    ((title, windows),) = ledger.launched()
    assert windows == [day(1), day(2), day(3), day(4)]
    assert title == (
        f"shop.orders late: 4 windows, {day(4)} to {day(1)}: reconciliation: 1 rows are missing; "
        "reconciliation: 2 rows are missing; reconciliation: 3 rows are missing; and 1 more"
    )
    assert len({item.backfill_id for item in suggestions if item.backfill_id}) == 1
    assert {item.partitions: item.action[:7] for item in suggestions} == {
        (day(1),): "launche", (day(2),): "launche", (day(3),): "launche", (day(4),): "launche", (day(5),): "today's",
    }  # fmt: skip
    # causes are kept by window: what failed anew is another one, the rest was acted on
    ledger.end()
    ledger.read(2, verdicts=[OK | {"passed": False, "explanation": "2 rows are missing still"}])
    ledger.look("late", launch=True)
    whys = "reconciliation: 2 rows are missing still; reconciliation: 5 rows are missing"
    assert ledger.launched()[1] == (f"shop.orders late: {day(2)}, {day(5)}: {whys}", [day(2), day(5)])


def test_a_window_that_its_backfill_failed_to_read_is_read_again_but_not_for_ever(ledger: Ledger) -> None:
    ledger.declare(reasons=["new_columns"], cool_down="PT0S")
    ledger.read(2, 3, ago="1 hour")
    change = {"change": "new", "column": "colour", "before": None, "after": "text", "action": "added"}
    ledger.connection.execute(
        "insert into ops.schema_versions (source, stream, version, columns, diff, decision) "
        "values ('shop', 'orders', 2, '[]', %s, 'evolved')",
        [json.dumps([change])],
    )

    def look() -> str:
        """The reason looks; its backfill reads the newer window, if any, and fails at the older one."""
        (suggestion,) = ledger.look("new_columns", launch=True)
        ledger.read(2)
        ledger.connection.execute("update ops.backfill_windows set is_open = false")
        ledger.connection.execute("update ops.backfills set state = 'failed', ended_at = now()")
        return suggestion.action

    actions = [look() for _ in range(6)]

    assert [windows for _, windows in ledger.launched()] == [[day(2), day(3)], *[[day(3)]] * 4]
    assert actions[5].startswith(
        f"given up: 5 backfills failed to read {day(3)}; mend it, then `headwater backfill res"
    )


NAMED = OK | {"name": "amounts", "passed": False, "explanation": "the source says 6.00, 4.00 were read"}


@pytest.mark.parametrize(
    ("reason", "verdict"), [("late", NAMED), ("failed_checks", OK | {"name": "volume_anomaly", "passed": False})]
)
def test_a_window_that_no_read_mends_is_given_up_until_its_check_passes(
    ledger: Ledger, reason: str, verdict: dict[str, Any]
) -> None:
    checks = "[{type: reconcile, name: amounts, against: sum(amount)}]"
    ledger.declare(reasons=[reason], cool_down="PT0S")
    ledger.text += f"      checks: {checks}\n"

    def look() -> str:
        """The window is read again in vain, another one passes, and then the reason looks."""
        ledger.read(3, verdicts=[verdict])
        ledger.read(1, verdicts=[verdict | {"passed": True}])
        (suggestion,) = ledger.look(reason, launch=True)
        ledger.connection.execute("update ops.backfill_windows set is_open = false")
        return suggestion.action

    actions = [look() for _ in range(6)]

    assert [partitions for _, partitions in ledger.launched()] == [[day(3)]] * 5
    assert actions[5] == f"given up: 5 reads mended nothing; {day(3)}"
    ledger.read(3, verdicts=[verdict | {"passed": True}])
    assert look().startswith("launched")


def test_rows_of_the_sources_changes_name_the_windows_to_read_again(ledger: Ledger) -> None:
    ledger.declare(reasons=["late"], cool_down="PT0S", corrections={"stream": "changes", "field": "order_at"})
    ledger.read(1, 2, 3, 4)
    ledger.connection.execute("create schema raw_shop")
    assert ledger.look("late") == []
    ledger.connection.execute("create table raw_shop.changes (order_at timestamptz, _synced_at timestamptz)")

    def change(number: int) -> None:
        ledger.connection.execute(
            "insert into raw_shop.changes values (%s, clock_timestamp())", [f"{day(number)}T12:00:00Z"]
        )

    change(3)
    change(4)
    change(DAYS + 5)
    # what changed before a window was read is in it
    ledger.read(4)
    ledger.look("late", launch=True)

    assert ledger.launched() == [(f"shop.orders late: {day(3)}: 3 changes in changes", [day(3)])]
    assert "in backfill" in ledger.look("late", launch=True)[0].action
    # one that fails forgets nothing
    ledger.connection.execute("update ops.backfill_windows set is_open = false")
    ledger.connection.execute("update ops.backfills set state = 'failed', ended_at = now()")
    assert [item.partitions for item in ledger.look("late", launch=True)] == [(day(3),)]
    ledger.read(3)
    ledger.end()
    assert ledger.look("late", launch=True) == []
    change(2)
    assert [item.partitions for item in ledger.look("late", launch=True)] == [(day(2),)]


def test_changes_that_found_no_room_today_are_not_forgotten(ledger: Ledger) -> None:
    ledger.declare(
        reasons=["late"], cool_down="PT0S", daily_windows=1, corrections={"stream": "changes", "field": "at"}
    )
    ledger.read(1, 2, 3)
    ledger.connection.execute("create schema raw_shop")
    ledger.connection.execute("create table raw_shop.changes (at timestamptz, _synced_at timestamptz)")
    ledger.connection.execute(
        "insert into raw_shop.changes values (%s, clock_timestamp()), (%s, clock_timestamp())",
        [f"{day(2)}T12:00:00Z", f"{day(3)}T12:00:00Z"],
    )

    ledger.look("late", launch=True)
    ledger.end()
    ledger.look("late", launch=True)

    assert [partitions for _, partitions in ledger.launched()] == [[day(2)], [day(3)]]


DRIFT = OK | {"name": "schema_drift", "passed": False}


def test_windows_that_failed_a_check_are_read_again_when_it_is_accepted_or_passes(ledger: Ledger) -> None:
    volume = OK | {"name": "volume_anomaly", "passed": False}
    ledger.read(2, 3, verdicts=[DRIFT])
    ledger.read(4, verdicts=[volume])
    assert ledger.look("failed_checks") == []

    ledger.connection.execute(
        "insert into ops.schema_versions (source, stream, version, columns, decision, decided_at) "
        "values ('shop', 'orders', 2, '[]', 'accepted', clock_timestamp())"
    )
    assert found(ledger.look("failed_checks")) == [("schema_drift had failed, version 2 accepted", (day(2), day(3)))]

    late = OK | {"name": "late_data", "passed": False}
    ledger.read(5, verdicts=[late])
    ledger.read(1, verdicts=[volume | {"passed": True}, late | {"passed": True}])
    whys = {item.why.partition(" in sync")[0]: item.partitions for item in ledger.look("failed_checks")}
    assert whys == {
        "schema_drift had failed, version 2 accepted": (day(2), day(3)),
        "volume_anomaly had failed, passed again": (day(4),),
    }
    ledger.declare(reasons=["failed_checks"], cool_down="PT0S")
    ledger.look("failed_checks", launch=True)
    ledger.end()
    assert [item.action for item in ledger.look("failed_checks", launch=True)] == ["acted on before"] * 2


def test_history_is_filled_with_a_column_that_came_later(ledger: Ledger) -> None:
    ledger.declare(reasons=["new_columns"], daily_windows=2, cool_down="PT0S")
    ledger.read(2, 3, 4)
    change = {"change": "new", "column": "colour", "before": None, "after": "text", "action": "added"}
    # the window that brought it needs no second read
    ledger.read(1)
    ledger.connection.execute(
        "insert into ops.schema_versions (source, stream, version, columns, diff, decision, first_seen_at, sync_id) "
        "select 'shop', 'orders', 2, '[]', %s, 'evolved', clock_timestamp(), sync_id "
        "from ops.syncs order by started_at desc limit 1",
        [json.dumps([change])],
    )

    ledger.look("new_columns", launch=True)
    # the next day: what the bound had cut off, and nothing twice
    ledger.end()
    ledger.look("new_columns", launch=True)
    ledger.end()

    assert ledger.launched() == [
        (f"shop.orders new_columns: {day(2)}, {day(3)}: new in schema version 2: colour", [day(2), day(3)]),
        (f"shop.orders new_columns: {day(4)}: new in schema version 2: colour", [day(4)]),
    ]
    assert [item.action for item in ledger.look("new_columns", launch=True)] == ["acted on before"]
