"""From a source file to a program that can be run, installed on first use."""

import hashlib
import os
import shutil
from pathlib import Path

from connectors.errors import ConfigError
from connectors.installing.lock import Lock, make_lock, read_lock, write_lock
from connectors.installing.spec import InstalledConnectorSpec
from connectors.installing.uv import Watch
from connectors.installing.venv import cache_folder, install, installed


def command_of(spec: InstalledConnectorSpec, where: str, watch: Watch | None = None) -> Path:
    """The executable of the source's program.

    A package is installed when it is not yet; without a lock file it is resolved once a machine, and says so.

    Raises:
        ConfigError, AuthError, TransientError, ResourceError, Cancelled: see connectors.installing.uv.run_uv.
    """
    watch = watch or Watch()
    if spec.to_install is None:
        return _local(spec.executable or "", where)
    return install(lock_of(spec, where, watch), where, watch).executable(spec.executable, where)


def is_installed(spec: InstalledConnectorSpec, where: str) -> bool:
    """Whether `command_of` has nothing to make: a program of this machine, or a package whose environment is whole.

    Raises:
        ConfigError: the lock is of something else than the source file asks for.
    """
    package = spec.to_install
    if package is None:
        return True
    paths = [Path(spec.lock)] if spec.lock is not None else []
    locks = (read_lock(path, package, where) for path in [*paths, _own_lock(spec)])
    lock = next((lock for lock in locks if lock is not None), None)
    return lock is not None and installed(lock) is not None


def lock_of(spec: InstalledConnectorSpec, where: str, watch: Watch) -> Lock:
    """The lock beside the source file, else the one that this machine has resolved before, else a new one."""
    package = spec.to_install
    assert package is not None
    if spec.lock is not None and (lock := read_lock(Path(spec.lock), package, where)):
        return lock
    own = _own_lock(spec)
    if lock := read_lock(own, package, where):
        return lock
    watch.log(f"{package.requirement} has no lock file: resolving it now; `headwater connectors lock` pins it")
    lock = make_lock(package, where, watch)
    own.parent.mkdir(parents=True, exist_ok=True)
    write_lock(own, lock)
    return lock


def _own_lock(spec: InstalledConnectorSpec) -> Path:
    told = repr(spec.to_install)
    return cache_folder() / "resolved" / f"{hashlib.sha256(told.encode()).hexdigest()[:16]}.lock"


def _local(name: str, where: str) -> Path:
    if "/" in name:
        found = Path(name)
        if not found.exists():
            raise ConfigError(
                where,
                f"connector.executable {found} does not exist",
                "Correct the path; relative ones lie beside the file.",
            )
        if not os.access(found, os.X_OK) or found.is_dir():
            raise ConfigError(where, f"connector.executable {found} is no executable file", f"Run: chmod +x {found}")
        return found
    on_path = shutil.which(name)
    if on_path is None:
        raise ConfigError(where, f"no program {name!r} on PATH", "Install it, or set connector.package.")
    return Path(on_path)
