"""What a change would break, before anything loads. Pure: everything it compares is handed in.

What stands is the raw table (or, unseen, what dbt's source says of it); what comes is the contract over the source.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from connectors.specs import SourceSpec, StreamSpec
from connectors.sync.differences import Change, Field, Shape, diff, likeness, name_likeness, with_renames, words
from platform_assets.contracts.impact import Impact, Impacts
from platform_assets.contracts.observed import declared_shape, holds

Side = Literal["source", "contract", "dbt"]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """Everything known of one stream.

    standing: what models are built on; None when nothing is known. is_table: it is the raw table itself.
    loaded_by: the key that its rows are told apart by; None when nobody knows.
    offered: what the source has now; None when it was not asked. is_offered: False when the source says that the stream
        is gone. is_typed: the source says its own types; knows_null: and which columns are never NULL.
    said: the unit and pii of promised columns, as dbt's source says them.
    names: raw name by source name. in_table: raw names of the columns that the table has, blocked ones too; none where
        it was not asked.
    """

    source: SourceSpec
    stream: StreamSpec
    standing: Shape | None
    is_table: bool
    loaded_by: tuple[str, ...] | None = None
    offered: Shape | None = None
    is_offered: bool = True
    is_typed: bool = False
    knows_null: bool = False
    promised: Mapping[str, Field] = field(default_factory=dict[str, Field])
    said: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    in_table: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        return f"{self.source.source}.{self.stream.name}"


@dataclass(frozen=True, slots=True)
class Planned:
    """One change. where: stream or model. side: who changed. says: what happens, one sentence."""

    where: str
    side: Side
    kind: str
    column: str
    says: str
    is_breaking: bool
    impact: Impact


@dataclass(frozen=True, slots=True)
class Plan:
    """notes: what could not be looked at, and what to do beside it."""

    changes: tuple[Planned, ...]
    notes: tuple[str, ...]

    @property
    def is_breaking(self) -> bool:
        return any(change.is_breaking for change in self.changes)


def plan_stream(facts: StreamFacts, impacts: Impacts) -> Iterator[Planned]:
    """The contract against what stands, then the source against both."""
    yield from _contract_changes(facts, impacts)
    yield from _meaning(facts, impacts)
    yield from _declared_no_more(facts, impacts)
    yield from _source_changes(facts, impacts)


def _impact(facts: StreamFacts, impacts: Impacts, *names: str, is_retyped: bool = False) -> Impact:
    raw = [facts.names.get(name, name) for name in names]
    return impacts.of(facts.source, facts.stream, raw, names, is_retyped=is_retyped)


def _contract_changes(facts: StreamFacts, impacts: Impacts) -> Iterator[Planned]:
    stream, standing = facts.stream, facts.standing
    if standing is None:
        return
    declared = declared_shape(stream)
    known = {name: old for name, old in standing.columns.items() if name in declared.columns}
    before, after = _keys(facts, standing.key)
    for change in diff(Shape(known, before), replace(declared, key=after)):
        if change.kind == "new":
            continue
        names = (*before, *after) if change.kind == "key" else (change.column,)
        impact = _impact(facts, impacts, *names, is_retyped=change.kind == "retyped")
        says, is_breaking = _of_contract(facts, change, impact)
        yield Planned(facts.label, "contract", change.kind, change.column, says, is_breaking, impact)
    for name, spec in stream.columns.items():
        if spec.rule != "keep" and name in standing.columns and not _is_protected(facts, name):
            impact = _impact(facts, impacts, name)
            becomes = "NULL in every row from now on" if spec.rule == "block" else "another text than before"
            says = f"{name}: rule {spec.rule}: its values become {becomes}"
            yield Planned(facts.label, "contract", "rule", name, says, bool(impact.uses), impact)


def _keys(facts: StreamFacts, promised: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The key that rows are told apart by, before and after; where it is the same, the key that was promised.

    Appended rows are told apart by none. Unseen, what stands may have a key in a column that nobody declared.
    """
    declared = facts.stream.primary_key
    if facts.loaded_by is None:
        return promised or declared, declared
    after = () if facts.stream.write == "append" else declared
    return (facts.loaded_by, after) if facts.loaded_by != after else (promised, declared)


