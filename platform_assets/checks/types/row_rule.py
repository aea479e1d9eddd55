"""Do all rows lie within bounds? Judged by the engine before anything is published.

checks: [{type: row_rule, column: distance, min: 0}]
"""

from typing import Self

from pydantic import model_validator

from connectors.specs import StreamSpec
from connectors.sync import Verdict
from platform_assets.checks.contract import CheckType, Observation, Options


class RowRuleOptions(Options):
    """A row breaks the rule when the column is under `min`, over `max`, or does not match `pattern`; NULL is fine.

    pattern: a regular expression of PostgreSQL, searched.
    """

    column: str
    min: float | str | None = None
    max: float | str | None = None
    pattern: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None and self.pattern is None:
            raise ValueError("needs min, max or pattern")
        return self


def evaluate(observation: Observation, options: RowRuleOptions) -> Verdict:
    """Without the engine's verdict there was no row to judge, or the rule was not run: then it fails."""
    rows = observation.result.rows.loaded
    said = f"no row to judge in {options.column}" if rows == 0 else f"the rule on {options.column} was not run"
    return Verdict(
        "row_rule", passed=rows == 0, severity="warn", blocking=False, explanation=said, measured={"rows": 0}
    )


def _on_demand(_stream: StreamSpec) -> bool:
    return False


CHECK = CheckType(
    name="row_rule",
    description="All rows lie within the declared bounds.",
    options=RowRuleOptions,
    applies_to=_on_demand,
    evaluate=evaluate,
    severity="error",
    is_audit=True,
)
