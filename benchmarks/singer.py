"""Claim: a Singer tap is loaded in little more than the time that the tap takes for itself.

Lineitem, read from PostgreSQL by meltanolabs-tap-postgres, the very same program, catalog and table for every path. The
limit is the tap alone, its messages thrown away. Headwater keeps the lifecycle: a state sealed, rows typed, audited and
published. Peer: `tap | target-postgres` of meltanolabs, with its defaults and with the COPY that it offers, without the
seconds that `meltano run` adds. With `batch` the tap writes files of records.

    python -m benchmarks.singer [--rows 100000] [--repeats 3] [--no-peers]
"""

import argparse
import json
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import engine, lineitem
from benchmarks.support import (
    BenchServer,
    Measured,
    Outcome,
    Target,
    bench_server,
    measure,
    peer,
    progress,
    repeated,
    report,
    with_ratios,
)

CLAIM = "Singer tap to PostgreSQL: at most 1.4 times the tap alone, at least 2 times faster than target-postgres"
TAP, TARGET = "meltanolabs-tap-postgres", "meltanolabs-target-postgres"
VERSIONS = {TAP: "0.10.0", TARGET: "0.8.1"}
SOURCE = "bench_source"
PEERS = {"tap_target_postgres": False, "tap_target_postgres_copy": True}
STREAM = "public-lineitem"
DISCOVER_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(server, Path(temporary), options.rows)
        outcomes = [
            repeated("limit", options.repeats, bench.limit, lambda: ""),
            repeated("headwater", options.repeats, bench.headwater, lambda: bench.difference("raw_bench.lineitem")),
            engine.alone("headwater_without_start", bench.syncs),
            repeated(
                "headwater_batch", options.repeats, lambda: bench.headwater(batch=True),
                lambda: bench.difference("raw_bench.lineitem"),
            ),
        ]  # fmt: skip
        if not options.no_peers:
            outcomes += [
                repeated(
                    path, 1, lambda use_copy=use_copy: bench.target(use_copy=use_copy),
                    lambda: bench.difference("target.lineitem"),
                )
                for path, use_copy in PEERS.items()
            ]  # fmt: skip
    outcomes = with_ratios(outcomes, "limit")
    report(
        "singer", f"{options.rows:,} rows of lineitem", outcomes, targets(outcomes),
        claim=CLAIM, rows=options.rows, versions=VERSIONS,
    )  # fmt: skip


class _Bench:
    """The table that the tap reads, the tap's files, and the warehouse that every path loads into."""

    def __init__(self, server: BenchServer, folder: Path, rows: int) -> None:
        self._server = server
        self._folder = folder
        self._dsn = server.url(server.database)
        source = server.create(SOURCE)
        lineitem.create(source, "lineitem", rows)
        with psycopg.connect(source) as session:
            self._expected = session.execute(lineitem.DIGEST.format("lineitem").encode()).fetchone()
        self._config: dict[str, Any] = {
            "sqlalchemy_url": source.replace("postgresql://", "postgresql+psycopg2://"),
            "filter_schemas": ["public"],
        }
        self._tap = str(peer("tap-postgres", f"{TAP}=={VERSIONS[TAP]}").parent / "tap-postgres")
        self._catalog = self._file("catalog.json", self._discovered())
        self.syncs: list[engine.Synced] = []

    def _file(self, name: str, content: object) -> Path:
        path = self._folder / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    def _discovered(self) -> Any:
        """The tap's catalog, everything selected: discovery is in no path's time."""
        command = [self._tap, "--config", str(self._file("config.json", self._config)), "--discover"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=DISCOVER_SECONDS)
        catalog = json.loads(done.stdout)
        for stream in catalog["streams"]:
            for entry in stream["metadata"]:
                entry["metadata"]["selected"] = True
        return catalog

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            for statement in (*statements, "checkpoint"):
                session.execute(statement.encode())

    def difference(self, table: str) -> str:
        with psycopg.connect(self._dsn) as session:
            found = session.execute(lineitem.DIGEST.format(table).encode()).fetchone()
        return "" if found == self._expected else f"the rows differ: {found} of {self._expected}"

    def _reading(self) -> str:
        return shlex.join([self._tap, "--config", str(self._folder / "config.json"), "--catalog", str(self._catalog)])

    def limit(self) -> Measured:
        return measure(["/bin/sh", "-c", f"{self._reading()} > /dev/null"])

    def headwater(self, *, batch: bool = False) -> Measured:
        self._run("drop table if exists raw_bench.lineitem", "truncate ops.schema_versions, ops.stream_state")
        config = self._config | {"sqlalchemy_url": "env:BENCH_TAP_URL"}
        connector = {
            "kind": "singer", "executable": self._tap, "catalog": str(self._catalog), "config": config, "batch": batch,
        }  # fmt: skip
        stream = {"name": "lineitem", "stream": STREAM, "write": "replace", "columns": lineitem.CONTRACT}
        url = self._config["sqlalchemy_url"]
        synced = engine.run(self._server, self._folder, connector, stream, BENCH_TAP_URL=url)
        if not batch:
            self.syncs.append(synced)
        progress(f"sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured

    def target(self, *, use_copy: bool) -> Measured:
        self._run("drop schema if exists target cascade")
        settings = {
            "sqlalchemy_url": self._dsn.replace("postgresql://", "postgresql+psycopg://"),
            "default_target_schema": "target",
            "use_copy": use_copy,
        }
        program = peer("target-postgres", f"{TARGET}=={VERSIONS[TARGET]}").parent / "target-postgres"
        loading = shlex.join([str(program), "--config", str(self._file("target.json", settings))])
        return measure(["/bin/sh", "-c", f"{self._reading()} | {loading}"])


def targets(outcomes: list[Outcome]) -> list[Target]:
    by_path = {outcome.path: outcome for outcome in outcomes}
    ours, target = by_path["headwater"], by_path.get("tap_target_postgres")
    faster = round(target.seconds / ours.seconds, 1) if target and target.seconds and ours.seconds else None
    return [
        Target("seconds, as a multiple of the tap alone", ours.ratio, 1.4),
        Target("times faster than target-postgres", faster, 2.0, is_minimum=True),
    ]


if __name__ == "__main__":
    main()
