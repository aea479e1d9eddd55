"""Servers that speak as object stores, from npm and PyPI: each installed once, by itself, below .headwater/emulators.

They are for the long tests: a first installation takes minutes and the network. What cannot be had skips its tests.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / ".headwater" / "emulators"
AZURITE = "azurite@3.37.0"
GCS = "gcp-storage-emulator==2026.7.19"
SECONDS = 1_200
"""For an installation on a slow line."""


def azurite() -> Path:
    """The program that speaks as Azure's blob storage: one on PATH, else npm's."""
    if found := shutil.which("azurite-blob"):
        return Path(found)
    npm = shutil.which("npm") or pytest.skip("azurite needs npm, which is not on PATH")
    folder = FOLDER / AZURITE
    _once(folder, [[npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", AZURITE]])
    return folder / "node_modules" / ".bin" / "azurite-blob"


def gcs() -> Path:
    """The program that speaks as Google's cloud storage, in an environment of its own."""
    uv, folder = str(Path(sys.executable).with_name("uv")), FOLDER / GCS
    into = ["--python", str(folder / "bin" / "python")]
    _once(
        folder, [[uv, "venv", "-q", "--python", sys.executable, str(folder)], [uv, "pip", "install", "-q", *into, GCS]]
    )
    return folder / "bin" / "gcp-storage-emulator"


def _once(folder: Path, commands: Sequence[Sequence[str]]) -> None:
    """Runs the commands, unless they once ran to their end."""
    done = folder / "installed"
    if done.exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for command in commands:
        try:
            ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"{folder.name} could not be installed: {error}")
        if ended.returncode:
            pytest.skip(f"{folder.name} could not be installed: {ended.stderr.strip()[-300:]}")
    done.touch()
