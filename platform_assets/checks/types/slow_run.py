"""Did this sync take much longer than the ones before it?

checks: [{type: slow_run}]
"""

from datetime import timedelta
from statistics import median
from typing import Self

from pydantic import Field, model_validator

from connectors.specs import Spec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, on_demand


class SlowRunOptions(Spec):
    """factor: of the median of the last so many good syncs. minimum: with fewer it passes and says that it is learning.

    slack: a sync that is slower by less than this is never slow; it keeps short syncs quiet.
    """

    factor: float = Field(default=1.5, gt=1)
    last: int = Field(default=30, ge=3, le=100)
    minimum: int = Field(default=7, ge=3, le=100)
    slack: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(0))

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.minimum > self.last:
            raise ValueError(f"minimum {self.minimum} is more than last {self.last}: it would learn for ever")
        return self


def evaluate(observation: Observation, options: SlowRunOptions) -> Verdict:
    seconds = observation.result.seconds
    earlier = [sync.seconds for sync in observation.history.syncs if sync.is_good][: options.last]
    if len(earlier) < options.minimum:
        said = f"{seconds:.1f} s; learning: {len(earlier)} of {options.minimum} earlier syncs"
        return _verdict(True, said, {"seconds": round(seconds, 3)})
    usual = median(earlier)
    limit = max(usual * options.factor, usual + options.slack.total_seconds())
    basis = f"{options.factor:g} x the median {usual:.1f} s of {len(earlier)} earlier syncs"
    return _verdict(
        seconds <= limit,
        f"{seconds:.1f} s, at most {limit:.1f} s is usual ({basis}, at least {options.minimum} needed)",
        {"seconds": round(seconds, 3), "median_seconds": round(usual, 3)},
    )


def _verdict(passed: bool, explanation: str, measured: dict[str, object]) -> Verdict:
    return Verdict("slow_run", passed, "warn", blocking=False, explanation=explanation, measured=measured)


CHECK = CheckType(
    name="slow_run",
    description="The sync took about as long as the last ones.",
    options=SlowRunOptions,
    applies_to=on_demand,
    evaluate=evaluate,
    severity="warn",
)
