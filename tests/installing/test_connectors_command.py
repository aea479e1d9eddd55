"""`headwater connectors` in a copy of the project, with a package index of the test's own."""

import json
import os
from pathlib import Path

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


def test_sources_are_locked_listed_and_installed_and_one_that_fails_stops_no_other(
    project: Project, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel(index, "source-shop", "1.0", needs="shop-helper")
    wheel(index, "shop-helper", "1.0")
    project.source(SOURCE.format(name="broken", package="source-nowhere==1.0"), "broken")
    project.source(SOURCE.format(name="shop", package="source-shop>=1"), "shop")
    env = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": os.fspath(index), "UV_CACHE_DIR": os.fspath(tmp_path / "cache")}
    locked = project.run("connectors", "lock", **env)
    assert locked.returncode == 3
    assert "source-nowhere" in locked.stderr
    assert len([line for line in locked.stderr.splitlines() if not line.startswith("shop:")]) <= 6
    assert "shop: locked 2 packages in connector.lock" in locked.stdout
    file = project.root / INGEST / "shop" / "connector.lock"
    assert "source-shop==1.0" in file.read_text()
    wheel(index, "shop-helper", "1.1")
    upgraded = project.run("connectors", "upgrade", "shop", **env)
    assert "shop-helper 1.0 -> 1.1" in upgraded.stdout
    project.source(SOURCE.format(name="broken", package="source-shop==1.0"), "broken")
    (project.root / INGEST / "broken" / "connector.lock").write_text(file.read_text())
    listed = json.loads(project.run("connectors", "list", "--json", **env).stdout)
    assert [(one["source"], one["lock"], bool(one["folder"])) for one in listed] == [
        ("broken", "stale", False), ("shop", "locked", True),
    ]  # fmt: skip
    installed = project.run("connectors", "install", "shop", **env)
    assert installed.returncode == 0
    assert installed.stdout.startswith("shop: ")
    assert Path(installed.stdout.split(": ")[1].strip()).name == "source-shop"
