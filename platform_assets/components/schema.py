"""The JSON schema of a source file, for `dg check yaml` and for editors: keys and values by connector kind."""

from collections.abc import Mapping
from typing import Any

from pydantic.json_schema import models_json_schema

from connectors.contract import Kind
from connectors.specs import Policy, SourceSpec


def source_schema(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Strict: unknown keys are refused, and the kind decides which connector and stream keys there are."""
    models = [Policy, SourceSpec, *(model for entry in kinds.values() for model in (entry.connector, entry.stream))]
    references, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/$defs/{model}"
    )
    known = definitions["$defs"]
    base = known[references[(SourceSpec, "validation")]["$ref"].rpartition("/")[2]]
    properties = {name: base["properties"][name] for name in ("source", "owner", "description")}
    return {
        "$defs": known,
        "title": "Source",
        "type": "object",
        "additionalProperties": False,
        "required": ["source", "owner", "connector", "streams"],
        "properties": {
            **properties,
            "defaults": references[(Policy, "validation")],
            "connector": {
                "type": "object",
                "required": ["kind"],
                "properties": {"kind": {"enum": sorted(kinds)}},
            },
            "streams": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        },
        "allOf": [
            {
                "if": {"properties": {"connector": {"properties": {"kind": {"const": name}}}}},
                "then": {
                    "properties": {
                        "connector": references[(entry.connector, "validation")],
                        "streams": {"items": references[(entry.stream, "validation")]},
                    }
                },
            }
            for name, entry in sorted(kinds.items())
        ],
    }
