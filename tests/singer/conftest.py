"""One warehouse for all taps of a module; every tap has a source of its own."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.support.servers import TestServer, clean_environment, database_pair
from tests.support.tapping import Tap

MakeTap = Callable[..., Tap]


@pytest.fixture(scope="module")
def shared_warehouse(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Warehouse]:
    with database_pair(server, f"singer_{uuid4().hex[:12]}") as pair:
        home = tmp_path_factory.mktemp("singer")
        yield ensure_warehouse(load_settings(clean_environment() | pair | {"HEADWATER_HOME": str(home)}))


@pytest.fixture
def tap(shared_warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeTap:
    """tap(stream={settings}, ..., connector={}): a source over the scripted tap."""
    monkeypatch.setenv("HEADWATER_WORK_DIR", str(tmp_path / "work"))

    def make(connector: dict[str, Any] | None = None, /, **streams: dict[str, Any]) -> Tap:
        folder = tmp_path / "tap"
        folder.mkdir(exist_ok=True)
        return Tap(shared_warehouse.loader_dsn, shared_warehouse.admin_dsn, folder, streams, connector or {})

    return make
