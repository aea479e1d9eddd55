"""What commands share: settings with protected secrets, open sources, and the demo sources when they are meant."""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, cast

from connectors.errors import ConfigError
from platform_assets.cli import output
from platform_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    import psycopg

    from connectors.contract import Connector
    from connectors.custom import HttpConnector
    from connectors.specs import SourceSpec
    from platform_assets.warehouse import Warehouse

DEMO_VARIABLES = frozenset(
    {"FLIGHTS_API_URL", "FLIGHTS_API_TOKEN", "REFERENCE_DB_URL", "WEATHER_FILES", "GITHUB_DEMO_SECRET"}
)
"""What the demo sources are found by; nothing else uses these names."""


def read_settings() -> Settings:
    """The settings; what they and .env hold of secrets is never shown from here on."""
    settings = load_settings()
    output.protect_environment()
    return settings


def protect_secrets(spec: "SourceSpec") -> None:
    """Never show a value that this source refers to as a secret."""
    from platform_assets.sources import references

    output.protect(os.environ.get(found.name, "") for found in references(spec) if found.is_secret)


def wants_demo(spec: "SourceSpec") -> bool:
    """The source is one of the demo's, and nobody has said where the demo's sources are."""
    from platform_assets.sources import references

    is_demo = any(found.name in DEMO_VARIABLES for found in references(spec))
    return is_demo and not any(os.environ.get(name) for name in DEMO_VARIABLES)


@contextmanager
def reachable(spec: "SourceSpec", settings: Settings) -> Generator[None]:
    """Serve the demo sources while the block runs when `spec` needs them and none are set; otherwise do nothing."""
    with ExitStack() as ends:
        if wants_demo(spec):
            from platform_assets.cli.demo_services import demo_sources, running_warehouse

            output.note(f"{spec.source} is a demo source: the demo sources run while this command does")
            warehouse = ends.enter_context(running_warehouse(settings, _silently))
            stack = ends.enter_context(
                demo_sources(settings, warehouse, _silently, delivers=spec.connector.kind == "webhook")
            )
            os.environ.update(stack.environment())
            ends.callback(lambda: [os.environ.pop(name, None) for name in DEMO_VARIABLES])
        protect_secrets(spec)
        output.protect_environment()
        yield


def _silently(line: str) -> None:
    """The note above has said it."""


@contextmanager
def opened(spec: "SourceSpec", settings: Settings) -> "Generator[Connector]":
    """The source's connector, open."""
    from connectors.contract import KeepsConfig, ReadsWarehouse
    from connectors.registry import kind

    with ExitStack() as ends:
        ends.enter_context(reachable(spec, settings))
        connector = kind(spec.connector.kind).open(spec)
        if isinstance(connector, ReadsWarehouse):
            connector.use_warehouse(ends.enter_context(running_warehouse(settings)).loader_dsn)
        if (connect := token_sessions(spec, settings, ends)) is not None:
            if isinstance(connector, KeepsConfig):
                connector.keep_config(connect)
            else:
                cast("HttpConnector", connector).client.keep_tokens(connect)
        yield ends.enter_context(connector)


def token_sessions(
    spec: "SourceSpec", settings: Settings, ends: ExitStack
) -> "Callable[[], psycopg.Connection[Any]] | None":
    """Sessions with the warehouse for a source whose tokens are kept there; None for every other."""
    kept = getattr(getattr(spec.connector, "auth", None), "type", "")
    has_key = bool(os.environ.get("HEADWATER_SECRET_KEY"))
    is_renewed = kept == "oauth2_refresh_token" or spec.connector.kind == "airbyte"
    if kept != "oauth2_authorization_code" and not (is_renewed and has_key):
        return None
    import psycopg

    dsn = ends.enter_context(running_warehouse(settings)).loader_dsn
    return lambda: psycopg.connect(dsn, autocommit=True)


@contextmanager
def running_warehouse(settings: Settings) -> "Generator[Warehouse]":
    """The warehouse; an embedded server that this command had to start is stopped afterwards, without many words."""
    from platform_assets.cli import demo_services

    with demo_services.running_warehouse(settings, _silently) as warehouse:
        yield warehouse


@contextmanager
def warehouse_session() -> "Generator[psycopg.Connection[Any]]":
    """A session of the loader's."""
    import psycopg

    with (
        running_warehouse(read_settings()) as warehouse,
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as session,
    ):
        yield session


def refuse_unknown(target: str | None) -> None:
    """Raises ConfigError, with the nearest name, when no source file declares it: for lists that would be empty."""
    from platform_assets.sources import find_streams

    if target:
        find_streams(target, read_settings().project_root)


def stream_label(label: str, group: str) -> tuple[str, str]:
    """Source and stream of `SOURCE.STREAM`. group: the commands that ask, for the message."""
    source, _, stream = label.partition(".")
    if not source or not stream:
        raise ConfigError(group, f"{label!r} names no stream", "Write SOURCE.STREAM, e.g. nyc_flights.flights.")
    return source, stream
