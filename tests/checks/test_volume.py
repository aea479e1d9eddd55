"""The arithmetic of `volume_anomaly`: what is usual for this hour of this weekday."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sync.checks.contract import Outcome
from connectors.sync.volume import Volume, VolumeOptions, judge_volume

MONDAY = datetime(2024, 1, 1, 9, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
COUNTS = st.lists(st.integers(min_value=0, max_value=10**9), min_size=7, max_size=40)


def series(rows: Sequence[int], step: timedelta = HOUR) -> list[Volume]:
    """Oldest first, from a Monday morning on."""
    return [Volume(MONDAY + index * step, count) for index, count in enumerate(rows)]


def judged(rows: int, earlier: Sequence[Volume], step: timedelta = HOUR, **options: Any) -> Outcome:
    at = earlier[-1].at + step if earlier else MONDAY
    return judge_volume(Volume(at, rows), earlier, VolumeOptions(**options))


USUAL = (100, 104, 98, 101, 99, 103, 97, 102)


@pytest.mark.parametrize(
    ("rows", "earlier", "passed"),
    [
        (100, USUAL, True),
        (50, USUAL, False),
        (200, USUAL, False),
        (0, USUAL, False),
        (0, (100, 104), True),
        (0, (3, 1, 2, 5, 1, 2, 4), False),
        (0, (100, 0, 90, 110, 0, 95, 105, 0, 100, 102, 98), True),
        (900, (0, 0, 12_000, 0, 0, 0, 0, 0), True),
        (0, (0, 0, 12_000, 0, 0, 0, 0, 0), True),
        (100, (100,) * 7, True),
        (50, (100,) * 7, False),
    ],
    ids=[
        "as usual", "halved", "doubled", "silent", "still learning", "a small stream falls silent",
        "sometimes silent", "mostly silent, then rows", "mostly silent, silent again", "constant", "constant, halved",
    ],
)  # fmt: skip
def test_a_sync_is_judged_against_the_band_of_the_others(rows: int, earlier: Sequence[int], passed: bool) -> None:
    assert judged(rows, series(earlier)).passed is passed


def test_the_verdict_explains_itself_with_band_sample_and_minimum() -> None:
    outcome = judged(50, series(USUAL))

    assert outcome.explanation == (
        "50 rows, below the expected 67 to 141 (median 100 of 8 other syncs, at least 7 needed)"
    )
    assert judged(5, series([1])).explanation == "5 rows; learning: 1 of 7 earlier syncs"


def test_what_is_plotted_changes_from_sync_to_sync_and_the_picture_is_text() -> None:
    measured = judged(50, series((*USUAL[:3], 0, *USUAL[4:]))).measured

    numbers = {name for name, value in measured.items() if isinstance(value, int | float)}
    assert numbers == {"rows", "expected_low", "expected_high", "median"}
    assert measured["plot"].startswith("`███·████▄` 2024-01-01 09:00 to 2024-01-01 17:00, top 104")


def test_a_quiet_weekend_is_compared_with_weekends() -> None:
    weeks = [1000 if day % 7 < 5 else 100 for day in range(8 * 7)]
    days = series(weeks[:-2], DAY)

    saturday = judged(100, days, DAY)

    assert saturday.passed
    assert saturday.explanation.endswith("of 7 other syncs on Saturdays, at least 7 needed)")
    assert not judged(1000, days, DAY).passed
    assert not judged(100, series(weeks[:-3], DAY), DAY).passed


def test_with_few_weeks_a_second_saturday_is_like_the_first() -> None:
    days = series([1000] * 5 + [100, 100] + [1000] * 5, DAY)

    assert judged(104, days, DAY).passed
    assert not judged(5, days, DAY).passed


def test_hours_of_the_night_are_compared_with_hours_of_the_night() -> None:
    by_hour = series([900 if 8 <= (9 + hour) % 24 < 20 else 30 for hour in range(24 * 14)])
    night = [volume for volume in by_hour if volume.at < MONDAY + 13 * DAY + 16 * HOUR]

    assert judged(31, night).passed
    assert not judged(900, night).passed


def test_steady_growth_is_no_anomaly_and_a_drop_in_it_is_one() -> None:
    growing = [round(1000 * 1.02**day) for day in range(70)]
    days = series(growing[:-1], DAY)

    assert judged(growing[-1], days, DAY).passed
    assert not judged(growing[-1] // 2, days, DAY).passed


def test_an_outage_does_not_become_the_usual() -> None:
    days = series([1000 + day % 7 for day in range(50)] + [0] * 4, DAY)

    assert not judged(0, days, DAY).passed
    assert judged(1000, days, DAY).passed


def test_declared_holidays_are_compared_with_each_other_and_with_nobody_else() -> None:
    rows = [300 if day % 6 == 5 else 1000 for day in range(66)]
    days = series(rows[:-1], DAY)
    dates = frozenset(volume.at.date() for volume in series(rows, DAY) if volume.rows == 300)

    undeclared = judged(300, days[:30], DAY)
    holiday = judged(310, days, DAY, holidays=dates)

    assert not judged(300, days[:29], DAY).passed, "an undeclared one is an alarm"
    assert undeclared.measured["median"] == 1000
    assert holiday.passed
    assert holiday.explanation == (
        "310 rows, inside the expected 201 to 420 (median 300 of 10 other syncs on holidays, at least 7 needed)"
    )
    assert not judged(1000, days, DAY, holidays=dates).passed
    # the day after one is an ordinary day, and a working day with a holiday's rows is no holiday
    assert judged(1000, series(rows, DAY), DAY, holidays=dates).passed
    assert not judged(300, series(rows, DAY), DAY, holidays=dates).passed


@pytest.mark.parametrize(("rows", "passed"), [(300, True), (1000, True), (0, False), (5000, False)])
def test_a_first_holiday_may_be_quiet_but_neither_silent_nor_loud(rows: int, passed: bool) -> None:
    days = series([1000] * 30, DAY)
    outcome = judged(rows, days, DAY, holidays=["01-31"])

    assert outcome.passed is passed
    assert outcome.explanation.endswith("; a holiday may be quiet")
    assert judged(300, days, DAY, holidays=["02-01"]).passed is False


def test_options_of_the_file_decide() -> None:
    assert judged(110, series(USUAL), sensitivity=0.5).passed is False
    assert judged(5, series((100, 100, 100)), minimum=3).passed is False
    assert judged(50, series(USUAL), history=timedelta(days=1)).passed is False
    old = [Volume(volume.at - 80 * DAY, volume.rows) for volume in series(USUAL)]
    assert judge_volume(Volume(MONDAY, 50), old, VolumeOptions()).passed is True


@given(COUNTS)
def test_the_median_of_any_history_is_never_an_anomaly(counts: list[int]) -> None:
    # all within one hour, so that all are neighbours and none has another level
    minutes = [Volume(MONDAY + timedelta(seconds=index), count) for index, count in enumerate(counts)]
    middle = sorted(counts)[len(counts) // 2]

    assert judged(middle, minutes, timedelta(seconds=1)).passed


@given(COUNTS, st.integers(min_value=0, max_value=10**9), st.randoms())
def test_the_order_in_which_the_history_is_given_changes_nothing(counts: list[int], rows: int, dice: Any) -> None:
    earlier = series(counts)
    shuffled = dice.sample(earlier, len(earlier))
    now = Volume(earlier[-1].at + HOUR, rows)

    assert judge_volume(now, shuffled, VolumeOptions()) == judge_volume(now, earlier, VolumeOptions())


@given(COUNTS, st.integers(min_value=0, max_value=10**9), st.floats(min_value=4, max_value=20))
def test_less_sensitivity_never_finds_more(counts: list[int], rows: int, sensitivity: float) -> None:
    earlier = series(counts)

    assert judged(rows, earlier).passed <= judged(rows, earlier, sensitivity=sensitivity).passed


@given(COUNTS)
def test_a_stream_that_was_never_empty_may_not_fall_silent(counts: list[int]) -> None:
    assert not judged(0, series([count + 1 for count in counts])).passed
