"""Everything that a plan compares: source files, dbt's manifest, the raw tables, and what the sources offer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.contract import DiscoveredStream
from connectors.specs import ColumnSpec, SourceSpec, StreamSpec
from platform_assets.contracts.dbt_files import out_of_step
from platform_assets.contracts.impact import Impact, Impacts
from platform_assets.contracts.in_step import contradictions
from platform_assets.contracts.lineage import Lineage, lineage
from platform_assets.contracts.observed import (
    TYPED_KINDS,
    described_shape,
    meta_of,
    offered_shape,
    offered_to,
    raw_names,
    table_shape,
)
from platform_assets.contracts.plan import Plan, Planned, StreamFacts, missing_columns, plan_stream
from platform_assets.contracts.standing import Standing
from platform_assets.contracts.state import ModifiedContract
from platform_assets.contracts.targets import targets

_OWN = ("_synced_at", "_deleted", "_dlt_load_id")


@dataclass(frozen=True, slots=True)
class Evidence:
    """manifest: of the project now; production: what is deployed, where it was given.

    tables: what stands in the warehouse by (source, stream); None when the warehouse was not asked.
    offers: what each source offers; a source that was not asked is left out.
    """

    sources: Sequence[SourceSpec]
    manifest: Mapping[str, Any]
    production: Mapping[str, Any] | None = None
    tables: Mapping[tuple[str, str], Standing] | None = None
    offers: Mapping[str, Sequence[DiscoveredStream]] = field(default_factory=dict[str, Sequence[DiscoveredStream]])
    modified: Sequence[ModifiedContract] = ()
    notes: Sequence[str] = ()


def plan_of(evidence: Evidence, project: Path, wants: Callable[[SourceSpec, StreamSpec], bool]) -> Plan:
    """wants: which streams are asked about; models are looked at as a whole."""
    facts = {(one.source.source, one.stream.name): one for one in _facts(evidence)}
    known = lineage(evidence.manifest, {_relation(one): _raw_columns(one, evidence.manifest) for one in facts.values()})
    impacts = Impacts(evidence.manifest, known)
    changes: list[Planned] = []
    for one in facts.values():
        if wants(one.source, one.stream):
            found = [*plan_stream(one, impacts), *missing_columns(one, known.columns_read(_relation(one)), impacts)]
            changes += found
    changes += _undeclared(evidence, known, impacts)
    changes += _contracts(evidence.modified, known, impacts)
    notes = [*evidence.notes, *_unread(known)]
    notes += [
        f"dbt_project/{file.path} differs from the source file: run `headwater contract write`"
        for file in out_of_step(evidence.sources, project)
    ]
    notes += [f"dbt_project/{said}" for said in contradictions(evidence.sources, evidence.manifest, known)]
    return Plan(tuple(dict.fromkeys(changes)), tuple(notes))


def _facts(evidence: Evidence) -> Iterator[StreamFacts]:
    before = evidence.production or evidence.manifest
    known = {(s["schema"], s["identifier"]): s for s in before["sources"].values()}
    for source in evidence.sources:
        offered = evidence.offers.get(source.source)
        by_stream = offered_to(source, offered) if offered is not None else {}
        is_typed = source.connector.kind in TYPED_KINDS
        for declared in source.streams:
            stands = (evidence.tables or {}).get((source.source, declared.name))
            version = stands.version if stands else None
            stream = _under_rules(declared, stands) if stands else declared
            dbt_source = known.get((source.schema_name, stream.name))
            shown = by_stream.get(stream.name)
            names = {one.source_name: one.raw_name for one in targets(stream)} | (raw_names(version) if version else {})
            by_raw = {raw: name for name, raw in names.items()}
            dbt_columns: Mapping[str, Any] = dbt_source["columns"] if dbt_source else {}
            described = described_shape(dbt_source, by_raw) if dbt_source else None
            reads_query = getattr(stream, "sql", None) is not None
            yield StreamFacts(
                source,
                stream,
                table_shape(version) if version else described,
                is_table=version is not None,
                loaded_by=version.unique_by if version else None,
                offered=offered_shape(shown) if shown else None,
                is_offered=not (is_typed and offered and shown is None and not reads_query),
                is_typed=is_typed,
                knows_null=source.connector.kind == "database",
                promised=described.columns if described else {},
                said={by_raw.get(raw, raw): meta_of(one) for raw, one in dbt_columns.items()},
                names=names,
                in_table=stands.columns if stands else frozenset(),
            )


def _under_rules(stream: StreamSpec, stands: Standing) -> StreamSpec:
    """The stream as its next sync takes it: what an operator has blocked is blocked, whatever the file says."""
    blocked = {name: ColumnSpec(rule="block") for name in stands.blocked}
    return stream.model_copy(update={"columns": {**stream.columns, **blocked}})


def _relation(facts: StreamFacts) -> str:
    return f"{facts.source.schema_name}.{facts.stream.name}"


def _raw_columns(facts: StreamFacts, manifest: Mapping[str, Any]) -> list[str]:
    """What `select *` of the raw table means: all that anybody knows of it."""
    names = list(facts.names.values())
    names += [facts.names.get(name, name) for name in (facts.standing.columns if facts.standing else ())]
    for source in manifest["sources"].values():
        if (source["schema"], source["identifier"]) == (facts.source.schema_name, facts.stream.name):
            names += source["columns"]
    return list(dict.fromkeys([*names, *_OWN]))


def _undeclared(evidence: Evidence, known: Lineage, impacts: Impacts) -> Iterator[Planned]:
    """Sources of dbt that no source file declares: their models read a table that nobody loads."""
    declared = {(source.schema_name, stream.name) for source in evidence.sources for stream in source.streams}
    for source in evidence.manifest["sources"].values():
        if not source["schema"].startswith("raw_") or (source["schema"], source["identifier"]) in declared:
            continue
        relation = f"{source['schema']}.{source['identifier']}"
        readers = [id_ for id_, model in known.models.items() if relation in model.reads]
        label = f"{source['source_name']}.{source['name']}"
        says = "is a source of dbt, and no source file declares the stream"
        yield Planned(label, "dbt", "gone", "", says, bool(readers), impacts.of_models(readers))


def _contracts(modified: Iterable[ModifiedContract], known: Lineage, impacts: Impacts) -> Iterator[Planned]:
    for one in modified:
        is_known = one.unique_id in known.models
        where = known.models[one.unique_id].relation if is_known else one.unique_id
        impact = impacts.of_models([one.unique_id]) if is_known else Impact()
        says = f"its contract breaks: {one.breaks}" if one.breaks else "its contract changes, nothing of it breaks"
        yield Planned(where, "dbt", "contract", "", says, bool(one.breaks), impact)


def _unread(known: Lineage) -> Iterator[str]:
    for model in known.models.values():
        if model.unread:
            yield f"{model.relation} cannot be read ({model.unread}): it counts as using every column of its parents"
