"""`headwater plan` on a real manifest of the demo project: what breaks is named, whole and nothing else."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import DiscoveredColumn, DiscoveredStream
from connectors.errors import ConfigError
from connectors.specs import ColumnSpec, SourceSpec, StreamSpec
from connectors.sync.columns import Column
from connectors.sync.registry import SchemaVersion
from platform_assets.cli import main
from platform_assets.contracts import report
from platform_assets.contracts.gather import Evidence, plan_of
from platform_assets.contracts.plan import Plan, Planned
from platform_assets.contracts.standing import Standing
from platform_assets.contracts.state import modified_contracts, production_manifest
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.settings import load_settings
from platform_assets.sources import load_sources
from tests.dbt.processes import PROJECT, edit, project_copy
from tests.support.servers import clean_environment

Manifest = Mapping[str, Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plan") / "home"


@pytest.fixture(scope="module")
def manifest(home: Path) -> Manifest:
    return read_manifest(prepared_manifest(PROJECT, load_settings({"HEADWATER_HOME": str(home)})))


def changed(name: str, change: Callable[[StreamSpec], Mapping[str, Any]]) -> list[SourceSpec]:
    """The demo's sources, one stream of them otherwise: its contract in a pull request."""
    source, _, stream = name.partition(".")
    sources = {spec.source: spec for spec in load_sources()}
    streams = tuple(
        one.model_copy(update=dict(change(one))) if one.name == stream else one for one in sources[source].streams
    )
    sources[source] = sources[source].model_copy(update={"streams": streams})
    return list(sources.values())


def column(name: str, **facts: Any) -> Callable[[StreamSpec], Mapping[str, Any]]:
    return lambda stream: {"columns": {**stream.columns, name: ColumnSpec(**facts)}}


def plan(manifest: Manifest, sources: list[SourceSpec] | None = None, **evidence: Any) -> Plan:
    return plan_of(Evidence(sources or list(load_sources()), manifest, **evidence), PROJECT, lambda _one, _stream: True)


def only(found: Plan) -> Planned:
    (change,) = found.changes
    return change


def offered(stream: StreamSpec, **types: str | None) -> dict[str, list[DiscoveredStream]]:
    """What the source of airports offers: its declared columns, some of them otherwise (None: gone)."""
    columns = {name: spec.type or "text" for name, spec in stream.columns.items()} | types
    listed = tuple(DiscoveredColumn(name, kind) for name, kind in columns.items() if kind)
    others = [DiscoveredStream(f"public.{name}") for name in ("airlines", "planes")]
    return {"nyc_reference": [DiscoveredStream("public.airports", listed), *others]}


def airports() -> StreamSpec:
    return next(spec for spec in load_sources() if spec.source == "nyc_reference").stream("airports")


def test_the_committed_project_changes_nothing(manifest: Manifest) -> None:
    found = plan(manifest, offers=offered(airports()))

    assert (found.changes, found.notes, found.is_breaking) == ((), (), False)


def test_a_retyped_column_names_every_model_column_check_exposure_and_owner(manifest: Manifest) -> None:
    found = only(plan(manifest, changed("nyc_reference.airports", column("alt", type="text", nullable=False))))

    assert (found.where, found.side, found.kind, found.column) == (
        "nyc_reference.airports", "contract", "retyped", "alt",
    )  # fmt: skip
    assert found.is_breaking
    assert {use.model: (use.columns, use.rows) for use in found.impact.uses} == {
        "staging.stg_nyc_reference__airports": (("altitude_feet",), False),
        "marts.airports_v1": (("altitude",), False),
        "marts.airports_v2": (("altitude_feet", "altitude_metres"), False),
    }
    assert found.impact.exposures == ("airport_lookup (application)",)
    assert set(found.impact.owners) == {"team:data", "tools@headwater.example"}


def test_a_column_that_joins_decides_on_rows_downstream(manifest: Manifest) -> None:
    found = only(plan(manifest, changed("nyc_flights.flights", column("tailnum", rule="block"))))

    uses = {use.model: (use.columns, use.rows) for use in found.impact.uses}
    assert uses["marts.flights"] == (("tail_number",), False)
    assert uses["marts.carrier_days"] == (("unregistered_plane_flight_count",), True)
    assert uses["marts.routes"] == ((), True)
    assert "marts.weather_hours" not in uses
    assert "rule block: its values become NULL" in found.says


