"""`headwater plan` against a real raw table: a blocked column is a change until it is in effect, and none after."""

from collections.abc import Mapping
from typing import Any

import psycopg

from connectors.contract import DiscoveredColumn, DiscoveredStream
from connectors.specs import ColumnSpec, SourceSpec
from connectors.sync import Progress, SyncRequest, schemabook
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


def blocked() -> list[SourceSpec]:
    """The demo's sources, the time zone of airports blocked in the file."""
    sources = list(load_sources())
    for number, spec in enumerate(sources):
        if spec.source == "nyc_reference":
            streams = tuple(
                one.model_copy(update={"columns": {**one.columns, "tzone": ColumnSpec(rule="block")}})
                if one.name == "airports"
                else one
                for one in spec.streams
            )
            sources[number] = spec.model_copy(update={"streams": streams})
    return sources


def airports(sources: list[SourceSpec]) -> SyncRequest:
    source = next(spec for spec in sources if spec.source == "nyc_reference")
    return SyncRequest(source, source.stream("airports"))


def load(warehouse: Warehouse, sources: list[SourceSpec]) -> None:
    run(airports(sources), warehouse.loader_dsn, Progress(), Scripted([records(dict(ROW))]))


def changes(warehouse: Warehouse, manifest: Manifest, sources: list[SourceSpec]) -> list[Planned]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        evidence = Evidence(sources, manifest, tables=standing(connection))
    found = plan_of(evidence, PROJECT, lambda one, stream: (one.source, stream.name) == ("nyc_reference", "airports"))
    return list(found.changes)


def test_a_rule_block_breaks_until_it_is_in_effect_and_is_no_change_after(
    warehouse: Warehouse, manifest: Manifest
) -> None:
    load(warehouse, list(load_sources()))
    (before,) = changes(warehouse, manifest, blocked())
    load(warehouse, blocked())

    assert (before.kind, before.column, before.is_breaking) == ("rule", "tzone", True)
    assert changes(warehouse, manifest, blocked()) == []


def test_a_column_blocked_from_the_first_sync_on_is_provided_by_nobody(
    warehouse: Warehouse, manifest: Manifest
) -> None:
    load(warehouse, blocked())
    (found,) = changes(warehouse, manifest, blocked())

    assert (found.kind, found.column, found.is_breaking) == ("missing", "tzone", True)
    assert "nobody provides it" in found.says


def test_what_an_operator_blocks_is_in_the_plan_until_it_is_in_effect(warehouse: Warehouse, manifest: Manifest) -> None:
    sources = list(load_sources())
    load(warehouse, sources)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        request = airports(sources)
        schemabook.block(connection, "nyc_reference", request.stream, "tzone", "no purpose", "ann")
    (before,) = changes(warehouse, manifest, sources)
    load(warehouse, sources)

    assert (before.kind, before.column, before.is_breaking) == ("rule", "tzone", True)
    assert "marts.airports_v2" in {use.model for use in before.impact.uses}
    assert changes(warehouse, manifest, sources) == []


def test_a_source_that_still_has_a_blocked_column_changes_nothing(warehouse: Warehouse, manifest: Manifest) -> None:
    load(warehouse, list(load_sources()))
    load(warehouse, blocked())
    declared = airports(list(load_sources())).stream.columns
    columns = tuple(DiscoveredColumn(name, spec.type or "text") for name, spec in declared.items())
    others = [DiscoveredStream(f"public.{name}") for name in ("airlines", "planes")]
    offers = [DiscoveredStream("public.airports", columns), *others]
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        evidence = Evidence(blocked(), manifest, tables=standing(connection), offers={"nyc_reference": offers})
    found = plan_of(evidence, PROJECT, lambda one, _stream: one.source == "nyc_reference")

    assert [change for change in found.changes if change.where == "nyc_reference.airports"] == []
