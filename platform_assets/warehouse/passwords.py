"""The generated passwords and the remembered port of one home, in files of mode 0600."""

import json
import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from connectors.errors import ConfigError

SECRETS_FILE = "secrets.json"


def read_private(path: Path) -> dict[str, Any]:
    """The file's JSON object, empty when there is no file.

    Raises:
        ConfigError: the file is not JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ConfigError(
            str(path), f"is not valid JSON: {error}", "Restore it from a backup, or remove it."
        ) from error
    if not isinstance(found, dict):
        raise ConfigError(str(path), "is not a JSON object", "Restore it from a backup, or remove it.")
    return found


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Replace the file as a whole, durable before it shows, readable by this user only."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def known_passwords(home: Path, names: Sequence[str]) -> dict[str, str]:
    """The passwords that this home has for `names`; makes nothing."""
    found = read_private(home / SECRETS_FILE)
    return {name: str(found[name]) for name in names if name in found}


def remembered(home: Path, names: Sequence[str]) -> dict[str, str]:
    """A password for every name: the one of last time, or a new one of 192 bits. Call under the home's lock."""
    path = home / SECRETS_FILE
    known = read_private(path)
    fresh = {name: secrets.token_urlsafe(24) for name in names if name not in known}
    if fresh:
        write_private(path, known | fresh)
    return {name: str((known | fresh)[name]) for name in names}
