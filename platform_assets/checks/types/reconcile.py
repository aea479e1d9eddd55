"""Did we read as many rows as the source says there are? Judged by the engine before anything is published.

On every stream whose source states a total (`total` of a rest stream), as a warning; declared in the file it blocks.
"""

from typing import Literal

from connectors.specs import StreamSpec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, Options


class ReconcileOptions(Options):
    """against: what the source is asked for; its row count."""

    against: Literal["count"] = "count"


def evaluate(observation: Observation, options: ReconcileOptions) -> Verdict:
    """Without the engine's verdict the source gave no total: fine for an empty sync, else a failure."""
    rows = observation.result.rows.extracted
    return Verdict(
        "reconcile",
        passed=rows == 0,
        severity="warn",
        blocking=False,
        explanation=f"the source did not say how many rows there are, {rows} were read",
        measured={"rows": rows},
    )


def _states_total(stream: StreamSpec) -> bool:
    return getattr(stream, "total", None) is not None


CHECK = CheckType(
    name="reconcile",
    description="As many rows were read as the source says there are.",
    options=ReconcileOptions,
    applies_to=_states_total,
    evaluate=evaluate,
    severity="warn",
    is_audit=True,
)
