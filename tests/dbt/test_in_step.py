"""The demo's models and its contracts are in step, and a change of the contract alone is told with each file."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest

from connectors.specs import ColumnSpec, SourceSpec, StreamSpec
from platform_assets.contracts.gather import Evidence, plan_of
from platform_assets.contracts.in_step import contradictions
from platform_assets.contracts.lineage import Lineage, lineage
from platform_assets.contracts.plan import Planned
from platform_assets.sources import load_sources
from tests.dbt.processes import PROJECT

Manifest = Mapping[str, Any]


@pytest.fixture(scope="module")
def known(manifest: Manifest) -> Lineage:
    """How the demo's models stand on each other. Only read it."""
    return lineage_of(manifest)


def lineage_of(manifest: Manifest) -> Lineage:
    tables = {f"{one['schema']}.{one['identifier']}": [*one["columns"]] for one in manifest["sources"].values()}
    return lineage(manifest, tables)


def with_stream(name: str, change: Callable[[StreamSpec], dict[str, Any]]) -> list[SourceSpec]:
    """The demo's sources, one stream's contract otherwise."""
    found: list[SourceSpec] = []
    for spec in load_sources():
        streams = tuple(
            one.model_copy(update=change(one)) if f"{spec.source}.{one.name}" == name else one for one in spec.streams
        )
        found.append(spec.model_copy(update={"streams": streams}))
    return found


def with_column(stream: str, name: str, **facts: Any) -> list[SourceSpec]:
    return with_stream(stream, lambda one: {"columns": {**one.columns, name: ColumnSpec(**facts)}})


def with_key(stream: str, *key: str) -> list[SourceSpec]:
    return with_stream(stream, lambda _: {"primary_key": key})


ALTITUDE: dict[str, Any] = {"type": "bigint", "nullable": False}


def changes(manifest: Manifest, sources: list[SourceSpec]) -> tuple[Planned, ...]:
    return plan_of(Evidence(sources, manifest), PROJECT, lambda one, _: one.source == "nyc_reference").changes


def told(manifest: Manifest, sources: list[SourceSpec], known: Lineage) -> list[str]:
    return [f"dbt_project/{said}" for said in contradictions(sources, manifest, known)]


def with_sql(manifest: Manifest, model: str, sql: str) -> Manifest:
    """Of the demo's models this one, otherwise, and staging below it."""
    nodes = {
        id_: node
        for id_, node in deepcopy(manifest["nodes"]).items()
        if node["resource_type"] == "test" or node["name"].startswith("stg_nyc") or node["name"] == model
    }
    nodes[f"model.headwater.{model}"]["compiled_code"] = sql
    return {**manifest, "nodes": nodes}


def test_models_and_contracts_of_the_demo_are_in_step(manifest: Manifest) -> None:
    assert plan_of(Evidence(list(load_sources()), manifest), PROJECT, lambda _one, _stream: True).notes == ()


def test_what_contradicts_the_contract_is_a_note_of_the_plan(manifest: Manifest) -> None:
    sources = with_column("nyc_reference.airports", "dst", type="text", accepted_values=("A", "U", "N", "X"))

    notes = plan_of(Evidence(sources, manifest), PROJECT, lambda _one, _stream: True).notes

    # the generated file differs as well, until it is written
    assert [note for note in notes if "headwater contract write" not in note] == [REFUSED]


STAGING = "dbt_project/models/staging/nyc_reference/stg_nyc_reference__airports"
STAGED_AIRPORTS = f"{STAGING}.yml: staging.stg_nyc_reference__airports."
MART = "dbt_project/models/marts/reference/airports.yml: marts"
REFUSED = (
    f"{STAGING}.yml: staging.stg_nyc_reference__airports.daylight_saving_code refuses X, which the contract of"
    " nyc_reference.airports.dst accepts"
)


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("dst", {"type": "text", "accepted_values": ("A", "U", "N", "X")}, [REFUSED]),
        (
            "alt", {"type": "text", "nullable": False},
            [
                f"{STAGING}.sql: casts nyc_reference.airports.alt to int, its contract says text",
                f"{MART}.airports_v1.altitude is integer, the contract of nyc_reference.airports.alt says text",
                f"{MART}.airports_v2.altitude_feet is integer, the contract of nyc_reference.airports.alt says text",
            ],
        ),
        # a test that knows more values, and a cast that holds more, contradict nothing
        ("dst", {"type": "text", "accepted_values": ("A", "U")}, []),
        ("lat", {"type": "bigint", "nullable": False}, []),
        # the unit is in the file of no model; where it is, it has to be the contract's
        ("lat", {"type": "double", "nullable": False, "unit": "radians"}, []),
        (
            "tzone", {"type": "text", "pii": "sensitive"},
            [
                f"{place}time_zone_name has meta pii none, the contract of nyc_reference.airports.tzone says sensitive"
                for place in (STAGED_AIRPORTS, f"{MART}.airports_v2.")
            ],
        ),
    ],
)  # fmt: skip
def test_a_change_of_the_contract_alone_is_told_with_the_file_that_contradicts_it(
    manifest: Manifest, known: Lineage, name: str, facts: dict[str, Any], expected: list[str]
) -> None:
    assert told(manifest, with_column("nyc_reference.airports", name, **facts), known) == expected


