"""`headwater dbt ...`: dbt as it is, with the environment that Headwater's profile reads."""

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from platform_assets.cli import output
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    from platform_assets.settings import Settings
    from platform_assets.warehouse import Warehouse

DBT = (sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')")
AUDITED = (sys.executable, "-m", "platform_assets.dbt.audited")
# these touch no database: they must work before there is a warehouse
HELP = frozenset({"--help", "-h"})
OFFLINE = HELP | frozenset({"parse", "deps", "clean", "ls", "list", "--version"})


def command(context: typer.Context) -> None:
    """Run dbt on dbt_project as the transformer role, e.g. `headwater dbt build -s +flights`. Exit code: dbt's own.

    `build` builds marts beside the served ones and moves them over when their tests have passed; `build --in-place` is
    dbt's own. `build --slim` builds what was modified since it was last built well, and what reads that. `rollback
    [MART ...]` serves the version before.
    """
    from platform_assets.cli.demo_services import running_warehouse
    from platform_assets.dbt.environment import dbt_environment

    settings = read_settings()
    words = list(context.args)
    asks_for_rollback = words[:1] == ["rollback"] and not HELP.isdisjoint(words)
    if not words or words[0] in HELP or asks_for_rollback:
        print(inspect.cleandoc(command.__doc__ or ""), end="\n\n", flush=True)
        if asks_for_rollback:
            return
    folder = str(settings.project_root / "dbt_project")
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": os.environ.get("DBT_PROFILES_DIR") or folder,
        "DBT_PROJECT_DIR": os.environ.get("DBT_PROJECT_DIR") or folder,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    if not words or any(word in OFFLINE for word in words):
        raise typer.Exit(_run(DBT, words, environment))
    with running_warehouse(settings, output.note) as warehouse:
        environment |= dbt_environment(warehouse)
        if words[0] == "rollback":
            _roll_back(warehouse, words[1:])
        elif words[0] == "build" and "--in-place" not in words:
            raise typer.Exit(_run(AUDITED, _slim(settings, words[1:]), environment))
        else:
            raise typer.Exit(_run(DBT, [word for word in words if word != "--in-place"], environment))


def _slim(settings: "Settings", words: list[str]) -> list[str]:
    """`--slim` in dbt's words; a `--state` of the command line's own goes before the last build's."""
    from platform_assets.dbt.served import served_manifest

    if "--slim" not in words:
        return words
    state = served_manifest(settings)
    own = [] if "--state" in words else ["--state", str(state.parent)]
    if own and not state.is_file():
        output.note("nothing was built here yet: --slim builds everything")
        return [word for word in words if word != "--slim"]
    return [*(word for word in words if word != "--slim"), "--select", "state:modified+", *own]


def _roll_back(warehouse: "Warehouse", marts: list[str]) -> None:
    from platform_assets.dbt.beside import roll_back

    for name in roll_back(warehouse.transformer_dsn, [mart.removeprefix("marts.") for mart in marts]):
        print(f"marts.{name} is as it was before its last publication; what was served is marts__next.{name}")


def _run(start: Sequence[str], words: list[str], environment: Mapping[str, str]) -> int:
    process = subprocess.Popen([*start, *words], env=environment)  # noqa: S603  the user's own command line
    # Ctrl-C goes to the whole group: dbt cancels its queries and says how it ended, this process waits for that
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
