"""One receiver for a module's tests, on a database of their own."""

import os
from collections.abc import Generator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.support.servers import TestServer, clean_environment, database_pair
from tests.webhooks.receiving import Inbox, ReceiverProcess, copied_project, write_sources


@pytest.fixture(scope="module")
def hook_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with the tests' sources in place of its own."""
    root = copied_project(tmp_path_factory)
    write_sources(root)
    return root


@pytest.fixture(scope="module")
def hook_env(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    home = tmp_path_factory.mktemp("home")
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        yield clean_environment() | pair | {"HEADWATER_HOME": os.fspath(home)}


@pytest.fixture(scope="module")
def hook_warehouse(hook_env: dict[str, str]) -> Warehouse:
    return ensure_warehouse(load_settings(hook_env))


@pytest.fixture(scope="module")
def receiver(hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse) -> Generator[ReceiverProcess]:
    with ReceiverProcess(hook_project, hook_env) as running:
        yield running


@pytest.fixture(scope="module")
def client(receiver: ReceiverProcess) -> Generator[httpx.Client]:
    with httpx.Client(base_url=receiver.url, timeout=120) as connected:
        yield connected


@pytest.fixture
def inbox(hook_warehouse: Warehouse) -> Inbox:
    return Inbox(hook_warehouse.admin_dsn)
