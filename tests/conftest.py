"""One embedded PostgreSQL a session, a fresh pair of databases a test.

`server` is the running server; `env` a clean environment that points at this test's databases, to give to a process or
to `load_settings(env)`; `settings` that reading; `warehouse` the bootstrapped databases themselves.
"""

import signal
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from platform_assets.settings import Settings, load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.support.matrix import pytest_runtest_logreport, pytest_terminal_summary
from tests.support.servers import TestServer, clean_environment, database_pair, running_server

# a script's background job is started with Ctrl-C ignored, and every process of the tests would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes to draw or to run says something of the machine alone
hypothesis_settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("any machine")

# folders whose tests start whole processes: begun last, one of them would keep one worker busy and the others idle
LONG = ("backfills", "cli", "crash", "demo", "ingest", "scenarios", "transform")
CRASH = Path(__file__).parent / "crash"

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first. What a kill or an overlap does to data is never tried twice: a rare loss is a loss."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)
    for item in items:
        if item.path.is_relative_to(CRASH):
            item.add_marker(pytest.mark.flaky(reruns=0))


@pytest.fixture(scope="session")
def server() -> Generator[TestServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def env(server: TestServer, tmp_path: Path) -> Generator[dict[str, str]]:
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        yield clean_environment() | pair | {"HEADWATER_HOME": str(tmp_path / "home")}


@pytest.fixture
def settings(env: dict[str, str]) -> Settings:
    return load_settings(env)


@pytest.fixture
def warehouse(settings: Settings) -> Warehouse:
    return ensure_warehouse(settings)
