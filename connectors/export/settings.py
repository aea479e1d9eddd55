"""What an exported source is configured with: the variables that its source file refers to."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Setting:
    """name: of the environment variable. place: the key of the source file that refers to it."""

    name: str
    place: str
    is_secret: bool


def schema_of(settings: Sequence[Setting]) -> dict[str, Any]:
    """The configuration as a JSON schema, as both protocols have it."""
    properties: dict[str, Any] = {}
    for order, setting in enumerate(settings):
        said: dict[str, Any] = {
            "type": "string",
            "title": setting.name,
            "description": f"What {setting.place} of the source file is.",
            "order": order,
            "airbyte_secret": setting.is_secret,
        }
        properties[setting.name] = said | ({"writeOnly": True} if setting.is_secret else {})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Settings",
        "type": "object",
        "required": [setting.name for setting in settings],
        "properties": properties,
        "additionalProperties": True,
    }


def apply(settings: Sequence[Setting], config: Mapping[str, Any], where: str) -> None:
    """Put the configuration into this process's environment, where references are resolved.

    Raises:
        ConfigError: one is no text, or is missing here and in the environment. Values are never echoed.
    """
    for setting in settings:
        value = config.get(setting.name)
        if value is None:
            if not os.environ.get(setting.name):
                raise ConfigError(where, f"{setting.name} is missing", "Add it to the configuration, as a text.")
            continue
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ConfigError(where, f"{setting.name} is a {type(value).__name__}", "Write it as a text.")
        os.environ[setting.name] = str(value)
