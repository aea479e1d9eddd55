"""The dbt manifest: parsed once per state of the project, kept under the home, shared by every process.

`<home>/dbt/<fingerprint>/manifest.json` is what dbt said of exactly these files, so an up-to-date manifest is found by
reading the project's files (3 ms for 60 of them) and no process parses what another has parsed (3 CPU s).
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from connectors.errors import ConfigError, ResourceError
from platform_assets.settings import Settings

KEPT = 5
"""Manifests kept beside the current one: processes that still run on an older state of the project read theirs."""

PARTIAL_PARSE = "partial_parse.msgpack"
_IGNORED = {"target", "logs", "dbt_packages", "__pycache__", ".git"}
_EMBEDDED_DATABASE = "warehouse"
_IN_FILE = re.compile(r"\(?((?:[\w.-]+/)+[\w.-]+\.(?:sql|ya?ml|md|csv|py))\)?")


def prepared_manifest(project_dir: Path, settings: Settings) -> Path:
    """Path of the manifest of the project as its files are now; parses them when nobody has yet.

    Needs neither the warehouse nor a network. Safe to call from any number of processes at once.

    Raises:
        ConfigError: dbt cannot parse the project; names the file and dbt's own words.
        ResourceError: the home cannot be written.
    """
    if not (project_dir / "dbt_project.yml").is_file():
        raise ConfigError(str(project_dir), "has no dbt_project.yml", "Point `project` of defs.yaml at a dbt project.")
    database = _database(settings)
    store = settings.home / "dbt"
    folder = store / _fingerprint(project_dir, database)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return manifest
    try:
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(store / "lock"):
            if not manifest.is_file():
                _parse(project_dir, database, folder)
                _forget_old(store, folder)
    except OSError as error:
        raise ResourceError(
            str(error.filename or store),
            f"the dbt manifest cannot be kept: {error.strerror}",
            "Free the disk, or point HEADWATER_HOME at a folder that this user may write.",
        ) from error
    return manifest


def read_manifest(path: Path) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", json.loads(path.read_bytes()))


def dbt_command() -> list[str]:
    """The start of a dbt command line: this interpreter's dbt, whatever else is on the PATH."""
    return [sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')"]


def _database(settings: Settings) -> str:
    """The warehouse's database: relation names in the manifest start with it. No connection is made."""
    if settings.warehouse_url is None:
        return _EMBEDDED_DATABASE
    from platform_assets.warehouse.address import parse_url

    return parse_url(settings.warehouse_url)[0].database


def _fingerprint(project_dir: Path, database: str) -> str:
    digest = hashlib.sha256(f"{version('dbt-core')} {version('dbt-postgres')} {database} {project_dir}".encode())
    for path in _files(project_dir):
        digest.update(f"\0{path.relative_to(project_dir)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name in _IGNORED or entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files(Path(entry.path))
            else:
                yield Path(entry.path)


@contextmanager
def _lock(path: Path) -> Generator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _parse(project_dir: Path, database: str, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="parsing-", dir=folder.parent))
    try:
        newest = max(folder.parent.glob(f"*/{PARTIAL_PARSE}"), key=lambda path: path.stat().st_mtime, default=None)
        if newest is not None:
            shutil.copy(newest, scratch / PARTIAL_PARSE)
        arguments = ["--quiet", "--log-format", "json", "parse", "--target-path", str(scratch)]
        places = ["--log-path", str(scratch), "--project-dir", str(project_dir), "--profiles-dir", str(project_dir)]
        done = subprocess.run(  # noqa: S603  our own words and folders
            [*dbt_command(), *arguments, *places],
            env=os.environ | {"HEADWATER_DBT_DATABASE": database, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or not (scratch / "manifest.json").is_file():
            raise _parse_error(project_dir, f"{done.stdout}\n{done.stderr}")
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _parse_error(project_dir: Path, output: str) -> ConfigError:
    """dbt's first error as where, what, hint."""
    words = next(iter(error_messages(output)), output.strip()) or "dbt said nothing"
    words = " ".join(words.removeprefix("Encountered an error:").split())
    # dbt names a YAML file from the models folder, a model from the project
    named = [match[1] for match in _IN_FILE.finditer(words)]
    places = [place for name in named for place in (name, f"models/{name}") if (project_dir / place).is_file()]
    return ConfigError(
        f"{project_dir.name}/{places[0]}" if places else project_dir.name,
        f"dbt cannot parse it: {words[:300]}",
        "Mend the file; `headwater dbt parse` shows dbt's whole message. Ingest goes on without it.",
    )


def error_messages(output: str) -> Iterator[str]:
    """The error messages in dbt's JSON log lines."""
    for line in output.splitlines():
        try:
            info = json.loads(line)["info"]
        except (ValueError, KeyError, TypeError):
            continue
        if info.get("level") == "error" and (words := str(info.get("msg", "")).strip()):
            yield re.sub(r"\x1b\[\d+m", "", words)


def _forget_old(store: Path, current: Path) -> None:
    manifests = sorted(store.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for manifest in manifests[KEPT + 1 :]:
        if manifest.parent != current:
            shutil.rmtree(manifest.parent, ignore_errors=True)
