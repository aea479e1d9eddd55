"""Which failed checks hold a mart back, read from a real event log. No dbt runs."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pytest

from platform_assets.dbt.graph import Graph
from platform_assets.dbt.guard import blocked_models
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.settings import PROJECT_ROOT
from tests.transform.conftest import Transform
from tests.transform.results import report, sync_without_a_word, sync_without_checks

WEATHER = "nyc_weather/weather"
STAGING_TEST = "unique_rows_stg_nyc_weather__weather_airport_code__observed_hour_at"


@pytest.fixture(scope="session")
def graph(transform: Transform) -> Graph:
    return Graph(read_manifest(prepared_manifest(PROJECT_ROOT / "dbt_project", transform.settings)))


def _held_back(graph: Graph, instance: dg.DagsterInstance, *models: str) -> Mapping[str, Sequence[str]]:
    """Checks by the model that they hold back."""
    ids = {model.relation: id_ for id_, model in graph.models.items()}
    found = blocked_models(graph, [ids[model] for model in models], instance)
    return {graph.models[id_].relation: [check.name for check in checks] for id_, checks in found.items()}


def test_a_failed_check_far_upstream_holds_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, WEATHER, check="row_rules", passed=False)

    found = _held_back(graph, instance, "marts.carrier_days", "marts.weather_hours", "marts.airlines", "marts.routes")

    assert found == {"marts.carrier_days": ["row_rules"], "marts.weather_hours": ["row_rules"]}


def test_a_whole_run_is_held_back_along_the_failed_stream(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, WEATHER, check="row_rules", passed=False)

    found = _held_back(graph, instance, *(model.relation for model in graph.models.values()))

    assert set(found) == {
        "staging.stg_nyc_weather__weather",
        "intermediate.int_flights_joined_weather",
        "marts.carrier_days",
        "marts.weather_hours",
    }


def test_a_check_that_passed_since_holds_nothing_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, WEATHER, check="row_rules", passed=False)
    report(instance, WEATHER, check="row_rules", passed=True)

    assert _held_back(graph, instance, "marts.weather_hours") == {}


@pytest.mark.parametrize(
    ("severity", "blocking"), [(dg.AssetCheckSeverity.WARN, True), (dg.AssetCheckSeverity.ERROR, False)]
)
def test_a_check_that_warns_or_does_not_block_holds_nothing_back(
    graph: Graph, instance: dg.DagsterInstance, severity: dg.AssetCheckSeverity, blocking: bool
) -> None:
    report(instance, WEATHER, check="volume", passed=False, severity=severity, blocking=blocking)

    assert _held_back(graph, instance, "marts.weather_hours") == {}


def test_a_check_that_left_the_source_file_holds_nothing_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, WEATHER, check="row_rules", passed=False)
    sync_without_checks(instance, WEATHER)

    assert _held_back(graph, instance, "marts.weather_hours") == {}


def test_data_that_a_blocking_check_said_nothing_of_holds_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, WEATHER, check="row_rules", passed=True)
    report(instance, WEATHER, check="volume", passed=True, blocking=False)
    # a run that brought nothing leaves the word of the last good data standing
    sync_without_a_word(instance, WEATHER, check="row_rules", brings_data=False)
    assert _held_back(graph, instance, "marts.weather_hours") == {}

    sync_without_a_word(instance, WEATHER, check="volume", brings_data=True)
    assert _held_back(graph, instance, "marts.weather_hours") == {}
    sync_without_a_word(instance, WEATHER, check="row_rules", brings_data=True)
    assert _held_back(graph, instance, "marts.weather_hours") == {"marts.weather_hours": ["row_rules"]}

    report(instance, WEATHER, check="row_rules", passed=True)
    assert _held_back(graph, instance, "marts.weather_hours") == {}


def test_a_failed_check_from_outside_holds_back_until_it_passes(graph: Graph, instance: dg.DagsterInstance) -> None:
    key = dg.AssetKey(WEATHER.split("/"))
    instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, "audit_office", passed=False))
    sync_without_checks(instance, WEATHER)

    assert _held_back(graph, instance, "marts.weather_hours") == {"marts.weather_hours": ["audit_office"]}

    instance.report_runless_asset_event(dg.AssetCheckEvaluation(key, "audit_office", passed=True))
    assert _held_back(graph, instance, "marts.weather_hours") == {}


def test_a_failed_test_of_an_unselected_parent_holds_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, "staging/stg_nyc_weather__weather", check=STAGING_TEST, passed=False)

    assert _held_back(graph, instance, "marts.weather_hours") == {"marts.weather_hours": [STAGING_TEST]}
    # in one run with its parent, dbt judges the parent again
    assert _held_back(graph, instance, "marts.weather_hours", "staging.stg_nyc_weather__weather") == {}


def test_a_test_that_is_gone_from_dbt_holds_nothing_back(graph: Graph, instance: dg.DagsterInstance) -> None:
    report(instance, "staging/stg_nyc_weather__weather", check="an_old_test", passed=False)

    assert _held_back(graph, instance, "marts.weather_hours") == {}
