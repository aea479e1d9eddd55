"""Did we read what the source says there is: as many rows, the same sum of a column, the same keys?

checks:
  - {type: reconcile}
  - {type: reconcile, name: amounts, against: sum(amount)}
  - {type: reconcile, name: keys, against: keys}

A page that went missing with status 200 turns the same run red. What the source says comes with the read, as an
`Attestation`: it speaks of the same snapshot, and of the window of a partition.
"""

from decimal import Decimal, InvalidOperation
from typing import Any, LiteralString, cast

from pydantic import ValidationInfo, field_validator

from connectors.measures import COUNT, DIGEST_SQL, KEYS, measure_named, summed_column, text_sql
from connectors.specs import Spec, StreamSpec
from connectors.sync.checks.asking import gone, one_row
from connectors.sync.checks.contract import AuditCheck, Judge, Outcome, Staged, Whole
from connectors.sync.checks.options import stream_of

_FLOAT_TOLERANCE = Decimal("1e-9")
"""Of sums of doubles, whose last digits depend on the order of adding."""


class ReconcileOptions(Spec):
    """against: `count`, `sum(<column>)` or `keys`, a checksum over the primary keys."""

    against: str = COUNT

    @field_validator("against")
    @classmethod
    def _is_known(cls, value: str, info: ValidationInfo) -> str:
        measure = measure_named(value)
        if (stream := stream_of(info)) is not None:
            _refuse_unlike(measure, stream)
        return measure


def _refuse_unlike(measure: str, stream: StreamSpec) -> None:
    """Raises ValueError: what is stored can never be what the source measures."""
    if measure == KEYS and not stream.primary_key:
        raise ValueError("keys need a primary_key on the stream")
    column = summed_column(measure)
    for name in [column] if column is not None else stream.primary_key if measure == KEYS else ():
        if (spec := stream.columns.get(name)) is None:
            continue
        if spec.rule == "block":
            raise ValueError(f"columns.{name}.rule: block keeps {name} out, so there is nothing to add up")
        if spec.rewrites:
            changed = "the key" if column is None else "what is summed"
            raise ValueError(f"columns.{name}.rule: {spec.rule} changes {changed}, so it is never the source's")
        if column is not None and spec.type not in (None, "bigint", "double", "decimal", "text"):
            raise ValueError(f"columns.{name}.type: {spec.type} has no sum")


class _Reconcile(Judge):
    """Adds up what arrives, and compares at the end. Quarantined records are counted, but have no sum and no key."""

    def __init__(self, options: ReconcileOptions, stream: StreamSpec) -> None:
        self._options = options
        self._keys = stream.primary_key
        self._total = Decimal(0)
        self.reads_rows = options.against != COUNT

    def arrived(self, staged: Staged) -> Outcome | None:
        if not self.reads_rows:
            return None
        from psycopg.sql import SQL, Composable, Identifier

        if (column := summed_column(self._options.against)) is not None:
            name = staged.schema.name_of(column)
            if name not in staged.tables.columns:
                return Outcome(False, f"column {column!r} is not in the data")
            value: Composable = SQL("{}::numeric").format(Identifier(name))
        elif self._keys:
            value = _key_number(staged.connection, staged)
        else:
            return Outcome(False, "the stream has no primary_key, so there are no keys to compare")
        query = SQL("select coalesce(sum({}), 0) from {}").format(value, staged.tables.staged)
        self._total += Decimal(one_row(staged.connection, query)[0])
        return None

    def concluded(self, whole: Whole) -> Outcome | None:
        against, rows = self._options.against, whole.rows
        if (column := summed_column(against)) is not None and (absent := gone(whole, column)) is not None:
            return absent
        said = whole.attested.said(against)
        if said is None:
            return None
        ours = Decimal(rows.extracted) if against == COUNT else self._total
        try:
            theirs = Decimal(said)
        except InvalidOperation:
            return Outcome(False, f"the source says {against} is {said[:40]!r}, which is no number")
        if against == COUNT:
            counted = {"source_rows": int(theirs), "rows": rows.extracted}
            return Outcome(theirs == ours, f"the source says {theirs:f} rows, {rows.extracted} were read", counted)
        column = whole.schema.find(summed_column(against) or "")
        is_float = "e" in said or (column is not None and column.type == "double")
        passed = _agree(ours, theirs, is_float=is_float)
        measured: dict[str, Any] = {"source": said, "read": f"{ours:f}", "rows": rows.extracted}
        if against == KEYS:
            same = "the same as" if passed else "not those of"
            explanation = f"the keys of the {rows.extracted} rows that were read are {same} the source's"
        else:
            measured["difference"] = float(ours - theirs)
            explanation = f"the source says {against} is {theirs:f}, {ours:f} was read in {rows.extracted} rows"
        if not passed and rows.quarantined:
            explanation += f"; {rows.quarantined} in quarantine are not part of it"
        return Outcome(passed, explanation, measured)


def _key_number(connection: Any, staged: Staged) -> Any:
    """A number of each row's key."""
    from psycopg.sql import SQL, Identifier

    types = dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = %s::regclass",
            [staged.tables.staged.as_string(connection)],
        ).fetchall()
    )
    texts = [SQL(cast("LiteralString", text_sql(types[key]))).format(Identifier(key)) for key in staged.tables.keys]
    return SQL(DIGEST_SQL).format(SQL(", ").join(texts))


def _agree(ours: Decimal, theirs: Decimal, *, is_float: bool) -> bool:
    return abs(ours - theirs) <= (_FLOAT_TOLERANCE * max(abs(ours), abs(theirs)) if is_float else 0)


def _unsaid(options: ReconcileOptions, rows: int) -> Outcome:
    what = "how many rows there are" if options.against == COUNT else f"its {options.against}"
    return Outcome(rows == 0, f"the source did not say {what}, {rows} were read", {"rows": rows})


def _states_total(stream: StreamSpec) -> bool:
    return getattr(stream, "total", None) is not None


CHECK = AuditCheck(
    name="reconcile",
    description="What was read is what the source says there is.",
    options=ReconcileOptions,
    judge=_Reconcile,
    severity="warn",
    unjudged=_unsaid,
    blocks=True,
    applies_to=_states_total,
)