def _meaning(facts: StreamFacts, impacts: Impacts) -> Iterator[Planned]:
    """Another unit, another class of personal data: models that read the column go on as if nothing had changed."""
    for name, spec in facts.stream.columns.items():
        if name not in facts.promised or spec.rule == "block":
            continue
        said, impact = facts.said.get(name, {}), _impact(facts, impacts, name)
        unit, pii = said.get("unit") or spec.unit, said.get("pii", "none")
        if spec.unit and unit != spec.unit:
            says = f"{name}: unit {unit} becomes {spec.unit}; models take its numbers as before"
            yield Planned(facts.label, "contract", "unit", name, says, bool(impact.uses), impact)
        if pii != spec.pii:
            says = f"{name}: pii {pii} becomes {spec.pii}"
            yield Planned(facts.label, "contract", "pii", name, says, False, impact)


def _declared_no_more(facts: StreamFacts, impacts: Impacts) -> Iterator[Planned]:
    """Columns that the contract has dropped or renamed. What the source lacks too is told as the source's change."""
    columns = facts.stream.columns
    dropped = {name: one for name, one in facts.promised.items() if name not in columns}
    added = {name: one for name, one in declared_shape(facts.stream).columns.items() if name not in facts.promised}
    changes = diff(Shape(dropped), Shape(added))
    for change in with_renames(changes, lambda old, new: likeness(name_likeness(old, new), None)):
        name = change.old_name or change.column
        if change.kind == "new" or (facts.offered is not None and name not in facts.offered.columns):
            continue
        impact = _impact(facts, impacts, name)
        said = f"{change} in the contract" if change.kind == "renamed" else f"{name} is declared no more"
        is_breaking = bool(impact.uses) and facts.offered is None
        if facts.offered is not None:
            end = "the source still has it, and nothing holds it to a type"
        else:
            end = "models rely on a column that nobody promises" if is_breaking else "nothing is built on it"
        yield Planned(facts.label, "contract", change.kind, change.column, f"{said}; {end}", is_breaking, impact)


def _is_protected(facts: StreamFacts, name: str) -> bool:
    """The column stands under its rule already, as far as can be told: a rule that rewrites stores text."""
    spec = facts.stream.columns[name]
    standing = facts.standing.columns[name] if facts.standing else None
    return spec.rewrites and standing is not None and standing.type == "text" and facts.is_table


def _of_contract(facts: StreamFacts, change: Change, impact: Impact) -> tuple[str, bool]:
    drift = facts.stream.drift
    if change.kind == "retyped":
        return f"{change}; the sync stops while the raw table has the old type", True
    if change.kind == "key":
        return _of_key(facts, change, impact)
    if change.kind == "nullability":
        if change.after:
            return f"{change}; models that rely on a value meet NULL", impact.checks_of("not_null", "primary_key of")
        return f"{change}; records without a value: {drift.nullability}", False
    before, after = change.before, change.after
    assert isinstance(before, tuple)
    assert isinstance(after, tuple)
    if not after or (before and set(after) - set(before)):
        return f"{change}; models meet values that they did not know", impact.checks_of("accepted_values", "check of")
    return f"{change}; records with another value: {drift.enum}", False


def _of_key(facts: StreamFacts, change: Change, impact: Impact) -> tuple[str, bool]:
    """As the sync judges it: a table's rows have to be unique by a key that they were not loaded by."""
    stream, before = facts.stream, change.before
    assert isinstance(before, tuple)
    is_merged = stream.write in ("merge", "scd2")
    is_known = bool(facts.loaded_by) or not stream.primary_key
    is_other = before != stream.primary_key and (is_merged or (stream.write == "append" and is_known))
    if before and is_other and stream.drift.key == "freeze":
        return f"{change}; the sync stops (drift.key: freeze)", True
    if is_merged and not (before and {*before} <= {*stream.primary_key}):
        return f"{change}; the sync stops where rows of the raw table share a value of it", True
    if stream.write == "append" and facts.loaded_by:
        return f"{change}; a key may have more than one row from now on", bool(impact.uses)
    return f"{change}; rows are told apart otherwise", bool(impact.uses)