FILE = "dbt_project/models/{}.yml: {}.{} must not be NULL, which the contract of {}"
SEATS = "nyc_reference.planes.seats allows"
STAGED = FILE.format(
    "staging/nyc_reference/stg_nyc_reference__planes", "staging.stg_nyc_reference__planes", "seat_count", SEATS
)
IN_MART = FILE.format("marts/reference/planes", "marts.planes", "seat_count", SEATS)
IN_KEY = FILE.format(
    "marts/reference/plane_models", "marts.plane_models", "model_name", "nyc_fleet.planes.model allows"
)


@pytest.mark.parametrize(
    ("stream", "name", "facts", "expected"),
    [
        # a test of staging and a constraint of a mart; int_flights_joined_planes passes it on and asks for nothing
        ("nyc_reference.planes", "seats", {"type": "bigint"}, [STAGED, IN_MART]),
        # NOT NULL and part of the key of one mart are one demand
        ("nyc_fleet.planes", "model", {"type": "text"}, [IN_KEY]),
        # nothing more is asked for than is promised: a key is never NULL, whatever is said of it
        ("nyc_reference.planes", "engine", {"type": "text", "nullable": False}, []),
        ("nyc_reference.planes", "tailnum", {"type": "text"}, []),
        ("nyc_flights.flights", "sched_arr_time", {"type": "bigint"}, []),
        (
            "nyc_reference.planes", "seats", {"rule": "block"},
            [STAGED.replace("allows", "blocks"), IN_MART.replace("allows", "blocks")],
        ),
    ],
)  # fmt: skip
def test_a_model_that_forbids_the_null_of_a_contract_is_told_with_its_file(
    manifest: Manifest, known: Lineage, stream: str, name: str, facts: dict[str, Any], expected: list[str]
) -> None:
    assert told(manifest, with_column(stream, name, **facts), known) == expected


READ = "select tail_number, seat_count from staging.stg_nyc_reference__planes "
BOTH = "select p.tail_number, p.seat_count from"
FLIGHTS = "staging.stg_nyc_flights__flights f"


@pytest.mark.parametrize(
    ("sql", "is_told"),
    [
        (READ, True),
        ("select tail_number, max(seat_count) as seat_count from staging.stg_nyc_reference__planes group by 1", False),
        ("select tail_number, coalesce(seat_count, 0) as seat_count from staging.stg_nyc_reference__planes", False),
        (READ + "where tail_number like 'N%'", True),
        (READ + "where seat_count is not null", False),
        (f"with few as ({READ} where seat_count < 9) select * from few", False),
        (f"with every as ({READ}) select tail_number, seat_count from every where seat_count > 0", False),
        (f"{BOTH} {FLIGHTS} join ({READ}) p on p.seat_count = f.distance_miles", False),
        (f"{BOTH} {FLIGHTS} left join ({READ}) p on p.seat_count = f.distance_miles", False),
        (f"{BOTH} {FLIGHTS} left join ({READ}) p on p.tail_number = f.tail_number", True),
        (f"{BOTH} ({READ}) p left join {FLIGHTS} on p.seat_count = f.distance_miles", True),
        (f"{READ} union all {READ}", False),
    ],
)  # fmt: skip
def test_null_that_a_model_keeps_out_or_replaces_is_no_contradiction(
    manifest: Manifest, sql: str, is_told: bool
) -> None:
    changed = with_sql(manifest, "planes", sql)

    found = told(changed, with_column("nyc_reference.planes", "seats", type="bigint"), lineage_of(changed))

    assert found == [STAGED, *([IN_MART] if is_told else [])]


def in_test(**config: Any) -> Callable[[dict[str, Any]], None]:
    def change(nodes: dict[str, Any]) -> None:
        (test,) = [node for node in nodes.values() if node["name"] == "not_null_stg_nyc_reference__planes_seat_count"]
        test["config"] |= config

    return change


