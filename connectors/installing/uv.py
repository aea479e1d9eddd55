"""Running uv: its progress as log lines, its failures as the platform's classes."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    HeadwaterError,
    ResourceError,
    TransientError,
)

_TICK_SECONDS = 0.2
_QUIET_SECONDS = 900.0
"""uv says something sooner than that, also while a large package is built."""
_KEPT_LINES = 200
_MAX_REASON = 500
_INHERITED = re.compile(
    r"^(PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|TZ|SSL_CERT_\w+|XDG_\w+|NETRC|SSH_AUTH_SOCK|GIT_SSL_CAINFO"
    r"|(https?|all|no)_proxy|CC|CXX|[A-Z]+FLAGS|UV_\w+)$",
    re.IGNORECASE,
)
_OURS = ("UV_PROJECT_ENVIRONMENT", "UV_PYTHON")
"""Of the set-up of this project; a connector's Python is its own choice."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on while something is installed."""

    log: Callable[[str], None] = lambda line: None
    cancelled: threading.Event = field(default_factory=threading.Event)


def run_uv(arguments: Sequence[str], where: str, doing: str, watch: Watch) -> str:
    """stdout of uv. The environment is ours without secrets: a package's build script runs in it.

    doing: for messages, e.g. `resolving tap-x==1.0`.

    Raises:
        ConfigError: no such package, version or Python, or it cannot be built. AuthError: the index refuses us.
        TransientError: the network. ResourceError: the disk. Cancelled: asked to stop, uv and its children are gone.
    """
    command = [str(find_uv(where)), "--no-config", "--color", "never", "--no-progress", *arguments]
    # outside of any project, so that no virtual environment or pyproject.toml there has a say
    with tempfile.TemporaryDirectory(prefix="headwater-uv-") as folder:
        try:
            process = subprocess.Popen(  # noqa: S603 uv, with arguments that are checked requirements and our own paths
                command,
                cwd=folder,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(where, f"uv cannot be started: {error}", "Run `make setup` again.") from error
        try:
            out, said = _follow(process, where, doing, watch)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise failure(where, doing, said, process.returncode)
    return out


def find_uv(where: str) -> Path:
    """uv beside our Python, or on PATH."""
    beside_ours = str(Path(sys.executable).parent)
    found = shutil.which("uv", path=os.pathsep.join([beside_ours, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise ConfigError(where, "uv is not installed", "Run `make setup`, which installs it into .venv.")
    return Path(found)


def _environment() -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if _INHERITED.match(name) and name not in _OURS}
    # the machine's certificate store, as in pyproject.toml: company proxies work without further settings
    return {"PATH": os.defpath, "UV_SYSTEM_CERTS": "true", **kept}


def _follow(process: "subprocess.Popen[bytes]", where: str, doing: str, watch: Watch) -> tuple[str, Sequence[str]]:
    """stdout and the last lines of stderr of a process that has ended."""
    out = bytearray()
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    open_line = b""
    heard = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in (process.stdout, process.stderr):
            selector.register(cast("IO[bytes]", pipe), selectors.EVENT_READ)
        while selector.get_map():
            if watch.cancelled.is_set():
                raise Cancelled(where, f"stopped while {doing}", "Nothing half-made is used; sync again.")
            if time.monotonic() - heard > _QUIET_SECONDS:
                raise TransientError(where, f"uv said nothing for {_QUIET_SECONDS:.0f} s while {doing}", _AGAIN)
            for key, _ in selector.select(_TICK_SECONDS):
                heard = time.monotonic()
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    out += data
                else:
                    *whole, open_line = (open_line + data).split(b"\n")
                    for raw in whole:
                        _heard(raw, lines, watch)
    _heard(open_line, lines, watch)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        cast("IO[bytes]", pipe).close()
    return out.decode("utf-8", "replace"), list(lines)


def _heard(raw: bytes, lines: "deque[str]", watch: Watch) -> None:
    line = raw.decode("utf-8", "replace").rstrip()
    if not line:
        return
    lines.append(line)
    if re.match(r"(Resolved|Prepared|Installed|Downloaded|Building|Built|Updated|Cloning)\b", line.strip()):
        watch.log(line.strip())


_AGAIN = "Check the network and the package index (UV_DEFAULT_INDEX); the next attempt installs again."
_REQUIREMENT = "Correct connector.package, requires or python in the source file."

PHRASES: tuple[tuple[str, type[HeadwaterError], str], ...] = (
    (r"no space left|disk quota", ResourceError, "Free some disk, or point HEADWATER_CONNECTORS at a larger one."),
    (r"hash mismatch|hashes? (do|does) not match", ConfigError,
     "The index serves another file than was locked. If that is right, run `headwater connectors upgrade`."),
    (r"\b40[13]\b|unauthorized|forbidden|authentication failed", AuthError,
     "Check the credentials of the package index or git server."),
    (r"python-build-standalone", TransientError,
     "That Python is not on this machine and could not be downloaded: install it, or set connector.python."),
    (r"dns error|connection (refused|reset)|timed? ?out|error sending request|failed to fetch", TransientError, _AGAIN),
    (r"could not resolve host|network is unreachable|\b(429|50[0234])\b|failed to download|unable to access",
     TransientError, _AGAIN),
    (r"requires-python|requested python version|depends on python", ConfigError,
     "Set connector.python to a version that the package supports."),
    (r"no interpreter found|no python|invalid interpreter|failed to inspect|python executable", ConfigError,
     "Install that Python, or set connector.python to a version or a path that exists."),
    (r"was not found in the package registry|no version of|no solution found|unsatisfiable", ConfigError, _REQUIREMENT),
    (r"failed to build|build backend|failed to prepare", ConfigError,
     "Choose a version with a wheel for this machine and Python, or install what its build needs."),
    (r"failed to (clone|resolve|parse)|git operation failed|not a valid", ConfigError, _REQUIREMENT),
)  # fmt: skip
"""The first phrase found in uv's words decides."""


def failure(where: str, doing: str, lines: Sequence[str], return_code: int) -> HeadwaterError:
    """The error of a uv that failed; at most six lines."""
    if return_code < 0:
        name = signal.Signals(-return_code).name
        return TransientError(where, f"uv was ended by {name} while {doing}", "The next attempt installs again.")
    start = next((number for number, line in enumerate(lines) if line.startswith("error:")), 0)
    told = [re.sub(r"^(error|cause): *", "", line.strip()) for line in lines[start:] if not line.startswith("hint:")]
    reason = " ".join(dict.fromkeys(line for line in told if line))[:_MAX_REASON] or "it gave no reason"
    for phrase, error, hint in PHRASES:
        if re.search(phrase, reason, re.IGNORECASE):
            return error(where, f"failed while {doing}: {reason}", hint)
    return ConfigError(where, f"failed while {doing}: {reason}", _REQUIREMENT)
