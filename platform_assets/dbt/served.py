"""The production manifest: every model as it was when it was last built well, for `state:modified` and `--defer`."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from platform_assets.dbt.manifest import read_manifest
from platform_assets.settings import Settings


def served_manifest(settings: Settings) -> Path:
    """Its path; the file is there from the first build on."""
    return settings.home / "dbt-served" / "manifest.json"


def remember(settings: Settings, manifest: Path, built: Iterable[str]) -> None:
    """Take these models over from the manifest that they were built from.

    Models that nobody built since they were changed stay as they were, so they go on counting as modified; what is no
    model (sources, macros, tests, exposures) is taken over as it is, and models that are gone from the project go.
    """
    place = served_manifest(settings)
    current = read_manifest(manifest)
    before = read_manifest(place)["nodes"] if place.is_file() else {}
    fresh = set(built)
    nodes = {
        id_: node if id_ in fresh or not id_.startswith("model.") else before[id_]
        for id_, node in current["nodes"].items()
        if id_ in fresh or not id_.startswith("model.") or id_ in before
    }
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = place.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({**current, "nodes": nodes}), encoding="utf-8")
    scratch.replace(place)
