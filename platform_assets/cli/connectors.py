"""`headwater connectors`: the programs that sources run, each in a hash-locked environment of its own."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectors.errors import ConfigError, HeadwaterError
from connectors.installing import InstalledConnectorSpec
from platform_assets.cli import output
from platform_assets.cli.context import read_settings

if TYPE_CHECKING:
    from connectors.installing import Lock, Package, Watch

command = typer.Typer(no_args_is_help=True, help="Programs that sources run: install, lock, list, upgrade.")

Source = Annotated[str | None, typer.Argument(help="One source; all without it.")]


@dataclass(frozen=True, slots=True)
class Installable:
    """A source whose connector is installed. file: its lock file, there or not."""

    source: str
    kind: str
    spec: InstalledConnectorSpec
    package: "Package"
    file: Path

    def lock(self) -> "Lock | None":
        """Raises ConfigError when the file locks something else."""
        from connectors.installing import read_lock

        return read_lock(self.file, self.package, self.source)


@dataclass(frozen=True, slots=True)
class Shown:
    """lock: `locked`, `none` or `stale`. folder: of the environment, None when it is not made."""

    source: str
    kind: str
    package: str
    python: str
    lock: Literal["locked", "none", "stale"]
    version: str
    folder: str | None


@command.command()
def install(source: Source = None) -> None:
    """Make the environments that are missing, so that no sync has to wait for one."""
    from connectors.installing import command_of

    def one(item: Installable) -> str:
        path = command_of(item.spec, item.source, _watch(item.source))
        return f"{item.source}: {path}"

    _each(source, one)


@command.command()
def lock(source: Source = None) -> None:
    """Write connector.lock beside the source file; what it pins already stays where it still fits."""
    _each(source, lambda item: _locked(item, keeps=True))


@command.command()
def upgrade(source: Source = None) -> None:
    """Write connector.lock anew, with the newest versions that the source file allows."""
    _each(source, lambda item: _locked(item, keeps=False))


@command.command("list")
def list_connectors(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, for programs.")] = False,
) -> None:
    """List the sources whose connector is installed, what is locked and what is there."""
    from connectors.installing import installed

    shown: list[Shown] = []
    for item in _installables(None):
        state: Literal["locked", "none", "stale"] = "none"
        found = None
        try:
            found = item.lock()
            state = "locked" if found is not None else "none"
        except ConfigError:
            state = "stale"
        venv = installed(found) if found is not None else None
        python = item.package.python or (found.package.python if found is not None else "")
        version = found.version if found is not None else ""
        folder = str(venv.folder) if venv is not None else None
        shown.append(Shown(item.source, item.kind, item.package.requirement, python, state, version, folder))
    if as_json:
        print(json.dumps([asdict(one) for one in shown]))
        return
    table = output.table("", "source", "kind", "package", "python", "lock", "version", "installed")
    for one in shown:
        table.add_row(
            one.source, one.kind, one.package, one.python, one.lock, one.version, "yes" if one.folder else "no"
        )
    if shown:
        output.console(is_data=True).print(table)
    else:
        print("no source file has a connector that is installed")


def _locked(item: Installable, *, keeps: bool) -> str:
    """Resolves, proves that it can be installed, and only then writes the file."""
    from connectors.installing import Lock, make_lock, write_lock
    from connectors.installing.venv import install as make

    previous = None
    if keeps and item.file.exists():
        previous = Lock.parse(item.file.read_text(encoding="utf-8"), str(item.file))
    watch = _watch(item.source)
    found = make_lock(item.package, item.source, watch, previous)
    make(found, item.source, watch)
    before = previous.versions if previous is not None else _versions(item.file)
    write_lock(item.file, found)
    changes = [
        f"{name} {before.get(name, '-')} -> {found.versions.get(name, '-')}"
        for name in sorted(before.keys() | found.versions.keys())
        if before.get(name) != found.versions.get(name)
    ]
    told = "; ".join(changes[:5]) + (f"; and {len(changes) - 5} more" if len(changes) > 5 else "")
    said = output.count(len(found.versions), "package")
    return f"{item.source}: locked {said} in {item.file.name}" + (f": {told}" if before and changes else "")


def _versions(file: Path) -> dict[str, str]:
    from connectors.installing import Lock

    return Lock.parse(file.read_text(encoding="utf-8"), str(file)).versions if file.exists() else {}


def _watch(source: str) -> "Watch":
    from connectors.installing import Watch

    return Watch(lambda line: output.note(f"{source}: {line}"))


def _installables(source: str | None) -> Iterator[Installable]:
    """Raises ConfigError: a source file is wrong, or the named source installs nothing."""
    from platform_assets.sources import find_source, load_sources

    settings = read_settings()
    root = settings.project_root
    for spec in (find_source(source, root),) if source is not None else load_sources(root):
        stanza = spec.connector
        package = stanza.to_install if isinstance(stanza, InstalledConnectorSpec) else None
        if isinstance(stanza, InstalledConnectorSpec) and package is not None and stanza.lock is not None:
            yield Installable(spec.source, stanza.kind, stanza, package, Path(stanza.lock))
        elif source is not None:
            raise ConfigError(source, f"kind {stanza.kind} installs nothing here", "`headwater connectors list`.")


def _each(source: str | None, work: Callable[[Installable], str]) -> None:
    """One that fails does not stop the others; the exit code is that of the first failure."""
    failed: HeadwaterError | None = None
    for item in _installables(source):
        try:
            print(work(item))
        except HeadwaterError as error:
            output.failure(error)
            failed = failed or error
    if failed is not None:
        sys.exit(failed.exit_code)
