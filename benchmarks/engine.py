"""One sync in a process of its own, as every other path is, and what it told."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.support import BenchServer, Measured, Outcome, PeerError, measure
from platform_assets.settings import PROJECT_ROOT

SOURCE = "bench"
SCHEMA = f"raw_{SOURCE}"


@dataclass(frozen=True, slots=True)
class Synced:
    """measured: the whole process. sync_seconds: the sync alone, with the libraries that it imported itself."""

    measured: Measured
    sync_seconds: float
    rows: int
    steps: Mapping[str, float]


def run(
    server: BenchServer,
    folder: Path,
    connector: Mapping[str, Any],
    stream: Mapping[str, Any],
    *,
    is_warm: bool = False,
    **environment: str,
) -> Synced:
    """One sync of the source `bench` with this one stream into the server's warehouse.

    is_warm: every library is imported before the sync begins, and `measured` has the seconds of the sync alone.
    environment: what the connector's `env:` references name.

    Raises:
        PeerError: the sync failed.
    """
    attributes = {"source": SOURCE, "owner": "team:data", "connector": dict(connector), "streams": [dict(stream)]}
    path = folder / f"{stream['name']}.json"
    path.write_text(json.dumps(attributes), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.one_sync", str(path), server.warehouse.loader_dsn]
    command += ["warm"] if is_warm else []
    measured = measure(command, os.environ | environment, PROJECT_ROOT)
    line = next((line for line in measured.output.splitlines() if line.startswith("{")), None)
    if line is None:
        raise PeerError(f"no result: {measured.output[-300:]}")
    told = json.loads(line)
    if is_warm:
        measured = replace(measured, seconds=told["seconds"])
    return Synced(measured, told["seconds"], told["rows"], told["steps"])


def alone(path: str, syncs: Sequence[Synced]) -> Outcome:
    """The same syncs without Python's start and the imports before them; what they import themselves counts."""
    seconds = [sync.sync_seconds for sync in syncs]
    if not seconds:
        return Outcome(path, note="no sync succeeded")
    return Outcome(path, round(median(seconds), 3), runs=tuple(seconds))
