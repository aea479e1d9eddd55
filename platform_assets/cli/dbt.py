"""`headwater dbt ...`: dbt as it is, with the environment that Headwater's profile reads."""

import os
import signal
import subprocess
import sys

import typer

from platform_assets.cli.context import read_settings

# these touch no database: they must work before there is a warehouse
OFFLINE = frozenset({"parse", "deps", "clean", "ls", "list", "--version", "--help", "-h"})


def command(context: typer.Context) -> None:
    """Run dbt on dbt_project as the transformer role, e.g. `headwater dbt build -s +flights`. Exit code: dbt's own."""
    from platform_assets.dbt.environment import dbt_environment
    from platform_assets.warehouse import ensure_warehouse

    settings = read_settings()
    words = list(context.args)
    is_offline = not words or any(word in OFFLINE for word in words)
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": os.environ.get("DBT_PROFILES_DIR") or str(settings.project_root / "dbt_project"),
        "DBT_PROJECT_DIR": os.environ.get("DBT_PROJECT_DIR") or str(settings.project_root / "dbt_project"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        **({} if is_offline else dbt_environment(ensure_warehouse(settings))),
    }
    process = subprocess.Popen(  # noqa: S603  the words are the user's own command line
        [sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')", *words], env=environment
    )
    # Ctrl-C goes to the whole group: dbt cancels its queries and says how it ended, this process waits for that
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        raise typer.Exit(process.wait())
    finally:
        signal.signal(signal.SIGINT, before)
