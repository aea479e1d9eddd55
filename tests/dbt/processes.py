"""dbt as a process of its own, on a test's warehouse."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from platform_assets.dbt.environment import dbt_environment
from platform_assets.dbt.manifest import dbt_command
from platform_assets.settings import PROJECT_ROOT
from platform_assets.warehouse import Warehouse
from tests.support.servers import clean_environment

PROJECT = PROJECT_ROOT / "dbt_project"


@dataclass(frozen=True, slots=True)
class Dbt:
    """Call it with a command's words; the project may be an edited copy."""

    warehouse: Warehouse
    target: Path
    project: Path = PROJECT

    def __call__(self, *words: str) -> "subprocess.CompletedProcess[str]":
        places = ["--target-path", str(self.target), "--log-path", str(self.target)]
        folders = ["--project-dir", str(self.project), "--profiles-dir", str(self.project)]
        return subprocess.run(
            [*dbt_command(), *words, *places, *folders],
            env=clean_environment() | dict(dbt_environment(self.warehouse)),
            capture_output=True,
            text=True,
            check=False,
        )


def project_copy(folder: Path) -> Path:
    """An editable copy of the dbt project."""
    copy = folder / "dbt_project"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("target", "logs"))
    return copy


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
