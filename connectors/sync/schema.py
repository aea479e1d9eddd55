"""A stream's schema while it syncs: what is remembered, what is declared, what turns up new."""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal, NoReturn

from connectors.contract import CopyColumn
from connectors.copy_columns import PG_TYPES
from connectors.errors import ContractError
from connectors.specs import ColumnType, StreamSpec
from connectors.sync.columns import (
    MAX_COLUMNS,
    MAX_ROW_BYTES,
    OVERFLOW,
    Column,
    Place,
    clash,
    declared,
    row_end,
    warehouse_name,
)
from connectors.sync.result import Verdict

_SHOWN_CHANGES = 5
Change = Literal["new", "retyped", "missing", "returned", "collision", "renamed", "key", "nullability", "enum"]


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between the remembered schema and the data. action: what the stream's policy made of it.

    renamed: `before` is the old name. key, nullability, enum: `before` and `after` in words.
    collision: a new field whose plain name (`before`) something else has; `after` is the field's own spelling.
    """

    change: Change
    column: str
    before: str | None
    after: str | None
    action: str

    def to_json(self) -> dict[str, Any]:
        return {
            "change": self.change, "column": self.column, "before": self.before, "after": self.after,
            "action": self.action,
        }  # fmt: skip


BLOCKED = "blocked"
"""The action of a difference that a policy `freeze` has stopped the sync for."""


class FrozenDriftError(ContractError):
    """The stream's policy stops the sync for a difference, until a person accepts it. verdicts: for the checks."""

    def __init__(self, where: str, what: str, hint: str, drift: Sequence[Drift]) -> None:
        super().__init__(where, what, f"{hint} Or let it in: `headwater schema accept`.")
        self.drift = tuple(replace(item, action=BLOCKED) for item in drift)
        changes = "; ".join(f"{item.change} {item.column}" for item in self.drift[:_SHOWN_CHANGES])
        measured = {"decision": BLOCKED, "diff": [item.to_json() for item in self.drift]}
        self.verdicts: tuple[Verdict, ...] = (
            Verdict(
                "schema_drift", passed=False, severity="error", blocking=True,
                explanation=f"the sync was stopped by the stream's drift policy: {changes}", measured=measured,
            ),
        )  # fmt: skip