def test_a_renamed_column_of_the_source_is_one_change_and_says_so(manifest: Manifest) -> None:
    found = only(plan(manifest, offers=offered(airports(), tzone=None, time_zone="text")))

    assert (found.kind, found.is_breaking) == ("renamed", True)
    assert found.says == "tzone renamed to time_zone; models meet NULL (drift.renamed: warn)"
    assert "marts.airports_v2" in {use.model for use in found.impact.uses}


@pytest.mark.parametrize(
    ("types", "policy", "breaks", "says"),
    [
        ({"lat": None}, {}, True, "lat missing (double); models meet NULL"),
        ({"faa": None}, {}, True, "every record lacks its key"),
        ({"lat": "text"}, {}, True, "lat retyped from double to text; records that do not fit go to quarantine"),
        ({"alt": "double"}, {}, True, "alt retyped from bigint to double"),
        ({"lat": "bigint"}, {}, None, ""),
        ({"country": "text"}, {}, False, "country new (text); it is added"),
        ({"country": "text"}, {"new": "freeze"}, True, "country new (text); the sync stops"),
    ],
)
def test_the_source_changed(
    manifest: Manifest, types: dict[str, str | None], policy: dict[str, str], breaks: bool | None, says: str
) -> None:
    sources = changed("nyc_reference.airports", lambda one: {"drift": one.drift.model_copy(update=policy)})
    found = plan(manifest, sources, offers=offered(airports(), **types))

    if breaks is None:
        assert found.changes == ()
        return
    assert found.is_breaking is breaks
    assert says in only(found).says


def test_a_stream_that_the_source_offers_no_more_breaks_all_that_reads_it(manifest: Manifest) -> None:
    offers = {"nyc_reference": offered(airports())["nyc_reference"][:2]}
    found = only(plan(manifest, offers=offers))

    assert (found.where, found.kind, found.is_breaking) == ("nyc_reference.planes", "gone", True)
    assert "marts.planes" in {use.model for use in found.impact.uses}


def test_a_stream_that_left_the_source_files_breaks_all_that_reads_it(manifest: Manifest) -> None:
    sources = [
        spec.model_copy(update={"streams": tuple(one for one in spec.streams if one.name != "planes")})
        if spec.source == "nyc_reference"
        else spec
        for spec in load_sources()
    ]
    found = only(plan(manifest, sources))

    assert (found.where, found.side, found.is_breaking) == ("nyc_reference.planes", "dbt", True)
    assert found.says == "is a source of dbt, and no source file declares the stream"
    assert "marts.planes" in {use.model for use in found.impact.uses}


def without(name: str) -> Callable[[StreamSpec], Mapping[str, Any]]:
    return lambda stream: {"columns": {key: spec for key, spec in stream.columns.items() if key != name}}


def test_a_column_that_is_declared_no_more_names_all_that_stands_on_it(manifest: Manifest) -> None:
    sources = changed("nyc_reference.airports", without("alt"))
    found = only(plan(manifest, sources))

    assert (found.side, found.kind, found.column, found.is_breaking) == ("contract", "missing", "alt", True)
    assert found.says == "alt is declared no more; models rely on a column that nobody promises"
    assert {use.model for use in found.impact.uses} == {
        "staging.stg_nyc_reference__airports", "marts.airports_v1", "marts.airports_v2",
    }  # fmt: skip
    assert found.impact.exposures == ("airport_lookup (application)",)
    assert set(found.impact.owners) == {"team:data", "tools@headwater.example"}
    # the source was asked and has it: it goes on coming
    assert not plan(manifest, sources, offers=offered(airports())).is_breaking
    # it was asked and lacks it: said once, as the source's change
    assert only(plan(manifest, sources, offers=offered(airports(), alt=None))).side == "source"


def test_a_column_that_the_contract_renames_is_one_change(manifest: Manifest) -> None:
    def renamed(stream: StreamSpec) -> Mapping[str, Any]:
        return {"columns": {"time_zone" if name == "tzone" else name: spec for name, spec in stream.columns.items()}}

    found = only(plan(manifest, changed("nyc_reference.airports", renamed)))

    assert (found.side, found.kind, found.is_breaking) == ("contract", "renamed", True)
    assert found.says.startswith("tzone renamed to time_zone in the contract; ")


def test_another_key_stops_the_sync(manifest: Manifest) -> None:
    found = only(plan(manifest, changed("nyc_weather.weather", lambda _: {"primary_key": ("origin", "hour")})))

    assert (found.kind, found.is_breaking) == ("key", True)
    assert "the sync stops (drift.key: freeze)" in found.says


