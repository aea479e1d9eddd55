"""Claim: the last good version of a mart is served again in under two seconds, however large it is.

A mart of so many rows is published twice, as a build does it, and taken back by `headwater dbt rollback`: a process of
its own, its start counted. A row says which version is served.

    python -m benchmarks.mart_rollback [--rows 5000000] [--repeats 3]
"""

import argparse
import os
import sys

import psycopg

from benchmarks.support import BenchServer, Measured, Target, bench_server, measure, repeated, report
from platform_assets.dbt.beside import publish
from platform_assets.settings import PROJECT_ROOT

CLAIM = "A mart is served as it was before its last publication within 2 seconds"
TABLE = """
create table marts__next.orders as
    select id, %s as version, now() as ordered_at, repeat('x', 60) as note from generate_series(1, %s) as id;
alter table marts__next.orders add primary key (id)
"""


class _Bench:
    def __init__(self, server: BenchServer, rows: int) -> None:
        self._dsn = server.warehouse.transformer_dsn
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")} | {
            "HEADWATER_HOME": str(server.home)
        }
        self._rows = rows
        self._served = 0
        self._publish()

    def _publish(self) -> None:
        self._served += 1
        with psycopg.connect(self._dsn, autocommit=True) as session, psycopg.ClientCursor(session) as cursor:
            cursor.execute("drop table if exists marts__next.orders")
            cursor.execute(TABLE, [self._served, self._rows])
        publish(self._dsn, ["orders"])

    def rollback(self) -> Measured:
        self._publish()
        command = [sys.executable, "-m", "platform_assets.cli", "dbt", "rollback", "marts.orders"]
        return measure(command, self._environment, PROJECT_ROOT)

    def difference(self) -> str:
        self._served -= 1
        with psycopg.connect(self._dsn) as session:
            found = session.execute("select count(*), max(version) from marts.orders").fetchone()
        wanted = (self._rows, self._served)
        return "" if found == wanted else f"rows and version {found} instead of {wanted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with bench_server() as server:
        bench = _Bench(server, options.rows)
        outcome = repeated("headwater_rollback", options.repeats, bench.rollback, bench.difference)
    size = f"a mart of {options.rows:,} rows"
    targets = [Target("seconds of the whole command", outcome.seconds, 2.0)]
    report("mart_rollback", size, [outcome], targets, claim=CLAIM, rows=options.rows)


if __name__ == "__main__":
    main()
