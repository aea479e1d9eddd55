"""Is this number of rows usual for this hour of this weekday? Pure arithmetic, no warehouse.

A sync is compared with its seasonal neighbours: syncs at the same hour of the same weekday; where there are too few,
at the same hour of working days or of weekends, then at the same hour, then with all. Each neighbour is brought to
today's level (the median of the seven days before each), so that growth is no anomaly. The band is `sensitivity`
robust deviations around the neighbours' median; below it they are taken as a ratio, for rows cannot be negative. The
robust deviation is 1.4826 x MAD, which equals the standard deviation for normal noise (Rousseeuw and Croux, 1993),
widened for small samples, and never less than `tolerance` of the median, than the median's square root (what counting
alone varies by), or than one row.

Declared holidays are nobody's neighbours but each other's. Where they are too few, a holiday may be quiet, not silent.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import exp
from statistics import median
from typing import Annotated, Any

from pydantic import Field, field_validator

from connectors.specs import Spec
from connectors.sync.checks.contract import Outcome

MAD_TO_DEVIATION = 1.4826
OFTEN_EMPTY_SHARE, OFTEN_EMPTY_SYNCS = 0.2, 2
LEVEL_DAYS, LEVEL_SAMPLE, LARGEST_STEP = timedelta(days=7), 5, 4.0
"""The level is the median of so many days, of at least so many syncs with rows, so that an outage is no level; it
moves a neighbour by this factor at most."""
_SAME_HOUR, _DAY, _WEEK = 30, 24 * 60, 7 * 24 * 60
_DAYS = ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays")
_BARS = "▁▂▃▄▅▆▇█"
PLOTTED = 30
_LEAP_YEAR = 2024


class VolumeOptions(Spec):
    """How far is too far.

    sensitivity: robust deviations on either side of the median.
    history: how far back neighbours are looked for.
    minimum: with fewer neighbours of the widest kind the check passes and says that it is still learning.
    tolerance: smallest deviation, as a share of the median, for streams that hardly vary.
    holidays: days unlike any other: a date, or `12-25` for that day of every year.
    """

    sensitivity: float = Field(default=4.0, gt=0)
    history: timedelta = Field(default=timedelta(days=70), ge=timedelta(days=1), le=timedelta(days=400))
    minimum: int = Field(default=7, ge=3, le=100)
    tolerance: float = Field(default=0.1, ge=0, le=1)
    holidays: frozenset[date | Annotated[str, Field(pattern=r"^(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$")]] = frozenset()

    @field_validator("holidays")
    @classmethod
    def _are_days(cls, value: frozenset[date | str]) -> frozenset[date | str]:
        for day in sorted(one for one in value if isinstance(one, str)):
            try:
                date.fromisoformat(f"{_LEAP_YEAR}-{day}")
            except ValueError:
                raise ValueError(f"{day!r} is no day of any year") from None
        return value

    def has_holiday(self, at: datetime) -> bool:
        return at.date() in self.holidays or f"{at:%m-%d}" in self.holidays


@dataclass(frozen=True, slots=True)
class Volume:
    """One observation. at: aware, in the time zone whose weekdays and hours count; a partition's start, else the
    sync's. rows: that arrived."""

    at: datetime
    rows: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """words: what they have in common, e.g. `on Mondays at 09:00`."""

    words: str
    volumes: tuple[Volume, ...]


@dataclass(frozen=True, slots=True)
class Band:
    low: float
    middle: float
    high: float

    def holds(self, rows: int) -> bool:
        return self.low <= rows <= self.high


def judge_volume(now: Volume, others: Sequence[Volume], options: VolumeOptions) -> Outcome:
    """One sync's rows against the band of its neighbours among the others, in any order."""
    near = sorted((other for other in others if abs(other.at - now.at) <= options.history), key=lambda other: other.at)
    measured: dict[str, Any] = {"rows": now.rows, "plot": plot(now, near)}
    usual = [other for other in near if not options.has_holiday(other.at)]
    groups = list(seasons(now, usual))
    holidays = _holidays(now, near, options) if options.has_holiday(now.at) else None
    if holidays is not None:
        groups.insert(0, holidays)
    often_empty = is_often_empty(groups[-1].volumes)
    chosen = next((group for group in groups if _sample(group, often_empty) >= options.minimum), None)
    if chosen is None:
        kind = "earlier syncs with rows" if often_empty else "earlier syncs"
        learning = f"{now.rows} rows; learning: {_sample(groups[-1], often_empty)} of {options.minimum} {kind}"
        return Outcome(True, learning, measured)
    sample = [volume for volume in chosen.volumes if volume.rows or not often_empty]
    band = band_of(levelled(now, sample, usual), options)
    may_be_quiet = holidays is not None and chosen is not holidays
    if often_empty or may_be_quiet:
        band = Band(0.0 if often_empty else min(band.low, 1.0), band.middle, band.high)
    passed = band.holds(now.rows) or _is_like_finer(now, groups[: groups.index(chosen)], options)
    side = "inside" if band.holds(now.rows) else "below" if now.rows < band.low else "above"
    if passed and side != "inside":
        side = "like one of the few nearer syncs, though outside"
    syncs = f"{len(sample)} other syncs{' with rows' if often_empty else ''}{chosen.words}"
    return Outcome(
        passed,
        f"{now.rows} rows, {side} the expected {band.low:.0f} to {band.high:.0f} "
        f"(median {band.middle:.0f} of {syncs}, at least {options.minimum} needed)"
        f"{'; a holiday may be quiet' if may_be_quiet else ''}",
        {**measured, "expected_low": round(band.low), "expected_high": round(band.high), "median": round(band.middle)},
    )


