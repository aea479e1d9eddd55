"""The machine: Python, make, packages, disk, port."""

import contextlib
import shutil
import socket
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from connectors.errors import ConfigError, ResourceError
from platform_assets.cli.checkup.finding import Finding, ok, problem, skipped

OLDEST, NEWEST = (3, 11), (3, 13)


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Iterator[Finding]:
    words = ".".join(str(part) for part in version)
    if OLDEST <= version[:2] <= NEWEST:
        yield ok("python", f"{words} (3.11 to 3.13 are supported)")
        return
    yield problem(
        "python",
        ConfigError(
            sys.executable,
            f"is Python {words}; Headwater needs 3.11, 3.12 or 3.13",
            "Run `make setup`: it finds a right one, or name it: make setup PYTHON=/path/to/python3.12",
        ),
    )


def check_make() -> Iterator[Finding]:
    if found := shutil.which("make"):
        yield ok("make", found)
        return
    yield problem(
        "make",
        ConfigError(
            "PATH",
            "there is no make",
            "Debian and Ubuntu: apt install make; macOS: xcode-select --install. Without it: `headwater demo`.",
        ),
    )


def check_packages(root: Path) -> Iterator[Finding]:
    """Every installed package has the version of uv.lock, and none that the project names is missing."""
    lock = root / "uv.lock"
    if not lock.exists():
        yield skipped("packages", "there is no uv.lock to compare with")
        return
    locked: dict[str, set[str]] = {}
    direct: list[str] = []
    for package in tomllib.loads(lock.read_text(encoding="utf-8"))["package"]:
        if "editable" in package.get("source", {}):
            direct = _without_marker(package.get("dependencies", []))
            continue
        locked.setdefault(package["name"], set()).add(package.get("version", ""))
    installed = {str(found.name).lower().replace("_", "-"): found.version for found in metadata.distributions()}
    wrong = [
        f"{name} is {installed[name]}, locked {' or '.join(sorted(versions))}"
        for name, versions in locked.items()
        if name in installed and installed[name] not in versions
    ]
    wrong += [f"{name} is missing" for name in direct if name not in installed]
    if not wrong:
        yield ok("packages", f"{len(locked.keys() & installed.keys())} installed as uv.lock says")
        return
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    yield problem(
        "packages", ConfigError(str(lock), f"{'; '.join(wrong[:3])}{more}", "Run `make setup` to bring them in step.")
    )


def _without_marker(dependencies: list[Mapping[str, Any]]) -> list[str]:
    return [str(entry["name"]) for entry in dependencies if "marker" not in entry]


def check_disk(home: Path, min_free_mb: int) -> Iterator[Finding]:
    folder = next(path for path in (home, *home.parents) if path.exists())
    free_mb = shutil.disk_usage(folder).free >> 20
    if free_mb >= min_free_mb:
        yield ok("disk", f"{free_mb:,} MB free in {folder} (at least {min_free_mb:,})")
        return
    yield problem(
        "disk",
        ResourceError(
            str(folder),
            f"{free_mb:,} MB are free, at least {min_free_mb:,} MB are needed",
            "Free some space, or point HEADWATER_HOME at a larger disk.",
        ),
    )


def check_port(port: int) -> Iterator[Finding]:
    """The port of the UI is free, or served by Dagster's own web server."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            reason = error.strerror
        else:
            yield ok("port", f"127.0.0.1:{port} is free for the UI")
            return
    holder, is_ours = _holder(port)
    if is_ours:
        yield ok("port", f"127.0.0.1:{port} is served by {holder}")
        return
    yield problem(
        "port",
        ResourceError(
            f"127.0.0.1:{port}",
            f"in use by {holder}" if holder else f"not free: {reason}",
            "Stop what listens there, or let `make ui` take another free port, which it prints.",
        ),
    )


def _holder(port: int) -> tuple[str, bool]:
    """Who listens there, as far as this user may see, and whether it is Dagster's web server."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            address: Any = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                is_ours = any("dagster" in word for word in process.cmdline()[:4])
                return f"{process.name()} (process {process.pid})", is_ours
    return "", False
