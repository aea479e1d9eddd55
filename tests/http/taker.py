"""Takes turns in a shared pool as one of several processes: prints the moment of each, on the database's clock.

python -m tests.http.taker DSN POOL REQUESTS SECONDS TURNS live|backfill|slot

A slot is one request under way that never ends.
"""

import sys
import time

import psycopg

from connectors.http.limits import Quota, Rules
from connectors.http.shared import PostgresPool


def main() -> None:
    dsn, name, requests, seconds, turns, role = sys.argv[1:]
    if role == "slot":
        held = PostgresPool(
            name,
            Rules(concurrent=1, request_seconds=3_600.0),
            lambda: psycopg.connect(dsn, autocommit=True),
            is_backfill=False,
        )
        assert held.take(60.0).is_booked
        print("held", flush=True)
        sys.stdin.readline()
    rules = Rules(Quota(int(requests), float(seconds)))
    pool = PostgresPool(name, rules, lambda: psycopg.connect(dsn, autocommit=True), is_backfill=role == "backfill")
    pool.open_seconds("a")
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    while taken < int(turns):
        grant = pool.take(60.0)
        assert pool._row is not None
        if grant.is_booked:
            taken += 1
            print(repr(pool._row.now + grant.wait_seconds), flush=True)
        time.sleep(grant.wait_seconds)
    pool.close()


if __name__ == "__main__":
    main()
