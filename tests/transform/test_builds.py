"""Runs of the transform location: what is built, what is held back, and what the op says. Real dbt, real PostgreSQL."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from connectors.errors import MAX_LINES, HeadwaterError
from platform_assets.components.dbt_project import DbtProject
from platform_assets.dbt.failures import dbt_error
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from tests.dbt.processes import PROJECT, edit, project_copy
from tests.transform.conftest import Transform
from tests.transform.results import built, message, red_checks, report

REFERENCE_MARTS = {"marts/airlines", "marts/airports_v1", "marts/airports_v2", "marts/planes"}


@pytest.fixture(scope="session")
def whole(transform: Transform) -> dg.ExecuteInProcessResult:
    """One run of everything. Tests that build a part come after it."""
    with dg.DagsterInstance.ephemeral() as instance:
        return transform.run(instance)


def test_a_run_builds_every_model_and_judges_every_test(whole: dg.ExecuteInProcessResult, transform: Transform) -> None:
    assert whole.success
    assert built(whole) == {key.to_user_string() for asset in transform.assets for key in asset.keys}
    checks = {check.asset_check_key for check in whole.get_asset_check_evaluations()}
    assert checks == {key for asset in transform.assets for key in asset.check_keys}
    assert len(checks) >= 39


def test_a_mart_shows_rows_columns_and_column_lineage(whole: dg.ExecuteInProcessResult) -> None:
    metadata = {
        event.materialization.asset_key.to_user_string(): event.materialization.metadata
        for event in whole.get_asset_materialization_events()
    }

    assert metadata["marts/flights"]["dagster/row_count"].value == 12208
    columns = metadata["marts/airports_v2"]["dagster/column_schema"].value.columns
    assert ("altitude_metres", "numeric(10,1)") in {(column.name, column.type) for column in columns}
    lineage = metadata["marts/carrier_days"]["dagster/column_lineage"].value.deps_by_column
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["flown_seat_count"]} == {
        ("intermediate/int_flights_joined_weather", "seat_count"),
        ("intermediate/int_flights_joined_weather", "departure_hhmm"),
    }
    staging = metadata["staging/stg_nyc_weather__weather"]["dagster/column_lineage"].value.deps_by_column
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in staging["wind_speed_mph"]] == [
        ("nyc_weather/weather", "wind_speed")
    ]


@pytest.mark.usefixtures("whole")
def test_a_failed_blocking_check_of_a_stream_holds_its_marts_back_and_only_those(
    transform: Transform, instance: dg.DagsterInstance
) -> None:
    report(instance, "nyc_weather/weather", check="row_rules", passed=False)

    result = transform.run(instance, "marts/weather_hours", "marts/carrier_days", "marts/airlines")

    assert not result.success
    assert built(result) == {"marts/airlines"}
    words = message(result)
    assert len(words.splitlines()) <= MAX_LINES
    assert "marts.carrier_days, marts.weather_hours: not built" in words
    assert "row_rules of nyc_weather.weather" in words
    assert "ignore_failed_checks: true" in words


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_marts_over_a_failed_check_are_built_when_the_launch_says_so(
    transform: Transform, instance: dg.DagsterInstance
) -> None:
    report(instance, "nyc_weather/weather", check="row_rules", passed=False)

    result = transform.run(instance, "marts/weather_hours", "marts/airports_v2", config={"ignore_failed_checks": True})

    assert result.success
    assert built(result) == {"marts/weather_hours", "marts/airports_v2"}
    # a part runs its own tests: those of other marts that only read one of these stay out
    log = next((transform.settings.home / "dbt-runs").glob(f"{result.run_id[:8]}-*/dbt.log")).read_text()
    assert "relationships_weather_hours" in log
    assert "relationships_flights" not in log


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_failed_test_stops_what_is_built_on_it_and_the_rest_goes_on(
    transform: Transform, instance: dg.DagsterInstance
) -> None:
    with psycopg.connect(transform.warehouse.loader_dsn, autocommit=True) as session:
        session.execute("insert into raw_nyc_weather.weather select * from raw_nyc_weather.weather limit 1")
        try:
            result = transform.run(instance)
            later = transform.run(instance, "marts/weather_hours")
        finally:
            session.execute(
                "delete from raw_nyc_weather.weather where ctid = (select max(ctid) from raw_nyc_weather.weather)"
            )

    assert not result.success
    assert red_checks(result) == {"unique_rows_stg_nyc_weather__weather_airport_code__observed_hour_at"}
    assert built(result) >= REFERENCE_MARTS | {"marts/flights", "marts/routes", "staging/stg_nyc_weather__weather"}
    assert not built(result) & {"marts/weather_hours", "marts/carrier_days", "intermediate/int_flights_joined_weather"}
    assert "unique_rows_stg_nyc_weather__weather" in message(result)
    assert len(message(result).splitlines()) <= MAX_LINES
    # a run of the mart alone is held back by the same test
    assert not later.success
    assert built(later) == set()
    assert "unique_rows_stg_nyc_weather__weather" in message(later)


def test_each_way_dbt_fails_has_its_class_and_its_next_step(transform: Transform, tmp_path: Path) -> None:
    graph = Graph(read_manifest(prepared_manifest(PROJECT, transform.settings)))

    def said(status: str, words: str) -> HeadwaterError:
        result = {"unique_id": "model.headwater.planes", "status": status, "message": words}
        (tmp_path / "run_results.json").write_text(json.dumps({"results": [result]}))
        return dbt_error(graph, tmp_path, "")

    lost = said("error", "Database Error in model planes: server closed the connection unexpectedly")
    assert (lost.failure_class, lost.is_retryable) == ("loader", True)
    absent = said("error", 'Database Error in model planes: relation "raw_nyc_reference.planes" does not exist')
    assert absent.failure_class == "config"
    assert "Sync nyc_reference.planes first." in absent.hint
    assert said("error", "This model has an enforced contract that failed.").failure_class == "contract"
    assert said("fail", "Got 3 results, configured to fail if != 0").failure_class == "contract"
    (tmp_path / "run_results.json").unlink()
    assert dbt_error(graph, tmp_path, "could not connect to server").failure_class == "loader"
    assert dbt_error(graph, tmp_path, "Env var required but not provided").failure_class == "config"


@pytest.mark.usefixtures("whole")
def test_a_variable_that_leaves_rows_out_stops_the_op_before_dbt(
    transform: Transform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DBT_EMPTY", "true")
    refused = transform.run(instance, "marts/planes")
    assert not refused.success
    assert "DBT_EMPTY in the environment" in message(refused)


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_checks_run_without_their_models(transform: Transform, instance: dg.DagsterInstance) -> None:
    key = dg.AssetKey(["marts", "weather_hours"])

    result = dg.materialize(
        transform.assets, instance=instance, selection=dg.AssetSelection.checks_for_assets(key), raise_on_error=False
    )

    assert result.success
    assert built(result) == set()
    assert {check.check_name for check in result.get_asset_check_evaluations()} == {
        "relationships_weather_hours_airport_code__airport_code__ref_airports_v_2_"
    }


@pytest.mark.slow
@pytest.mark.usefixtures("whole")
def test_a_model_that_breaks_its_contract_or_its_sql_is_said_and_the_rest_goes_on(
    transform: Transform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project = project_copy(tmp_path)
    airlines, planes = (project / f"models/marts/reference/{name}.sql" for name in ("airlines", "planes"))
    edit(airlines, "airline_name\n    from", "length(airline_name) as airline_name\n    from")
    edit(planes, "engine_type,", "engine_tipe,")
    component = DbtProject(project=str(project), automated=False)
    broken = replace(transform, definitions=component.build_defs(dg.ComponentTree.for_test().load_context))

    result = broken.run(instance, "marts/airlines", "marts/planes", "marts/airports_v2")

    assert built(result) == {"marts/airports_v2"}
    words = message(result)
    assert len(words.splitlines()) <= MAX_LINES
    assert "marts.airlines: Compilation Error in model airlines" in words
    assert "enforced contract that failed" in words
    assert "marts.planes: Database Error in model planes" in words
    assert "2 failed to build" in words
    assert "dbt.log" in words


def test_folders_of_old_dbt_processes_are_removed(tmp_path: Path) -> None:
    from platform_assets.dbt.runner import KEPT_RUNS, forget_old_runs

    for number in range(KEPT_RUNS + 3):
        (tmp_path / str(number)).mkdir()

    forget_old_runs(tmp_path)

    assert len(list(tmp_path.iterdir())) == KEPT_RUNS
