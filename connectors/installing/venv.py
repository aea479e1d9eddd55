"""Virtual environments of connectors: one for each lock, shared by every source with it, whole or not used."""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from connectors.errors import Cancelled, ConfigError, ResourceError
from connectors.installing.lock import Lock
from connectors.installing.uv import Watch, run_uv

_STAMP = ".headwater-complete"
_WAIT_SECONDS = 0.2
_KNOWN_PYTHONS = tuple(f"3.{minor}" for minor in range(14, 7, -1))
_PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent


def cache_folder() -> Path:
    """$HEADWATER_CONNECTORS, else `connectors` in $HEADWATER_HOME, else in `.headwater` of this project."""
    if chosen := os.environ.get("HEADWATER_CONNECTORS"):
        return Path(chosen).expanduser()
    home = Path(os.environ.get("HEADWATER_HOME") or ".headwater").expanduser()
    return (home if home.is_absolute() else _PROJECT_ROOT / home) / "connectors"


@dataclass(frozen=True, slots=True)
class Venv:
    """An installed connector. commands: console scripts of the connector's own distribution."""

    folder: Path
    commands: tuple[str, ...]

    def executable(self, wanted: str | None, where: str) -> Path:
        """Raises ConfigError when it is not there, or when there are several and none is wanted."""
        if wanted is None and len(self.commands) == 1:
            wanted = self.commands[0]
        if wanted is None:
            what = f"the package has {len(self.commands)} commands" + (
                f": {', '.join(self.commands[:8])}" if self.commands else ""
            )
            raise ConfigError(where, what, "Set connector.executable to the one that reads.")
        found = self.folder / "bin" / wanted
        if "/" in wanted or not os.access(found, os.X_OK):
            hint = f"It has: {', '.join(self.commands[:8])}." if self.commands else "Correct connector.executable."
            raise ConfigError(where, f"the package has no command {wanted!r}", hint)
        return found


def folder_of(lock: Lock) -> Path:
    """Where this lock's environment is, made or not; another machine type sharing the folder has another one."""
    told = "\n".join([lock.text, sys.platform, platform.machine(), platform.libc_ver()[0]])
    digest = hashlib.sha256(told.encode()).hexdigest()[:12]
    return cache_folder() / f"{(lock.name or 'connector')[:60]}-{digest}"


def installed(lock: Lock) -> Venv | None:
    """The whole environment; None when it is not made, half made, or its Python is gone."""
    folder = folder_of(lock)
    try:
        commands = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Venv(folder, tuple(commands)) if os.access(folder / "bin" / "python", os.X_OK) else None


def install(lock: Lock, where: str, watch: Watch) -> Venv:
    """The environment of the lock, made when it is not there. Two at once make it once.

    Raises: see run_uv; ConfigError as well when a package does not support this Python.
    """
    if found := installed(lock):
        return found
    folder = folder_of(lock)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "Point HEADWATER_CONNECTORS or HEADWATER_HOME at a folder that this user may write."
        raise ResourceError(where, f"{folder.parent} cannot be made: {error}", hint) from error
    with _alone(folder.with_suffix(".lock"), where, watch):
        if found := installed(lock):
            return found
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        watch.log(f"installing {lock.package.requirement} for Python {lock.package.python}")
        try:
            _make(lock, folder, where, watch)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        watch.log(f"installed {lock.name} {lock.version} in {time.monotonic() - started:.1f} s")
    made = installed(lock)
    assert made is not None
    return made


def _make(lock: Lock, folder: Path, where: str, watch: Watch) -> None:
    asked = lock.package.requirement
    run_uv(
        ["venv", "--quiet", "--python", lock.package.python, str(folder)], where, f"making a venv for {asked}", watch
    )
    # the connector itself first: what it says of Python is known before its dependencies are built for minutes
    for own in (True, False):
        for kind, text in zip(("hashed", "git"), lock.files(own=own), strict=True):
            if text:
                pins = folder / f"{'own' if own else 'others'}-{kind}.txt"
                pins.write_text(text + "\n", encoding="utf-8")
                options = ["--no-deps", *(["--require-hashes"] if kind == "hashed" else [])]
                command = ["pip", "install", "--python", str(folder / "bin" / "python"), *options]
                run_uv([*command, "--requirement", str(pins)], where, f"installing {asked}", watch)
        _require_bounds(folder, where)
    commands = sorted(_commands(folder, lock.name))
    # the last step: without this file the folder counts as half made
    temporary = folder / f"{_STAMP}.new"
    temporary.write_text(json.dumps(commands), encoding="utf-8")
    temporary.rename(folder / _STAMP)


@contextmanager
def _alone(path: Path, where: str, watch: Watch) -> Generator[None]:
    """One process at a time; the kernel lets go of the lock of one that died."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    has_said = False
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not has_said:
                    watch.log("somebody else is installing the same packages; waiting")
                    has_said = True
                if watch.cancelled.wait(_WAIT_SECONDS):
                    raise Cancelled(where, "stopped while waiting for an installation", "Sync again.") from None
        yield
    finally:
        os.close(descriptor)


def _distributions(folder: Path) -> Iterator[tuple[Path, Message]]:
    """Every installed distribution: its dist-info folder and the headers of its metadata."""
    for path in sorted(folder.glob("lib/python*/site-packages/*.dist-info/METADATA")):
        yield path.parent, HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))


def _require_bounds(folder: Path, where: str) -> None:
    """uv ignores upper bounds of requires-python; a package that says `<3.13` has a reason."""
    version = _version_of(folder)
    bounds: dict[str, SpecifierSet] = {}
    for _, headers in _distributions(folder):
        try:
            bounds[f"{headers['Name']} {headers['Version']}"] = SpecifierSet(headers["Requires-Python"] or "")
        except (InvalidSpecifier, TypeError):
            continue
    refused = [f"{name} needs Python {bound}" for name, bound in bounds.items() if not bound.contains(version)]
    if refused:
        fitting = [
            python for python in _KNOWN_PYTHONS if all(bound.contains(f"{python}.99") for bound in bounds.values())
        ]
        hint = f"Set connector.python to {fitting[0]!r}" if fitting else "Choose another version of the package"
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        what = f"{refused[0]}{more}; connector.python is {version}"
        raise ConfigError(where, what, f"{hint}, then run `headwater connectors lock`.")


def _version_of(folder: Path) -> str:
    for line in (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key.strip() in ("version", "version_info"):
            return ".".join(value.strip().split(".")[:3])
    return ""


def _commands(folder: Path, name: str | None) -> Iterator[str]:
    """Console scripts of one distribution."""
    for path, headers in _distributions(folder):
        if name is not None and canonicalize_name(headers["Name"]) == name and (path / "entry_points.txt").exists():
            section = ""
            for line in (path / "entry_points.txt").read_text(encoding="utf-8").splitlines():
                if line.startswith("["):
                    section = line.strip("[] ")
                elif section == "console_scripts" and "=" in line:
                    yield line.partition("=")[0].strip()
