"""The source's configuration, judged by the source's own specification before anything is read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from connectors.errors import ConfigError, SourceError
from connectors.secrets import is_reference

Json = Mapping[str, Any]
_MAX_SHOWN = 3


def checked(raw: Json, resolved: Json, specification: Json, where: str) -> dict[str, Any]:
    """The configuration as the source gets it: numbers and truth values from references in their own type.

    raw: as the source file has it. resolved: with references replaced. specification: a JSON schema.

    Raises:
        ConfigError: a literal secret, or what the schema refuses. No value is echoed: it may be a secret.
        SourceError: the specification is no JSON schema.
    """
    if literal := next(_literal_secrets(raw, specification, ""), None):
        raise ConfigError(
            where,
            f"connector.config.{literal} is a secret by the source's own specification, and a literal here",
            f"Write it as a reference, e.g. env:{literal.rpartition('.')[2].upper()}.",
        )
    config = cast("dict[str, Any]", _typed(raw, resolved, specification))
    from jsonschema.validators import validator_for  # 40 ms that only a read needs

    validator = validator_for(cast("Any", specification))(cast("Any", specification))
    try:
        problems = sorted(validator.iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path])
    except Exception as error:  # what is no schema breaks its reader in any way
        said = f"its specification is no JSON schema: {type(error).__name__} {' '.join(str(error).split())[:200]}"
        raise SourceError(where, said, "Report it to the source's author.") from error
    if problems:
        told = [_told(problem) for problem in problems[:_MAX_SHOWN]]
        more = f"; and {len(problems) - _MAX_SHOWN} more" if len(problems) > _MAX_SHOWN else ""
        known = ", ".join(sorted(map(str, specification.get("properties") or ())))
        raise ConfigError(
            where, f"connector.config: {'; '.join(told)}{more}", f"The source's own specification has: {known[:300]}."
        )
    return config


def _told(problem: Any) -> str:
    """What a schema error says, without the value."""
    path = ".".join(str(part) for part in problem.absolute_path)
    match problem.validator:
        case "required" | "additionalProperties" | "dependentRequired":
            said = str(problem.message)
        case "oneOf" | "anyOf":
            said = "fits none of the forms that are allowed"
        case other:
            said = f"must have {other} {json.dumps(problem.validator_value, default=str)[:120]}"
    return f"{path} {said}".strip()


def _forms(schema: Json) -> Iterator[Json]:
    yield schema
    for word in ("oneOf", "anyOf", "allOf"):
        for form in cast("Sequence[Any]", schema.get(word) or ()):
            if isinstance(form, Mapping):
                yield from _forms(cast("Json", form))


def _parts(value: object, schema: Json) -> Iterator[tuple[str, object, list[Json]]]:
    """Members of an object or a list, each with the schemas that speak of it."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            found = [
                cast("Json", named).get(key)
                for form in _forms(schema)
                if isinstance(named := form.get("properties"), Mapping)
            ]
            yield key, item, [cast("Json", one) for one in found if isinstance(one, Mapping)]
    elif isinstance(value, list | tuple):
        for index, item in enumerate(cast("Sequence[object]", value)):
            found = [form.get("items") for form in _forms(schema)]
            yield str(index), item, [cast("Json", one) for one in found if isinstance(one, Mapping)]


def _literal_secrets(value: object, schema: Json, path: str) -> Iterator[str]:
    for key, item, schemas in _parts(value, schema):
        where = f"{path}.{key}" if path else key
        for one in schemas:
            is_literal = item is not None and item != "" and not (isinstance(item, str) and is_reference(item))
            if one.get("airbyte_secret") and is_literal and not isinstance(item, Mapping):
                yield where
            else:
                yield from _literal_secrets(item, one, where)


def _typed(raw: object, resolved: object, schema: Json) -> Any:
    if isinstance(raw, Mapping):
        values = cast("Mapping[str, Any]", resolved)
        return {key: _first_typed(item, values[key], schemas) for key, item, schemas in _parts(raw, schema)}
    if isinstance(raw, list | tuple):
        items = cast("Sequence[Any]", resolved)
        return [_first_typed(item, items[int(key)], schemas) for key, item, schemas in _parts(raw, schema)]
    if not (isinstance(raw, str) and is_reference(raw)):
        return resolved
    kinds = schema.get("type") or ()
    wanted = {kinds} if isinstance(kinds, str) else set(cast("Sequence[str]", kinds))
    # an environment variable is a text, whatever the source wants
    if "string" in wanted or not wanted & {"integer", "number", "boolean"}:
        return resolved
    try:
        return json.loads(str(resolved))
    except ValueError:
        return resolved


def _first_typed(raw: object, resolved: object, schemas: Sequence[Json]) -> Any:
    for schema in schemas:
        typed = _typed(raw, resolved, schema)
        if typed != resolved:
            return typed
    return _typed(raw, resolved, schemas[0]) if schemas else resolved
