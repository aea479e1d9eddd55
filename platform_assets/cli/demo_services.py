"""What `demo` and `up` stand on: the warehouse, the demo sources, and an orderly end."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from connectors.errors import HeadwaterError, ResourceError
from platform_assets.cli import output
from platform_assets.cli.children import end_child

if TYPE_CHECKING:
    from demo.stack import DemoStack
    from platform_assets.settings import Settings
    from platform_assets.warehouse import Warehouse

DEMO_HOOK = "github"
"""The demo's source of kind webhook."""
RECEIVER_START_SECONDS = 30.0
RECEIVER_STOP_SECONDS = 25.0

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
def demo_sources(
    settings: "Settings", warehouse: "Warehouse", say: Callable[[str], None], *, delivers: bool = True
) -> Generator["DemoStack"]:
    """The demo sources, running while the block does.

    delivers: the receiver of webhooks runs too, and has got every delivery before the block begins.
    """
    from demo.stack import DemoError, DemoStack

    say("starting the demo sources")
    try:
        with DemoStack(settings.home) as stack:
            stack.serve_database(warehouse.tcp_dsn("admin"), warehouse.address.host, warehouse.address.port)
            credentials = stack.credentials
            output.protect([credentials.api_token, credentials.database_password, credentials.webhook_secret])
            with demo_receiver(settings, stack) if delivers else nullcontext():
                yield stack
    except DemoError as error:
        where, _, rest = str(error).partition(": ")
        raise ResourceError(where, rest) from error


@contextmanager
def demo_receiver(settings: "Settings", stack: "DemoStack") -> Generator[str]:
    """A real receiver that has been sent every delivery of the demo; its address. It ends with the block.

    Raises:
        ResourceError: it did not start.
    """
    log_path = stack.folder / "receiver.log"
    words = ["platform_assets.cli", "webhooks", "serve", DEMO_HOOK, "--port", "0"]
    with log_path.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  our own module
            [sys.executable, "-m", "platform_assets.cli.watched", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=settings.project_root,
            env={**os.environ, **stack.environment(), "HEADWATER_HOME": str(settings.home)},
            # Ctrl-C reaches this process alone, which then ends the others in order
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        address = next((word for word in line.split() if word.startswith("http://")), None)
        if address is None:
            raise ResourceError("demo webhooks", "the receiver did not start", f"Read {log_path}.")
        _await_inbox(address, log_path)
        stack.send_deliveries(address)
        yield address
    finally:
        end_child(process, RECEIVER_STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def _await_inbox(address: str, log_path: Path) -> None:
    """The socket listens before the inbox is connected, and until then every delivery would be refused."""
    health = urljoin(address, "/health")
    deadline = time.monotonic() + RECEIVER_START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(health, timeout=RECEIVER_START_SECONDS):  # noqa: S310  our own http URL
                return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ResourceError(
                    "demo webhooks", f"the receiver is not ready: {error}", f"Read {log_path}."
                ) from error
            time.sleep(0.05)


def runs_environment(settings: "Settings", stack: "DemoStack") -> Mapping[str, str]:
    """What every run needs beside this process's own environment; a source's address that is set already is kept."""
    found = {name: value for name, value in stack.environment().items() if not os.environ.get(name)}
    return {**found, "DAGSTER_HOME": str(settings.project_root)}
