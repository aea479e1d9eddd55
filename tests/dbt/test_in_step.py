"""The demo's models and its contracts are in step, and a change of the contract alone is told with each file."""

from collections.abc import Mapping
from typing import Any

import pytest

from connectors.specs import ColumnSpec, SourceSpec
from platform_assets.contracts.gather import Evidence, plan_of
from platform_assets.sources import load_sources
from tests.dbt.processes import PROJECT

Manifest = Mapping[str, Any]


def with_column(source: str, stream: str, name: str, **facts: Any) -> list[SourceSpec]:
    """The demo's sources, one column's contract otherwise."""
    found: list[SourceSpec] = []
    for spec in load_sources():
        streams = tuple(
            one.model_copy(update={"columns": {**one.columns, name: ColumnSpec(**facts)}})
            if (spec.source, one.name) == (source, stream)
            else one
            for one in spec.streams
        )
        found.append(spec.model_copy(update={"streams": streams}))
    return found


def told(manifest: Manifest, sources: list[SourceSpec]) -> list[str]:
    """Notes of the plan, but for the generated file, which always differs as well."""
    notes = plan_of(Evidence(sources, manifest), PROJECT, lambda _one, _stream: True).notes
    return [note for note in notes if "headwater contract write" not in note]


def test_models_and_contracts_of_the_demo_are_in_step(manifest: Manifest) -> None:
    assert told(manifest, list(load_sources())) == []


STAGING = "dbt_project/models/staging/nyc_reference/stg_nyc_reference__airports"
REFUSED = (
    f"{STAGING}.yml: staging.stg_nyc_reference__airports.daylight_saving_code refuses X, which the contract of"
    " nyc_reference.airports.dst accepts"
)


@pytest.mark.parametrize(
    ("name", "facts", "expected"),
    [
        ("dst", {"type": "text", "accepted_values": ("A", "U", "N", "X")}, [REFUSED]),
        ("alt", {"type": "text"}, [f"{STAGING}.sql: casts nyc_reference.airports.alt to int, its contract says text"]),
        # a test that knows more values, and a cast that holds more, contradict nothing
        ("dst", {"type": "text", "accepted_values": ("A", "U")}, []),
        ("lat", {"type": "bigint"}, []),
    ],
)
def test_a_change_of_the_contract_alone_is_told_with_the_file_that_contradicts_it(
    manifest: Manifest, name: str, facts: dict[str, Any], expected: list[str]
) -> None:
    found = told(manifest, with_column("nyc_reference", "airports", name, **facts))

    assert found == expected
