"""Did records break the contract? They wait in `ops.quarantine`; the sync went on below `max_quarantined`.

Above the limit the engine fails the sync before anything of the window is published, with a verdict of this name.

checks: [{type: quarantine, max_share: 0.01}]
"""

from pydantic import Field

from connectors.specs import Spec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, every_stream


class QuarantineOptions(Spec):
    """max_share: of this sync's records; by default any is too many. What fails a sync is its `max_quarantined`."""

    max_share: float = Field(default=0.0, ge=0, le=1)


def evaluate(observation: Observation, options: QuarantineOptions) -> Verdict:
    """Passes when this sync refused no more than the share."""
    rows, result = observation.result.rows, observation.result
    share = rows.quarantined / rows.extracted if rows.extracted else 0.0
    fine = f", {options.max_share:.2%} is fine" if options.max_share else ""
    look = f". See `headwater quarantine list {result.source}.{result.stream}`" if rows.quarantined else ""
    return Verdict(
        "quarantine",
        passed=share <= options.max_share,
        severity="warn",
        blocking=False,
        explanation=f"{rows.quarantined} of {rows.extracted} records break the contract{fine}{look}",
        measured={"quarantined": rows.quarantined, "rows": rows.extracted, "share": round(share, 6)},
    )


CHECK = CheckType(
    name="quarantine",
    description="No record of this sync broke the contract; above max_quarantined nothing is published.",
    options=QuarantineOptions,
    applies_to=every_stream,
    evaluate=evaluate,
    severity="warn",
)
