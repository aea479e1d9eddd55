"""`headwater demo` as a process of its own, and what is left of it."""

import re
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.servers import clean_environment

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1_200
"""Generous: a machine may be slow."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One run of the command. left: command lines of processes that it left behind."""

    status: int
    table: str
    progress: str
    left: list[str]

    def rows(self, name: str) -> int:
        found = re.search(rf"^\w+ +{re.escape(name)} +\S+ +([\d,]+)", self.table, re.MULTILINE)
        assert found, f"{name} is not in the table:\n{self.table}\n{self.progress}"
        return int(found[1].replace(",", ""))


def demo(home: Path, *words: str, **env: str) -> Ended:
    with started(home, *words, **env) as process:
        table, progress = process.communicate(timeout=TIMEOUT_SECONDS)
    return Ended(process.returncode, table, progress, list(processes(home).values()))


@contextmanager
def started(home: Path, *words: str, **env: str) -> "Generator[subprocess.Popen[str]]":
    """Killed at the end, if it still runs then."""
    with subprocess.Popen(
        [sys.executable, "-m", "platform_assets.cli", "demo", *words],
        cwd=ROOT,
        env=clean_environment() | {"HEADWATER_HOME": str(home)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes(home: Path) -> dict[psutil.Process, str]:
    """Those of this home and their command lines: they have it in their environment, or stand in it."""
    found: dict[psutil.Process, str] = {}
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("HEADWATER_HOME") == str(home) or process.cwd().startswith(str(home))
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found[process] = " ".join(process.cmdline())
        except (psutil.Error, OSError):
            continue
    return found
