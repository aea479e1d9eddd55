"""What Dagster needs of a manifest, typed. Nothing of dbt or dagster-dbt is imported."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from connectors.errors import ConfigError

Key = tuple[str, ...]
_ASSETS = {"model", "seed", "snapshot"}
_WINDOW = TypeAdapter(timedelta)


@dataclass(frozen=True, slots=True)
class Column:
    """type: as the contract says it, or empty."""

    name: str
    type: str
    description: str
    is_nullable: bool
    is_unique: bool
    other_constraints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Freshness:
    fail_after: timedelta
    warn_after: timedelta | None


@dataclass(frozen=True, slots=True)
class Model:
    """A model, seed or snapshot that is a relation of its own; ephemeral models are seen through.

    key: the asset's; schema and name unless `meta.dagster.asset_key` names another.
    selector: dbt's fully qualified name, which selects this node alone.
    parents: unique ids of models and sources.
    """

    unique_id: str
    key: Key
    schema: str
    name: str
    relation: str
    selector: str
    folder: str
    layer: str
    materialized: str
    description: str
    sql: str
    code_version: str
    columns: tuple[Column, ...]
    parents: tuple[str, ...]
    owners: tuple[str, ...]
    group: str | None
    tags: tuple[str, ...]
    freshness: Freshness | None
    deprecation_date: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """key: [source, stream], which is the key of the stream's own asset."""

    unique_id: str
    key: Key
    relation: str


@dataclass(frozen=True, slots=True)
class Test:
    """A data test. model: unique id of the node that it judges; others: further nodes that it reads."""

    unique_id: str
    name: str
    selector: str
    model: str
    others: tuple[str, ...]
    is_blocking: bool
    description: str