def test_accepted_values_break_where_a_test_downstream_knows_them(manifest: Manifest) -> None:
    def of(*values: str) -> Any:
        return column("origin", type="text", nullable=False, accepted_values=values)

    standing = deepcopy(dict(manifest))
    weather = next(s for s in standing["sources"].values() if s["source_name"] == "nyc_weather")
    weather["columns"]["origin"]["config"]["meta"]["accepted_values"] = ["EWR", "JFK", "LGA"]
    wider = only(plan(standing, changed("nyc_weather.weather", of("EWR", "JFK", "LGA", "PHL"))))
    narrower = only(plan(standing, changed("nyc_weather.weather", of("EWR", "JFK"))))

    assert (wider.kind, wider.is_breaking, narrower.is_breaking) == ("enum", True, False)
    assert "accepted_values_stg_nyc_weather__weather_airport_code__EWR__JFK__LGA" in wider.impact.checks


@pytest.mark.parametrize(
    ("name", "constraint"),
    [
        ("sched_dep_time", "not_null of marts.flights.scheduled_departure_hhmm"),
        ("distance", "not_null of marts.flights.distance_miles"),
    ],
)
def test_a_column_made_nullable_breaks_where_an_enforced_contract_says_not_null(
    manifest: Manifest, name: str, constraint: str
) -> None:
    found = only(plan(manifest, changed("nyc_flights.flights", column(name, type="bigint"))))

    assert (found.kind, found.column, found.is_breaking) == ("nullability", name, True)
    assert constraint in found.impact.checks
    # a type is no reason: this change leaves it as it is
    assert not [check for check in found.impact.checks if check.startswith("data_type")]


def constrained(manifest: Manifest, constraint: Mapping[str, Any], **config: Any) -> Manifest:
    """sched_arr_time's column of the mart of flights is under no constraint but this one."""
    copy = deepcopy(dict(manifest))
    node = copy["nodes"]["model.headwater.flights"]
    node["constraints"] = [constraint]
    node["config"] |= config
    return copy


@pytest.mark.parametrize(
    ("constraint", "config", "breaks"),
    [
        ({"type": "primary_key", "columns": ["scheduled_arrival_hhmm"]}, {}, True),
        ({"type": "check", "expression": "scheduled_arrival_hhmm > 0"}, {}, False),
        ({"type": "primary_key", "columns": ["arrival_hhmm"]}, {}, False),
        ({"type": "primary_key", "columns": ["scheduled_arrival_hhmm"]}, {"materialized": "view"}, False),
        ({"type": "primary_key", "columns": ["scheduled_arrival_hhmm"]}, {"contract": {"enforced": False}}, False),
    ],
)
def test_only_constraints_that_null_breaks_and_that_are_enforced_make_it_a_break(
    manifest: Manifest, constraint: Mapping[str, Any], config: Mapping[str, Any], breaks: bool
) -> None:
    sources = changed("nyc_flights.flights", column("sched_arr_time", type="bigint"))
    found = only(plan(constrained(manifest, constraint, **config), sources))

    assert found.is_breaking is breaks
    said = f"{constraint['type']} of marts.flights.scheduled_arrival_hhmm"
    assert (said in found.impact.checks) is (not config and "arrival_hhmm" not in constraint.get("columns", ()))


def test_another_type_names_the_types_that_contracts_hold_it_to(manifest: Manifest) -> None:
    found = only(plan(manifest, changed("nyc_reference.airports", column("alt", type="text", nullable=False))))

    assert "data_type integer of marts.airports_v2.altitude_feet" in found.impact.checks


def test_a_check_of_the_source_file_on_the_column_is_named(manifest: Manifest) -> None:
    from connectors.specs import CheckSpec

    def with_check(stream: StreamSpec) -> Mapping[str, Any]:
        check = CheckSpec.model_validate({"type": "row_rule", "name": "near", "column": "visib", "max": 10})
        return {"checks": (check,), **column("visib", type="text")(stream)}

    found = only(plan(manifest, changed("nyc_weather.weather", with_check)))

    assert "nyc_weather.weather: near" in found.impact.checks


def test_what_stands_is_the_raw_table_where_the_warehouse_was_asked(manifest: Manifest) -> None:
    stream = airports()
    columns = tuple(
        Column(name, name, spec.type or "text", "text" if name == "tz" else "bigint")
        for name, spec in stream.columns.items()
    )
    contract = {
        "key": ["faa"],
        "not_null": [name for name, spec in stream.columns.items() if not spec.nullable],
        "accepted": {},
    }
    columns = tuple(replace(one, type="text") if one.name == "tz" else one for one in columns)
    table = SchemaVersion(3, columns, (), "evolved", contract)

    found = only(plan(manifest, tables={("nyc_reference", "airports"): Standing(table)}))

    assert (found.kind, found.column) == ("retyped", "tz")
    assert found.says == "tz retyped from text to bigint; the sync stops while the raw table has the old type"


