"""`headwater connectors` in a copy of the project, with a package index of the test's own."""

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import INGEST, Project, project
from tests.installing.test_installing import wheel

__all__ = ["project"]
SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: {name}
  owner: team:data
  connector: {{kind: airbyte, package: "{package}"}}
  streams: [{{name: orders}}]
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """uv sees the wheels of the test, and nothing else."""
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "source-shop", "1.0", needs="shop-helper")
    wheel(index, "shop-helper", "1.0")
    return {"UV_NO_INDEX": "1", "UV_FIND_LINKS": os.fspath(index), "UV_CACHE_DIR": os.fspath(tmp_path / "cache")}


def test_sources_are_locked_and_one_that_fails_stops_no_other(project: Project, env: dict[str, str]) -> None:
    project.source(SOURCE.format(name="broken", package="source-nowhere==1.0"), "broken")
    project.source(SOURCE.format(name="shop", package="source-shop>=1"), "shop")
    locked = project.run("connectors", "lock", **env)
    assert locked.returncode == 3
    assert "source-nowhere" in locked.stderr
    assert len([line for line in locked.stderr.splitlines() if not line.startswith("shop:")]) <= 6
    assert "shop: locked 2 packages in connector.lock" in locked.stdout
    assert "source-shop==1.0" in (project.root / INGEST / "shop" / "connector.lock").read_text()
    listed = json.loads(project.run("connectors", "list", "--json", **env).stdout)
    assert [(one["source"], one["lock"], bool(one["folder"])) for one in listed] == [
        ("broken", "none", False), ("shop", "locked", True),
    ]  # fmt: skip


@pytest.mark.slow
def test_an_upgrade_says_what_changed_and_a_lock_of_something_else_is_stale(
    project: Project, env: dict[str, str], tmp_path: Path
) -> None:
    project.source(SOURCE.format(name="shop", package="source-shop>=1"), "shop")
    assert project.run("connectors", "lock", "shop", **env).returncode == 0
    wheel(tmp_path / "index", "shop-helper", "1.1")
    assert "->" not in project.run("connectors", "lock", "shop", **env).stdout
    upgraded = project.run("connectors", "upgrade", "shop", **env)
    assert "shop-helper 1.0 -> 1.1" in upgraded.stdout
    installed = project.run("connectors", "install", "shop", **env)
    assert Path(installed.stdout.split(": ")[1].strip()).name == "source-shop"
    project.source(SOURCE.format(name="shop", package="source-shop==1.0"), "shop")
    listed = json.loads(project.run("connectors", "list", "--json", **env).stdout)
    assert [(one["lock"], one["folder"]) for one in listed] == [("stale", None)]
    refused = project.run("connectors", "install", "shop", **env)
    assert refused.returncode == 3
    assert "headwater connectors lock" in refused.stderr
