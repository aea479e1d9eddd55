"""Which commands there are: one line and one module each.

A command's module has `command`: a function that Typer reads, or a Typer application for a group of commands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import typer


@dataclass(frozen=True, slots=True)
class Entry:
    """name as typed, module below platform_assets.cli, summary for `headwater --help`."""

    name: str
    module: str
    summary: str


COMMANDS: tuple[Entry, ...] = (
    Entry("demo", "demo", "Run every demo stream and model through real runs, then print one table."),
    Entry("up", "up", "Serve the Dagster UI with daemon, demo sources and both code locations."),
    Entry("down", "down", "Stop the embedded PostgreSQL server."),
    Entry("doctor", "doctor", "Check everything that could stop a run, before anything runs."),
    Entry("sources", "sources", "List the sources and their streams."),
    Entry("new", "new", "Write the files of a new part: `new connector NAME`, `new source --from-openapi FILE`."),
    Entry("check", "check", "Ask a source whether its address and credentials work."),
    Entry("discover", "discover", "List the streams that a source offers."),
    Entry("preview", "preview", "Show the first rows of a stream; nothing is loaded."),
    Entry("record", "record", "Record a source's HTTP traffic, masked, for tests that replay it."),
    Entry("contract", "contract", "Infer contracts from a sync, write them to dbt, show what they become."),
    Entry("plan", "plan", "Say what a change would break, before anything loads."),
    Entry("schema", "schema", "Schema versions: list, show, diff, accept; block a column."),
    Entry("sync", "sync", "Sync a source or one stream into the warehouse, without Dagster."),
    Entry("syncs", "syncs", "List recent syncs of the ledger; `syncs show ID` tells everything about one."),
    Entry("state", "state", "List, show, diff, rewind, reset, undo, export and import saved positions."),
    Entry("backfill", "backfill", "Plan, run, pause, resume, cancel, prioritize and watch backfills."),
    Entry("quarantine", "quarantine", "List, show, replay and discard records that broke their contract."),
    Entry("webhooks", "webhooks", "Receive signed deliveries; list those not read yet, delete old ones."),
    Entry("auth", "auth", "Sign in to sources by a browser; list and forget the tokens that are kept."),
    Entry("pools", "pools", "Show what is left of the rate limits that all processes share."),
    Entry("slots", "slots", "List or drop the replication slots of a source's database."),
    Entry("connectors", "connectors", "Install, lock, list and upgrade the programs that sources run."),
    Entry("export", "export", "Serve a source's connector to others: as a Singer tap, as an Airbyte source."),
    Entry("tap", "tap", "Look at the messages of a Singer tap: `tap inspect`."),
    Entry("import", "importing", "Turn the project of another tool into source files: `import meltano`."),
    Entry("dbt", "dbt", "Run dbt on dbt_project with profile and environment set."),
)

# words after these belong to another program
PASSED_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def build(words: Sequence[str]) -> typer.Typer:
    """The application for this command line: only the command it names is imported, the others are their summary."""
    app = typer.Typer(
        name="headwater",
        help="Every source stream becomes one asset in PostgreSQL. Exit codes: docs/cli.md.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        # plain help and errors: a third of the start-up time, and a wrong command line stays under six lines
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(_options)
    wanted = next((word for word in words if not word.startswith("-")), None)
    for entry in COMMANDS:
        command = import_module(f"{__package__}.{entry.module}").command if entry.name == wanted else _summary_only
        settings = PASSED_THROUGH if entry.name == "dbt" else None
        if isinstance(command, typer.Typer):
            for one in command.registered_commands:
                # whole sentences: what is not given as the short help is cut in the middle of a line
                one.short_help = one.short_help or _first_paragraph(one.callback.__doc__ if one.callback else None)
            app.add_typer(command, name=entry.name, help=entry.summary)
        else:
            function = cast("Callable[..., Any]", command)
            app.command(
                entry.name,
                help=function.__doc__ if entry.name == wanted else entry.summary,
                short_help=entry.summary,
                context_settings=settings,
            )(function)
    return app


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split())


def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error; may stand anywhere."),
) -> None:
    del debug  # main has taken it from the command line already; here it is declared for the help


def _summary_only() -> None:
    """Stands for a command that was not asked for."""
