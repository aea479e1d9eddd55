"""What `demo` and `up` stand on: the warehouse, the demo sources, and an orderly end."""

import os
import signal
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from connectors.errors import HeadwaterError, ResourceError
from platform_assets.cli import output

if TYPE_CHECKING:
    from demo.stack import DemoStack
    from platform_assets.settings import Settings
    from platform_assets.warehouse import Warehouse

_OTHERS = """
    select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


@contextmanager
def interrupted_by_sigterm() -> Generator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what was started is ended in order."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def running_warehouse(settings: "Settings", say: Callable[[str], None]) -> Generator["Warehouse"]:
    """The warehouse; stopped afterwards when it did not run before and nobody else has come to use it."""
    from platform_assets.warehouse import ensure_warehouse, is_running, stop_warehouse

    ran_before = is_running(settings)
    say("opening the warehouse" if ran_before else "starting the warehouse")
    try:
        warehouse = ensure_warehouse(settings)
        output.protect(login.password for login in warehouse.logins.values())
        yield warehouse
    finally:
        if not ran_before and not _is_used(settings):
            say("stopping the warehouse")
            stop_warehouse(settings)


def _is_used(settings: "Settings") -> bool:
    """Whether other programs are connected to the embedded server."""
    import psycopg

    from platform_assets.warehouse import ensure_warehouse, is_running

    if not is_running(settings):
        return False
    try:
        with psycopg.connect(ensure_warehouse(settings).admin_dsn, connect_timeout=5) as admin:
            found = admin.execute(_OTHERS).fetchone()
    except (psycopg.Error, HeadwaterError):
        return False
    return found is not None and found[0] > 0


@contextmanager
def demo_sources(settings: "Settings", warehouse: "Warehouse", say: Callable[[str], None]) -> Generator["DemoStack"]:
    """The demo sources, running while the block does."""
    from demo.stack import DemoError, DemoStack

    say("starting the demo sources")
    try:
        with DemoStack(settings.home) as stack:
            stack.serve_database(warehouse.tcp_dsn("admin"), warehouse.address.host, warehouse.address.port)
            output.protect([stack.credentials.api_token, stack.credentials.database_password])
            yield stack
    except DemoError as error:
        where, _, rest = str(error).partition(": ")
        raise ResourceError(where, rest) from error


def runs_environment(settings: "Settings", stack: "DemoStack") -> Mapping[str, str]:
    """What every run needs beside this process's own environment; a source's address that is set already is kept."""
    found = {name: value for name, value in stack.environment().items() if not os.environ.get(name)}
    return {**found, "DAGSTER_HOME": str(settings.project_root)}
