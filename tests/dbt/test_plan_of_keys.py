"""`headwater plan` against a real raw table: what it says of another key is what the next sync does."""

from collections.abc import Mapping
from typing import Any

import psycopg
import pytest

from connectors.errors import ContractError
from connectors.specs import SourceSpec
from connectors.sync import Progress, SyncRequest
from connectors.sync.lifecycle import run
from platform_assets.contracts.gather import Evidence, plan_of
from platform_assets.contracts.plan import Planned
from platform_assets.contracts.standing import standing
from platform_assets.sources import load_sources
from platform_assets.warehouse import Warehouse
from tests.dbt.processes import PROJECT
from tests.support.scripted import Scripted, records

Manifest = Mapping[str, Any]
ROW: Mapping[str, Any] = {
    "faa": "LGA", "name": "La Guardia", "lat": 40.8, "lon": -73.9, "alt": 22, "tz": -5, "dst": "A",
    "tzone": "America/New_York",
}  # fmt: skip
TWICE = ({**ROW}, {**ROW, "name": "LaGuardia"})
KEY, OTHER, WIDER = ("faa",), ("name",), ("faa", "name")


def airports(write: str, key: tuple[str, ...], drift: str = "freeze") -> list[SourceSpec]:
    """The demo's sources, airports written so."""
    sources = {spec.source: spec for spec in load_sources()}
    reference = sources["nyc_reference"]
    stream = reference.stream("airports")
    columns = {
        name: one.model_copy(update={"nullable": False}) if name in (*KEY, *OTHER) else one
        for name, one in stream.columns.items()
    }
    policy = stream.drift.model_copy(update={"key": drift})
    update = {"write": write, "primary_key": key, "drift": policy, "columns": columns}
    streams = tuple(one.model_copy(update=update) if one.name == "airports" else one for one in reference.streams)
    sources["nyc_reference"] = reference.model_copy(update={"streams": streams})
    return list(sources.values())


def load(warehouse: Warehouse, sources: list[SourceSpec], *rows: Mapping[str, Any]) -> None:
    source = next(spec for spec in sources if spec.source == "nyc_reference")
    request = SyncRequest(source, source.stream("airports"))
    run(request, warehouse.loader_dsn, Progress(), Scripted([records(*map(dict, rows))]))


def changes(warehouse: Warehouse, manifest: Manifest, sources: list[SourceSpec]) -> list[Planned]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        evidence = Evidence(sources, manifest, tables=standing(connection))
    found = plan_of(evidence, PROJECT, lambda one, stream: (one.source, stream.name) == ("nyc_reference", "airports"))
    return [change for change in found.changes if change.kind == "key"]


STOPS, SHARED = "the sync stops (drift.key: freeze)", "the sync stops where rows of the raw table share a value of it"


@pytest.mark.parametrize(
    ("before", "after", "said", "stops"),
    [
        pytest.param(("append", ()), ("merge", KEY), SHARED, True, id="a key for rows without one"),
        pytest.param(
            ("append", KEY), ("merge", KEY), SHARED, True, id="appended rows are not unique", marks=pytest.mark.slow
        ),
        pytest.param(("merge", KEY), ("append", ()), STOPS, True, id="no key any more"),
        pytest.param(
            ("merge", KEY), ("append", (), "evolve"), "a key may have more than one row", False, id="none, let in",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("merge", KEY), ("append", KEY), "a key may have more than one row", False, id="appended with the key",
            marks=pytest.mark.slow,
        ),
        pytest.param(("merge", KEY), ("scd2", KEY), None, False, id="the same key", marks=pytest.mark.slow),
        pytest.param(
            ("merge", KEY), ("replace", ()), "rows are told apart otherwise", False, id="replaced",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("merge", WIDER), ("merge", KEY, "evolve"), SHARED, True, id="a narrower key", marks=pytest.mark.slow
        ),
        pytest.param(
            ("merge", KEY), ("merge", WIDER, "evolve"), "rows are told apart otherwise", False, id="a wider key",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("replace", KEY), ("merge", KEY), None, False, id="replaced rows have it", marks=pytest.mark.slow
        ),
    ],
)  # fmt: skip
def test_the_plan_says_of_a_key_what_the_sync_does(
    warehouse: Warehouse, manifest: Manifest, before: Any, after: Any, said: str | None, *, stops: bool
) -> None:
    load(warehouse, airports(*before), *TWICE)
    found = changes(warehouse, manifest, airports(*after))

    assert [change.says.partition("; ")[2].partition(" from now")[0] for change in found] == ([said] if said else [])
    if stops:
        assert found[0].is_breaking
        with pytest.raises(ContractError, match="primary_key"):
            load(warehouse, airports(*after), *TWICE)
    else:
        load(warehouse, airports(*after), *TWICE)
