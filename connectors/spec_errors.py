"""A wrong source file, told in words of YAML: pydantic's errors as place, what and next step."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from connectors.column_spec import did_you_mean
from connectors.errors import ConfigError


def telling(error: ValidationError) -> ErrorDetails:
    """The error to show: a misspelt key before the key that is missing because of it, else the first."""
    found = error.errors()
    return next((detail for detail in found if detail["type"] == "extra_forbidden"), found[0])


_WORDS = {
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "time_delta_parsing": "must be a duration such as PT1H or P1D",
}
"""What pydantic says in words of Python, in words of YAML."""


def in_words(error: ErrorDetails) -> str:
    """What is wrong, without the input: it may be a secret."""
    return _WORDS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def wrong_file(place: str, label: str, error: ErrorDetails, model: type[BaseModel]) -> ConfigError:
    """One pydantic error as where, what, hint. The input is echoed only for unknown keys: it may be a secret."""
    keys, models = _walk(model, error["loc"])
    path = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    where = f"{place}: {f'{label}{path}'.removeprefix('.')}"
    context: Mapping[str, Any] = error.get("ctx", {})
    tag = f"{where}.{str(context.get('discriminator')).strip(chr(39))}"
    match error["type"]:
        case "extra_forbidden":
            known = [field.alias or name for one in models for name, field in one.model_fields.items()]
            return ConfigError(where, "unknown key", did_you_mean(str(error["loc"][-1]), list(dict.fromkeys(known))))
        case "missing":
            return ConfigError(where, "missing", "This key is required; see docs/sources.md.")
        case "union_tag_not_found":
            return ConfigError(tag, "missing", "This key is required; see docs/sources.md.")
        case "union_tag_invalid":
            allowed = str(context["expected_tags"]).replace("'", "").split(", ")
            return ConfigError(tag, f"unknown value {context['tag']!r}", did_you_mean(str(context["tag"]), allowed))
        case _:
            return ConfigError(where, in_words(error), "See docs/sources.md for the keys and their values.")


def _walk(model: type[BaseModel], path: Sequence[str | int]) -> tuple[list[str | int], list[type[BaseModel]]]:
    """A pydantic path as the file has it, without the tags of discriminated unions; the models that have its end."""
    keys: list[str | int] = []
    around = inside = [model]
    for part in path:
        if len(inside) > 1 and (tagged := [one for one in inside if _has_tag(one, str(part))]):
            inside = tagged
            continue
        keys.append(part)
        around = inside
        for one in around:
            field = next((field for name, field in one.model_fields.items() if part in (name, field.alias)), None)
            if field is not None and (nested := _models_in(field.annotation)):
                inside = nested
                break
    return keys, around


def _has_tag(model: type[BaseModel], tag: str) -> bool:
    return any(tag in getattr(field.annotation, "__args__", ()) for field in model.model_fields.values())


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]
