"""Claim: nested JSON over HTTP is loaded nearly as fast as by a client written by hand for that one source.

Headwater reads through kind `rest` with its retries, limits, state and audit; the limit is `benchmarks.hand_written`
with asyncpg's COPY. The same client with psycopg, which sends one COPY of text, is the fastest that we could write in
Python and stands beside it. All load the same eight columns, three of them jsonb, from the same local server. dlt's
REST source, with its defaults, unnests the collections into tables of their own.

    python -m benchmarks.json_records [--rows 200000] [--repeats 3] [--no-peers]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import psycopg

from benchmarks import engine, events
from benchmarks.peers import VERSIONS, run_dlt
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

CLAIM = (
    "Nested JSON over local HTTP: at most 1.4 times a hand-written client, at least 10 times faster than dlt's default"
)
PAGE_ROWS = 2_000
ASYNCPG = ("asyncpg==0.32.0", "httpx==0.28.1", "msgspec==0.22.0")
CONNECTOR = {"kind": "rest", "base_url": "env:BENCH_API_URL"}
STREAM = {
    "name": "events", "path": "/events", "write": "replace", "pagination": {"type": "page_number"},
}  # fmt: skip
DLT = """
import sys, dlt
from dlt.sources.rest_api import rest_api_source

source = rest_api_source({
    "client": {"base_url": sys.argv[1]},
    "resources": [{"name": "events", "endpoint": {
        "path": "/events", "data_selector": "data",
        "paginator": {"type": "page_number", "base_page": 1, "total_path": None, "stop_after_empty_page": True},
    }}],
})
dlt.pipeline("bench", destination=dlt.destinations.postgres(sys.argv[2]), dataset_name="raw_dlt",
             pipelines_dir=sys.argv[3]).run(source)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    page_rows = min(PAGE_ROWS, options.rows)
    pages = options.rows // page_rows
    with (
        bench_server() as server,
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary,
        events.event_server(pages, page_rows) as url,
    ):
        bench = _Bench(server, Path(temporary), url)
        expected = bench.expected()
        outcomes = [
            repeated(path, options.repeats, once, lambda: bench.difference("by_hand.events", expected))
            for path, once in (("limit", bench.by_asyncpg), ("psycopg_text", bench.by_psycopg))
        ]
        outcomes += [
            repeated(
                "headwater", options.repeats, bench.headwater, lambda: bench.difference("raw_bench.events", expected)
            ),
        ]
        alone = engine.alone("headwater_without_start", bench.syncs)
        warm = repeated(
            "headwater_warm", options.repeats, lambda: bench.headwater(is_warm=True),
            lambda: bench.difference("raw_bench.events", expected),
        )  # fmt: skip
        outcomes += [alone, warm]
        if not options.no_peers:
            outcomes.append(repeated("dlt_default", 1, bench.dlt_default, lambda: bench.counted(pages * page_rows)))
    outcomes = with_ratios(outcomes, "limit")
    report(
        "json_records", f"{pages * page_rows:,} nested events on pages of {page_rows:,}", outcomes, targets(outcomes),
        claim=CLAIM, rows=pages * page_rows,
        versions={"dlt": VERSIONS["dlt"], "asyncpg": ASYNCPG[0].partition("==")[2]},
    )  # fmt: skip


class _Bench:
    """One server, one API; each path loads into a schema of its own."""

    def __init__(self, server: BenchServer, folder: Path, url: str) -> None:
        self._server = server
        self._folder = folder
        self._url = url
        self.syncs: list[engine.Synced] = []
        self._dsn = server.url(server.database)

    def _clean(self, *statements: str) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as session:
            for statement in (*statements, "checkpoint"):
                session.execute(statement.encode())

    def expected(self) -> tuple[object, ...] | None:
        """The digest of one load by hand, which also warms the server."""
        self.by_psycopg()
        return self._digest("by_hand.events")

    def _digest(self, table: str) -> tuple[object, ...] | None:
        with psycopg.connect(self._dsn) as session:
            return session.execute(events.DIGEST.format(table).encode()).fetchone()

    def difference(self, table: str, expected: tuple[object, ...] | None) -> str:
        found = self._digest(table)
        return "" if found == expected else f"the rows differ: {found} of {expected}"

    def counted(self, rows: int) -> str:
        with psycopg.connect(self._dsn) as session:
            found = session.execute("select count(*) from raw_dlt.events").fetchone()
        return "collections in tables of their own" if found == (rows,) else f"{found} of {rows} rows"

    def by_asyncpg(self) -> Measured:
        return self._by_hand(str(peer("asyncpg", *ASYNCPG)), "asyncpg")

    def by_psycopg(self) -> Measured:
        return self._by_hand(sys.executable, "psycopg")

    def _by_hand(self, interpreter: str, library: str) -> Measured:
        table = "by_hand.events"
        self._clean("create schema if not exists by_hand", f"drop table if exists {table}", events.TABLE.format(table))
        command = [interpreter, "-m", "benchmarks.hand_written", library, self._url, self._dsn, table]
        return measure(command, folder=PROJECT_ROOT)

    def headwater(self, *, is_warm: bool = False) -> Measured:
        self._clean("drop table if exists raw_bench.events", "delete from ops.schema_versions")
        synced = engine.run(self._server, self._folder, CONNECTOR, STREAM, is_warm=is_warm, BENCH_API_URL=self._url)
        self.syncs.append(synced)
        progress(f"sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured

    def dlt_default(self) -> Measured:
        self._clean("drop schema if exists raw_dlt cascade")
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            return run_dlt(Path(work), DLT, [self._url, self._dsn, work])


def targets(outcomes: list[Outcome]) -> list[Target]:
    by_path = {outcome.path: outcome for outcome in outcomes}
    ours = by_path["headwater"]
    found = [Target("seconds, as a multiple of the hand-written client", ours.ratio, 1.4)]
    peer = by_path.get("dlt_default")
    if peer is not None:
        faster = round(peer.seconds / ours.seconds, 1) if peer.seconds and ours.seconds else None
        found.append(Target("times faster than dlt's default", faster, 10.0, is_minimum=True))
    return found


if __name__ == "__main__":
    main()
