"""The programs that Headwater runs: Sling and dbt."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from connectors.errors import ConfigError
from platform_assets.cli.checkup.finding import Finding, ok, problem, skipped


def check_sling() -> Iterator[Finding]:
    """The binary of the installed wheel, or the one that SLING_BINARY names, is there and may be run."""
    from connectors.sling.binary import find_binary

    try:
        yield ok("sling", str(find_binary("sling")))
    except ConfigError as error:
        yield problem("sling", error)


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
