"""Which checks run, and in which order: what others need comes first, so the first problem is the cause."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.errors import HeadwaterError
from platform_assets.cli import output
from platform_assets.cli.checkup import machine, project, stores, tools
from platform_assets.cli.checkup.finding import Finding, problem, skipped
from platform_assets.settings import PROJECT_ROOT, Settings, load_settings, read_dotenv

if TYPE_CHECKING:
    from connectors.specs import SourceSpec


@dataclass(frozen=True, slots=True)
class Options:
    """offline: ask no source. deep: let dbt parse its project. port: of the UI."""

    offline: bool = False
    deep: bool = False
    port: int = 3000
    min_free_mb: int = 1024
    limit_seconds: float = 15.0


def examine(options: Options) -> Iterator[Finding]:
    """Everything that could stop a run, as findings in order; a check that fails by itself is a finding too."""
    root = PROJECT_ROOT
    specs: list[SourceSpec] = []
    yield from _guarded("python", machine.check_python())
    yield from _guarded("make", machine.check_make())
    yield from _guarded("packages", machine.check_packages(root))
    yield from _guarded(".env", project.check_dotenv(root))
    # a broken line is a finding already; dotenv's own warning would stand between the lines
    logging.getLogger("dotenv").setLevel(logging.ERROR)
    read_dotenv(root)
    output.protect_environment()
    settings, wrong = _settings(root)
    if wrong is not None:
        yield wrong
    yield from _guarded("disk", machine.check_disk(settings.home if settings else root, options.min_free_mb))
    yield from _guarded("port", machine.check_port(options.port))
    yield from _guarded("source files", project.check_source_files(root, specs))
    yield from _guarded("variables", project.check_references(specs))
    if any(spec.connector.kind == "sling" for spec in specs):
        yield from _guarded("sling", tools.check_sling())
    if settings is not None:
        yield from _guarded("warehouse", stores.check_warehouse(settings))
    else:
        yield skipped("warehouse", "a setting is wrong: see above")
    if options.offline:
        yield skipped("source answers", "no source was asked, because of --offline")
    else:
        yield from _guarded("source answers", project.check_answers(specs, options.limit_seconds))
    yield from _guarded("dbt", tools.check_dbt(root, deep=options.deep))


def _settings(root: Path) -> tuple[Settings | None, Finding | None]:
    try:
        return load_settings(os.environ, root), None
    except HeadwaterError as error:
        return None, problem("settings", error)


def _guarded(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except Exception as error:  # noqa: BLE001  what breaks one check is reported, and the others still run
        yield problem(check, error)
