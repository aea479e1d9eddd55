"""Do all rows lie within bounds?

checks: [{type: row_rule, column: distance, min: 0}]
"""

import re
import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, model_validator

from connectors.column_spec import ColumnSpec, ColumnType
from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import gone, one_number
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Staged, Whole, nothing_to_judge
from connectors.sync.checks.options import StoredColumn, stream_of

_NUMBERS: tuple[ColumnType, ...] = ("bigint", "double", "decimal")
_TIMES: tuple[ColumnType, ...] = ("timestamp", "date", "time")
_WRONG_IN_ANY_DIALECT = (
    "missing ), unterminated", "unbalanced parenthesis", "unterminated character set", "bad character range",
    "nothing to repeat", "bad escape (end of pattern)",
)  # fmt: skip


def _bound(value: object) -> object:
    """YAML reads an unquoted date as one."""
    if isinstance(value, date):
        return value.isoformat()
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        raise ValueError("is a number, or a text such as a date")
    return value


def _readable(pattern: str) -> str:
    """PostgreSQL's dialect is read by PostgreSQL alone; refused here is what no dialect takes.

    `***` begins a pattern of another one.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile("" if pattern.startswith("***") else pattern)
    except re.error as error:
        if error.msg.startswith(_WRONG_IN_ANY_DIALECT):
            raise ValueError(f"is no regular expression: {error}") from error
    return pattern


Bound = Annotated[int | float | str | None, BeforeValidator(_bound)]


class RowRuleOptions(Spec):
    """A row breaks the rule when the column is under `min`, over `max`, or does not match `pattern`; NULL is fine.

    pattern: a regular expression of PostgreSQL, searched.
    """

    column: StoredColumn
    min: Bound = None
    max: Bound = None
    pattern: Annotated[str, AfterValidator(_readable)] | None = None

    @model_validator(mode="after")
    def _says_something(self, info: ValidationInfo) -> Self:
        if not self.bounds:
            raise ValueError("needs min, max or pattern")
        stream = stream_of(info)
        spec = stream.columns.get(self.column, ColumnSpec()) if stream is not None else ColumnSpec()
        kind = "text" if spec.rewrites else spec.type
        self._refuse_other_types(spec, kind)
        if self.min is not None and self.max is not None:
            low, high = _comparable(self.min, kind), _comparable(self.max, kind)
            if low is not None and high is not None and type(low) is type(high) and low > high:
                raise ValueError(f"min {self.min} is above max {self.max}: every row breaks one of them")
        return self

    def _refuse_other_types(self, spec: ColumnSpec, kind: ColumnType | None) -> None:
        """Bounds that PostgreSQL cannot compare with the column."""
        column = f"columns.{self.column}"
        if spec.rule == "hash":
            raise ValueError(f"{column}.rule: hash leaves nothing that could be judged")
        if kind in ("json", "binary", "bool"):
            raise ValueError(f"{column}.type: {kind} has no bounds")
        if self.pattern is not None and kind not in (None, "text"):
            raise ValueError(f"pattern is for texts, and {column}.type is {kind}")
        for name, bound in (("min", self.min), ("max", self.max)):
            if bound is None:
                continue
            if kind == "text" and not isinstance(bound, str):
                raise ValueError(f"{name} {bound} is no text, and {column} is stored as text; put it in quotes")
            if kind in _TIMES and not isinstance(bound, str):
                raise ValueError(f"{name} {bound} is no time, and {column}.type is {kind}")
            if kind in _NUMBERS and _comparable(bound, kind) is None:
                raise ValueError(f"{name} {bound} does not fit {column}.type: {kind}")

    @property
    def bounds(self) -> Mapping[str, float | str]:
        named = {"min": self.min, "max": self.max, "pattern": self.pattern}
        return {key: value for key, value in named.items() if value is not None}


def _comparable(bound: float | str, kind: ColumnType | None) -> Any:
    """The bound as Python orders it like PostgreSQL; None for a text, whose order is the database's own."""
    if isinstance(bound, int | float) or kind in _NUMBERS:
        try:
            return Decimal(int(bound) if kind == "bigint" and isinstance(bound, str) else str(bound))
        except (InvalidOperation, ValueError):
            return None
    if kind == "text":
        return None
    try:
        moment = datetime.fromisoformat(bound)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
