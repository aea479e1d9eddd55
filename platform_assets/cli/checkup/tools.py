"""The programs that Headwater runs: Sling and dbt."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from connectors.errors import ConfigError
from platform_assets.cli.checkup.finding import Finding, ok, problem, skipped

SLING_PACKAGES = ("sling_linux_amd64", "sling_linux_arm64", "sling_mac_arm64", "sling_mac_amd64")


def check_sling() -> Iterator[Finding]:
    """The binary of the installed wheel, or the one that SLING_BINARY names, is there and may be run."""
    if named := os.environ.get("SLING_BINARY"):
        candidates = [Path(named)]
    else:
        found = [spec for name in SLING_PACKAGES if (spec := importlib.util.find_spec(name)) is not None]
        candidates = [
            binary
            for spec in found
            for folder in spec.submodule_search_locations or []
            for binary in sorted(Path(folder, "bin").glob("sling*"))
        ]
    runnable = [path for path in candidates if os.access(path, os.X_OK) and path.is_file()]
    if runnable:
        yield ok("sling", str(runnable[0]))
        return
    where = str(candidates[0]) if candidates else "sling"
    what = "cannot be run" if candidates else "no wheel with its binary is installed"
    hint = "Correct SLING_BINARY, or remove it to use the wheel's." if named else "Run `make setup`."
    yield problem("sling", ConfigError(where, what, hint))


def check_dbt(root: Path, *, deep: bool) -> Iterator[Finding]:
    """The dbt project is there; with `deep` dbt parses it, which takes some seconds."""
    project = root / "dbt_project"
    if not (project / "dbt_project.yml").is_file():
        yield problem("dbt", ConfigError(str(project), "has no dbt_project.yml", "Restore it from the repository."))
        return
    if not deep:
        yield skipped("dbt", "not parsed; --deep does")
        return
    done = subprocess.run(  # noqa: S603  fixed words
        [
            *(sys.executable, "-c", "from dbt.cli.main import cli; cli()", "--quiet", "--no-use-colors", "parse"),
            *("--project-dir", str(project), "--profiles-dir", str(project), "--no-partial-parse"),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
    )
    if done.returncode == 0:
        yield ok("dbt", f"{project} parses")
        return
    said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    what = "\n".join(["does not parse:", *(said[-3:] or ["dbt said nothing"])])
    yield problem("dbt", ConfigError(str(project), what, "Mend the file, then run `headwater dbt parse`."))
