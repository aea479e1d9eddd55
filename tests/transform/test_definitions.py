"""The transform location loads offline and fast, and says what is wrong with a dbt project."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from connectors.errors import MAX_LINES, ConfigError
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.settings import PROJECT_ROOT, Settings
from tests.dbt.processes import PROJECT, edit, project_copy
from tests.support.servers import clean_environment
from tests.transform.conftest import Transform

LOAD = """
import json, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError(f"{event} {arguments} while definitions load")

sys.addaudithook(refuse)
from platform_assets.transform import defs
graph = defs().resolve_asset_graph()
heavy = {"dagster_dbt", "dbt", "sqlglot", "dlt", "psycopg", "psycopg2", "sqlalchemy"} & set(sys.modules)
print(json.dumps([sorted(heavy), sorted(key.to_user_string() for key in graph.materializable_asset_keys)]))
"""


def test_definitions_load_without_network_warehouse_and_dbt(tmp_path: Path) -> None:
    environment = clean_environment() | {"HEADWATER_HOME": str(tmp_path / "home"), "PYTHONPATH": str(PROJECT_ROOT)}

    # the first time without a network to dbt itself, the second time without a dbt process
    for nowhere in (environment, environment | {"PYTHONHASHSEED": "0"}):
        done = subprocess.run(
            [sys.executable, "-c", LOAD], env=nowhere, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        heavy, keys = json.loads(done.stdout.splitlines()[-1])
        assert heavy == []
        assert len(keys) == 22
        assert done.stderr == ""


def test_a_model_is_an_asset_with_group_owners_kinds_and_freshness(transform: Transform) -> None:
    [assets] = transform.assets
    flights = assets.get_asset_spec(dg.AssetKey(["marts", "flights"]))
    staging = assets.get_asset_spec(dg.AssetKey(["staging", "stg_nyc_flights__flights"]))

    assert (flights.group_name, flights.owners) == ("flights", ["team:data"])
    assert flights.kinds == {"dbt", "postgres", "incremental"}
    assert flights.freshness_policy is not None
    assert flights.code_version
    assert flights.metadata["dagster/table_name"] == "marts.flights"
    described = {column.name: column for column in flights.metadata["dagster/column_schema"].columns}
    assert described["is_cancelled"].description
    assert not described["carrier_code"].constraints.nullable
    assert (staging.group_name, staging.kinds) == ("staging", {"dbt", "postgres", "view"})
    assert [dep.asset_key for dep in staging.deps] == [dg.AssetKey(["nyc_flights", "flights"])]


def test_both_versions_of_a_mart_keep_their_schema_in_the_key(transform: Transform) -> None:
    [assets] = transform.assets

    assert {key.path[-1] for key in assets.keys if key.path[0] == "marts" and "airports" in key.path[-1]} == {
        "airports_v1",
        "airports_v2",
    }
    old = assets.get_asset_spec(dg.AssetKey(["marts", "airports_v1"]))
    assert old.metadata["dbt/deprecation_date"] == "2027-12-31"
    assert "Deprecated" in (old.description or "")


def test_tests_of_severity_error_block(transform: Transform) -> None:
    [assets] = transform.assets

    own = [spec for spec in assets.check_specs if spec.name != "freshness_data"]
    assert len(own) == 57
    assert all(spec.blocking for spec in own)


def test_unit_tests_are_no_assets_and_no_checks(transform: Transform) -> None:
    [assets] = transform.assets

    assert not [check.name for check in assets.check_specs if "test_arrival_status" in check.name]


@pytest.mark.slow
def test_a_manifest_is_parsed_once_for_each_state_of_the_project(project_settings: Settings, tmp_path: Path) -> None:
    project = project_copy(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        [first] = set(pool.map(lambda _: prepared_manifest(project, project_settings), range(4)))
    parsed_at = first.stat().st_mtime_ns
    os.utime(project / "dbt_project.yml")
    (project / "target").mkdir()
    (project / "target" / "manifest.json").write_text("{}")

    assert prepared_manifest(project, project_settings) == first
    assert first.stat().st_mtime_ns == parsed_at

    edit(project / "models/marts/reference/planes.sql", "engine_type,", "engine_type, ")
    second = prepared_manifest(project, project_settings)
    assert second != first
    assert first.is_file()


@pytest.mark.parametrize(
    ("file", "old", "new", "place"),
    [
        ("models/marts/flights/routes.sql", "ref('int_flights_joined_planes')", "ref('nothing')", "routes.sql"),
        pytest.param("models/marts/flights/routes.yml", "models:", "models: [", "routes.yml", marks=pytest.mark.slow),
    ],
)
def test_a_project_that_does_not_parse_is_said_in_six_lines(
    project_settings: Settings, tmp_path: Path, file: str, old: str, new: str, place: str
) -> None:
    project = project_copy(tmp_path)
    edit(project / file, old, new)

    with pytest.raises(ConfigError) as caught:
        prepared_manifest(project, project_settings)

    assert len(str(caught.value).splitlines()) <= MAX_LINES
    assert place in str(caught.value)
    assert "headwater dbt parse" in caught.value.hint


def test_a_folder_without_a_project_is_said(project_settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no dbt_project\.yml"):
        prepared_manifest(tmp_path, project_settings)


def test_every_mart_has_a_contract_and_every_column_of_it_a_type_and_a_description(transform: Transform) -> None:
    manifest = read_manifest(prepared_manifest(PROJECT, transform.settings))
    marts = [
        node for node in manifest["nodes"].values() if node["schema"] == "marts" and node["resource_type"] == "model"
    ]

    assert len(marts) == 11
    for mart in marts:
        assert mart["config"]["contract"]["enforced"], mart["name"]
        assert all(column["data_type"] and column["description"] for column in mart["columns"].values()), mart["name"]
        assert mart["description"]


def test_every_exposure_has_an_owner(transform: Transform) -> None:
    manifest = read_manifest(prepared_manifest(PROJECT, transform.settings))

    assert len(manifest["exposures"]) == 3
    assert all(exposure["owner"]["email"] for exposure in manifest["exposures"].values())


def test_a_wrong_freshness_window_is_said(transform: Transform) -> None:
    manifest = json.loads(json.dumps(read_manifest(prepared_manifest(PROJECT, transform.settings))))
    node = manifest["nodes"]["model.headwater.flights"]
    node["config"]["meta"]["dagster"]["freshness"] = {"fail_after": "tomorrow"}

    with pytest.raises(ConfigError, match=r"dbt model flights: meta\.dagster\.freshness"):
        Graph(manifest)
