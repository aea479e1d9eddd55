"""Do all rows lie within bounds?

checks: [{type: row_rule, column: distance, min: 0}]
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import gone, one_number
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Staged, Whole, nothing_to_judge


class RowRuleOptions(Spec):
    """A row breaks the rule when the column is under `min`, over `max`, or does not match `pattern`; NULL is fine.

    pattern: a regular expression of PostgreSQL, searched.
    """

    column: str
    min: int | float | str | None = None
    max: int | float | str | None = None
    pattern: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.bounds:
            raise ValueError("needs min, max or pattern")
        return self

    @property
    def bounds(self) -> Mapping[str, float | str]:
        named = {"min": self.min, "max": self.max, "pattern": self.pattern}
        return {key: value for key, value in named.items() if value is not None}


class _RowRule(Judge):
    """Counts over all publications of the sync."""

    reads_rows = True
    is_whole = False

    def __init__(self, options: RowRuleOptions, _stream: StreamSpec) -> None:
        self._options = options
        self._bad = 0

    def staged(self, staged: Staged) -> Outcome:
        from psycopg.sql import SQL, Composable, Identifier

        options = self._options
        column = staged.schema.name_of(options.column)
        if column not in staged.tables.columns:
            return Outcome(False, f"column {options.column!r} is not in the data")
        operators = {"min": SQL("<"), "max": SQL(">"), "pattern": SQL("!~")}
        tests: list[Composable] = [SQL("{} {} %s").format(Identifier(column), operators[key]) for key in options.bounds]
        query = SQL("select count(*) from {} where {}").format(staged.tables.staged, SQL(" or ").join(tests))
        values: list[Any] = list(options.bounds.values())
        self._bad += one_number(staged.connection, query, values)
        said = ", ".join(f"{key} {value}" for key, value in options.bounds.items())
        return Outcome(self._bad == 0, f"{self._bad} rows with {column} outside {said}", {"rows": self._bad})

    def concluded(self, whole: Whole) -> Outcome | None:
        return gone(whole, self._options.column)


CHECK = AuditCheck(
    name="row_rule",
    description="All rows lie within the declared bounds.",
    options=RowRuleOptions,
    judge=_RowRule,
    severity="error",
    unjudged=nothing_to_judge("the bounds of the column"),
    blocks=True,
)
