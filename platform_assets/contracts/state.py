"""Models whose contract differs from production's: dbt's own `state:modified.contract`."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from connectors.errors import ConfigError
from platform_assets.dbt.manifest import dbt_command, error_messages

_BREAKS = re.compile(r"Breaking change to contract Error in model \S+ \((.+?)\)\n(.*)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModifiedContract:
    """breaks: what dbt says is breaking; empty when the change only adds."""

    unique_id: str
    breaks: str


def production_manifest(folder: Path) -> Mapping[str, Any]:
    """Raises ConfigError: there is no manifest in the folder, or it is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise ConfigError(
            f"plan: --state {folder}", "holds no manifest.json",
            "Give the folder of production's dbt artifacts, e.g. its target/.",
        )  # fmt: skip
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(str(path), f"is no JSON: {error}", "Let `dbt parse` write it again.") from error
    if not isinstance(manifest, dict) or "nodes" not in manifest:
        raise ConfigError(str(path), "is no dbt manifest: it has no nodes", "Let `dbt parse` write it again.")
    return manifest


def modified_contracts(
    project: Path, state: Path, database: str, manifest: Mapping[str, Any]
) -> list[ModifiedContract]:
    """manifest: of the project as it is now. database: as both manifests were made for.

    Raises:
        ConfigError: dbt cannot compare them.
    """
    arguments = ["ls", "--select", "state:modified.contract", "--resource-type", "model", "--output", "json"]
    with TemporaryDirectory(prefix="headwater-plan-") as scratch:
        places = ["--state", str(state.resolve()), "--target-path", scratch, "--log-path", scratch]
        done = subprocess.run(  # noqa: S603  our own words and folders
            [
                *dbt_command(), "--log-format", "json", *arguments, "--output-keys", "unique_id", *places,
                "--project-dir", str(project), "--profiles-dir", str(project),
            ],
            env=os.environ | {"HEADWATER_DBT_DATABASE": database, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
    by_file = {node["original_file_path"]: id_ for id_, node in manifest["nodes"].items()}
    found: dict[str, str] = {}
    for event in _events(done.stdout.splitlines()):
        name, data = event["info"]["name"], event["data"]
        if name == "PrintEvent":
            found.setdefault(json.loads(data["msg"])["unique_id"], "")
        elif name == "UnversionedBreakingChange":
            unique_id = by_file.get(data["model_file_path"], f"model {data['model_name']}")
            found[unique_id] = _squeezed("; ".join(data["breaking_changes"]))
    broken = [match for words in error_messages(done.stdout) if (match := _BREAKS.search(words))]
    for match in broken:
        said = [line for line in match[2].splitlines() if line.lstrip().startswith("-")]
        found[by_file.get(match[1], match[1])] = _squeezed(" ".join(said).removeprefix("    - "))
    if done.returncode != 0 and not broken:
        words = next(iter(error_messages(done.stdout)), done.stderr.strip() or "dbt said nothing")
        raise ConfigError("plan: dbt", f"cannot compare with {state}: {_squeezed(words)[:300]}", "Mend it first.")
    return [ModifiedContract(unique_id, breaks) for unique_id, breaks in found.items()]


def _events(lines: Iterable[str]) -> Iterable[Mapping[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "info" in event:
            yield event


def _squeezed(text: str) -> str:
    return " ".join(text.split()).removeprefix("- ")
