"""Source files in a project root of their own, and their definitions."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from platform_assets.ingest import location
from platform_assets.sources import FOLDER

STREAMS = """\
    - name: orders
      path: /orders
      primary_key: [id]
      write: merge
"""
SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector:
    kind: rest
    base_url: env:SHOP_URL
    auth: {type: bearer, token: env:SHOP_TOKEN}
  streams:
"""

PARTITIONED = (
    SOURCE
    + """\
    - name: orders
      path: /orders
      primary_key: [id]
      write: merge
      schedule: "@hourly"
      cursor: {field: at}
      incremental: {param: since, end_param: until}
      partitions: {by: day, start: 2024-01-01, timezone: Europe/Berlin}
"""
)

Write = Callable[..., Path]


@pytest.fixture
def write_source(tmp_path: Path) -> Write:
    """write_source(text, folder="shop"): the file in a project root; the root is returned."""
    root = tmp_path / "project"

    def write(text: str, folder: str = "shop") -> Path:
        path = root / FOLDER / folder / "defs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return root

    return write


def load(root: Path) -> dg.Definitions:
    """The ingest location over another project root."""
    return location(root)