class Graph:
    """Models, sources and tests of one manifest, by unique id."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._manifest = manifest
        self._nodes: Mapping[str, Mapping[str, Any]] = {**manifest["nodes"], **manifest["sources"]}
        self.models = {id_: self._model(node) for id_, node in self._nodes.items() if _is_asset(node)}
        self.sources = {
            id_: Source(id_, _key(node), f"{node['schema']}.{node['identifier']}")
            for id_, node in manifest["sources"].items()
        }
        tests = [node for node in self._nodes.values() if node["resource_type"] == "test"]
        found = (self._test(node) for node in tests)
        self.tests = {test.unique_id: test for test in found if test is not None}
        self.shared_tests: Mapping[str, tuple[str, ...]] = {
            node["unique_id"]: tuple(sorted(set(self._parents(node))))
            for node in tests
            if node["unique_id"] not in self.tests and _is_blocking(node)
        }
        """Blocking tests that judge no single model, with all that they read."""

    @cached_property
    def tests_of(self) -> Mapping[str, Sequence[Test]]:
        """Tests by the unique id that they judge."""
        found: dict[str, list[Test]] = {}
        for test in self.tests.values():
            found.setdefault(test.model, []).append(test)
        return found

    def key(self, unique_id: str) -> Key:
        return self.models[unique_id].key if unique_id in self.models else self.sources[unique_id].key

    def ancestors(self, unique_id: str) -> frozenset[str]:
        """Every model and source upstream, near and far."""
        seen: set[str] = set()
        waiting = [unique_id]
        while waiting:
            for parent in self.models[waiting.pop()].parents:
                if parent not in seen:
                    seen.add(parent)
                    if parent in self.models:
                        waiting.append(parent)
        return frozenset(seen)

    def _model(self, node: Mapping[str, Any]) -> Model:
        dagster = _dagster_meta(node)
        group = node["config"].get("group")
        return Model(
            unique_id=node["unique_id"],
            key=_key(node),
            schema=node["schema"],
            name=node["alias"],
            relation=f"{node['schema']}.{node['alias']}",
            selector=".".join(node["fqn"]),
            folder="/".join(node["fqn"][1:-1]),
            layer=node["fqn"][1] if len(node["fqn"]) > 2 else node["schema"],
            materialized=node["config"]["materialized"],
            description=node["description"],
            sql=node.get("raw_code", ""),
            code_version=node["checksum"]["checksum"][:16],
            columns=tuple(_columns(node)),
            parents=tuple(sorted(set(self._parents(node)))),
            owners=tuple(dagster.get("owners") or self._group_owner(group)),
            group=dagster.get("group") or group,
            tags=tuple(node["config"].get("tags") or ()),
            freshness=_freshness(node, dagster),
            deprecation_date=node.get("deprecation_date"),
        )

    def _parents(self, node: Mapping[str, Any]) -> Iterator[str]:
        for parent in node["depends_on"]["nodes"]:
            upstream = self._nodes.get(parent)
            if upstream is None:
                continue
            if _is_asset(upstream) or upstream["resource_type"] == "source":
                yield parent
            elif upstream["resource_type"] == "model":
                yield from self._parents(upstream)

    def _group_owner(self, group: str | None) -> tuple[str, ...]:
        for known in self._manifest.get("groups", {}).values():
            email = known["owner"].get("email")
            if known["name"] == group and email:
                return (email,) if isinstance(email, str) else tuple(email)
        return ()

    def _test(self, node: Mapping[str, Any]) -> Test | None:
        """None for a test that judges no single asset: one on a source, or a singular one over several models."""
        read = sorted({parent for parent in self._parents(node) if parent in self.models})
        judged = node.get("attached_node") or (read[0] if len(read) == 1 else None)
        reference = _dagster_meta(node).get("ref")
        if reference:
            judged = next((id_ for id_ in read if self._nodes[id_]["name"] == reference["name"]), None)
        if judged not in self.models:
            return None
        return Test(
            unique_id=node["unique_id"],
            name=node["name"],
            selector=".".join(node["fqn"]),
            model=judged,
            others=tuple(id_ for id_ in read if id_ != judged),
            is_blocking=_is_blocking(node),
            description=node["description"] or _in_words(node),
        )


def _is_asset(node: Mapping[str, Any]) -> bool:
    return node["resource_type"] in _ASSETS and node["config"].get("materialized") != "ephemeral"


def _is_blocking(test: Mapping[str, Any]) -> bool:
    return bool((test["config"].get("severity") or "error").lower() == "error")


def _dagster_meta(node: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = node.get("config", {}).get("meta") or node.get("meta") or {}
    return cast("Mapping[str, Any]", meta.get("dagster") or {})


def _key(node: Mapping[str, Any]) -> Key:
    named = _dagster_meta(node).get("asset_key")
    if named:
        return tuple(named)
    if node["resource_type"] == "source":
        return (node["source_name"], node["name"])
    # the alias of a versioned model carries its version, so v1 and v2 are two assets of one schema
    return (node["schema"], node["alias"])


def _columns(node: Mapping[str, Any]) -> Iterator[Column]:
    keys = [constraint for constraint in node.get("constraints") or () if constraint["type"] == "primary_key"]
    in_key = {name for constraint in keys for name in constraint["columns"]}
    for column in node["columns"].values():
        kinds = {constraint["type"] for constraint in column.get("constraints") or ()}
        yield Column(
            name=column["name"],
            type=column.get("data_type") or "",
            description=column.get("description") or "",
            is_nullable=not (kinds & {"not_null", "primary_key"} or column["name"] in in_key),
            is_unique=bool(kinds & {"unique", "primary_key"}),
            other_constraints=("part of the primary key",) if column["name"] in in_key else (),
        )


def _freshness(node: Mapping[str, Any], dagster: Mapping[str, Any]) -> Freshness | None:
    declared = dagster.get("freshness")
    if not declared:
        return None
    try:
        warn = declared.get("warn_after")
        return Freshness(
            _WINDOW.validate_python(declared["fail_after"]), None if warn is None else _WINDOW.validate_python(warn)
        )
    except (KeyError, AttributeError, ValidationError) as error:
        raise ConfigError(
            f"dbt model {node['name']}: meta.dagster.freshness",
            f"cannot be read: {declared!r}",
            "Write it as {warn_after: PT12H, fail_after: PT36H}; fail_after is required.",
        ) from error


def _in_words(node: Mapping[str, Any]) -> str:
    """`relationships on carrier_code: field carrier_code, to ref('airlines')`."""
    facts = node.get("test_metadata") or {}
    column = f" on {node['column_name']}" if node.get("column_name") else ""
    arguments = facts.get("kwargs") or {}
    said = [
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in sorted(arguments.items())
        if name not in ("model", "column_name")
    ]
    return f"{facts.get('name', node['name'])}{column}{': ' if said else ''}{', '.join(said)}"
