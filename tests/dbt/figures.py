"""The demo's figures, counted independently of this project, and where the marts carry them."""

import json
from collections.abc import Mapping
from typing import Any

import psycopg

from platform_assets.warehouse import Warehouse
from tests.dbt.demo_raw import DATA

QUERIES: Mapping[str, str] = {
    "flights": "select count(*) from marts.flights",
    "days": "select count(distinct flight_date) from marts.carrier_days",
    "cancelled(dep_time null)": "select count(*) from marts.flights where is_cancelled",
    "arr_delay_null": "select count(*) from marts.flights where arrival_status in ('cancelled', 'diverted')",
    "sum_distance": "select sum(distance_miles) from marts.flights",
    "sum_dep_delay": "select sum(departure_delay_minutes) from marts.flights",
    "sum_arr_delay": "select sum(arrival_delay_minutes) from marts.flights",
    "tailnum_null": "select count(*) from marts.flights where tail_number is null",
    "no_plane_match": "select sum(unregistered_plane_flight_count) from marts.carrier_days",
    "seats_flown": "select sum(flown_seat_count) from marts.carrier_days",
    "dest_no_airport": "select sum(flight_count) from marts.routes where not has_destination_airport",
    "with_weather": "select sum(weather_flight_count) from marts.carrier_days",
    "weather_rows": "select count(*) from marts.weather_hours",
    "by_carrier[flights,cancelled,sum_dep_delay,sum_distance]": """
        select jsonb_object_agg(carrier_code, figures) from (
            select carrier_code, jsonb_build_array(
                sum(flight_count), sum(cancelled_flight_count), sum(departure_delay_minutes), sum(distance_miles)
            ) as figures
            from marts.carrier_days group by carrier_code
        ) as carriers
    """,
    "max_time_hour": """
        select to_char(max(scheduled_hour_at) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') from marts.flights
    """,
    "after_2013-01-08T00Z": "select count(*) from marts.flights where scheduled_hour_at >= '2013-01-08T00:00:00Z'",
    "webhooks": """
        select jsonb_object_agg(event_type, events) from (
            select coalesce(event_type, 'total') as event_type, count(*) as events
            from marts.events group by rollup (event_type)
        ) as kinds
    """,
}

# counts of other ways through the marts that must agree
CROSS_CHECKS: Mapping[str, str] = {
    "flights": "select sum(flight_count) from marts.routes",
    "sum_dep_delay": "select sum(departure_delay_minutes) from marts.carrier_days",
    "sum_arr_delay": "select sum(arrival_delay_minutes) from marts.carrier_days",
    "seats_flown": "select sum(flown_seat_count) from marts.routes",
    "cancelled(dep_time null)": "select sum(cancelled_flight_count) from marts.routes",
}


def expected_figures() -> Mapping[str, Any]:
    return json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


def measured_figures(warehouse: Warehouse, queries: Mapping[str, str] = QUERIES) -> Mapping[str, Any]:
    """What the marts say, read as the role that consumers have."""
    with psycopg.connect(warehouse.reader_dsn) as session:
        return {name: _plain(session.execute(query.encode()).fetchone()) for name, query in queries.items()}


def _plain(row: tuple[Any, ...] | None) -> Any:
    """Exact integers: a numeric is never rounded on its way."""
    value = row[0] if row else None
    return value if isinstance(value, str | dict) or value is None else _integer(value)


def _integer(value: Any) -> int:
    whole = int(value)
    assert whole == value, value
    return whole
