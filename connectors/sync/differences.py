"""Two shapes of a stream and what lies between them. Pure: `apply(diff(a, b), a) == b`.

Used for the registry's versions, and for the plan that compares source, contract and table.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Literal

ChangeKind = Literal["new", "missing", "retyped", "renamed", "key", "nullability", "enum"]
RENAMED_FROM = 0.6
"""Likeness from which a missing and a new column are taken for one; 1.0 is the same name or the same values."""
_WORDS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Field:
    """accepted_values: empty when any value is."""

    type: str
    nullable: bool = True
    accepted_values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    columns: Mapping[str, Field] = field(default_factory=dict[str, Field])
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. column: its name; the new one of a renamed column, empty for the key.

    before, after: a Field (new, missing, renamed), a type, a nullability, accepted values, or the key's columns.
    old_name: of a renamed column.
    """

    kind: ChangeKind
    column: str
    before: Field | str | bool | tuple[str, ...] | None
    after: Field | str | bool | tuple[str, ...] | None
    old_name: str = ""

    def __str__(self) -> str:
        """`amount retyped from bigint to text`."""
        match self.kind:
            case "new" | "missing":
                known = self.after if self.kind == "new" else self.before
                return f"{self.column} {self.kind} ({known.type})" if isinstance(known, Field) else self.column
            case "renamed":
                return f"{self.old_name} renamed to {self.column}"
            case "key":
                return f"key changed from {words(self.before)} to {words(self.after)}"
            case "nullability":
                return f"{self.column} {'may be NULL now' if self.after else 'is never NULL now'}"
            case "enum":
                return f"{self.column} accepts {words(self.after)} in place of {words(self.before)}"
            case _:
                return f"{self.column} retyped from {self.before} to {self.after}"


def words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing named"
    return str(value)


def diff(before: Shape, after: Shape) -> tuple[Change, ...]:
    """What turns `before` into `after`, in the order of the columns; the key first."""
    found: list[Change] = []
    if before.key != after.key:
        found.append(Change("key", "", before.key, after.key))
    for name, old in before.columns.items():
        new = after.columns.get(name)
        if new is None:
            found.append(Change("missing", name, old, None))
            continue
        if old.type != new.type:
            found.append(Change("retyped", name, old.type, new.type))
        if old.nullable != new.nullable:
            found.append(Change("nullability", name, old.nullable, new.nullable))
        if old.accepted_values != new.accepted_values:
            found.append(Change("enum", name, old.accepted_values, new.accepted_values))
    found += [Change("new", name, None, new) for name, new in after.columns.items() if name not in before.columns]
    return tuple(found)


def apply(changes: Iterable[Change], before: Shape) -> Shape:
    """`before` with the changes made."""
    columns, key = dict(before.columns), before.key
    for change in changes:
        after = change.after
        if change.kind == "missing":
            del columns[change.column]
        elif change.kind == "renamed":
            del columns[change.old_name]
        if isinstance(after, Field):
            columns[change.column] = after
        elif change.kind == "key" and isinstance(after, tuple):
            key = after
        elif change.kind == "retyped" and isinstance(after, str):
            columns[change.column] = replace(columns[change.column], type=after)
        elif change.kind == "nullability" and isinstance(after, bool):
            columns[change.column] = replace(columns[change.column], nullable=after)
        elif change.kind == "enum" and isinstance(after, tuple):
            columns[change.column] = replace(columns[change.column], accepted_values=after)
    return Shape(columns, key)


def with_renames(changes: Sequence[Change], likeness: Callable[[str, str], float]) -> tuple[Change, ...]:
    """The changes with each missing and new column of one type that are alike taken for one, the likest pair first.

    likeness: of an old and a new name, 0 to 1.
    """
    missing = {c.column: c.before for c in changes if c.kind == "missing" and isinstance(c.before, Field)}
    new = {c.column: c.after for c in changes if c.kind == "new" and isinstance(c.after, Field)}
    pairs = sorted(
        (
            (likeness(old, name), old, name)
            for old, was in missing.items()
            for name, now in new.items()
            if was.type == now.type
        ),
        reverse=True,
    )
    renamed: dict[str, str] = {}
    for score, old, name in pairs:
        if score >= RENAMED_FROM and old not in renamed.values() and name not in renamed:
            renamed[name] = old
    gone = set(renamed.values())
    kept = [c for c in changes if c.column not in (gone if c.kind == "missing" else renamed if c.kind == "new" else ())]
    return (*kept, *(Change("renamed", name, missing[old], new[name], old) for name, old in renamed.items()))


def name_likeness(old: str, new: str) -> float:
    """0 to 1: the share of common letters in order, or of common words, whichever is greater."""
    left, right = _WORDS.sub(" ", old.lower()).split(), _WORDS.sub(" ", new.lower()).split()
    letters = SequenceMatcher(None, "".join(left), "".join(right), autojunk=False).ratio()
    common = len({*left} & {*right}) / max(len({*left} | {*right}), 1)
    return max(letters, common)


def likeness(names: float, values: float | None) -> float:
    """Of two columns. values: the share of the new one's values that the old one had; None when there is none."""
    return names * 0.9 if values is None else max(values * 0.9, (names + values) / 2) if values else names / 2
