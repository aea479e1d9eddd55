"""Where models contradict the contract as it stands: casts to another type, and accepted values that a test refuses.

Only columns that models pass on as they are, or cast, are compared; what is computed is its author's. A test that knows
more values than the contract is no difference: the engine keeps the contract before it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from connectors.specs import SourceSpec
from platform_assets.contracts.lineage import Base, Lineage
from platform_assets.contracts.observed import holds, house_type
from platform_assets.contracts.targets import Target, targets

Promised = Mapping[Base, tuple[str, Target]]
"""Declared columns by their place in the raw table: `source.stream`, and the column."""


def contradictions(sources: Iterable[SourceSpec], manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    """One sentence each, beginning with the file below the dbt project."""
    promised: Promised = {
        (f"{source.schema_name}.{stream.name}", column.raw_name): (f"{source.source}.{stream.name}", column)
        for source in sources
        for stream in source.streams
        for column in targets(stream)
        if not column.is_blocked
    }
    yield from _casts(promised, manifest, known)
    yield from _values(promised, manifest, known)


def _casts(promised: Promised, manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    for id_, model in known.models.items():
        for base, cast_to in model.passed.values():
            if not cast_to or base not in promised:
                continue
            label, column = promised[base]
            kind = "text" if column.spec.rewrites else column.spec.type
            if kind is not None and not holds(house_type(cast_to), kind, is_typed=True):
                file = manifest["nodes"][id_]["original_file_path"]
                yield f"{file}: casts {label}.{column.source_name} to {cast_to}, its contract says {kind}"


def _values(promised: Promised, manifest: Mapping[str, Any], known: Lineage) -> Iterator[str]:
    for node in manifest["nodes"].values():
        test = node.get("test_metadata") or {}
        model = known.models.get(node.get("attached_node") or "")
        # a test that looks at some rows only says nothing of the others
        if test.get("name") != "accepted_values" or model is None or node["config"].get("where"):
            continue
        origin = known.origin((model.relation, node["column_name"]))
        if origin not in promised:
            continue
        label, column = promised[origin]
        refused = {*column.spec.accepted_values} - {str(value) for value in test["kwargs"]["values"]}
        if refused:
            where = f"{node['original_file_path']}: {model.relation}.{node['column_name']}"
            name = f"{label}.{column.source_name}"
            yield f"{where} refuses {', '.join(sorted(refused))}, which the contract of {name} accepts"
