"""Claim: memory stays flat, whatever the number of rows, for every kind.

Each kind reads a stream of narrow rows twice, the second time ten times as many; singer, airbyte, dlt_source, python
and webhook read nested records, webhook those that wait in its inbox; log and log_commits read the rows as changes out
of PostgreSQL's log, made by one transaction and by many.
Measured is the peak of resident memory of the sync and its children; PostgreSQL is not in it.

    python -m benchmarks.memory [--rows 1000000] [--kinds rest,csv,jsonl,parquet,database,sling,singer,...]
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import emitting, engine, events
from benchmarks.support import (
    BenchServer,
    Measured,
    Outcome,
    Target,
    bench_server,
    progress,
    repeated,
    report,
)

CLAIM = "Peak memory is flat from 1 million to 10 million rows, every kind"
NESTED = ("singer", "airbyte", "dlt_source", "python", "webhook")
LOGGED = {"log": "one transaction", "log_commits": "a transaction of 1,000 rows after the other"}
"""A replicated table: measured is the sync of its changes. How they were made."""
KINDS = ("rest", "csv", "jsonl", "parquet", "database", *LOGGED, "sling", *NESTED)
SOURCE = "bench_source"
GROWTH = 10
# the same, within what an allocator and a sampler leave open
FLAT, PEAK_MB, NESTED_PEAK_MB = 1.25, 400.0, 300.0
PAGE_ROWS = 2_000
FILL = """
create table narrow as
select g as id, 'name ' || g % 1000 as name, g % 7919 / 7.0 as ratio,
    timestamptz '2024-01-01' + g * interval '1 s' as at
from generate_series(1::bigint, {rows}) as g
"""
CHANGES = """
do $$ begin
    for low in 1..{rows} by {step} loop
        insert into {table} select * from narrow where id between low and low + {step} - 1;
        commit;
    end loop;
end $$
"""
COMMITTED_ROWS = 1_000
DELIVERIES = """
insert into ops.webhook_inbox (delivery_id, source, event_type, body)
select g, %s, 'push', convert_to('{"id": ' || g || ', ' || %s, 'UTF8') from generate_series(1::bigint, %s) as g
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if kind in options.kinds.split(",")]
    outcomes: list[Outcome] = []
    with bench_server() as server, tempfile.TemporaryDirectory(prefix="headwater-bench-") as temporary:
        for rows in (options.rows, options.rows * GROWTH):
            bench = _Bench(server, Path(temporary), rows)
            outcomes += [bench.outcome(kind) for kind in kinds]
            bench.close()
    report(
        "memory", f"{options.rows:,} and {options.rows * GROWTH:,} rows", outcomes, targets(outcomes, kinds),
        claim=CLAIM, rows=options.rows * GROWTH,
    )  # fmt: skip


