"""Takes turns in a shared pool as one of several processes: prints the moment of each, on the database's clock.

python -m tests.http.taker DSN POOL REQUESTS SECONDS TURNS live|backfill
"""

import sys
import time

import psycopg

from connectors.http.limits import Quota
from connectors.http.shared import PostgresPool


def main() -> None:
    dsn, name, requests, seconds, turns, role = sys.argv[1:]
    pool = PostgresPool(
        name,
        Quota(int(requests), float(seconds)),
        lambda: psycopg.connect(dsn, autocommit=True),
        failures=5,
        pause_seconds=30.0,
        is_backfill=role == "backfill",
    )
    pool.open_seconds()
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