def in_mart(**config: Any) -> Callable[[dict[str, Any]], None]:
    return lambda nodes: nodes["model.headwater.planes"]["config"].update(config)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (in_test(where="tail_number is not null"), [IN_MART]),
        (in_test(severity="warn"), [IN_MART]),
        (in_test(error_if=">10"), [IN_MART]),
        (in_mart(materialized="view"), [STAGED]),
        (in_mart(contract={"enforced": False}), [STAGED]),
    ],
)
def test_only_what_stops_a_build_at_the_first_null_forbids_it(
    manifest: Manifest, known: Lineage, change: Callable[[dict[str, Any]], None], expected: list[str]
) -> None:
    changed = deepcopy(dict(manifest))
    change(changed["nodes"])

    assert told(changed, with_column("nyc_reference.planes", "seats", type="bigint"), known) == expected


def test_the_unit_of_a_models_file_is_the_contracts(manifest: Manifest, known: Lineage) -> None:
    changed = deepcopy(dict(manifest))
    column = changed["nodes"]["model.headwater.stg_nyc_reference__airports"]["columns"]["altitude_feet"]
    column["config"] = {"meta": {"unit": "feet"}}
    alone = with_column("nyc_reference.airports", "alt", type="bigint", nullable=False, unit="metres")

    assert told(changed, list(load_sources()), known) == []
    assert told(changed, alone, known) == [
        f"{STAGED_AIRPORTS}altitude_feet has meta unit feet, the contract of nyc_reference.airports.alt says metres"
    ]


@pytest.mark.parametrize(
    ("facts", "says", "is_breaking"),
    [
        ({"unit": "metres"}, "alt: unit feet becomes metres; models take its numbers as before", True),
        ({"unit": "feet", "pii": "sensitive"}, "alt: pii none becomes sensitive", False),
    ],
)
def test_what_a_value_means_is_a_change_of_the_plan_although_no_table_shows_it(
    manifest: Manifest, facts: dict[str, Any], says: str, is_breaking: bool
) -> None:
    (change,) = changes(manifest, with_column("nyc_reference.airports", "alt", **ALTITUDE, **facts))

    assert (change.side, change.says, change.is_breaking) == ("contract", says, is_breaking)
    assert "marts.airports_v2" in {use.model for use in change.impact.uses}


def test_a_unit_that_is_said_for_the_first_time_or_no_more_changes_nothing(manifest: Manifest) -> None:
    assert changes(manifest, with_column("nyc_reference.airports", "alt", **ALTITUDE)) == ()
    assert changes(manifest, with_column("nyc_reference.planes", "seats", **ALTITUDE, unit="people")) == ()


UNIQUE = "dbt_project/models/{}.yml: {} must be unique, the key of {} is {}"


@pytest.mark.parametrize(
    ("name", "key", "expected"),
    [
        (
            "nyc_reference.airlines", ("carrier", "name"),
            [
                UNIQUE.format(f"{file}", f"{model}.carrier_code", "nyc_reference.airlines", "carrier, name")
                for file, model in (
                    ("staging/nyc_reference/stg_nyc_reference__airlines", "staging.stg_nyc_reference__airlines"),
                    ("marts/reference/airlines", "marts.airlines"),
                )
            ],
        ),
        (
            "nyc_weather.weather", ("origin", "time_hour", "visib"),
            [
                UNIQUE.format(file, f"{model}.(airport_code, observed_hour_at)", "nyc_weather.weather",
                              "origin, time_hour, visib")
                for file, model in (
                    ("staging/nyc_weather/stg_nyc_weather__weather", "staging.stg_nyc_weather__weather"),
                    ("marts/weather/weather_hours", "marts.weather_hours"),
                )
            ],
        ),
        # fewer rows than before are unique still, and a model that groups by its key has made it one
        ("nyc_weather.weather", ("origin",), []),
        ("nyc_fleet.planes", ("tailnum", "manufacturer", "model"), [
            UNIQUE.format("staging/nyc_fleet/stg_nyc_fleet__planes", "staging.stg_nyc_fleet__planes.tail_number",
                          "nyc_fleet.planes", "manufacturer, model, tailnum"),
        ]),
    ],
)  # fmt: skip
def test_a_model_that_takes_a_part_of_the_key_for_unique_is_told_with_its_file(
    manifest: Manifest, known: Lineage, name: str, key: tuple[str, ...], expected: list[str]
) -> None:
    assert told(manifest, with_key(name, *key), known) == expected


@pytest.mark.parametrize(
    "sql",
    [
        "select carrier_code, min(airline_name) as airline_name from staging.stg_nyc_reference__airlines group by 1",
        "select distinct carrier_code from staging.stg_nyc_reference__airlines",
    ],
)
def test_what_a_model_makes_unique_is_no_contradiction(manifest: Manifest, sql: str) -> None:
    changed = with_sql(manifest, "airlines", sql)

    found = told(changed, with_key("nyc_reference.airlines", "carrier", "name"), lineage_of(changed))

    assert [note for note in found if "marts" in note] == []