def _source_changes(facts: StreamFacts, impacts: Impacts) -> Iterator[Planned]:
    stream, offered = facts.stream, facts.offered
    before = _expected(facts)
    if not facts.is_offered:
        impact = _impact(facts, impacts, *before.columns)
        yield Planned(facts.label, "source", "gone", "", "the source offers this stream no more", True, impact)
        return
    if offered is None or not offered.columns:
        return
    ignored = {name for name, spec in stream.columns.items() if spec.rule != "keep"}
    now = Shape({name: one for name, one in offered.columns.items() if name not in ignored}, offered.key)
    then = Shape({name: one for name, one in before.columns.items() if name not in ignored}, before.key)
    changes = with_renames(diff(then, now), lambda old, new: likeness(name_likeness(old, new), None))
    for change in changes:
        if change.kind == "key" and not (offered.key and stream.primary_key):
            continue
        found = _of_source(facts, change, impacts)
        if found is not None:
            yield found


def _expected(facts: StreamFacts) -> Shape:
    """What the source is expected to send: what it sent before, and what is declared."""
    standing = facts.standing.columns if facts.standing else {}
    return Shape({**standing, **declared_shape(facts.stream).columns}, facts.stream.primary_key)


def _of_source(facts: StreamFacts, change: Change, impacts: Impacts) -> Planned | None:
    stream = facts.stream
    names = stream.primary_key if change.kind == "key" else (change.old_name or change.column,)
    impact = _impact(facts, impacts, *names, is_retyped=change.kind == "retyped")
    policy, is_used = stream.drift, bool(impact.uses)
    needed = {*stream.primary_key, *((stream.cursor.field,) if stream.cursor else ())}
    match change.kind:
        case "new":
            stops = {"freeze": "the sync stops", "quarantine": "every record that has it goes to quarantine"}
            end = stops.get(policy.new, "it is added" if policy.new == "evolve" else "it is ignored")
            says, is_breaking, impact = f"{change}; {end} (drift.new: {policy.new})", policy.new in stops, Impact()
        case "missing" | "renamed":
            end = "models meet NULL" if is_used else "nothing is built on it"
            rule = policy.missing if change.kind == "missing" else policy.renamed
            if rule == "freeze":
                end = "the sync stops"
            elif needed & {*names}:
                end = "every record lacks its key or cursor and goes to quarantine"
            says = f"{change}; {end} (drift.{change.kind}: {rule})"
            is_breaking = is_used or rule == "freeze" or bool(needed & {*names})
        case "retyped":
            column = _expected(facts).columns[change.column].type
            if not isinstance(change.after, str) or holds(column, change.after, is_typed=facts.is_typed):
                return None
            ends = {"freeze": "the sync stops", "quarantine": "records that do not fit go to quarantine"}
            end = ends.get(policy.retyped, "values that do not fit go to a column beside it")
            says, is_breaking = f"{change}; {end} (drift.retyped: {policy.retyped})", True
        case "key":
            says = f"the source's key is {words(change.after)}, the contract's {words(change.before)}"
            is_breaking = is_used
        case "nullability":
            declared = stream.columns.get(change.column)
            if not change.after or declared is None or declared.nullable or not facts.knows_null:
                return None
            says = f"{change} in the source; such records: {policy.nullability}"
            is_breaking = policy.nullability == "freeze"
        case _:
            return None
    return Planned(facts.label, "source", change.kind, change.column, says, is_breaking, impact)


def missing_columns(facts: StreamFacts, read: Mapping[str, list[str]], impacts: Impacts) -> Iterator[Planned]:
    """Raw columns that models read and that neither contract, table nor source has.

    read: by raw name, who reads it.
    """
    own = {"_synced_at", "_deleted", "_dlt_load_id", "_dlt_id", "_overflow", "_valid_from", "_valid_to"}
    there = {facts.names.get(name, name) for name in _expected(facts).columns}
    there |= {facts.names.get(name, name) for name in (facts.offered.columns if facts.offered else ())}
    there |= {facts.names.get(name, name) for name in facts.stream.columns}
    standing = facts.standing.columns if facts.standing else {}
    blocked = {
        facts.names.get(name, name)
        for name, spec in facts.stream.columns.items()
        if spec.rule == "block" and name not in standing
    }
    # one that a rule came to block later stays in the table, as NULL: what was told when it was new is told no more
    blocked -= facts.in_table
    for name in read:
        if name in own or (name in there and name not in blocked) or not there:
            continue
        impact = impacts.of(facts.source, facts.stream, [name], [name])
        readers = ", ".join(use.model for use in impact.uses if use.model) or ", ".join(read[name])
        says = f"{name} is read by {readers}, and nobody provides it"
        yield Planned(facts.label, "dbt", "missing", name, says, True, impact)
