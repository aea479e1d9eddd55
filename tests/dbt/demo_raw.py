"""The demo's data in raw tables as the sync engine leaves them, for tests that start where loading ends."""

import csv
import gzip
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString, cast

import psycopg
from psycopg import sql

from platform_assets.warehouse import Warehouse

DATA = Path(__file__).parents[2] / "demo" / "data"
SYNCED_AT = "2013-01-15T06:00:00Z"
OWN_COLUMNS = (("_synced_at", "timestamptz"), ("_deleted", "boolean"), ("_dlt_load_id", "text"))


@dataclass(frozen=True, slots=True)
class RawTable:
    """types: column and PostgreSQL type, in order; the engine's own columns are added."""

    source: str
    stream: str
    types: tuple[tuple[str, str], ...]

    @property
    def name(self) -> sql.Composed:
        return sql.SQL("{}.{}").format(sql.Identifier(f"raw_{self.source}"), sql.Identifier(self.stream))


def _types(text: str) -> tuple[tuple[str, str], ...]:
    short = {"i": "bigint", "d": "double precision", "t": "varchar", "z": "timestamptz", "j": "jsonb"}
    return tuple((name, short[letter]) for name, letter in (item.split(":") for item in text.split()))


FLIGHTS = RawTable(
    "nyc_flights",
    "flights",
    _types(
        "year:i month:i day:i dep_time:i sched_dep_time:i dep_delay:i arr_time:i sched_arr_time:i arr_delay:i carrier:t"
        " flight:i tailnum:t origin:t dest:t air_time:i distance:i hour:i minute:i time_hour:z"
    ),
)
AIRLINES = RawTable("nyc_reference", "airlines", _types("carrier:t name:t"))
AIRPORTS = RawTable("nyc_reference", "airports", _types("faa:t name:t lat:d lon:d alt:i tz:i dst:t tzone:t"))
PLANES = RawTable(
    "nyc_reference",
    "planes",
    _types("tailnum:t year:i type:t manufacturer:t model:t engines:i seats:i speed:i engine:t"),
)
WEATHER = RawTable(
    "nyc_weather",
    "weather",
    _types(
        "origin:t year:i month:i day:i hour:i temp:d dewp:d humid:d wind_dir:i wind_speed:d wind_gust:d precip:d"
        " pressure:d visib:d time_hour:z"
    ),
)
EVENTS = RawTable("github", "events", _types("_delivery_id:t _event_type:t _received_at:z payload:j"))
FLEET = RawTable("nyc_fleet", "planes", PLANES.types)
USERS = RawTable("faker_shop", "users", _types("id:i created_at:z updated_at:z name:t nationality:t occupation:t"))
PURCHASES = RawTable(
    "faker_shop",
    "purchases",
    _types("id:i product_id:i user_id:i created_at:z updated_at:z added_to_cart_at:z purchased_at:z returned_at:z"),
)
TABLES = (FLIGHTS, AIRLINES, AIRPORTS, PLANES, WEATHER, EVENTS, FLEET, USERS, PURCHASES)


def load_demo_raw(warehouse: Warehouse, tables: Sequence[RawTable] = TABLES) -> None:
    """All streams of the demo, every day of them, or some; three customers stand for the made-up shop."""
    with psycopg.connect(warehouse.loader_dsn) as session:
        for table in tables:
            create(session, table)
            copy_rows(session, table, _records(table))


def create(session: psycopg.Connection, table: RawTable) -> None:
    session.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(f"raw_{table.source}")))
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(cast("LiteralString", type_)))
        for name, type_ in (*table.types, *OWN_COLUMNS)
    )
    session.execute(sql.SQL("create table {} ({})").format(table.name, columns))


def copy_rows(
    session: psycopg.Connection, table: RawTable, rows: Iterable[Sequence[object]], synced_at: str = SYNCED_AT
) -> None:
    with session.cursor().copy(sql.SQL("copy {} from stdin").format(table.name)) as copy:
        for row in rows:
            copy.write_row([*row, synced_at, False, "load-1"])


def _records(table: RawTable) -> Iterable[Sequence[object]]:
    names = [name for name, _ in table.types]
    if table is FLIGHTS:
        with gzip.open(DATA / "rest" / "flights.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                record = json.loads(line)
                yield [record[name] for name in names]
    elif table is EVENTS:
        with gzip.open(DATA / "webhooks" / "github_deliveries.jsonl.gz", "rt", encoding="utf-8") as lines:
            for line in lines:
                delivery = json.loads(line)
                yield [
                    f"{delivery['event']}-{delivery['n']}",
                    delivery["event"],
                    SYNCED_AT,
                    json.dumps(delivery["payload"]),
                ]
    elif table is USERS:
        for number, name in enumerate(("Ann", "Bob", "Cem"), 1):
            yield [number, SYNCED_AT, SYNCED_AT, name, "Irish", "Baker"]
    elif table is PURCHASES:
        yield [1, 7, 1, SYNCED_AT, SYNCED_AT, SYNCED_AT, SYNCED_AT, SYNCED_AT]
        yield [2, 8, 1, SYNCED_AT, SYNCED_AT, SYNCED_AT, None, None]
    elif table is WEATHER:
        with gzip.open(DATA / "files" / "weather_2013_01.csv.gz", "rt", encoding="utf-8", newline="") as lines:
            for record in csv.DictReader(lines):
                yield [None if record[name] == "NA" else record[name] for name in names]
    else:
        path = DATA / "db" / "reference.sqlite"
        with sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True) as reference:
            yield from reference.execute(f"select {', '.join(names)} from {table.stream}")
