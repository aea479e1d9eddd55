"""Does every value of a column have its row in another stream?

checks: [{type: reference, column: carrier, to: nyc_reference.airlines.carrier, lag: PT1H, tolerance: 0.01}]
"""

from datetime import timedelta
from typing import Any

from pydantic import Field, field_validator

from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import gone, one_row
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Whole, nothing_to_judge
from connectors.sync.checks.options import StoredColumn

_SHOWN = 3


class ReferenceOptions(Spec):
    """column: of this stream; NULL is fine.

    to: `source.stream.column` in the raw tables, or `stream.column` of the same source.
    tolerance: share of this stream's rows that may have no parent.
    lag: rows younger than this are not judged yet: their parents may come with the parent stream's next sync.
    """

    column: StoredColumn
    to: str
    tolerance: float = Field(default=0.0, ge=0, le=1)
    lag: timedelta = Field(default=timedelta(0), ge=timedelta(0))

    @field_validator("to")
    @classmethod
    def _has_parts(cls, value: str) -> str:
        if len(value.split(".")) not in (2, 3) or not all(value.split(".")):
            raise ValueError("is source.stream.column, or stream.column of the same source")
        return value

    def parent(self, source: str) -> str | None:
        """The stream of that source that it points to; None when it is another source's."""
        *owner, stream, _ = self.to.split(".")
        return stream if owner in ([], [source]) else None


class _Reference(Judge):
    def __init__(self, options: ReferenceOptions, _stream: StreamSpec) -> None:
        self._options = options

    def concluded(self, whole: Whole) -> Outcome:
        from psycopg.sql import SQL, Identifier

        options, source = self._options, whole.request.source.source
        column = whole.schema.name_of(options.column)
        if column not in whole.tables.columns:
            return Outcome(False, f"column {options.column!r} is not in the data")
        if (absent := gone(whole, options.column)) is not None:
            return absent
        parent_source, stream, parent_column = ([source] if options.to.count(".") == 1 else []) + options.to.split(".")
        parent = (f"raw_{parent_source}", stream)
        columns = _columns(whole.connection, parent)
        if parent_column not in columns:
            missing = f"has no column {parent_column!r}" if columns else "is not there yet"
            return Outcome(False, f"{'.'.join(parent)} {missing}", may_block=False)
        own = _columns(whole.connection, (f"raw_{source}", whole.request.stream.name))
        query = SQL(
            """
            with children as (
                select {child} as value from {table}
                where {child} is not null and _deleted is not true and {current} and _synced_at <= now() - %(lag)s
            ),
            orphans as (
                select value, count(*) as n from children
                where not exists (
                    select 1 from {parent} p
                    where p.{key} = children.value and p._deleted is not true and {parent_current}
                )
                group by value
            )
            select (select count(*) from children), coalesce(sum(n), 0), (
                select array_agg(value::text) from (select value from orphans order by n desc, value limit %(shown)s) o
            ) from orphans
            """
        ).format(
            child=Identifier(column),
            table=whole.table,
            current=_is_current(own, None),
            parent=Identifier(*parent),
            key=Identifier(parent_column),
            parent_current=_is_current(columns, "p"),
        )
        rows, orphans, shown = one_row(whole.connection, query, {"lag": options.lag, "shown": _SHOWN})
        share = float(orphans) / rows if rows else 0.0
        examples = f": {', '.join(value[:40] for value in shown)}" if shown else ""
        limit = f" ({share:.2%}, {options.tolerance:.2%} is fine)" if options.tolerance else ""
        return Outcome(
            share <= options.tolerance,
            f"{orphans} of {rows} rows have a {options.column} that {options.to} has not{limit}{examples}",
            {"orphans": int(orphans), "rows": rows, "share": round(share, 6)},
        )


def _columns(connection: Any, table: tuple[str, str]) -> frozenset[str]:
    found = connection.execute(
        "select attname from pg_attribute a join pg_class c on c.oid = a.attrelid "
        "join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = %s and c.relname = %s and attnum > 0 and not attisdropped",
        table,
    ).fetchall()
    return frozenset(name for (name,) in found)


def _is_current(columns: frozenset[str], alias: str | None) -> Any:
    """Of a table that keeps history, the rows that are true now."""
    from psycopg.sql import SQL, Identifier

    if "_valid_to" not in columns:
        return SQL("true")
    return SQL("{} is null").format(Identifier(alias, "_valid_to") if alias else Identifier("_valid_to"))


CHECK = AuditCheck(
    name="reference",
    description="Every value has its row in the other stream.",
    options=ReferenceOptions,
    judge=_Reference,
    severity="error",
    unjudged=nothing_to_judge("rows without a parent"),
)
