"""`headwater dbt ...`: dbt as it is, with the environment that Headwater's profile reads."""

import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    from platform_assets.settings import Settings
    from platform_assets.warehouse import Warehouse

DBT = (sys.executable, "-c", "from dbt.cli.main import cli; cli(prog_name='dbt')")
AUDITED = (sys.executable, "-m", "platform_assets.cli.dbt_audited")
# these touch no database: they must work before there is a warehouse
HELP = frozenset({"--help", "-h"})
OFFLINE = frozenset({"", "parse", "deps", "clean", "ls", "list"})
BUILDING = frozenset({"build", "run", "clone", "retry"})
"""Subcommands that can put something in a mart's place."""
VALUED = frozenset(
    (
        *("-r", "-t", "--defer-state", "--deprecated-defer", "--deprecated-favor-state", "--deprecated-state"),
        *("--indirect-selection", "--log-file-max-bytes", "--log-format", "--log-format-file", "--log-level"),
        *("--log-level-file", "--log-path", "--partial-parse-file-path", "--printer-width", "--profile"),
        *("--record-timing-info", "--state", "--target", "--warn-error-options"),
    )
)
"""dbt's global flags that take the next word as their value."""
_SHORT_VALUED = re.compile(r"-[^-rt]*[rt]")


def command(context: typer.Context) -> None:
    """Run dbt on dbt_project as the transformer role, e.g. `headwater dbt build -s +flights`. Exit code: dbt's own.

    `build` builds marts beside the served ones and moves them over when their tests have passed; only with `--in-place`
    does dbt build them where they are served (`build`, `run`, `clone`, `retry`). It leaves out what stands on a failed
    blocking check of a stream, unless told `--ignore-failed-checks`.
    `build --slim` builds what was modified since it was last built well, and what reads that; `build --unit-tests` runs
    unit tests, too. `rollback [MART ...]` serves the version before.
    """
    from platform_assets.cli.demo_services import running_warehouse
    from platform_assets.dbt.environment import dbt_environment

    settings = read_settings()
    flags, name, words = split(context.args)
    is_help = not HELP.isdisjoint(context.args)
    if (is_help and not name) or not context.args or (is_help and name == "rollback"):
        print(inspect.cleandoc(command.__doc__ or ""), end="\n\n", flush=True)
        if name:
            return
    folder = str(settings.project_root / "dbt_project")
    environment = {
        **os.environ,
        "DBT_PROFILES_DIR": os.environ.get("DBT_PROFILES_DIR") or folder,
        "DBT_PROJECT_DIR": os.environ.get("DBT_PROJECT_DIR") or folder,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    if is_help or name in OFFLINE or "--version" in context.args:
        raise typer.Exit(_run(DBT, context.args, environment))
    is_audited = name in BUILDING and "--in-place" not in context.args
    if is_audited and name == "retry":
        raise ConfigError(
            "headwater dbt retry",
            "builds what failed last where it is served, before its tests have passed",
            "Name it instead: `headwater dbt build -s <model> ...`; or add `--in-place`.",
        )
    if name in BUILDING:
        # what may stand in front of the subcommand may stand behind it, where `--state` and the like are looked for
        flags, words = [], [word for word in (*flags, *words) if word != "--in-place"]
    if name == "build":
        words = _units(_slim(settings, words))
    with running_warehouse(settings, output.note) as warehouse:
        environment |= dbt_environment(warehouse)
        if name == "rollback":
            _roll_back(warehouse, words)
        elif is_audited:
            raise typer.Exit(_run(AUDITED, [name, *words], environment))
        else:
            raise typer.Exit(_run(DBT, [*flags, name, *words], environment))


def split(words: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """dbt's global flags, its subcommand, and what stands behind that; without a subcommand all are flags."""
    places = iter(range(len(words)))
    for place in places:
        word = words[place]
        if not word.startswith("-"):
            return list(words[:place]), word, list(words[place + 1 :])
        if word in VALUED or _SHORT_VALUED.fullmatch(word):
            next(places, None)
    return list(words), "", []


def _units(words: list[str]) -> list[str]:
    """Unit tests judge code, not data: they run in CI, and here when asked for."""
    if "--unit-tests" in words:
        return [word for word in words if word != "--unit-tests"]
    return [*words, "--exclude-resource-type", "unit_test"]


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