def edited(manifest: Manifest, model: str, old: str, new: str) -> dict[str, Any]:
    copy = deepcopy(dict(manifest))
    node = next(node for node in copy["nodes"].values() if node["name"] == model)
    assert old in node["raw_code"]
    node["raw_code"] = node["raw_code"].replace(old, new)
    return copy


def test_a_model_that_reads_what_nobody_provides_breaks(manifest: Manifest) -> None:
    found = only(plan(edited(manifest, "stg_nyc_reference__airlines", "name::text", "label::text")))

    assert (found.side, found.kind, found.column, found.is_breaking) == ("dbt", "missing", "label", True)
    assert {use.model for use in found.impact.uses} == {"staging.stg_nyc_reference__airlines", "marts.airlines"}


def test_sql_that_cannot_be_read_counts_as_using_everything(manifest: Manifest) -> None:
    broken = edited(manifest, "stg_nyc_reference__airlines", "select * from final", "select from where ((")
    found = plan(broken, changed("nyc_reference.airlines", column("name", type="json", nullable=False)))

    assert "marts.airlines" in {use.model for use in only(found).impact.uses}
    assert any("staging.stg_nyc_reference__airlines cannot be read" in note for note in found.notes)


def test_the_reports_name_the_same(manifest: Manifest) -> None:
    found = plan(manifest, changed("nyc_reference.airports", column("alt", type="text", nullable=False)))
    shown = json.loads(report.as_json(found))

    assert shown["is_breaking"] is True
    for text in (report.as_text(found), report.as_markdown(found).replace("\\_", "_")):
        for name in ("marts.airports_v2.altitude_metres", "airport_lookup", "tools@headwater.example", "1 breaking"):
            assert name in text


def test_the_command_ends_with_two_when_something_breaks(
    manifest: Manifest, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_HOME", str(home))
    assert main(["plan", "--offline"]) == 0
    assert capsys.readouterr().out == "nothing changes\n"

    # dbt's source says that the column stands as text: what the contract says is a change
    cached = max(home.glob("dbt/*/manifest.json"), key=lambda path: path.stat().st_mtime)
    before = cached.read_text(encoding="utf-8")
    standing = json.loads(before)
    airports = next(s for s in standing["sources"].values() if s["name"] == "airports")
    airports["columns"]["alt"]["data_type"] = "text"
    cached.write_text(json.dumps(standing), encoding="utf-8")
    try:
        assert main(["plan", "nyc_reference.airports", "--offline", "--format", "json"]) == 2
        assert json.loads(capsys.readouterr().out)["changes"][0]["column"] == "alt"
        assert main(["plan", "nyc_weather", "--offline"]) == 0
    finally:
        cached.write_text(before, encoding="utf-8")


def test_a_state_without_a_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--offline", "--state", str(tmp_path)]) == 3
    assert f"plan: --state {tmp_path}: holds no manifest.json" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no dbt manifest"):
        production_manifest(tmp_path)


@pytest.mark.slow
def test_a_broken_contract_of_a_mart_is_found_by_dbt_itself(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    project = project_copy(tmp_path)
    marts = project / "models/marts"
    edit(marts / "reference/airlines.yml", "- name: airline_name", "- name: airline_label")
    edit(marts / "reference/airports.yml", "      - name: altitude_feet", "      - name: altitude_foot")
    settings = load_settings(clean_environment() | {"HEADWATER_HOME": str(tmp_path / "home")})
    now = read_manifest(prepared_manifest(project, settings))

    modified = modified_contracts(project, state, "warehouse", now)
    found = {change.where: change for change in plan(now, modified=modified).changes}

    assert "Columns were removed: - airline_name" in found["marts.airlines"].says
    assert found["marts.airlines"].is_breaking
    assert found["marts.airports_v2"].is_breaking
    assert "carrier_performance (dashboard)" in found["marts.airlines"].impact.exposures


@pytest.mark.slow
def test_a_project_that_does_not_compile_names_the_file(tmp_path: Path) -> None:
    project = project_copy(tmp_path)
    edit(project / "models/marts/reference/airlines.sql", "{{ ref(", "{{ ref((")
    settings = load_settings(clean_environment() | {"HEADWATER_HOME": str(tmp_path / "home")})

    with pytest.raises(ConfigError, match=r"airlines.sql: dbt cannot parse it"):
        prepared_manifest(project, settings)