def seasons(now: Volume, others: Sequence[Volume]) -> Iterator[Neighbours]:
    """From the nearest kind of neighbour to all of them; a kind that is everybody is left to the last."""
    is_weekend = now.at.weekday() >= 5
    at_hour = _at_hour(now, others)
    hour = "" if len(at_hour) == len(others) else f" at {now.at:%H}:00"
    on_day = [other for other in at_hour if _apart(_minute(other), _minute(now), _WEEK) <= _SAME_HOUR]
    of_kind = [other for other in at_hour if (other.at.weekday() >= 5) == is_weekend]
    kinds = (
        (on_day, f" on {_DAYS[now.at.weekday()]}{hour}"),
        (of_kind, f" on {'weekends' if is_weekend else 'working days'}{hour}"),
        (at_hour, hour),
    )
    for volumes, words in kinds:
        if len(volumes) < len(others):
            yield Neighbours(words, tuple(volumes))
    yield Neighbours("", tuple(others))


def _holidays(now: Volume, others: Sequence[Volume], options: VolumeOptions) -> Neighbours:
    """The other holidays, at the same hour."""
    found = _at_hour(now, [other for other in others if options.has_holiday(other.at)])
    return Neighbours(" on holidays", tuple(found))


def _at_hour(now: Volume, others: Sequence[Volume]) -> list[Volume]:
    return [other for other in others if _apart(_minute(other) % _DAY, _minute(now) % _DAY, _DAY) <= _SAME_HOUR]


def _minute(volume: Volume) -> int:
    return volume.at.weekday() * _DAY + volume.at.hour * 60 + volume.at.minute


def _apart(left: int, right: int, cycle: int) -> int:
    distance = abs(left - right)
    return min(distance, cycle - distance)


def is_often_empty(volumes: Sequence[Volume]) -> bool:
    """A fifth of the syncs brought nothing, and two at least: then silence says nothing."""
    empty = sum(1 for volume in volumes if not volume.rows)
    return empty >= max(OFTEN_EMPTY_SYNCS, OFTEN_EMPTY_SHARE * len(volumes))


def _sample(group: Neighbours, often_empty: bool) -> int:
    return sum(1 for volume in group.volumes if volume.rows or not often_empty)


def levelled(now: Volume, sample: Sequence[Volume], others: Sequence[Volume]) -> list[float]:
    """The sample's rows at today's level; `others` in order of time."""
    times = [other.at for other in others]

    def level(at: datetime) -> float:
        week = others[bisect_left(times, at - LEVEL_DAYS) : bisect_left(times, at)]
        counts = [volume.rows for volume in week if volume.rows]
        return float(median(counts)) if len(counts) >= LEVEL_SAMPLE else 0.0

    today = level(now.at)

    def step(volume: Volume) -> float:
        if abs(now.at - volume.at) < LEVEL_DAYS:
            return 1.0
        then = level(volume.at)
        return min(max(today / then, 1 / LARGEST_STEP), LARGEST_STEP) if today and then else 1.0

    return [volume.rows * step(volume) for volume in sample]


def band_of(sample: Sequence[float], options: VolumeOptions) -> Band:
    """`sensitivity` robust deviations around the median; from 1 up where no neighbour was ever empty."""
    middle = float(median(sample))
    spread = float(median(abs(value - middle) for value in sample))
    # a small sample's MAD is too small on average
    widened = len(sample) / (len(sample) - 0.8)
    deviation = max(MAD_TO_DEVIATION * spread * widened, options.tolerance * middle, middle**0.5, 1.0)
    floor = 1.0 if min(sample) > 0 else 0.0
    reach = options.sensitivity * deviation
    low = middle * exp(-reach / middle) if middle else 0.0
    return Band(max(floor, low), middle, middle + reach)


def _is_like_finer(now: Volume, finer: Sequence[Neighbours], options: VolumeOptions) -> bool:
    """Like one of the nearer neighbours, too few for a band of their own: the second Saturday is like the first."""
    slack = options.tolerance * options.sensitivity
    return any(
        volume.rows * (1 - slack) <= now.rows <= volume.rows * (1 + slack) and volume.rows
        for group in finer
        for volume in group.volumes
    )


def plot(now: Volume, others: Sequence[Volume]) -> str:
    """The last observations as bars on a scale from zero, this one last; Markdown that any page shows."""
    before = [other for other in others if other.at < now.at][-PLOTTED:]
    shown = [*before, now]
    top = max(volume.rows for volume in shown) or 1
    bars = "".join(_bar(volume.rows / top) for volume in shown)
    return f"`{bars}` {shown[0].at:%Y-%m-%d %H:%M} to {now.at:%Y-%m-%d %H:%M}, top {top:,}, `·` is empty"


def _bar(share: float) -> str:
    return _BARS[min(int(share * len(_BARS)), len(_BARS) - 1)] if share else "·"
