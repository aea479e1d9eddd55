"""Where the Sling binary is: inside a wheel of its own, or where SLING_BINARY says."""

import os
import platform
from importlib.util import find_spec
from pathlib import Path

from connectors.errors import ConfigError

VERSION = "1.4.11"
"""The version whose messages, Arrow types and bugs this kind was tested with."""
_MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"Linux": "linux", "Darwin": "mac"}


def find_binary(where: str) -> Path:
    """The executable. SLING_BINARY wins; the wheel's `sling` module is never imported, since it may download.

    Raises:
        ConfigError: none for this machine, or SLING_BINARY names no executable.
    """
    if named := os.environ.get("SLING_BINARY"):
        if not os.access(named, os.X_OK):
            raise ConfigError(where, f"SLING_BINARY names no executable: {named}", "Correct or unset SLING_BINARY.")
        return Path(named)
    label = f"{_SYSTEMS.get(platform.system(), '?')}_{_MACHINES.get(platform.machine().lower(), '?')}"
    spec = find_spec(f"sling_{label}")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "bin" / f"sling-{label.replace('_', '-')}"
        if os.access(binary, os.X_OK):
            return binary
    raise ConfigError(
        where,
        f"no Sling binary for {platform.system()} {platform.machine()}",
        f"Install sling {VERSION} with its platform package, or set SLING_BINARY to an executable.",
    )
