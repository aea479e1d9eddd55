"""How much of the new data is late: older than what had been read already?

checks: [{type: late_data, max_share: 0.05}]

In a live sync a row is late when its cursor lies before the position that the sync started from (`cursor.lag` reads
there again) and its key is new. In a partition's sync it is late when its key is new and the partition had been read
before.
"""

from typing import Any, Self

from pydantic import Field, ValidationInfo, model_validator

from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import one_number, one_row
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Staged, Whole, nothing_to_judge
from connectors.sync.checks.options import stream_of


class LateDataOptions(Spec):
    """max_share: of the new rows. minimum: with fewer new rows it passes, because a share of them says nothing."""

    max_share: float = Field(default=0.05, ge=0, le=1)
    minimum: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _has_cursor(self, info: ValidationInfo) -> Self:
        if (stream := stream_of(info)) is not None and stream.cursor is None:
            raise ValueError("needs a cursor on the stream; without one no row is early or late")
        return self


class _LateData(Judge):
    reads_rows = True

    def __init__(self, options: LateDataOptions, _stream: StreamSpec) -> None:
        self._options = options
        self._late = 0
        self._new = 0

    def staged(self, staged: Staged) -> Outcome | None:
        from psycopg.sql import SQL, Identifier

        tables = staged.tables
        if tables.cursor is None:
            return None
        if staged.request.window is not None:
            is_late = SQL("true") if _was_read_before(staged) else SQL("false")
        elif staged.boundary is not None:
            is_late = SQL("s.{} < %(boundary)s").format(Identifier(tables.cursor))
        else:
            is_late = SQL("false")
        known = SQL("false")
        if tables.keys and tables.raw != tables.staged:
            from connectors.sync.tables import match

            known = SQL("exists (select 1 from {} t where {})").format(tables.raw, match(tables.keys, "t", "s"))
        late, new = one_row(
            staged.connection,
            SQL("select count(*) filter (where {}), count(*) from {} s where not {}").format(
                is_late, tables.staged, known
            ),
            {"boundary": staged.boundary},
        )
        self._late += late
        self._new += new
        return None

    def concluded(self, whole: Whole) -> Outcome:
        if whole.tables.cursor is None:
            return Outcome(False, "the stream has no cursor, so no row is early or late")
        share = self._late / self._new if self._new else 0.0
        passed = share <= self._options.max_share or self._new < self._options.minimum
        explanation = (
            f"{self._late} of {self._new} new rows are late ({share:.1%}, {self._options.max_share:.1%} is fine)"
        )
        return Outcome(passed, explanation, {"late_rows": self._late, "new_rows": self._new, "share": round(share, 6)})


def _was_read_before(staged: Staged) -> bool:
    from psycopg.sql import SQL

    request = staged.request
    assert request.window is not None
    found: list[Any] = [request.source.source, request.stream.name, request.window.start, request.window.end]
    query = SQL(
        "select count(*) from (select 1 from ops.syncs where source = %s and stream = %s "
        "and window_start = %s and window_end = %s and status like 'succeeded%%' limit 1) as before"
    ).format()
    return one_number(staged.connection, query, found) > 0


CHECK = AuditCheck(
    name="late_data",
    description="Few of the new rows are older than what had been read before.",
    options=LateDataOptions,
    judge=_LateData,
    severity="warn",
    unjudged=nothing_to_judge("rows that come late"),
)
