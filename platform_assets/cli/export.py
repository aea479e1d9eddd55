"""`headwater export`: a source file's connector as a Singer tap or as an Airbyte source (docs/export.md)."""

import json
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.cli.context import opened, read_settings, running_warehouse

if TYPE_CHECKING:
    from connectors.contract import Connector
    from connectors.export.settings import Setting
    from connectors.specs import SourceSpec
    from platform_assets.settings import Settings

KINDS = ("rest", "python", "webhook", "database")
_URL_KINDS = ("database",)

command = typer.Typer(
    no_args_is_help=True, help="Serve a source's connector to others: as a Singer tap, as an Airbyte source."
)

Source = Annotated[str, typer.Argument(help="A source, e.g. nyc_flights.")]
File = Annotated[Path | None, typer.Option(help="A JSON file.")]
Dockerfile = Annotated[Path | None, typer.Option(help="Only write a Dockerfile for it, to this new file.")]


@command.command()
def singer(
    source: Source,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="JSON: variables of the source file.")] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", "--properties", "-p", help="From --discover.")] = None,
    state: Annotated[Path | None, typer.Option("--state", "-s", help="The value of the last STATE message.")] = None,
    discover: Annotated[bool, typer.Option("--discover", "-d", help="Print the catalog.")] = False,
    about: Annotated[bool, typer.Option("--about", help="Print what it is and its settings, as JSON.")] = False,
    dockerfile: Dockerfile = None,
) -> None:
    """Run the source as a Singer tap: messages on stdout, everything else on stderr."""
    from connectors.export import singer as tap
    from connectors.export.schemas import shapes

    settings, spec = _source(source)
    if dockerfile is not None:
        _dockerfile(dockerfile, spec, "singer", settings)
        return
    if about:
        print(json.dumps(tap.about(spec, _variables(spec))))
        return
    _configure(spec, config)
    given = _read(catalog, spec.source) if catalog is not None else None
    saved = _read(state, spec.source) if state is not None else {}
    spec = _under_rules(spec, settings)
    with opened(spec, settings) as connector:
        if discover:
            print(json.dumps(tap.catalog(shapes(spec, connector)), indent=2))
            return
        chosen = tap.selection(spec, given, lambda: shapes(spec, connector))
        with _stdout() as write:
            tap.sync(_reading(spec, connector), chosen, saved, write)


@command.command()
def airbyte(
    source: Source,
    verb: Annotated[str, typer.Argument(help="spec, check, discover or read.")] = "",
    config: Annotated[Path | None, typer.Option("--config", help="JSON: variables of the source file.")] = None,
    catalog: Annotated[Path | None, typer.Option("--catalog", help="The configured catalog of a read.")] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="The STATE messages of the last read, as a list.")
    ] = None,
    dockerfile: Dockerfile = None,
) -> None:
    """Run the source as an Airbyte source: messages on stdout, everything else on stderr."""
    from connectors.export import airbyte as served

    settings, spec = _source(source)
    if dockerfile is not None:
        _dockerfile(dockerfile, spec, "airbyte", settings)
        return
    if verb not in ("spec", "check", "discover", "read"):
        raise typer.BadParameter("one of spec, check, discover, read", param_hint="VERB")
    with _stdout() as write:
        try:
            _answer(spec, settings, verb, (config, catalog, state), write)
        except BrokenPipeError:
            raise
        except Exception as error:
            served.trace(error, write, mask=output.masked)
            raise


def _answer(
    spec: "SourceSpec",
    settings: "Settings",
    verb: str,
    files: tuple[Path | None, Path | None, Path | None],
    write: Any,
) -> None:
    from connectors.export import airbyte as served
    from connectors.export.schemas import shapes

    config, catalog, state = files
    if verb == "spec":
        served.spec(_variables(spec), write)
        return

    @contextmanager
    def configured() -> "Generator[Connector]":
        _configure(spec, config)
        with opened(spec, settings) as connector:
            yield connector

    if verb == "check":
        served.check(configured, write)
        return
    if verb == "read" and catalog is None:
        raise ConfigError(spec.source, "read needs a configured catalog", "Give one with --catalog.")
    chosen = _read(catalog, spec.source) if catalog is not None else {}
    saved = _read_any(state, spec.source) if state is not None else []
    spec = _under_rules(spec, settings)
    with configured() as connector:
        if verb == "discover":
            served.discover(shapes(spec, connector), write)
        else:
            served.read(_reading(spec, connector), spec, chosen, saved, write, output.masked)


def _source(name: str) -> "tuple[Settings, SourceSpec]":
    """Raises ConfigError: a kind that runs a program of others, or loads by itself, is not served again."""
    from platform_assets.sources import find_source

    settings = read_settings()
    spec = find_source(name, settings.project_root)
    if spec.connector.kind not in KINDS:
        what = f"kind {spec.connector.kind} is not exported"
        raise ConfigError(spec.source, what, f"Exported are: {', '.join(KINDS)}.")
    return settings, spec


def _under_rules(spec: "SourceSpec", settings: "Settings") -> "SourceSpec":
    """With the columns blocked that an operator has blocked, where this project has a warehouse that says so."""
    from platform_assets.warehouse.server import EmbeddedServer

    if settings.is_embedded and EmbeddedServer(settings.home).address("postgres") is None:
        return spec
    import psycopg

    from connectors.sync.registry import ruled_columns

    with running_warehouse(settings) as warehouse, psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        streams = [
            stream.model_copy(update={"columns": ruled_columns(session, spec.source, stream)})
            for stream in spec.streams
        ]
    return spec.model_copy(update={"streams": tuple(streams)})


def _variables(spec: "SourceSpec") -> "tuple[Setting, ...]":
    """What the source file refers to, each once. A database's URL holds its password."""
    from connectors.export.settings import Setting
    from platform_assets.sources import references

    found: dict[str, Setting] = {}
    for one in references(spec):
        is_secret = one.is_secret or bool(output.SECRET_NAME.search(one.name)) or spec.connector.kind in _URL_KINDS
        if one.name not in found or is_secret:
            found[one.name] = Setting(one.name, one.place, is_secret)
    return tuple(found.values())


def _configure(spec: "SourceSpec", config: Path | None) -> None:
    """The configuration goes into this process's environment; without one, that is all there is."""
    if config is not None:
        from connectors.export.settings import apply

        apply(_variables(spec), _read(config, spec.source), spec.source)


def _reading(spec: "SourceSpec", connector: "Connector") -> Any:
    from connectors.export.reading import Reading

    return Reading(connector, spec.source, output.note)


def _dockerfile(path: Path, spec: "SourceSpec", protocol: Literal["singer", "airbyte"], settings: "Settings") -> None:
    from connectors.export import docker

    docker.write(path, spec.source, protocol, settings.project_root)
    print(f"wrote {path}")


def _read(path: Path, where: str) -> Mapping[str, Any]:
    found = _read_any(path, where)
    if not isinstance(found, Mapping):
        raise ConfigError(where, f"{path} is no JSON object", "Correct the file.")
    return cast("Mapping[str, Any]", found)


def _read_any(path: Path, where: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{path} cannot be read: {error}", "Name a file that is there.") from error
    except ValueError as error:
        # its text would echo what stands there
        raise ConfigError(where, f"{path} is no JSON", "Correct the file.") from error


@contextmanager
def _stdout() -> "Generator[Any]":
    """Bytes to stdout as they are: records are data, nothing in them is masked."""
    raw = sys.stdout.buffer
    try:
        yield raw.write
    finally:
        raw.flush()
