"""A warehouse with the demo's streams loaded, and one in which dbt has built everything."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.settings import Settings, load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.dbt.demo_raw import load_demo_raw
from tests.dbt.processes import PROJECT, Dbt
from tests.support.servers import TestServer, clean_environment, database_pair


@dataclass(frozen=True, slots=True)
class Built:
    """dbt: runs further commands on the same warehouse. output: what the whole build printed."""

    settings: Settings
    warehouse: Warehouse
    dbt: Dbt
    output: str


@pytest.fixture(scope="session")
def built(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The demo built by one `dbt build`, unit tests and all. Only read it."""
    folder = tmp_path_factory.mktemp("built")
    with database_pair(server, f"built_{uuid4().hex[:12]}") as pair:
        settings = load_settings(clean_environment() | pair | {"HEADWATER_HOME": str(folder / "home")})
        warehouse = ensure_warehouse(settings)
        load_demo_raw(warehouse)
        dbt = Dbt(warehouse, folder / "target")
        done = dbt("build")
        assert done.returncode == 0, done.stdout
        yield Built(settings, warehouse, dbt, done.stdout)


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """dbt's manifest of the demo project. Only read it."""
    home = tmp_path_factory.mktemp("manifest")
    return read_manifest(prepared_manifest(PROJECT, load_settings({"HEADWATER_HOME": str(home)})))


@pytest.fixture
def raw(warehouse: Warehouse) -> Warehouse:
    """The demo's streams loaded, nothing built."""
    load_demo_raw(warehouse)
    return warehouse


@pytest.fixture
def dbt(raw: Warehouse, tmp_path: Path) -> Dbt:
    return Dbt(raw, tmp_path / "target")