class _Bench:
    """The same rows as a table and as files; the API serves one page again and again."""

    def __init__(self, server: BenchServer, folder: Path, rows: int) -> None:
        self._server = server
        self._folder = folder
        self._rows = rows
        self._dsn = server.url(server.database)
        database = f"{SOURCE}_{rows}"
        self._source = server.create(database)
        with psycopg.connect(self._source, autocommit=True) as session:
            session.execute(FILL.format(rows=rows).encode())
        self._files = folder / str(rows)
        self._files.mkdir()

    def close(self) -> None:
        for path in self._files.iterdir():
            path.unlink()
        database = self._source.rpartition("/")[2]
        with psycopg.connect(self._dsn, autocommit=True) as session:
            session.execute("drop table if exists raw_bench.narrow")
            session.execute(f"drop database {database} (force)".encode())

    def outcome(self, kind: str) -> Outcome:
        """One sync of the kind into an empty table."""
        with psycopg.connect(self._dsn, autocommit=True) as session:
            session.execute("drop table if exists raw_bench.narrow")
            session.execute("truncate ops.schema_versions, ops.stream_state, ops.webhook_inbox")
        once: Callable[[], Measured] = self._rest if kind == "rest" else lambda: self._sync(kind)
        if kind in ("csv", "jsonl", "parquet"):
            self._export(kind)
        found = repeated(f"{kind} {self._rows:,}", 1, once, self._difference)
        for path in self._files.iterdir():
            path.unlink()
        return found

    def _difference(self) -> str:
        with psycopg.connect(self._dsn) as session:
            found = session.execute("select count(*) from raw_bench.narrow").fetchone()
        return "" if found == (self._rows,) else f"{found} rows of {self._rows:,}"

    def _export(self, kind: str) -> None:
        import duckdb

        path = self._files / "narrow.csv"
        query = "copy narrow to stdout (format csv, header)"
        with psycopg.connect(self._source) as session, path.open("wb") as file, session.cursor().copy(query) as copy:
            for chunk in copy:
                file.write(chunk)
        if kind == "csv":
            return
        form = "json" if kind == "jsonl" else kind
        with duckdb.connect() as session:
            target = self._files / f"narrow.{kind}"
            session.execute(f"copy (from read_csv('{path}', header=true)) to '{target}' (format {form})")
        path.unlink()

    def _run(self, connector: Mapping[str, Any], url: str = "", **stream: Any) -> Measured:
        stream = {"name": "narrow", "write": "replace", **stream}
        synced = engine.run(
            self._server, self._folder, connector, stream,
            BENCH_API_URL=url, BENCH_SOURCE_URL=f"{self._source}?sslmode=disable",
        )  # fmt: skip
        progress(f"sync alone {synced.sync_seconds} s {synced.steps}")
        return synced.measured

    def _rest(self) -> Measured:
        page_rows = min(PAGE_ROWS, self._rows)
        with events.event_server(self._rows // page_rows, page_rows, is_same=True) as url:
            paging = {"type": "page_number"}
            return self._run({"kind": "rest", "base_url": "env:BENCH_API_URL"}, url, path="/events", pagination=paging)

    def _logged(self, kind: str) -> Measured:
        """The slot is made by a sync of the empty table; what the table gets afterwards is what is measured."""
        stream: dict[str, Any] = {
            "table": kind, "primary_key": "id", "write": "merge",
            "replication": {"publication": kind, "slot": f"bench_{kind}_{self._rows}"},
        }  # fmt: skip
        connector = {"kind": "database", "url": "env:BENCH_SOURCE_URL"}
        with psycopg.connect(self._source, autocommit=True) as session:
            session.execute("set synchronous_commit = on")
            session.execute(f"create table {kind} (like narrow, primary key (id))".encode())
            session.execute("create index if not exists by_id on narrow (id)")
            session.execute(f"create publication {kind} for table {kind}".encode())
            self._run(connector, **stream)
            step = self._rows if kind == "log" else COMMITTED_ROWS
            session.execute(CHANGES.format(rows=self._rows, step=step, table=kind).encode())
        return self._run(connector, **stream)

    def _received(self) -> Measured:
        """The sync of deliveries that wait in the inbox."""
        rest = json.dumps(emitting.REST).removeprefix("{")
        with psycopg.connect(self._dsn, autocommit=True) as session:
            session.execute(DELIVERIES.encode(), [engine.SOURCE, rest, self._rows])
        return self._run({"kind": "webhook", "scheme": "github", "secret": "env:BENCH_SECRET"}, write="append")

    def _sync(self, kind: str) -> Measured:
        if kind in LOGGED:
            return self._logged(kind)
        if kind == "database":
            return self._run({"kind": "database", "url": "env:BENCH_SOURCE_URL"})
        if kind == "sling":
            return self._run({"kind": "sling", "connection": "env:BENCH_SOURCE_URL"}, object="public.narrow")
        if kind == "dlt_source":
            connector = {"kind": kind, "source": "benchmarks.emitting:records", "arguments": {"rows": self._rows}}
            return self._run(connector)
        if kind == "python":
            options = {"rows": str(self._rows)}
            return self._run({"kind": kind, "module": "benchmarks.own_connector:Records", "options": options})
        if kind == "webhook":
            return self._received()
        if kind in NESTED:
            # appended, so that the program's states seal the windows
            program = emitting.executable(self._folder, kind, self._rows)
            return self._run({"kind": kind, "executable": program}, write="append")
        return self._run({"kind": "files", "url": str(self._files)}, path=f"narrow.{kind}")


def targets(outcomes: list[Outcome], kinds: list[str]) -> list[Target]:
    found: list[Target] = []
    for index, kind in enumerate(kinds):
        small, large = outcomes[index].peak_mb, outcomes[index + len(kinds)].peak_mb
        growth = round(large / small, 2) if small and large else None
        found.append(Target(f"{kind}: peak memory of {GROWTH} times the rows, as a multiple", growth, FLAT))
        bound = NESTED_PEAK_MB if kind in NESTED else PEAK_MB
        found.append(Target(f"{kind}: peak memory, MB", large, bound))
    return found


if __name__ == "__main__":
    main()
