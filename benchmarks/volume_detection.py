"""Which syncs of synthetic histories does `volume_anomaly` call anomalies, and which a z-score?

Prints one JSON line: precision, recall and false alarms for each scenario and overall. The z-score is the usual first
attempt: mean and standard deviation of the last 30 syncs that brought rows, an anomaly beyond three deviations; an
empty sync is not judged. `z_score_with_empty` takes empty syncs for syncs. Histories are drawn from fixed seeds, so the
figures are the same everywhere.

A scenario is a stream by the day (200 days, 20 seeds) and one by the hour (70 days, 2 seeds): a weekly and a daily
rhythm, noise of 10 % beside that of counting, and faults on about 2 % of the syncs. Judged from the fifteenth day on. A
holiday is no fault, so every alarm on one is a false alarm; in `holidays_declared` the check knows them. What comes
in a heap after an outage is not judged.

    python -m benchmarks.volume_detection [--seeds 20]
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from statistics import fmean, pstdev

from benchmarks.support import Target
from connectors.sync.volume import Volume, VolumeOptions, judge_volume

START = datetime(2024, 1, 1, tzinfo=UTC)
LEARNING = timedelta(days=14)
NOISE, FAULTS = 0.1, 0.02
Z_SAMPLE, Z_LIMIT = 30, 3.0
OURS = "volume_anomaly"
Detector = Callable[[Sequence[Volume], Volume, VolumeOptions], bool]


@dataclass(slots=True)
class History:
    """volumes: in order. faults: their indexes. ignored: indexes that are not scored. holidays: the declared ones."""

    volumes: list[Volume] = field(default_factory=list[Volume])
    faults: set[int] = field(default_factory=set[int])
    ignored: set[int] = field(default_factory=set[int])
    holidays: frozenset[date] = frozenset()


@dataclass(slots=True)
class Score:
    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    judged: int = 0

    def add(self, *, is_fault: bool, is_alarm: bool) -> None:
        self.judged += 1
        self.hits += is_fault and is_alarm
        self.misses += is_fault and not is_alarm
        self.false_alarms += is_alarm and not is_fault

    def __iadd__(self, other: "Score") -> "Score":
        self.hits += other.hits
        self.misses += other.misses
        self.false_alarms += other.false_alarms
        self.judged += other.judged
        return self

    def told(self) -> Mapping[str, float | int]:
        alarms, faults = self.hits + self.false_alarms, self.hits + self.misses
        return {
            "precision": round(self.hits / alarms, 3) if alarms else 1.0,
            "recall": round(self.hits / faults, 3) if faults else 1.0,
            "faults": faults,
            "hits": self.hits,
            "false_alarms": self.false_alarms,
            "judged": self.judged,
        }


def expected(at: datetime, *, weekend: float, is_hourly: bool) -> float:
    """Rows of a usual sync: 500 an hour around noon, 10,000 a day."""
    by_day = weekend if at.weekday() >= 5 else 1.0
    if not is_hourly:
        return 10_000 * by_day
    return 500 * by_day * (1.1 - math.cos(2 * math.pi * (at.hour - 3) / 24))


def usual(dice: random.Random, *, is_hourly: bool, weekend: float = 0.6, growth: float = 0.0) -> History:
    history = History()
    step = timedelta(hours=1) if is_hourly else timedelta(days=1)
    for index in range(70 * 24 if is_hourly else 200):
        at = START + index * step
        middle = expected(at, weekend=weekend, is_hourly=is_hourly) * (1 + growth) ** ((at - START).days)
        noisy = middle * math.exp(dice.gauss(0, NOISE)) + dice.gauss(0, math.sqrt(middle))
        history.volumes.append(Volume(at, max(0, round(noisy))))
    return history


def change(history: History, index: int, factor: float) -> None:
    was = history.volumes[index]
    history.volumes[index] = Volume(was.at, round(was.rows * factor))


def strewn(dice: random.Random, history: History, *factors: float) -> History:
    """Faults on single syncs."""
    for index in range(len(history.volumes)):
        if dice.random() < FAULTS:
            change(history, index, dice.choice(factors))
            history.faults.add(index)
    return history


def spikes(dice: random.Random, is_hourly: bool) -> History:
    return strewn(dice, usual(dice, is_hourly=is_hourly), 2.5, 4.0)


def drops(dice: random.Random, is_hourly: bool) -> History:
    return strewn(dice, usual(dice, is_hourly=is_hourly), 0.5, 0.2, 0.0)


def trends(dice: random.Random, is_hourly: bool) -> History:
    """Doubles in ten weeks, or halves."""
    growth = dice.choice((0.01, -0.01))
    return strewn(dice, usual(dice, is_hourly=is_hourly, growth=growth), 0.4, 2.5)


def weekends(dice: random.Random, is_hourly: bool) -> History:
    """A tenth of the rows on weekends; one fault is a weekend with a working day's rows."""
    history = usual(dice, is_hourly=is_hourly, weekend=0.1)
    for index, volume in enumerate(history.volumes):
        if dice.random() < FAULTS:
            change(history, index, 10.0 if volume.at.weekday() >= 5 else 0.1)
            history.faults.add(index)
    return history


