"""What the files of models ask of their columns: data tests and enforced constraints that stop a build."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from platform_assets.contracts.impact import holds_rows, kind_of
from platform_assets.contracts.lineage import Lineage, ModelSql

_AT_FIRST = frozenset({"!=0", ">0", ">=1"})
"""`error_if` of a test that fails by one row."""
_SETS = {"unique_rows": "columns", "unique_combination_of_columns": "combination_of_columns"}
"""Tests that a set of columns is unique, and the argument that names it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """file: below the dbt project. values: those that `accepted_values` lets through."""

    file: str
    model: ModelSql
    kind: Literal["not_null", "unique", "accepted_values"]
    columns: tuple[str, ...]
    values: frozenset[str] = frozenset()


def demands(manifest: Mapping[str, Any], known: Lineage) -> Iterator[Demand]:
    """A test of some rows only, one that warns or tolerates a number of rows, and a view's constraint are none."""
    for id_, node in manifest["nodes"].items():
        if node["resource_type"] == "test" and (model := known.models.get(node.get("attached_node") or "")):
            yield from _of_test(node, model)
        elif id_ in known.models and holds_rows(node):
            yield from _of_contract(node, known.models[id_])


def file_of(node: Mapping[str, Any]) -> str:
    """The properties file of a model, below the dbt project; its SQL where it has none."""
    return (node.get("patch_path") or "").partition("://")[2] or str(node["original_file_path"])


def _of_test(node: Mapping[str, Any], model: ModelSql) -> Iterator[Demand]:
    config, test = node["config"], node.get("test_metadata") or {}
    stops = (config.get("severity") or "error").lower() == "error"
    stops = stops and (config.get("error_if") or "!= 0").replace(" ", "") in _AT_FIRST
    if config.get("where") or not stops:
        return
    arguments, columns = test.get("kwargs") or {}, (node["column_name"],) if node.get("column_name") else ()
    match test.get("name"):
        case "not_null" | "unique" as kind if columns:
            yield Demand(node["original_file_path"], model, kind, columns)
        case "accepted_values" if columns:
            values = frozenset(str(value) for value in arguments["values"])
            yield Demand(node["original_file_path"], model, "accepted_values", columns, values)
        case name if name in _SETS:
            yield Demand(node["original_file_path"], model, "unique", tuple(arguments.get(_SETS[name]) or ()))
        case _:
            pass


def _of_contract(node: Mapping[str, Any], model: ModelSql) -> Iterator[Demand]:
    found = [
        (kind_of(constraint), (name,))
        for name, column in node["columns"].items()
        for constraint in column.get("constraints") or ()
    ]
    found += [(kind_of(one), tuple(one.get("columns") or ())) for one in node.get("constraints") or ()]
    for kind, columns in found:
        if kind in ("not_null", "primary_key"):
            yield from (Demand(file_of(node), model, "not_null", (name,)) for name in columns)
        if kind in ("unique", "primary_key"):
            yield Demand(file_of(node), model, "unique", columns)
