"""A shop on loopback whose streams are synced into a warehouse of each test's own."""

from collections.abc import Generator

import pytest

from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import write_source
from tests.ingest.shop import TOKEN, Shop, open_shop

__all__ = ["write_source"]


@pytest.fixture
def shop(warehouse: Warehouse, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[Shop]:
    """Empty at first, ten orders on a page."""
    with open_shop() as opened:
        for name, value in {**env, "SHOP_URL": opened.url, "SHOP_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        opened.page_size = 10
        yield opened
