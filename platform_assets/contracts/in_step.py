"""Where models contradict the contract as it stands, fact by fact.

Only columns that models pass on as they are, or cast, are compared; what is computed is its author's. A test that knows
more values than the contract, or none at all, is no difference: the engine keeps the contract before it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.specs import SourceSpec
from platform_assets.contracts.demands import Demand, demands, file_of
from platform_assets.contracts.lineage import Base, Lineage
from platform_assets.contracts.observed import holds, house_type, meta_of
from platform_assets.contracts.targets import Target, targets


@dataclass(frozen=True, slots=True)
class Promise:
    """One declared column. stream: as source.stream. key: the stream's, by names of the raw table."""

    stream: str
    column: Target
    key: frozenset[str]

    @property
    def label(self) -> str:
        return f"{self.stream}.{self.column.source_name}"

    @property
    def type(self) -> str | None:
        """The house's word; None where the file leaves it to be observed."""
        return "text" if self.column.spec.rewrites else self.column.spec.type


Promises = Mapping[Base, Promise]
"""By the place in the raw table: `schema.stream`, and the column."""


def contradictions(sources: Iterable[SourceSpec], manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    """One sentence each, beginning with the file below the dbt project."""
    promises = _promises(sources)
    kept = {base: one for base, one in promises.items() if not one.column.is_blocked}
    place = {model.relation: place for place, model in enumerate(known.models.values())}
    asked = sorted(demands(manifest, known), key=lambda one: place[one.model.relation])
    found = [
        *_casts(kept, manifest, known),
        *_types(kept, manifest, known),
        *_values(kept, asked, known),
        *_nulls(promises, asked, known),
        *_keys(kept, asked, known),
        *_meta(kept, manifest, known),
    ]
    yield from dict.fromkeys(found)


def _promises(sources: Iterable[SourceSpec]) -> Promises:
    found: dict[Base, Promise] = {}
    for source in sources:
        for stream in source.streams:
            columns = targets(stream)
            key = frozenset(one.raw_name for one in columns if one.is_key)
            label, relation = f"{source.source}.{stream.name}", f"{source.schema_name}.{stream.name}"
            found |= {(relation, one.raw_name): Promise(label, one, key) for one in columns}
    return found


def _casts(promises: Promises, manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    for id_, model in known.models.items():
        for base, cast_to in model.passed.values():
            promise = promises.get(base)
            if promise and promise.type and cast_to and not _fits(cast_to, promise.type):
                file = manifest["nodes"][id_]["original_file_path"]
                yield f"{file}: casts {promise.label} to {cast_to}, its contract says {promise.type}"


def _types(promises: Promises, manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    """Of enforced contracts of models: dbt itself compares them with the casts on the way, and no further."""
    for id_, model in known.models.items():
        node = manifest["nodes"][id_]
        if not (node["config"].get("contract") or {}).get("enforced"):
            continue
        for name, column in node["columns"].items():
            promise = promises.get(known.origin((model.relation, name)))
            declared = column.get("data_type")
            if promise and promise.type and declared and not _fits(declared, promise.type):
                where = f"{file_of(node)}: {model.relation}.{name}"
                yield f"{where} is {declared}, the contract of {promise.label} says {promise.type}"


def _fits(sql_type: str, kind: str) -> bool:
    return holds(house_type(sql_type), kind, is_typed=True)


def _values(promises: Promises, asked: Iterable[Demand], known: Lineage) -> Iterator[str]:
    for demand in asked:
        if demand.kind != "accepted_values":
            continue
        promise = promises.get(known.origin((demand.model.relation, demand.columns[0])))
        refused = {*promise.column.spec.accepted_values} - demand.values if promise else set[str]()
        if promise and refused:
            values = ", ".join(sorted(refused))
            yield f"{_place(demand)} refuses {values}, which the contract of {promise.label} accepts"


def _nulls(promises: Promises, asked: Iterable[Demand], known: Lineage) -> Iterator[str]:
    for demand in asked:
        if demand.kind != "not_null":
            continue
        base = (demand.model.relation, demand.columns[0])
        promise = promises.get(known.origin(base))
        if promise is None or not (promise.column.nullable or promise.column.is_blocked):
            continue
        if not any(read in model.filtered for model, read in known.way(base)):
            does = "blocks" if promise.column.is_blocked else "allows"
            yield f"{_place(demand)} must not be NULL, which the contract of {promise.label} {does}"


def _keys(promises: Promises, asked: Iterable[Demand], known: Lineage) -> Iterator[str]:
    """A part of the key is not unique; it is where a model has thinned out the rows by it, or joined them."""
    for demand in asked:
        bases = [(demand.model.relation, name) for name in demand.columns if demand.kind == "unique"]
        origins = [known.origin(base) for base in bases]
        found = [promises[origin] for origin in origins if origin in promises]
        if not found or len(found) < len(bases) or len({relation for relation, _ in origins}) > 1:
            continue
        relation, key = origins[0][0], found[0].key
        if not {name for _, name in origins} < key:
            continue
        models = [demand.model, *(model for base in bases for model, _ in known.way(base))]
        deciding = {known.origin(base) for model in models for base in model.rows}
        if not deciding & {(relation, name) for name in key}:
            named = ", ".join(sorted(one.column.source_name for one in promises.values() if _is_in_key(one, found[0])))
            yield f"{_place(demand)} must be unique, the key of {found[0].stream} is {named}"


def _is_in_key(one: Promise, other: Promise) -> bool:
    return one.stream == other.stream and one.column.is_key


def _meta(promises: Promises, manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    """Unit and class of personal data; a file may leave out the unit of a column, but not that it is personal."""
    for id_, model in known.models.items():
        node = manifest["nodes"][id_]
        for name, column in node["columns"].items():
            promise = promises.get(known.origin((model.relation, name)))
            if promise is None:
                continue
            spec, said = promise.column.spec, meta_of(column)
            where = f"{file_of(node)}: {model.relation}.{name}"
            if said.get("unit") and spec.unit and said["unit"] != spec.unit:
                yield f"{where} has meta unit {said['unit']}, the contract of {promise.label} says {spec.unit}"
            if (pii := said.get("pii") or "none") != spec.pii:
                yield f"{where} has meta pii {pii}, the contract of {promise.label} says {spec.pii}"


def _place(demand: Demand) -> str:
    names = ", ".join(demand.columns)
    return f"{demand.file}: {demand.model.relation}.{names if len(demand.columns) == 1 else f'({names})'}"
