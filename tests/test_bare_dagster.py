"""Whoever knows Dagster types `dagster dev` in the repository root, and sees both code locations."""

import subprocess
import sys
from pathlib import Path

from platform_assets.settings import load_settings
from platform_assets.warehouse import stop_warehouse
from tests.support.servers import clean_environment, short_folder

ROOT = Path(__file__).parent.parent


def test_a_bare_dagster_command_finds_both_code_locations() -> None:
    with short_folder() as folder:
        home = {"HEADWATER_HOME": str(folder / "home")}
        try:
            # finds its targets as `dagster dev` does, without serving them; its storage starts the warehouse
            done = subprocess.run(
                [sys.executable, "-m", "dagster", "definitions", "validate"],
                cwd=ROOT,
                env=clean_environment() | home,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            stop_warehouse(load_settings(home))
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for location in ("ingest", "transform"):
        assert f"Validation successful for code location {location}." in said, said
