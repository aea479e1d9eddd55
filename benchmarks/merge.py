"""Claim: changed rows are merged into a large table at a small multiple of COPY and ON CONFLICT.

One million rows of lineitem are in the warehouse already; a tenth of them changes at the source, and each path brings
the changed rows over. The limit is psql: COPY of the changed rows into a temporary table, then one insert with
ON CONFLICT. Headwater reads by cursor, stages, deduplicates, audits, compares every column, and commits its position
with the rows. Peers: Sling incremental, dlt merge (upsert) by Arrow.

    python -m benchmarks.merge [--rows 1000000] [--share 0.1] [--repeats 3] [--no-peers]
"""

import argparse
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from benchmarks import engine, lineitem
from benchmarks.peers import VERSIONS, run_dlt, run_sling
from benchmarks.support import (
    BenchServer,
    Measured,
    Outcome,
    PeerError,
    Target,
    bench_server,
    measure,
    progress,
    repeated,
    report,
    with_ratios,
)

CLAIM = "Changed rows merged into a large table: at most 2.5 times COPY into a temporary table and ON CONFLICT"
KEY = ("l_orderkey", "l_linenumber")
SOURCE = "bench_source"
EXTRA = "updated_at timestamptz not null"
BEGIN = "timestamptz '2024-01-01'"
DIGEST = """
select count(*), sum(l_orderkey::bigint), sum(l_quantity::numeric), max(updated_at)::timestamptz,
    count(*) filter (where l_comment like 'changed %')
from {}
"""
DLT = """
import sys, dlt
from dlt.sources.sql_database import sql_table

table = sql_table(sys.argv[1], table="lineitem", schema="public", backend="pyarrow",
                  incremental=dlt.sources.incremental("updated_at"))
upsert = {"disposition": "merge", "strategy": "upsert"}
table.apply_hints(primary_key=("l_orderkey", "l_linenumber"), write_disposition=upsert)
dlt.pipeline("bench", destination=dlt.destinations.postgres(sys.argv[2]), dataset_name="raw_dlt",
             pipelines_dir=sys.argv[3]).run(table, loader_file_format="csv")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    paths = ["limit", "headwater", "headwater_warm"] + ([] if options.no_peers else ["sling", "dlt_upsert"])
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        bench = _Bench(server, Path(temporary), options.rows, options.share)
        outcomes = [_measured(bench, path, options.repeats) for path in paths]
        # the first sync brought the whole table
        outcomes.insert(2, engine.alone("headwater_without_start", bench.syncs[1 : 1 + options.repeats]))
    outcomes = with_ratios(outcomes, "limit")
    ours = outcomes[1]
    changed = int(options.rows * options.share)
    report(
        "merge", f"{changed:,} changed rows into {options.rows:,} of lineitem", outcomes,
        [Target("seconds, as a multiple of COPY and ON CONFLICT", ours.ratio, 2.5)],
        claim=CLAIM, rows=options.rows, versions=VERSIONS,
    )  # fmt: skip


def _measured(bench: "_Bench", path: str, repeats: int) -> Outcome:
    """First the whole table, unmeasured; then so often a change and the merge of it."""
    run, table = bench.paths[path]
    try:
        bench.begin(path)
    except PeerError as error:
        return Outcome(path, note=str(error))

    def once() -> Measured:
        bench.change()
        return run()

    return repeated(path, repeats, once, lambda: bench.difference(table))


class _Bench:
    """The source, and one warehouse that every path has its own table in."""

    def __init__(self, server: BenchServer, folder: Path, rows: int, share: float) -> None:
        self._server = server
        self._folder = folder
        self._step = round(1 / share)
        self._turn = 0
        self.syncs: list[engine.Synced] = []
        self._dsn = server.url(server.database)
        self._source = server.create(SOURCE)
        lineitem.create(self._source, "lineitem", rows, extra=EXTRA, extra_value=BEGIN)
        with psycopg.connect(self._source, autocommit=True) as session:
            session.execute("alter table lineitem add primary key (l_orderkey, l_linenumber)")
            session.execute("create index on lineitem (updated_at)")
        self.paths: dict[str, tuple[Callable[[], Measured], str]] = {
            "limit": (self.limit, "by_hand.lineitem"),
            "headwater": (self.headwater, "raw_bench.lineitem"),
            "headwater_warm": (lambda: self.headwater(is_warm=True), "raw_bench.lineitem"),
            "sling": (self.sling, "sling.lineitem"),
            "dlt_upsert": (self.dlt, "raw_dlt.lineitem"),
        }

    def _run(self, dsn: str, *statements: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def begin(self, path: str) -> None:
        """The path's own first load of the whole table."""
        if path == "limit":
            columns = f"{lineitem.COLUMNS}, {EXTRA}, primary key ({', '.join(KEY)})"
            self._run(self._dsn, "create schema by_hand", f"create table by_hand.lineitem ({columns})")
            self._pipe("select * from lineitem", "copy by_hand.lineitem from stdin (format binary)")
        else:
            if path == "sling":
                self._run(self._dsn, "create schema sling")
            self.paths[path][0]()
            if path == "sling":
                # Sling makes no key of its own, and would look through the whole table for every row
                self._run(self._dsn, f"create unique index on sling.lineitem ({', '.join(KEY)})")
        self._run(self._dsn, "vacuum analyze", "checkpoint")

    def change(self) -> None:
        """The next tenth of the rows, each with a later time of its own: few stand at a sync's position."""
        self._turn += 1
        self._run(
            self._source,
            f"update lineitem set updated_at = {self._since} + l_orderkey * interval '1 us', "
            "l_quantity = l_quantity + 1, "
            f"l_comment = 'changed {self._turn}' where l_partkey % {self._step} = {self._turn % self._step}",
            "vacuum analyze lineitem",
            "checkpoint",
        )
        self._run(self._dsn, "checkpoint")

    @property
    def _since(self) -> str:
        return f"{BEGIN} + interval '{self._turn} hour'"

    def difference(self, table: str) -> str:
        with psycopg.connect(self._source) as session:
            expected = session.execute(DIGEST.format("lineitem").encode()).fetchone()
        with psycopg.connect(self._dsn) as session:
            found = session.execute(DIGEST.format(table).encode()).fetchone()
        return "" if found == expected else f"the rows differ: {found} of {expected}"

    def _pipe(self, query: str, *statements: str) -> Measured:
        """psql | psql: the query's rows in binary, into the first COPY among the statements."""
        read = [self._server.psql, self._source, "-qXc", f"copy ({query}) to stdout (format binary)"]
        write = [
            self._server.psql,
            self._dsn,
            "-qX1",
            *(word for statement in statements for word in ("-c", statement)),
        ]
        return measure(["/bin/sh", "-c", f"{shlex.join(read)} | {shlex.join(write)}"])

    def limit(self) -> Measured:
        columns = (
            "l_partkey l_suppkey l_quantity l_extendedprice l_discount l_tax l_returnflag l_linestatus l_shipdate "
            "l_commitdate l_receiptdate l_shipinstruct l_shipmode l_comment updated_at"
        )
        settings = ", ".join(f"{name} = excluded.{name}" for name in columns.split())
        return self._pipe(
            f"select * from lineitem where updated_at >= {self._since}",
            "create temporary table changed (like by_hand.lineitem)",
            "copy changed from stdin (format binary)",
            f"insert into by_hand.lineitem select * from changed on conflict ({', '.join(KEY)}) "
            f"do update set {settings}",
        )

    def headwater(self, *, is_warm: bool = False) -> Measured:
        connector = {"kind": "database", "url": "env:BENCH_SOURCE_URL"}
        stream = {
            "name": "lineitem", "write": "merge", "primary_key": list(KEY), "cursor": {"field": "updated_at"},
            "order": False, "window": {"rows": 1_000_000},
        }  # fmt: skip
        synced = engine.run(
            self._server, self._folder, connector, stream, is_warm=is_warm, BENCH_SOURCE_URL=self._source
        )
        self.syncs.append(synced)
        progress(f"{synced.rows:,} rows, sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured

    def sling(self) -> Measured:
        return run_sling(
            self._folder, "--mode", "incremental", "--primary-key", ",".join(KEY), "--update-key", "updated_at",
            "--src-conn", f"{self._source}?sslmode=disable", "--src-stream", "public.lineitem",
            "--tgt-conn", f"{self._dsn}?sslmode=disable", "--tgt-object", "sling.lineitem",
        )  # fmt: skip

    def dlt(self) -> Measured:
        home = self._folder / "dlt"
        home.mkdir(exist_ok=True)
        return run_dlt(home, DLT, [self._source, self._dsn, str(home)])


if __name__ == "__main__":
    main()
