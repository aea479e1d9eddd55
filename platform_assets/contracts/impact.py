"""Who stands on a raw column: models with their columns, checks, constraints, exposures and owners."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.specs import SourceSpec, StreamSpec
from platform_assets.contracts.lineage import ROWS, Lineage
from platform_assets.dbt.graph import Graph


@dataclass(frozen=True, slots=True)
class Use:
    """model: its relation. columns: those of its own that change. rows: which rows it has changes too."""

    model: str
    columns: tuple[str, ...]
    rows: bool


@dataclass(frozen=True, slots=True)
class Impact:
    """checks: dbt tests, the stream's own, and what enforced contracts hold a column to, as `not_null of marts.x.y`."""

    uses: tuple[Use, ...] = ()
    checks: tuple[str, ...] = ()
    exposures: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    def checks_of(self, *kinds: str) -> bool:
        """Some check of one of these kinds is among them, e.g. `accepted_values`."""
        return any(kind in check for check in self.checks for kind in kinds)


class Impacts:
    """Answers for one manifest."""

    def __init__(self, manifest: Mapping[str, Any], lineage: Lineage) -> None:
        self._manifest = manifest
        self._lineage = lineage
        self._graph = Graph(manifest)

    def of(
        self,
        source: SourceSpec,
        stream: StreamSpec,
        raw_columns: Iterable[str],
        names: Iterable[str],
        *,
        is_retyped: bool = False,
    ) -> Impact:
        """raw_columns: as the table calls them; names: as the source file does, for its own checks.

        is_retyped: the types of enforced contracts are among the checks.
        """
        models = self._lineage.users(f"{source.schema_name}.{stream.name}", raw_columns)
        wanted = set(names)
        own = [
            f"{source.source}.{stream.name}: {check.options.get('name') or check.type}"
            for check in stream.checks
            if wanted & _mentioned(check.options)
        ]
        return self._impact(models, own, [stream.owner or source.owner], is_retyped=is_retyped)

    def of_models(self, unique_ids: Iterable[str]) -> Impact:
        """Models as a whole, and what is built on them."""
        models: dict[str, frozenset[str]] = {}
        for unique_id in unique_ids:
            model = self._lineage.models[unique_id]
            models |= {unique_id: frozenset({ROWS}), **self._lineage.users(model.relation, [*model.columns, ROWS])}
        return self._impact(models, [], [])

    def _impact(
        self, models: Mapping[str, frozenset[str]], checks: list[str], owners: list[str], *, is_retyped: bool = False
    ) -> Impact:
        uses = [
            Use(self._lineage.models[id_].relation, tuple(sorted(columns - {ROWS})), ROWS in columns)
            for id_, columns in models.items()
        ]
        for id_ in models:
            if id_ in self._graph.models:
                owners += self._graph.models[id_].owners
        exposures: list[str] = []
        for exposure in self._manifest.get("exposures", {}).values():
            if set(exposure["depends_on"]["nodes"]) & set(models):
                exposures.append(f"{exposure['name']} ({exposure['type']})")
                owners.append(exposure["owner"].get("email") or exposure["owner"].get("name") or "")
        checks += self._tests(models)
        for id_, columns in models.items():
            checks += dict.fromkeys(self._constraints(id_, columns, is_retyped=is_retyped))
        unique_owners = tuple(dict.fromkeys(owner for owner in owners if owner))
        return Impact(tuple(uses), tuple(checks), tuple(exposures), unique_owners)

    def _tests(self, models: Mapping[str, frozenset[str]]) -> list[str]:
        found: list[str] = []
        for node in self._manifest["nodes"].values():
            if node["resource_type"] != "test":
                continue
            attached = node.get("attached_node")
            judged = [attached] if attached else node["depends_on"]["nodes"]
            for id_ in judged:
                columns = models.get(id_)
                if columns and (node.get("column_name") is None or node["column_name"] in columns):
                    found.append(node["name"])
                    break
        return found

    def _constraints(self, unique_id: str, columns: frozenset[str], *, is_retyped: bool) -> Iterator[str]:
        """What the model's enforced contract holds these columns to; a view has types only, whatever its file says."""
        node = self._manifest["nodes"].get(unique_id, {})
        if not (node.get("config", {}).get("contract") or {}).get("enforced"):
            return
        relation = self._lineage.models[unique_id].relation
        is_table = holds_rows(node)
        for name, column in node["columns"].items():
            if name not in columns:
                continue
            if is_retyped and column.get("data_type"):
                yield f"data_type {column['data_type']} of {relation}.{name}"
            for constraint in column.get("constraints", ()) if is_table else ():
                yield f"{kind_of(constraint)} of {relation}.{name}"
        for constraint in node.get("constraints", ()) if is_table else ():
            words = re.findall(r"\w+", constraint.get("expression") or "")
            for name in sorted((columns - {ROWS}) & {*(constraint.get("columns") or ()), *words}):
                yield f"{kind_of(constraint)} of {relation}.{name}"


def holds_rows(node: Mapping[str, Any]) -> bool:
    """The model's constraints are in force: of an enforced contract, and of a table."""
    config = node.get("config", {})
    is_enforced = bool((config.get("contract") or {}).get("enforced"))
    return is_enforced and config.get("materialized") in ("table", "incremental")


def kind_of(constraint: Mapping[str, Any]) -> str:
    """not_null, primary_key, unique, check, foreign_key."""
    kind = constraint["type"]
    return str(getattr(kind, "value", kind))


def _mentioned(value: Any) -> set[str]:
    """Every text in a check's options."""
    if isinstance(value, str):
        return {value}
    if isinstance(value, Mapping):
        return {text for item in value.values() for text in _mentioned(item)}
    if isinstance(value, list | tuple):
        return {text for item in value for text in _mentioned(item)}
    return set()
