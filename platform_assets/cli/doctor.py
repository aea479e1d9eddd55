"""`headwater doctor`: everything that could stop a run, checked before anything runs."""

import json
from typing import TYPE_CHECKING

import typer

from platform_assets.cli import output

if TYPE_CHECKING:
    from platform_assets.cli.checkup import Finding

NAME_WIDTH = 16


def command(
    offline: bool = typer.Option(False, "--offline", help="Ask no source whether it answers."),
    deep: bool = typer.Option(False, "--deep", help="Also let dbt parse its project (some seconds)."),
    port: int = typer.Option(3000, "--port", min=1, max=65535, help="The port that the UI shall have."),
    min_free_mb: int = typer.Option(1024, "--min-free-mb", min=0, help="Free disk space that is enough."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object, for programs."),
) -> None:
    """Check machine, project, sources and warehouse; start and change nothing.

    One line a check, for a problem also what was measured and the next step.
    The exit code is that of the first problem's class (docs/errors.md), 0 without one.
    """
    from platform_assets.cli.checkup import Finding, Options, examine

    found: list[Finding] = []
    for finding in examine(Options(offline=offline, deep=deep, port=port, min_free_mb=min_free_mb)):
        found.append(finding)
        if finding.error is not None:
            output.debug_traceback(finding.error)
        if not as_json:
            first, *more = finding.lines
            print(f"{finding.status:<9}{finding.check:<{NAME_WIDTH}}{first}", flush=True)
            for line in more:
                print(" " * (9 + NAME_WIDTH) + line, flush=True)
    problems = [finding for finding in found if finding.status == "problem"]
    exit_code = problems[0].exit_code if problems else 0
    if as_json:
        print(json.dumps({"exit_code": exit_code, "findings": [_as_json(finding) for finding in found]}, indent=2))
    elif problems:
        print(f"{output.count(len(problems), 'problem')}; exit code {exit_code} is that of the first (docs/errors.md)")
    else:
        print(f"{len(found)} checks, no problem")
    raise typer.Exit(exit_code)


def _as_json(finding: "Finding") -> dict[str, str | int]:
    where, what, hint = (getattr(finding.error, name, "") for name in ("where", "what", "hint"))
    return {
        "check": finding.check,
        "status": finding.status,
        "detail": finding.detail or "\n".join(finding.lines),
        "where": where,
        "measured": what,
        "next_step": hint,
        "failure_class": getattr(finding.error, "failure_class", ""),
        "exit_code": finding.exit_code,
    }
