"""`headwater dbt ...`: dbt as it is, with the environment that Headwater's profile reads."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import typer

from platform_assets.cli import output
from platform_assets.cli.context import read_settings

# these touch no database: they must work before there is a warehouse
OFFLINE = frozenset({"parse", "deps", "clean", "ls", "list", "--version", "--help", "-h"})


def command(context: typer.Context) -> None:
    """Run dbt on dbt_project as the transformer role, e.g. `headwater dbt build -s +flights`. Exit code: dbt's own."""
    from platform_assets.cli.demo_services import running_warehouse
    from platform_assets.dbt.environment import dbt_environment

    settings = read_settings()
    words = list(context.args)
    folder = str(settings.project_root / "dbt_project")
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": os.environ.get("DBT_PROFILES_DIR") or folder,
        "DBT_PROJECT_DIR": os.environ.get("DBT_PROJECT_DIR") or folder,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    if not words or any(word in OFFLINE for word in words):
        raise typer.Exit(_run(words, environment))
    with running_warehouse(settings, output.note) as warehouse:
        raise typer.Exit(_run(words, {**environment, **dbt_environment(warehouse)}))


def _run(words: list[str], environment: Mapping[str, str]) -> int:
    process = subprocess.Popen(  # noqa: S603  the words are the user's own command line
        [sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')", *words], env=environment
    )
    # Ctrl-C goes to the whole group: dbt cancels its queries and says how it ended, this process waits for that
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
