"""A Singer SCHEMA to column types, and what is wrong with one."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from connectors.specs import ColumnType

Json = Mapping[str, Any]
_WORDS = frozenset({"null", "string", "integer", "number", "boolean", "object", "array"})
_FORMATS: Mapping[str, "ColumnType"] = {"date-time": "timestamp", "date": "date", "time": "time"}
_MANY = ("anyOf", "oneOf")


def column_types(schema: Json) -> dict[str, "ColumnType"]:
    """The type of every property that says one. A union has one type that takes all of it, so one column."""
    properties = cast("Mapping[str, Any]", schema.get("properties") or {})
    types: dict[str, ColumnType] = {}
    for name, spec in properties.items():
        if isinstance(spec, Mapping) and (kind := column_type(cast("Json", spec))) is not None:
            types[name] = kind
    return types


def column_type(spec: Json) -> "ColumnType | None":
    """json wins over everything, text over scalars of different types; None when the schema says no type."""
    branches = list(_branches(spec))
    words = {word for branch in branches for word in _words(branch)} - {"null"}
    if not words:
        return None
    if words & {"object", "array"}:
        return "json"
    if words == {"string"}:
        return _of_text([branch for branch in branches if "string" in _words(branch)])
    if words == {"boolean"}:
        return "bool"
    if words == {"integer"}:
        return "bigint"
    if words <= {"integer", "number"}:
        return "decimal" if any("multipleOf" in branch for branch in branches) else "double"
    return "text"


def _of_text(branches: list[Json]) -> "ColumnType":
    formats = {branch.get("format") for branch in branches}
    if len(formats) > 1:
        return "text"
    (name,) = formats
    return "decimal" if name == "singer.decimal" else _FORMATS.get(cast("str", name), "text")


def _branches(spec: Json) -> Iterator[Json]:
    """The schema itself where it says a type, and all its alternatives."""
    if "type" in spec:
        yield spec
    for key in _MANY:
        for branch in cast("list[Json]", spec.get(key) or ()):
            yield from _branches(branch)


def _words(branch: Json) -> tuple[str, ...]:
    said = branch["type"]
    return (said,) if isinstance(said, str) else tuple(said)


def fault(schema: Any) -> str | None:
    """What makes this no schema of records; None when it is one. With `properties: {}` all types are observed."""
    if not isinstance(schema, Mapping):
        return f"is {type(schema).__name__}, not an object"
    if "properties" not in schema:
        return "has no properties"
    properties = cast("Json", schema).get("properties", {})
    if properties is not None and not isinstance(properties, Mapping):
        return f"properties is {type(properties).__name__}, not an object"
    for name, spec in cast("Json", properties or {}).items():
        if not isinstance(spec, Mapping | bool):
            return f"property {name} is {type(spec).__name__}, not a schema"
        if isinstance(spec, Mapping) and (wrong := _fault_in(cast("Json", spec))):
            return f"property {name}: {wrong}"
    return None


def _fault_in(spec: Json) -> str | None:
    said = spec.get("type", [])
    words = [said] if isinstance(said, str) else said
    if not isinstance(words, list):
        return f"type is {type(said).__name__}"
    for word in cast("list[Any]", words):
        if not isinstance(word, str) or word not in _WORDS:
            return f"unknown type {word!r}"
    if not isinstance(spec.get("format"), str | None):
        return f"format is {type(spec['format']).__name__}"
    for key in _MANY:
        branches = spec.get(key, [])
        if not isinstance(branches, list):
            return f"{key} is {type(branches).__name__}, not a list"
        for branch in cast("list[Any]", branches):
            if not isinstance(branch, Mapping):
                return f"{key} holds {type(branch).__name__}"
            if wrong := _fault_in(cast("Json", branch)):
                return wrong
    return None
