"""Does every key come once?

checks: [{type: duplicate_keys}]

A `merge`, `scd2` or `replace` stream keeps the last row of a key, so the raw table is right; the check tells that the
source sent others. An `append` stream keeps them all: there the raw table itself is looked at.
"""

from typing import Any, Self

from pydantic import Field, ValidationInfo, model_validator

from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import one_number
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Staged, Whole, nothing_to_judge
from connectors.sync.checks.options import stream_of


class DuplicateKeysOptions(Spec):
    """max: so many surplus rows are fine."""

    max: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _has_keys(self, info: ValidationInfo) -> Self:
        if (stream := stream_of(info)) is not None and not stream.primary_key:
            raise ValueError("needs a primary_key on the stream; without one no row has a key")
        return self


class _DuplicateKeys(Judge):
    def __init__(self, options: DuplicateKeysOptions, stream: StreamSpec) -> None:
        self._options = options
        self._is_append = (stream.write or "append") == "append"
        self.reads_rows = not self._is_append
        self._surplus = 0

    def arrived(self, staged: Staged) -> Outcome | None:
        if self._is_append or not staged.tables.keys:
            return None
        self._surplus += _surplus(staged.connection, staged.tables.staged, staged.tables.keys)
        return None

    def concluded(self, whole: Whole) -> Outcome:
        keys = whole.tables.keys
        if not keys:
            return Outcome(False, "the stream has no primary_key, so no row has a key")
        if self._is_append:
            self._surplus = _surplus(whole.connection, whole.table, keys)
            where = "in the raw table"
        else:
            where = f"of {whole.rows.extracted} that came"
        names = ", ".join(keys)
        explanation = f"{self._surplus} rows {where} repeat a key ({names})"
        return Outcome(self._surplus <= self._options.max, explanation, {"duplicates": self._surplus})


def _surplus(connection: Any, table: Any, keys: tuple[str, ...]) -> int:
    """Rows beyond the first of each key."""
    from psycopg.sql import SQL, Identifier

    return one_number(
        connection,
        SQL(
            "select coalesce(sum(n - 1), 0) "
            "from (select count(*) as n from {} group by {} having count(*) > 1) as twice"
        ).format(table, SQL(", ").join(map(Identifier, keys))),
    )


CHECK = AuditCheck(
    name="duplicate_keys",
    description="No two rows have one key.",
    options=DuplicateKeysOptions,
    judge=_DuplicateKeys,
    severity="error",
    unjudged=nothing_to_judge("keys that come twice"),
)
