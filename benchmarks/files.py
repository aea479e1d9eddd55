"""Claim: files are loaded at a small multiple of what COPY takes for the same rows as CSV.

One million rows of lineitem as CSV, Parquet and JSON Lines. The limit is psql's COPY of the CSV into a table that is
there already. Headwater reads through kind `files`: bytes checked, rows typed and audited, the file remembered. Peers:
Sling, and dlt's filesystem source with its defaults.

    python -m benchmarks.files [--rows 1000000] [--repeats 3] [--formats csv,parquet,jsonl] [--no-peers]
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import psycopg

from benchmarks import engine, lineitem
from benchmarks.peers import VERSIONS, run_dlt, run_sling
from benchmarks.support import (
    BenchServer,
    Measured,
    Outcome,
    Target,
    bench_server,
    measure,
    progress,
    repeated,
    report,
    with_ratios,
)

CLAIM = "CSV, Parquet and JSON Lines: at most 2.2, 3 and 4 times COPY of the CSV, at least 3 times faster than Sling"
BOUNDS = {"csv": 2.2, "parquet": 3.0, "jsonl": 4.0}
DLT = """
import sys, dlt
from dlt.sources.filesystem import filesystem, read_csv, read_jsonl, read_parquet

form, folder, dsn, work = sys.argv[1:]
reader = {"csv": read_csv, "parquet": read_parquet, "jsonl": read_jsonl}[form]()
files = filesystem(bucket_url=folder, file_glob=f"lineitem.{form}") | reader
dlt.pipeline("bench", destination=dlt.destinations.postgres(dsn), dataset_name="raw_dlt",
             pipelines_dir=work).run(files.with_name("lineitem"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--formats", default=",".join(BOUNDS))
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    formats = [form for form in BOUNDS if form in options.formats.split(",")]
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(server, Path(temporary), options.rows)
        outcomes = [repeated("limit", options.repeats, bench.limit, lambda: bench.difference("by_hand.lineitem"))]
        outcomes += [
            repeated(
                f"headwater_{form}", options.repeats, lambda form=form: bench.headwater(form),
                lambda: bench.difference("raw_bench.lineitem"),
            )
            for form in formats
        ]  # fmt: skip
        outcomes += [engine.alone(f"headwater_{form}_without_start", bench.syncs[form]) for form in formats]
        outcomes += [
            repeated(
                f"headwater_{form}_warm", options.repeats, lambda form=form: bench.headwater(form, is_warm=True),
                lambda: bench.difference("raw_bench.lineitem"),
            )
            for form in formats
        ]  # fmt: skip
        if not options.no_peers:
            outcomes += [
                repeated(
                    f"sling_{form}", 1, lambda form=form: bench.sling(form), lambda: bench.difference("sling.lineitem")
                )
                for form in formats
            ]
            outcomes.append(
                repeated("dlt_default_csv", 1, lambda: bench.dlt("csv"), lambda: bench.difference("raw_dlt.lineitem"))
            )
    outcomes = with_ratios(outcomes, "limit")
    report(
        "files", f"{options.rows:,} rows of lineitem", outcomes, targets(outcomes, formats),
        claim=CLAIM, rows=options.rows, versions=VERSIONS,
    )  # fmt: skip


class _Bench:
    """The files, and one server that every path loads into."""

    def __init__(self, server: BenchServer, folder: Path, rows: int) -> None:
        self._server = server
        self._folder = folder
        self._dsn = server.url(server.database)
        self._files = folder / "files"
        self._files.mkdir()
        self.syncs: dict[str, list[engine.Synced]] = defaultdict(list)
        with psycopg.connect(self._dsn, autocommit=True) as session:
            session.execute("create schema by_hand")
        lineitem.create(self._dsn, "by_hand.source", rows)
        self._paths = lineitem.export(self._dsn, "by_hand.source", self._files)
        self._expected = self._digest("by_hand.source")
        self._run("drop table by_hand.source")

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            for statement in (*statements, "checkpoint"):
                session.execute(statement.encode())

    def _digest(self, table: str) -> tuple[object, ...] | None:
        with psycopg.connect(self._dsn) as session:
            return session.execute(lineitem.DIGEST.format(table).encode()).fetchone()

    def difference(self, table: str) -> str:
        found = self._digest(table)
        return "" if found == self._expected else f"the rows differ: {found} of {self._expected}"

    def limit(self) -> Measured:
        self._run("drop table if exists by_hand.lineitem", f"create table by_hand.lineitem ({lineitem.COLUMNS})")
        copy = f"\\copy by_hand.lineitem from '{self._paths['csv']}' (format csv, header)"
        return measure([self._server.psql, self._dsn, "-qXc", copy])

    def headwater(self, form: str, *, is_warm: bool = False) -> Measured:
        self._run("drop table if exists raw_bench.lineitem", "truncate ops.schema_versions, ops.stream_state")
        stream = {
            "name": "lineitem", "path": f"lineitem.{form}", "write": "replace", "columns": lineitem.CONTRACT,
        }  # fmt: skip
        connector = {"kind": "files", "url": str(self._files)}
        synced = engine.run(self._server, self._folder, connector, stream, is_warm=is_warm)
        self.syncs[form].append(synced)
        progress(f"{form}: sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured

    def sling(self, form: str) -> Measured:
        self._run("drop schema if exists sling cascade", "create schema sling")
        return run_sling(
            self._folder, "--src-stream", f"file://{self._paths[form]}", "--mode", "full-refresh",
            "--src-options", '{"flatten": true}', "--tgt-conn", f"{self._dsn}?sslmode=disable",
            "--tgt-object", "sling.lineitem",
        )  # fmt: skip

    def dlt(self, form: str) -> Measured:
        self._run("drop schema if exists raw_dlt cascade")
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            return run_dlt(Path(work), DLT, [form, self._files.as_uri(), self._dsn, work])


def targets(outcomes: list[Outcome], formats: list[str]) -> list[Target]:
    by_path = {outcome.path: outcome for outcome in outcomes}
    found: list[Target] = []
    for form in formats:
        ours, sling = by_path[f"headwater_{form}"], by_path.get(f"sling_{form}")
        found.append(Target(f"{form}: seconds, as a multiple of COPY of the CSV", ours.ratio, BOUNDS[form]))
        if sling is not None:
            faster = round(sling.seconds / ours.seconds, 1) if sling.seconds and ours.seconds else None
            found.append(Target(f"{form}: times faster than Sling", faster, 3.0, is_minimum=True))
    return found


if __name__ == "__main__":
    main()