def holidays(dice: random.Random, is_hourly: bool, *, are_declared: bool = False) -> History:
    """Every twentieth day or so is a holiday with three tenths of the rows, which is no fault."""
    history = usual(dice, is_hourly=is_hourly)
    days = {day for day in range(200) if dice.random() < 0.05}
    if are_declared:
        history.holidays = frozenset((START + timedelta(days=day)).date() for day in days)
    for index, volume in enumerate(history.volumes):
        if (volume.at - START).days in days:
            change(history, index, 0.3)
            continue
        if dice.random() < FAULTS:
            change(history, index, dice.choice((0.0, 3.0)))
            history.faults.add(index)
    return history


def outages(dice: random.Random, is_hourly: bool) -> History:
    """Some days of silence, then all that was missed at once; the silence is a fault, the heap is not judged."""
    history = usual(dice, is_hourly=is_hourly)
    length = 30 if is_hourly else 2
    for _ in range(3):
        begin = dice.randrange(len(history.volumes) // 5, len(history.volumes) - length - 1)
        missed = 0
        for index in range(begin, begin + length):
            missed += history.volumes[index].rows
            change(history, index, 0.0)
            history.faults.add(index)
        heap = begin + length
        history.volumes[heap] = Volume(history.volumes[heap].at, history.volumes[heap].rows + missed)
        history.ignored.add(heap)
        history.faults.discard(heap)
    return history


def halved(dice: random.Random, is_hourly: bool) -> History:
    """From one day on half of the rows come. The first two days are faults; later ones may be the new usual."""
    history = usual(dice, is_hourly=is_hourly)
    a_day = 24 if is_hourly else 1
    begin = dice.randrange(len(history.volumes) // 2, len(history.volumes) * 9 // 10)
    for index in range(begin, len(history.volumes)):
        change(history, index, 0.5)
        (history.faults if index < begin + 2 * a_day else history.ignored).add(index)
    return history


SCENARIOS: Mapping[str, Callable[[random.Random, bool], History]] = {
    "spikes": spikes, "drops": drops, "trends": trends, "weekends": weekends, "holidays": holidays,
    "holidays_declared": partial(holidays, are_declared=True), "outages": outages, "halved": halved,
}  # fmt: skip


def robust(history: Sequence[Volume], now: Volume, options: VolumeOptions) -> bool:
    return not judge_volume(now, history, options).passed


def z_score(history: Sequence[Volume], now: Volume, _options: VolumeOptions, *, has_empty: bool = False) -> bool:
    sample = [volume.rows for volume in history[-2 * Z_SAMPLE :] if volume.rows or has_empty][-Z_SAMPLE:]
    if (not now.rows and not has_empty) or len(sample) < Z_SAMPLE:
        return False
    deviation = pstdev(sample)
    return deviation > 0 and abs(now.rows - fmean(sample)) / deviation > Z_LIMIT


def scored(history: History, is_alarm: Detector) -> Score:
    score, options = Score(), VolumeOptions(holidays=history.holidays)
    longest = 70 * 24
    for index, now in enumerate(history.volumes):
        if now.at - START < LEARNING or index in history.ignored:
            continue
        before = history.volumes[max(0, index - longest) : index]
        score.add(is_fault=index in history.faults, is_alarm=is_alarm(before, now, options))
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    detectors: dict[str, Detector] = {
        OURS: robust,
        "z_score": z_score,
        "z_score_with_empty": partial(z_score, has_empty=True),
    }
    total = {name: Score() for name in detectors}
    scenarios: dict[str, dict[str, Mapping[str, float | int]]] = {}
    for name, scenario in SCENARIOS.items():
        scores = {detector: Score() for detector in detectors}
        for seed in range(options.seeds):
            for is_hourly in (False, True):
                # by the hour a seed costs ten times as much and has as many more syncs
                if is_hourly and seed >= max(1, options.seeds // 10):
                    continue
                history = scenario(random.Random(f"{name} {seed} {is_hourly}"), is_hourly)  # noqa: S311 (no secret)
                for detector, is_alarm in detectors.items():
                    scores[detector] += scored(history, is_alarm)
        for detector, score in scores.items():
            total[detector] += score
        scenarios[name] = {detector: score.told() for detector, score in scores.items()}
    overall = {detector: score.told() for detector, score in total.items()}
    # undeclared holidays cannot be told from faults, so what is claimed leaves their false alarms out
    alarms = sum(int(found[OURS]["false_alarms"]) for name, found in scenarios.items() if name != "holidays")
    hits = sum(int(found[OURS]["hits"]) for name, found in scenarios.items() if name != "holidays")
    targets = [
        Target("recall over all scenarios", float(overall[OURS]["recall"]), 0.85, is_minimum=True),
        Target(
            "precision over all scenarios but undeclared holidays",
            round(hits / (hits + alarms), 3),
            0.85,
            is_minimum=True,
        ),
    ]
    line = {
        "benchmark": "volume_detection",
        "claim": "Faults in the number of rows are found, and little else.",
        "size": f"{total[OURS].judged:,} syncs",
        "seeds": options.seeds,
        "overall": overall,
        "scenarios": scenarios,
        "paths": [],
        "targets": [asdict(target) | {"is_met": target.is_met} for target in targets],
        "is_met": all(target.is_met for target in targets),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
