"""How many of the last syncs failed? Each retry is one. Judged after failed syncs, too.

checks: [{type: error_rate, max_share: 0.2}]
"""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from connectors.specs import Spec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, History, Observation, on_demand


class ErrorRateOptions(Spec):
    """max_share: of the last so many syncs. minimum: with fewer of them it passes and says that it is learning."""

    max_share: float = Field(default=0.2, ge=0, lt=1)
    last: int = Field(default=20, ge=2, le=100)
    minimum: int = Field(default=5, ge=2, le=100)

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.minimum > self.last:
            raise ValueError(f"minimum {self.minimum} is more than last {self.last}: it would learn for ever")
        return self


def evaluate(observation: Observation, options: ErrorRateOptions) -> Verdict:
    return _judged([True, *(sync.is_good for sync in observation.history.syncs)], options)


def on_failure(history: History, options: ErrorRateOptions) -> Verdict:
    return _judged([sync.is_good for sync in history.syncs], options)


def _judged(good: Sequence[bool], options: ErrorRateOptions) -> Verdict:
    """good: newest first, this sync among them."""
    looked_at = good[: options.last]
    failed = sum(1 for is_good in looked_at if not is_good)
    share = failed / len(looked_at) if looked_at else 0.0
    is_learning = len(looked_at) < options.minimum
    learning = f"; learning: {len(looked_at)} of {options.minimum}" if is_learning else ""
    return Verdict(
        "error_rate",
        passed=is_learning or share <= options.max_share,
        severity="error",
        blocking=False,
        explanation=f"{failed} of the last {len(looked_at)} syncs failed, {options.max_share:.0%} is fine{learning}",
        measured={"failed": failed, "share": round(share, 4)},
    )


CHECK = CheckType(
    name="error_rate",
    description="Few of the last syncs failed.",
    options=ErrorRateOptions,
    applies_to=on_demand,
    evaluate=evaluate,
    severity="warn",
    on_failure=on_failure,
)
