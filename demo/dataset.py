"""The demo's data as it lies in demo/data."""

import csv
import gzip
import json
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from pathlib import Path

DATA = Path(__file__).parent / "data"
FLIGHTS = DATA / "rest" / "flights.jsonl.gz"
WEATHER = DATA / "files" / "weather_2013_01.csv.gz"
REFERENCE = DATA / "db" / "reference.sqlite"
DELIVERIES = DATA / "webhooks" / "github_deliveries.jsonl.gz"

FIRST_DAY = date(2013, 1, 1)
FLIGHT_DAYS = 14

FlightKey = tuple[datetime, str, int, str]
"""(time_hour, carrier, flight, origin): unique, and the order in which the API lists flights."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One flight: its place in the list, the day it is released on, and its JSON as the source wrote it."""

    key: FlightKey
    day: date
    body: bytes


@dataclass(frozen=True, slots=True)
class WeatherDay:
    """One local day of weather, header first, as CSV text with `NA` for a missing value."""

    day: date
    text: str


def read_flights() -> list[Flight]:
    """All 12,208 flights in the API's order."""
    flights: list[Flight] = []
    with gzip.open(FLIGHTS) as lines:
        for line in lines:
            row = json.loads(line)
            at = datetime.fromisoformat(row["time_hour"])
            day = date(row["year"], row["month"], row["day"])
            flights.append(Flight((at, row["carrier"], row["flight"], row["origin"]), day, line.strip()))
    return sorted(flights, key=lambda flight: flight.key)


def read_weather() -> list[WeatherDay]:
    """The weather of January 2013 cut by local day, 31 of them."""
    with gzip.open(WEATHER, "rt", encoding="utf-8", newline="") as text:
        lines = text.read().splitlines()
    header = lines[0]
    year, month, day = (header.split(",").index(name) for name in ("year", "month", "day"))

    def day_of(line: str) -> date:
        cells = next(csv.reader([line]))
        return date(int(cells[year]), int(cells[month]), int(cells[day]))

    by_day = groupby(sorted(lines[1:], key=day_of), key=day_of)
    return [WeatherDay(at, "\n".join([header, *rows]) + "\n") for at, rows in by_day]
