"""connector.lock: every package of a connector with its hashes, committed beside the source file."""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from packaging.utils import canonicalize_name

from connectors.errors import ConfigError
from connectors.installing.spec import Package
from connectors.installing.uv import Watch, run_uv

_TITLE = "# Packages of a connector, written by `headwater connectors lock`; commit it, do not edit it."
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?(?:==([^\s;\\]+)| *@ *(\S+))", re.MULTILINE)
_COMMIT = re.compile(r"@[0-9a-f]{40}(#|$)")


@dataclass(frozen=True, slots=True)
class Lock:
    """package: what was asked for. pins: lines as `uv pip compile --generate-hashes` writes them."""

    package: Package
    pins: str

    @property
    def text(self) -> str:
        package = self.package
        asked = package.with_python() if package.python else replace(package, python=lock.package.python)
        pair = [f"{item.requirement} on Python {item.python}" for item in (lock.package, asked)]
        what = f"{path.name} locks {pair[0]}, the source file asks for {pair[1]}"
        if pair[0] == pair[1]:
            what = f"{path.name} was made with other `requires` than the source file has"
        raise ConfigError(where, what, "Run `headwater connectors lock` for this source and commit the file.")

    return lock


def write_lock(path: Path, lock: Lock) -> None:
    """In one step: a reader sees the old file or the new one."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".lock-", delete=False, encoding="utf-8") as file:
        file.write(lock.text)
    new = Path(file.name)
    new.chmod(0o644)  # a source file's own mode
    new.replace(path)
