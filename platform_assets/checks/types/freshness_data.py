"""Is the data itself new enough? The newest cursor value against the stream's `freshness`.

Dagster's own freshness policy tells when the stream was last synced; this tells whether that brought anything new. A
sync of zero rows leaves the data as old as it was, unless the source itself says that there is nothing newer.

checks: [{type: freshness_data, fail_after: PT6H}]
"""

from datetime import UTC, datetime, timedelta
from typing import Self

from pydantic import Field, ValidationInfo, model_validator

from connectors.specs import Spec, StreamSpec
from connectors.sync import Verdict
from connectors.sync.checks.options import stream_of
from platform_assets.checks.contract import CheckType, Observation
from platform_assets.checks.data_time import DataTime

FAIL_AFTER = timedelta(days=1)


class FreshnessDataOptions(Spec):
    """fail_after, warn_after: the age of the newest cursor value; left out, those of the stream's `freshness`, and
    without one a day."""

    fail_after: timedelta | None = Field(default=None, gt=timedelta(0))
    warn_after: timedelta | None = Field(default=None, gt=timedelta(0))

    @model_validator(mode="after")
    def _has_a_time(self, info: ValidationInfo) -> Self:
        if (stream := stream_of(info)) is None:
            return self
        if stream.cursor is None:
            raise ValueError("needs a cursor on the stream: the newest value of it tells how old the data is")
        column = stream.columns.get(stream.cursor.field)
        # a text may hold times
        if column is not None and column.type not in (None, "timestamp", "date", "text"):
            raise ValueError(f"the cursor {stream.cursor.field} is a {column.type}, no time")
        fail_after, warn_after = windows(stream, self)
        if warn_after is not None and warn_after >= fail_after:
            raise ValueError("warn_after must be shorter than fail_after")
        return self


def evaluate(observation: Observation, options: FreshnessDataOptions) -> Verdict:
    """An error beyond fail_after, a warning beyond warn_after."""
    fail_after, warn_after = windows(observation.stream, options)
    return judged(
        observation.history.data, fail_after, warn_after, datetime.now(UTC), observation.result.rows.extracted,
        is_declared=is_declared(observation.stream),
    )  # fmt: skip


def is_declared(stream: StreamSpec) -> bool:
    """The file asks for this check, not only for a `freshness` of syncs."""
    return any(check.type == CHECK.name for check in stream.checks)


def windows(stream: StreamSpec, options: FreshnessDataOptions) -> tuple[timedelta, timedelta | None]:
    """(fail_after, warn_after) that count for the stream."""
    if options.fail_after is not None or stream.freshness is None:
        return options.fail_after or FAIL_AFTER, options.warn_after
    return stream.freshness.fail_after, options.warn_after or stream.freshness.warn_after


def judged(
    data: DataTime,
    fail_after: timedelta,
    warn_after: timedelta | None,
    now: datetime,
    rows: int | None = None,
    *,
    is_declared: bool = True,
) -> Verdict:
    """rows: that the last sync read, for the words. is_declared: red where there is data and nothing tells its age."""
    age = data.age(now)
    if age is None:
        said = "no data yet"
        if data.has_cursor or data.has_rows:
            why = "the cursor is no time" if data.has_cursor else "no sync has seen a value of the cursor"
            said = f"{why}, so nothing tells how old the data is"
        is_unknown = is_declared and said != "no data yet"
        return Verdict("freshness_data", not is_unknown, "error" if is_unknown else "warn", False, explanation=said)
    limit = fail_after if age > fail_after else warn_after if warn_after is not None and age > warn_after else None
    newest = f"the newest value is of {_at(data.newest)}" if data.newest else "there is no value yet"
    if data.attested_at is not None and (data.newest is None or data.attested_at > data.newest):
        newest += f", and the source said at {_at(data.attested_at)} that nothing is newer"
    stalled = f"; {rows} rows were read, none newer" if limit is not None and rows else ""
    verdict = f"more than {_hours(limit)}" if limit is not None else f"{_hours(fail_after)} is fine"
    return Verdict(
        "freshness_data",
        passed=limit is None,
        severity="error" if limit == fail_after else "warn",
        blocking=False,
        explanation=f"{newest}: {_hours(age)} old, {verdict}{stalled}",
        measured={
            "age_hours": round(age.total_seconds() / 3600, 3),
            "newest": _at(data.newest) if data.newest else "none",
            "nothing_new_said_at": _at(data.attested_at) if data.attested_at else "never",
        },
    )


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "none"


def _hours(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


def _has_time_and_promise(stream: StreamSpec) -> bool:
    """A cursor that is, or may be, a time, and a `freshness` that somebody has promised."""
    if stream.cursor is None or stream.freshness is None:
        return False
    column = stream.columns.get(stream.cursor.field)
    return column is None or column.type in (None, "timestamp", "date")


CHECK = CheckType(
    name="freshness_data",
    description="The newest data is as new as promised, by its own time.",
    options=FreshnessDataOptions,
    applies_to=_has_time_and_promise,
    evaluate=evaluate,
)
