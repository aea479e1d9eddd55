"""The options of a check, validated against the stream that declares it: what could never be judged is refused.

A model's validators find the stream with `stream_of`.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, ValidationError, ValidationInfo

from connectors.errors import ConfigError
from connectors.spec_errors import in_words, telling
from connectors.specs import CheckSpec, Spec, StreamSpec, did_you_mean

OWN_KEYS = ("name", "owner")
"""Keys of every check beside those of `CheckSpec`; all others belong to its type."""


def options_of(spec: CheckSpec, model: type[Spec], stream: StreamSpec, where: str) -> Any:
    """The check's options as its model.

    Raises:
        ConfigError: an unknown key, a wrong value, or one that contradicts the stream. where: names the check.
    """
    given = {key: value for key, value in spec.options.items() if key not in OWN_KEYS}
    try:
        return model.model_validate(given, context={"stream": stream})
    except ValidationError as error:
        raise _wrong(where, error, model) from error


def _wrong(where: str, error: ValidationError, model: type[Spec]) -> ConfigError:
    detail = telling(error)
    # the first part is the key; what follows is pydantic's own way through a union
    key = "".join(f".{part}" for part in detail["loc"][:1])
    if detail["type"] == "extra_forbidden":
        known = [*model.model_fields, *CheckSpec.model_fields, *OWN_KEYS]
        return ConfigError(f"{where}{key}", "unknown key", did_you_mean(key[1:], known))
    return ConfigError(f"{where}{key}", in_words(detail), "See docs/checks.md.")


def stream_of(info: ValidationInfo) -> StreamSpec | None:
    """The stream whose check is validated; None for options by themselves."""
    return (info.context or {}).get("stream")


def _is_stored(column: str, info: ValidationInfo) -> str:
    stream = stream_of(info)
    if stream is not None and (spec := stream.columns.get(column)) is not None and spec.rule == "block":
        raise ValueError(f"columns.{column}.rule: block keeps {column} out, so there is nothing to judge")
    return column


StoredColumn = Annotated[str, AfterValidator(_is_stored)]
"""A source column that the stream does not block."""
