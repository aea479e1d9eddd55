"""The project: .env, source files, what they refer to, and whether the sources answer."""

import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.errors import ConfigError, HeadwaterError, TransientError
from platform_assets.cli import output
from platform_assets.cli.checkup.finding import Finding, ok, problem, skipped
from platform_assets.cli.context import protect_secrets, wants_demo
from platform_assets.sources import read_source_file, references, source_paths

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

DEMO = "of the demo: `make demo` and `make ui` start them and set their addresses themselves"


def check_dotenv(root: Path) -> Iterator[Finding]:
    path = root / ".env"
    if not path.exists():
        yield ok(".env", "there is none: settings come from the environment alone")
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield problem(
            ".env",
            ConfigError(
                str(path), f"has mode {mode:04o}: others on this machine may read its secrets", f"Run: chmod 600 {path}"
            ),
        )
        return
    from dotenv.parser import parse_stream

    with path.open(encoding="utf-8") as file:
        broken = [binding.original.line for binding in parse_stream(file) if binding.error]
    if broken:
        yield problem(
            ".env",
            ConfigError(f"{path}, line {broken[0]}", "is not NAME=value", "Mend the line, or start it with #."),
        )
        return
    yield ok(".env", "readable by its owner only")


def check_source_files(root: Path, found: "list[SourceSpec]") -> Iterator[Finding]:
    """One finding a file; the valid sources are added to `found`."""
    from platform_assets.checks import checks_of

    paths = source_paths(root)
    if not paths:
        yield ok("source files", "none yet; docs/sources.md says how to write one")
    names: dict[str, Path] = {}
    for path in paths:
        try:
            specs = read_source_file(path, root)
            place = str(path.relative_to(root))
            for stream in (stream for spec in specs for stream in spec.streams):
                checks_of(stream, place)
        except HeadwaterError as error:
            yield problem("source files", error)
            continue
        if not specs:
            yield skipped("source files", f"{place}: declares no source")
        for spec in specs:
            if first := names.get(spec.source):
                twice = f"source {spec.source!r} is declared in {first.relative_to(root)} already"
                yield problem("source files", ConfigError(place, twice, "Give one of them another name."))
                continue
            names[spec.source] = path
            found.append(spec)
            streams = output.count(len(spec.streams), "stream")
            yield ok("source files", f"{spec.source}: {streams} of kind {spec.connector.kind}")


def check_references(specs: "Sequence[SourceSpec]") -> "Iterator[Finding]":
    yield from _skip_demo("variables", specs)
    for spec in specs:
        if wants_demo(spec):
            continue
        found = list(references(spec))
        missing = [reference for reference in found if not os.environ.get(reference.name)]
        for reference in missing:
            yield problem(
                "variables",
                ConfigError(
                    f"{spec.source}: {reference.place}",
                    f"environment variable {reference.name} is not set",
                    f"Set {reference.name} in .env or in the environment.",
                ),
            )
        if not missing:
            protect_secrets(spec)
            names = len({reference.name for reference in found})
            yield ok("variables", f"{spec.source}: {f'all {names} set' if names else 'needs none'}")


def _waits_for_its_program(spec: "SourceSpec") -> bool:
    """Asking the source would install what it runs, which takes minutes, and the doctor changes nothing."""
    from connectors.installing import InstalledConnectorSpec, is_installed

    if not isinstance(spec.connector, InstalledConnectorSpec):
        return False
    try:
        return not is_installed(spec.connector, spec.source)
    except ConfigError:
        return False  # a lock that does not fit: the source's own check says so


def _skip_demo(check: str, specs: "Sequence[SourceSpec]") -> Iterator[Finding]:
    if names := [spec.source for spec in specs if wants_demo(spec)]:
        yield skipped(check, f"{', '.join(names)}: {DEMO}")


def check_answers(specs: "Sequence[SourceSpec]", limit_seconds: float) -> Iterator[Finding]:
    """Every source's own check, all at once; one that has not answered in time is a problem of its own."""
    waiting: list[tuple[SourceSpec, threading.Thread, list[Finding]]] = []
    yield from _skip_demo("source answers", specs)
    for spec in specs:
        if wants_demo(spec):
            continue
        if any(not os.environ.get(reference.name) for reference in references(spec)):
            yield skipped("source answers", f"{spec.source}: a variable that it needs is not set")
            continue
        if _waits_for_its_program(spec):
            said = (
                f"{spec.source}: its program is not installed yet; `headwater connectors install` or a sync does that"
            )
            yield skipped("source answers", said)
            continue
        if getattr(getattr(spec.connector, "auth", None), "type", "") == "oauth2_authorization_code":
            said = f"{spec.source}: its tokens are in the warehouse; `headwater check {spec.source}` asks it"
            yield skipped("source answers", said)
            continue
        answer: list[Finding] = []
        # a daemon: a source that never answers must not keep the doctor from ending
        thread = threading.Thread(target=_ask, args=(spec, answer), daemon=True, name=f"check {spec.source}")
        thread.start()
        waiting.append((spec, thread, answer))
    for spec, thread, answer in waiting:
        thread.join(limit_seconds)
        late = TransientError(
            spec.source,
            f"no answer in {limit_seconds:.0f} s",
            "See whether the source is up and its address is right, then run `headwater check` for more.",
        )
        yield answer[0] if answer else problem("source answers", late)


def _ask(spec: "SourceSpec", answer: list[Finding]) -> None:
    from connectors.registry import kind

    try:
        with kind(spec.connector.kind).open(spec) as connector:
            answer.append(ok("source answers", output.masked(f"{spec.source}: {connector.check()}")))
    except Exception as error:  # noqa: BLE001  handed to the report: one source must not hide the others
        answer.append(problem("source answers", error))
