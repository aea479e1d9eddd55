"""Claim: an Airbyte source is loaded in little more than the time that the source takes for itself.

Nested users, made by airbyte-source-faker; the very same program and settings for every path. The limit is its
`read` alone, its messages thrown away. Headwater asks it for its catalog first, and keeps the lifecycle.

    python -m benchmarks.airbyte [--rows 200000] [--repeats 3]
"""

import argparse
import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import psycopg

from benchmarks import engine
from benchmarks.support import (
    BenchServer,
    Measured,
    Outcome,
    Target,
    bench_home,
    bench_server,
    measure,
    progress,
    repeated,
    report,
    with_ratios,
)
from connectors.installing import command_of
from connectors.installing.spec import InstalledConnectorSpec
from connectors.specs import parse_source

CLAIM = "Airbyte source to PostgreSQL: at most 1.3 times the source alone"
PACKAGE, VERSION = "airbyte-source-faker", "7.2.1"
CONNECTOR = {"kind": "airbyte", "package": f"{PACKAGE}=={VERSION}", "executable": "source-faker"}
STREAM = {"name": "users", "primary_key": "id", "write": "replace"}
DISCOVER_SECONDS = 120
DIGEST = """
select count(*), count(distinct id), sum(age), min(created_at) is not null, count(address ->> 'city')
from raw_bench.users
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    # the programs of later runs are those of the first
    os.environ.setdefault("HEADWATER_CONNECTORS", str(bench_home() / "connectors"))
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(server, Path(temporary), options.rows)
        outcomes = [
            repeated("limit", options.repeats, bench.limit, lambda: ""),
            repeated("headwater", options.repeats, bench.headwater, bench.difference),
            engine.alone("headwater_without_start", bench.syncs),
        ]
    outcomes = with_ratios(outcomes, "limit")
    report(
        "airbyte", f"{options.rows:,} nested users of airbyte-source-faker", outcomes, targets(outcomes),
        claim=CLAIM, rows=options.rows, versions={PACKAGE: VERSION},
    )  # fmt: skip


class _Bench:
    """The source with its files, and the warehouse."""

    def __init__(self, server: BenchServer, folder: Path, rows: int) -> None:
        self._server = server
        self._folder = folder
        self._rows = rows
        self._dsn = server.url(server.database)
        config = {"count": rows, "seed": 7, "records_per_slice": min(rows, 10_000), "parallelism": 1}
        self._connector = CONNECTOR | {"config": config}
        attributes = {"source": "bench", "owner": "team:data", "connector": self._connector, "streams": [STREAM]}
        spec = parse_source(attributes, "benchmarks/airbyte.py").connector
        self._program = str(command_of(cast("InstalledConnectorSpec", spec), "benchmark"))
        self._config = self._file("config.json", config)
        self._catalog = self._file("catalog.json", {"streams": [self._configured()]})
        self.syncs: list[engine.Synced] = []

    def _file(self, name: str, content: object) -> str:
        path = self._folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(path)

    def _configured(self) -> dict[str, Any]:
        command = [self._program, "discover", "--config", self._config]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DISCOVER_SECONDS)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        (catalog,) = [line["catalog"] for line in lines if line["type"] == "CATALOG"]
        (stream,) = [stream for stream in catalog["streams"] if stream["name"] == STREAM["name"]]
        return {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "overwrite"}

    def difference(self) -> str:
        with psycopg.connect(self._dsn) as session:
            found = session.execute(DIGEST).fetchone()
        rows = self._rows
        is_whole = found is not None and (*found[:2], *found[3:]) == (rows, rows, True, rows) and found[2] > rows
        return "" if is_whole else f"the rows differ: {found} of {rows}"

    def limit(self) -> Measured:
        command = [self._program, "read", "--config", self._config, "--catalog", self._catalog]
        return measure(["/bin/sh", "-c", f"{shlex.join(command)} > /dev/null"])

    def headwater(self) -> Measured:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            session.execute("drop table if exists raw_bench.users")
            session.execute("truncate ops.schema_versions, ops.stream_state")
            session.execute("checkpoint")
        synced = engine.run(self._server, self._folder, self._connector, STREAM)
        self.syncs.append(synced)
        progress(f"sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured


def targets(outcomes: list[Outcome]) -> list[Target]:
    ours = next(outcome for outcome in outcomes if outcome.path == "headwater")
    return [Target("seconds, as a multiple of the source alone", ours.ratio, 1.3)]


if __name__ == "__main__":
    main()
