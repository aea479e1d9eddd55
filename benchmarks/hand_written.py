"""What an able engineer writes for one source alone, without state, contract, audit or quarantine: the limit.

Pages over httpx, typed decoding by msgspec with the nested parts kept raw, and COPY: by asyncpg in its binary format, a
page at a time, or by psycopg as text, in one statement. The next page is fetched while this one is written.

    python -m benchmarks.hand_written asyncpg | psycopg <base url> <dsn> <table>

asyncpg is not among our own packages: its client runs in a venv of its own, so the libraries are imported where used.
"""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import httpx
import msgspec

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


class TimedEvent(Event, gc=False):
    created_at: datetime  # pyright: ignore[reportIncompatibleVariableOverride] as asyncpg's binary format takes it


class TimedPage(msgspec.Struct, gc=False):
    data: list[TimedEvent]


def row(item: Event) -> tuple[Any, ...]:
    return (
        item.id, item.kind, item.created_at, item.amount, item.is_test,
        bytes(item.customer).decode(), bytes(item.items).decode(), bytes(item.payments).decode(),
    )  # fmt: skip


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


def by_psycopg(base_url: str, dsn: str, table: str) -> None:
    import psycopg
    from psycopg import sql

    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(*table.split(".")), sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
    )
    with psycopg.connect(dsn) as connection, connection.cursor().copy(statement) as copy:
        for data in pages(base_url):
            for item in data:
                copy.write_row(row(item))


async def by_asyncpg(base_url: str, dsn: str, table: str) -> None:
    import asyncpg  # pyright: ignore[reportMissingImports]

    schema, name = table.split(".")
    decoder = msgspec.json.Decoder(TimedPage)
    library: Any = asyncpg
    connection = await library.connect(dsn)
    async with httpx.AsyncClient(base_url=base_url, timeout=30) as client, connection.transaction():

        async def fetch(number: int) -> bytes:
            return (await client.get("/events", params={"page": number})).raise_for_status().content

        number, ahead = 1, asyncio.create_task(fetch(1))
        while data := decoder.decode(await ahead).data:
            number += 1
            ahead = asyncio.create_task(fetch(number))
            rows = [row(item) for item in data]
            await connection.copy_records_to_table(name, schema_name=schema, columns=COLUMNS, records=rows)
    await connection.close()


def main(arguments: Sequence[str]) -> None:
    library, *rest = arguments
    if library == "asyncpg":
        asyncio.run(by_asyncpg(*rest))
    else:
        by_psycopg(*rest)


if __name__ == "__main__":
    main(sys.argv[1:])
