"""Did records break the contract? They wait in `ops.quarantine`; the sync went on below `max_quarantined`.

Above the limit the engine fails the sync before anything of the window is published, with a verdict of this name.
"""

from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, Options, every_stream


class QuarantineOptions(Options):
    """None: the limits are the stream's `max_quarantined`."""


def evaluate(observation: Observation, options: QuarantineOptions) -> Verdict:
    """Passes when this sync refused no record."""
    rows, result = observation.result.rows, observation.result
    share = rows.quarantined / rows.extracted if rows.extracted else 0.0
    look = f". See `headwater quarantine list {result.source}.{result.stream}`" if rows.quarantined else ""
    return Verdict(
        "quarantine",
        passed=rows.quarantined == 0,
        severity="warn",
        blocking=False,
        explanation=f"{rows.quarantined} of {rows.extracted} records break the contract{look}",
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
