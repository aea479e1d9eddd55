"""A tap on the command line: check, discover, and one sync of all streams together."""

import pytest
import yaml

from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.support.sql import run
from tests.support.tapping import executable

__all__ = ["project"]


@pytest.mark.slow
def test_a_source_is_checked_discovered_and_synced(warehouse: Warehouse, env: dict[str, str], project: Project) -> None:
    attributes = {
        "source": "shop",
        "owner": "team:data",
        "connector": {
            "kind": "singer",
            "executable": executable(project.root),
            "config": {"tables": {"orders": 30, "items": 7}, "token": "env:SHOP_TOKEN"},
        },
        "streams": [{"name": "orders"}, {"name": "items"}],
    }
    project.source(yaml.safe_dump({"type": "platform_assets.components.Source", "attributes": attributes}))
    words = {**env, "SHOP_TOKEN": "hush-hush"}

    check = project.run("check", "shop", **words)
    assert (check.returncode, "the tap offers 2 streams" in check.stdout) == (0, True), check.stderr
    discover = project.run("discover", "shop", "--columns", **words)
    assert "orders" in discover.stdout
    preview = project.run("preview", "shop.items", **words)
    assert "value 7" in preview.stdout
    sync = project.run("sync", "shop", **words)
    assert sync.returncode == 0, sync.stderr
    assert "shop: syncing 2 streams together" in sync.stderr
    assert run(warehouse.admin_dsn, "select stream, status, rows_loaded from ops.syncs order by 1") == [
        ("items", "succeeded", 7), ("orders", "succeeded", 30),
    ]  # fmt: skip
    one = project.run("sync", "shop.items", **words)
    assert (one.returncode, "shop.orders" in one.stderr + one.stdout) == (0, False)