class StreamSchema:
    """Grows during a sync; every growth follows the stream's drift policy and is kept as a `Drift`.

    version: the newest in `ops.schema_versions`, 0 before the first.
    remembered: the columns of the newest version in `ops.schema_versions`, in order; empty at the first sync, when
        whatever turns up is simply observed.
    released: (change, column) that a policy `freeze` has stopped, and that a person has accepted since.
    """

    def __init__(
        self,
        label: str,
        spec: StreamSpec,
        remembered: Sequence[Column],
        version: int = 0,
        released: Collection[tuple[str, str]] = (),
    ) -> None:
        self.label = label
        self.released = frozenset(released)
        self._spec = spec
        self._is_first = not remembered
        self._by_source: dict[str, Column] = {c.source_name: c for c in remembered if c.variant_of is None}
        self._variants: dict[tuple[str, ColumnType], Column] = {
            (c.variant_of, c.type): c for c in remembered if c.variant_of is not None
        }
        self.version = version
        self.version_columns = tuple(remembered)
        self.drift: list[Drift] = []
        self.broken: list[Drift] = []
        """What the staged rows broke of the contract; one list for all of a read's frozen copies."""
        self.likely: dict[str, tuple[str, float]] = {}
        """New column to the missing one that it may be, and how like they are; shared in the same way."""
        self.seen: set[str] = set()
        self.null_fields: set[str] = set()
        self.revision = 0
        self._row_bytes: int | None = None
        self._table_width = 0
        self.overflowing = 0
        """Columns that this sync was the first to put into the overflow."""
        self._needed = {*spec.primary_key, *((spec.cursor.field,) if spec.cursor else ())}
        self._taken = {column.name for column in remembered}
        for name, column_spec in spec.columns.items():
            self._declare(name, column_spec)

    def _declare(self, name: str, spec: Any) -> None:
        known = self._by_source.get(name)
        column = declared(name, known.name if known else warehouse_name(name, self._taken), spec)
        if column is None:
            return
        self._taken.add(column.name)
        if known is None:
            self._by_source[name] = column
        elif column.place == "column" and known.type != column.type and known.place == "column":
            said = f"rule: {spec.rule} stores text" if spec.rewrites else f"declared {spec.type}"
            raise ContractError(
                f"{self.label}: column {name}",
                f"{said}, but the raw table has {known.pg_type}",
                "Restore what was declared, or rename the raw column and run the stream's backfill again.",
            )
        elif known.place != column.place:
            self._by_source[name] = replace(known, place=column.place)

    def frozen(self) -> "StreamSchema":
        """A copy that stays as it is while this one grows with the rest of the read."""
        copied = copy.copy(self)
        copied._by_source = dict(self._by_source)  # noqa: SLF001 the copy is one of us
        copied._variants = dict(self._variants)  # noqa: SLF001
        copied.drift = list(self.drift)
        copied.seen = set(self.seen)
        copied.null_fields = set(self.null_fields)
        copied._taken = set(self._taken)  # noqa: SLF001
        return copied

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column, in order of first appearance."""
        return (*self._by_source.values(), *self._variants.values())

    @property
    def table_columns(self) -> tuple[Column, ...]:
        return tuple(column for column in self.columns if column.place == "column")

    @property
    def has_overflow(self) -> bool:
        return any(column.place == "overflow" for column in self.columns)

    @property
    def spec(self) -> StreamSpec:
        return self._spec

    def find(self, source_name: str) -> Column | None:
        return self._by_source.get(source_name)

    def name_of(self, source_name: str) -> str:
        """The warehouse name of a declared field (a key or a cursor), seen or not."""
        column = self._by_source.get(source_name)
        return column.name if column else warehouse_name(source_name, ())

    def expect(self, types: Mapping[str, ColumnType]) -> None:
        """Take the fields that the source declares itself as seen, and the unknown ones with its types, by policy."""
        for name, kind in types.items():
            if self.find(name) is None:
                self.observe(name, kind)
        self.mark_seen(types)

    def observe(self, source_name: str, kind: ColumnType, longest: int | None = None) -> Column | None:
        """Take a field that is not known yet, by policy. None: the record goes to quarantine.

        longest: bytes of the longest value seen, where known; it decides how many columns a row has room for.

        Raises:
            FrozenDriftError: `drift.new: freeze`.
        """
        name = warehouse_name(source_name, self._taken)
        return self._add_new(Column(name, source_name, kind, PG_TYPES[kind]), longest)

    def observe_exact(self, found: CopyColumn) -> Column | None:
        """Like `observe`, with the exact type."""
        name = warehouse_name(found.name, self._taken)
        return self._add_new(Column(name, found.name, found.type, found.pg_type), None)

    def _add_new(self, column: Column, longest: int | None) -> Column | None:
        policy = "evolve" if self._is_first else self.policy("new", column.name)
        if policy == "freeze":
            raise FrozenDriftError(
                f"{self.label}: column {column.source_name[:80]}",
                f"new in the data ({column.type}), and the stream says drift.new: freeze",
                "Declare the column, or set drift.new to evolve, ignore or quarantine.",
                [Drift("new", column.name, None, column.pg_type, BLOCKED)],
            )
        if policy == "quarantine":
            return None
        place: Place = "ignored" if policy == "ignore" else "column"
        if place == "column" and column.source_name not in self._needed and not self._has_room(column, longest):
            place = "overflow"
        column = replace(column, place=place)
        self._by_source[column.source_name] = column
        self._taken.add(column.name)
        self._grew()
        if place == "overflow":
            self._note_overflow()
            return column
        if place == "column" and (plain := clash(column.source_name, column.name)) is not None:
            self._note(Drift("collision", column.name, plain, column.source_name, f"named {column.name}"))
        if not self._is_first:
            self._note(Drift("new", column.name, None, column.pg_type, "ignored" if place == "ignored" else "added"))
        return column

    def _has_room(self, column: Column, longest: int | None) -> bool:
        """Counts the new column in where there is room for it: in the table, and in a row of it."""
        if self._row_bytes is None:
            self._row_bytes = reduce(lambda end, known: row_end(end, known.type), self.table_columns, 0)
            self._table_width = len(self.table_columns)
        end = row_end(self._row_bytes, column.type, longest)
        if self._table_width >= MAX_COLUMNS or end > MAX_ROW_BYTES:
            return False
        self._table_width += 1
        self._row_bytes = end
        return True

    def _note_overflow(self) -> None:
        """One entry for all of them: a record may have thousands."""
        self.overflowing += 1
        self.drift = [drift for drift in self.drift if drift.column != OVERFLOW]
        self.drift.append(Drift("new", OVERFLOW, None, "jsonb", f"{self.overflowing} columns kept in {OVERFLOW}"))

    def keep_as_text(self, column: Column, kind: ColumnType) -> None:
        """A value of another type turned up in a text column, which holds its JSON text: noted, not lost.

        Raises:
            FrozenDriftError: `drift.retyped: freeze`.
        """
        if self.policy("retyped", column.name) == "freeze":
            self._refuse_retyped(column, PG_TYPES[kind])
        self._note(Drift("retyped", column.name, column.pg_type, PG_TYPES[kind], "kept as text"))

    def _refuse_retyped(self, column: Column, after: str) -> NoReturn:
        raise FrozenDriftError(
            f"{self.label}: column {column.name}",
            f"is {column.pg_type}, the data has {after}, and the stream says drift.retyped: freeze",
            "Mend the source, or set drift.retyped to evolve or quarantine.",
            [Drift("retyped", column.name, column.pg_type, after, BLOCKED)],
        )

    def retype(self, column: Column, kind: ColumnType | None) -> Column | None:
        """A value of another type turned up. The variant column that takes it, or None: quarantine the record.

        Raises:
            FrozenDriftError: `drift.retyped: freeze`.
        """
        policy = self.policy("retyped", column.name)
        after = PG_TYPES[kind] if kind else "a value that does not fit"
        if policy == "freeze":
            self._refuse_retyped(column, after)
        if policy == "quarantine" or kind is None:
            self._note(Drift("retyped", column.name, column.pg_type, after, "quarantined"))
            return None
        key = (column.source_name, kind)
        if key not in self._variants:
            name = warehouse_name(f"{column.name}__v_{kind}", self._taken)
            self._taken.add(name)
            self._variants[key] = Column(name, column.source_name, kind, PG_TYPES[kind], "column", column.source_name)
            self._grew()
        self._note(Drift("retyped", column.name, column.pg_type, after, f"kept in {self._variants[key].name}"))
        return self._variants[key]

    def note_null(self, source_name: str) -> None:
        """A field with nothing but NULL so far: its type stays open until a value shows it."""
        if source_name not in self.null_fields:
            self.null_fields.add(source_name)
            self._grew()

    def missing(self) -> list[Drift]:
        """Columns that no record of this sync had; call it when records were read.

        Raises:
            FrozenDriftError: there are some, and `drift.missing: freeze`.
        """
        columns = [c for c in self.version_columns if c.place == "column" and c.variant_of is None]
        gone = [
            c for c in columns if c.source_name not in self.seen and self._by_source[c.source_name].place == "column"
        ]
        found = [Drift("missing", c.name, c.pg_type, None, self.policy("missing", c.name)) for c in gone]
        if frozen := [item for item in found if item.action == "freeze"]:
            raise FrozenDriftError(
                f"{self.label}: column {frozen[0].column}",
                f"no record of this sync has it ({len(frozen)} columns are gone), "
                "the stream says drift.missing: freeze",
                "Nothing of this window was published. Mend the source, or set drift.missing to warn.",
                frozen,
            )
        return found + self._renamed(gone)

    def _renamed(self, gone: Sequence[Column]) -> list[Drift]:
        """A suggestion for each missing column that a new one is like.

        Raises:
            FrozenDriftError: there is one, and `drift.renamed: freeze`.
        """
        names = {column.name for column in gone}
        likely = [(old, new) for new, (old, _) in self.likely.items() if old in names]
        found = [Drift("renamed", new, old, new, self.policy("renamed", new)) for old, new in likely]
        if frozen := [item for item in found if item.action == "freeze"]:
            raise FrozenDriftError(
                f"{self.label}: column {frozen[0].before}",
                f"seems to be called {frozen[0].after} now, and the stream says drift.renamed: freeze",
                "Nothing of this window was published. Rename it in columns and staging, or set drift.renamed to warn.",
                frozen,
            )
        return found

    def policy(self, change: str, column: str) -> str:
        """What the stream says of such a difference; one that was accepted stops nothing any more."""
        policy = str(getattr(self._spec.drift, change))
        if policy == "freeze" and (change, column) in self.released:
            return "ignore" if change in ("missing", "renamed") else "evolve"
        return policy

    def break_promise(self, drift: Drift) -> None:
        """Note what staged rows broke of the contract, once."""
        if drift not in self.broken:
            self.broken.append(drift)

    def mark_seen(self, source_names: Iterable[str]) -> None:
        self.seen.update(source_names)

    def _note(self, drift: Drift) -> None:
        if drift not in self.drift:
            self.drift.append(drift)

    def _grew(self) -> None:
        self.revision += 1


def columns_from_json(rows: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    return tuple(Column.from_json(row) for row in rows)
