"""What an able engineer writes for one source alone, without state, contract, audit or quarantine: the limit.

`python -m benchmarks.hand_written events <base url> <dsn> <table>`: pages over httpx, typed decoding by msgspec with
the nested parts kept raw, and one COPY. The next page is fetched while this one is written.
"""

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
import msgspec
import psycopg
from psycopg import sql

COLUMNS = ("id", "kind", "created_at", "amount", "is_test", "customer", "items", "payments")


class Event(msgspec.Struct, gc=False):
    id: int
    kind: str
    created_at: str
    amount: float
    is_test: bool
    customer: msgspec.Raw
    items: msgspec.Raw
    payments: msgspec.Raw


class Page(msgspec.Struct, gc=False):
    data: list[Event]


def pages(base_url: str) -> Iterator[list[Event]]:
    """Decoded pages until one is empty."""
    decoder = msgspec.json.Decoder(Page)
    with httpx.Client(base_url=base_url, timeout=30) as client, ThreadPoolExecutor(1) as worker:

        def fetch(number: int) -> bytes:
            return client.get("/events", params={"page": number}).raise_for_status().content

        number, ahead = 1, worker.submit(fetch, 1)
        while data := decoder.decode(ahead.result()).data:
            number += 1
            ahead = worker.submit(fetch, number)
            yield data


def events(base_url: str, dsn: str, table: str) -> None:
    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with psycopg.connect(dsn) as connection, connection.cursor().copy(statement) as copy:
        for data in pages(base_url):
            for item in data:
                copy.write_row(
                    (
                        item.id, item.kind, item.created_at, item.amount, item.is_test,
                        bytes(item.customer).decode(), bytes(item.items).decode(), bytes(item.payments).decode(),
                    )
                )  # fmt: skip


def main(arguments: Sequence[str]) -> None:
    name, *rest = arguments
    {"events": events}[name](*rest)


if __name__ == "__main__":
    main(sys.argv[1:])
