"""One warehouse for all the streams of a module, where each test has streams of its own."""

from collections.abc import Generator
from uuid import uuid4

import pytest

from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse
from tests.support.faults import Lab
from tests.support.servers import TestServer, clean_environment, database_pair


@pytest.fixture(scope="module")
def lab(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Lab]:
    with database_pair(server, f"lab_{uuid4().hex[:12]}") as pair:
        home = tmp_path_factory.mktemp("lab")
        warehouse = ensure_warehouse(load_settings(clean_environment() | pair | {"HEADWATER_HOME": str(home)}))
        yield Lab(warehouse.loader_dsn, warehouse.admin_dsn)
