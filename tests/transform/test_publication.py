"""Marts are built and tested beside the served ones; what a reader sees, and what a rollback gives back."""

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from psycopg.sql import Identifier

from connectors.errors import ConfigError, LoaderError
from connectors.sync import gone
from connectors.sync.schema import Drift
from platform_assets.components.dbt_project import DbtProject
from platform_assets.dbt.beside import Judged, judge, publish, roll_back
from platform_assets.dbt.gone import say_missing
from platform_assets.dbt.graph import Graph
from platform_assets.dbt.manifest import prepared_manifest, read_manifest
from platform_assets.dbt.served import served_manifest
from platform_assets.warehouse import Warehouse
from tests.dbt.processes import PROJECT, edit, project_copy
from tests.transform.conftest import Transform
from tests.transform.results import built, message, red_checks

MART = "model.headwater."
COLUMN = "      - name: carrier_code\n"
COUNTS = "select (select count(*) from marts.airlines), (select count(*) from marts.planes)"


@pytest.fixture(scope="module")
def marts(transform: Transform) -> Transform:
    """The transform location on marts that are as the project says."""
    names = ["airlines", "planes"]
    with psycopg.connect(transform.warehouse.transformer_dsn, autocommit=True) as session:
        for schema in ("marts", "marts__next", "marts__last"):
            for name in names:
                session.execute(f'drop table if exists "{schema}"."{name}" cascade'.encode())
    with dg.DagsterInstance.ephemeral() as instance:
        staging = [f"staging/stg_nyc_reference__{name}" for name in names]
        first = transform.run(instance, *staging, *(f"marts/{name}" for name in names))
    assert first.success, message(first)
    return transform


def changed(transform: Transform, folder: Path, **edits: tuple[str, str]) -> Transform:
    """The same warehouse under a project in which these files of the reference marts say something else."""
    project = project_copy(folder)
    for name, (old, new) in edits.items():
        edit(project / "models/marts/reference" / name, old, new)
    component = DbtProject(project=str(project), automated=False)
    return replace(transform, definitions=component.build_defs(dg.ComponentTree.for_test().load_context))


def fetch(warehouse: Warehouse, query: str) -> Sequence[tuple[object, ...]]:
    with psycopg.connect(warehouse.transformer_dsn) as session:
        return session.execute(query.encode()).fetchall()


def served_code(transform: Transform, name: str) -> str:
    return str(read_manifest(served_manifest(transform.settings))["nodes"][f"{MART}{name}"]["raw_code"])


@contextmanager
def reader(warehouse: Warehouse) -> Generator[set[tuple[int, int]]]:
    """What somebody sees who counts both marts at 50 Hz, as the reader role."""
    seen: set[tuple[int, int]] = set()
    stop = threading.Event()

    def look() -> None:
        with psycopg.connect(warehouse.reader_dsn, autocommit=True) as session:
            while not stop.wait(0.02):
                row = session.execute(COUNTS).fetchone()
                assert row is not None
                seen.add((row[0], row[1]))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_a_mart_that_fails_its_test_is_never_seen_and_its_siblings_are_published(
    marts: Transform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    before = fetch(marts.warehouse, COUNTS)[0]
    worse = changed(
        marts,
        tmp_path,
        **{"airlines.sql": ("select * from final", "select * from final where carrier_code = 'AA'")},
        **{"airlines.yml": (COLUMN, COLUMN + "        data_tests: [{accepted_values: {arguments: {values: [UA]}}}]\n")},
        **{"planes.sql": ("select * from final", "select * from final limit 7")},
    )

    with reader(marts.warehouse) as seen:
        result = worse.run(instance, "marts/airlines", "marts/planes")

    assert not result.success
    assert "accepted_values" in message(result)
    assert red_checks(result) == {"accepted_values_airlines_carrier_code__UA"}
    assert built(result) == {"marts/planes"}
    assert seen <= {before, (before[0], 7)}, seen
    assert fetch(marts.warehouse, COUNTS) == [(before[0], 7)]
    # the production manifest says of each what is served
    assert "'AA'" not in served_code(marts, "airlines")
    assert "limit 7" in served_code(marts, "planes")
    # what failed can be looked at
    assert fetch(marts.warehouse, "select carrier_code from marts__next.airlines") == [("AA",)]


def test_marts_change_at_one_moment_and_a_rollback_gives_all_back(marts: Transform) -> None:
    warehouse = marts.warehouse
    before = fetch(warehouse, COUNTS)[0]
    build_next(warehouse, airlines=3, planes=5)

    with reader(warehouse) as seen:
        publish(warehouse.transformer_dsn, ["airlines", "planes"])
        published = fetch(warehouse, COUNTS)[0]
        given_back = roll_back(warehouse.transformer_dsn, ["airlines", "planes"])

    assert published == (3, 5)
    assert given_back == ("airlines", "planes")
    assert fetch(warehouse, COUNTS) == [before]
    assert seen <= {before, (3, 5)}, seen
    with pytest.raises(ConfigError, match="no version to go back to"):
        roll_back(warehouse.transformer_dsn, ["airlines"])


def build_next(warehouse: Warehouse, **rows: int) -> None:
    """Marts beside the served ones, with so many of their rows."""
    with psycopg.connect(warehouse.transformer_dsn, autocommit=True) as session:
        for name, count in rows.items():
            session.execute(f"drop table if exists marts__next.{name}".encode())
            session.execute(f"create table marts__next.{name} (like marts.{name} including all)".encode())
            session.execute(f"insert into marts__next.{name} select * from marts.{name} limit {count}".encode())


def test_views_on_a_mart_and_its_privileges_follow_the_name(marts: Transform) -> None:
    warehouse, role = marts.warehouse, f"analyst_{uuid4().hex[:8]}"
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
        admin.execute(f"create role {role}".encode())
        try:
            admin.execute("create view staging.first_airlines as select carrier_code from marts.airlines")
            admin.execute(f"grant select on marts.airlines to {role}".encode())
            build_next(warehouse, airlines=2)
            publish(warehouse.transformer_dsn, ["airlines"])
            assert fetch(warehouse, "select count(*) from marts.airlines") == [(2,)]
            with psycopg.connect(warehouse.admin_dsn) as session:
                assert session.execute("select count(*) from staging.first_airlines").fetchone() == (2,)
                may = "select has_table_privilege(%s, 'marts.airlines', 'select')"
                assert session.execute(may, [role]).fetchone() == (True,)
                assert session.execute(may, ["headwater_reader"]).fetchone() == (True,)
        finally:
            admin.execute("drop view if exists staging.first_airlines")
            admin.execute(f"drop owned by {role}".encode())
            admin.execute(f"drop role {role}".encode())


def test_only_built_marts_are_published_and_only_the_transformer_may(marts: Transform) -> None:
    with pytest.raises(LoaderError, match="does not exist"):
        publish(marts.warehouse.transformer_dsn, ["airlines", "nowhere"])
    for dsn in (marts.warehouse.reader_dsn, marts.warehouse.loader_dsn):
        with pytest.raises(LoaderError, match="permission denied"):
            publish(dsn, ["airlines"])


@pytest.fixture(scope="module")
def graph(transform: Transform) -> Graph:
    return Graph(read_manifest(prepared_manifest(PROJECT, transform.settings)))


def test_a_mart_is_held_when_what_it_reads_or_is_tested_against_is(graph: Graph) -> None:
    tested = graph.tests_of[f"{MART}carrier_days"][0]
    models = [f"{MART}airlines", f"{MART}carrier_days", f"{MART}planes"]
    good = dict.fromkeys(models, "success")

    assert judge(graph, models, good) == Judged(tuple(sorted(models)), {})
    against = judge(graph, models, good | {f"{MART}airlines": "error"})
    assert against.published == (f"{MART}planes",)
    assert "marts.airlines, which is not published" in against.held[f"{MART}carrier_days"]
    failed = judge(graph, models, good | {tested.unique_id: "fail"})
    assert tested.model in failed.held
    assert judge(graph, models, good | {tested.unique_id: "warn"}).held == {}
    assert tested.model in judge(graph, models, good | {tested.unique_id: "skipped"}).held

    # airlines alone: what is served stays the child, so the parent must not come in
    alone = [f"{MART}airlines", f"{MART}planes"]
    orphans = judge(graph, alone, dict.fromkeys(alone, "success") | {tested.unique_id: "fail"})
    assert orphans.published == (f"{MART}planes",)
    assert "relationships_carrier_days" in orphans.held[f"{MART}airlines"]
    # a first build of a part: the test has nothing to look at
    first = dict.fromkeys(alone, "success") | {tested.unique_id: "error"}
    assert judge(graph, alone, first, frozenset([f"{MART}carrier_days"])).held == {}


STAGED = "staging.stg_nyc_reference__airlines"
NAME = "Full name of the carrier."


def source_sends(warehouse: Warehouse, *missing: str) -> None:
    """What a sync leaves on the raw columns of airlines."""
    raw = Identifier("raw_nyc_reference", "airlines")
    with psycopg.connect(warehouse.loader_dsn) as session:
        gone.say_missing(session, raw, [Drift("missing", name, "text", None, "warn") for name in missing])


def comments(warehouse: Warehouse) -> dict[str, str]:
    query = f"""
        select attname, coalesce(col_description(attrelid, attnum), '') from pg_attribute
        where attrelid = '{STAGED}'::regclass and attnum > 0
    """
    return {str(name): str(said) for name, said in fetch(warehouse, query)}


def test_a_staging_column_says_that_the_source_lacks_it_until_it_is_back(marts: Transform, graph: Graph) -> None:
    manifest = read_manifest(prepared_manifest(PROJECT, marts.settings))
    views = [id_ for id_, model in graph.models.items() if model.relation == STAGED]
    before = comments(marts.warehouse)
    assert before["airline_name"] == NAME
    try:
        source_sends(marts.warehouse, "name")
        for _ in range(2):
            say_missing(marts.warehouse.transformer_dsn, manifest, graph, views)
        said = comments(marts.warehouse)
    finally:
        source_sends(marts.warehouse)
    say_missing(marts.warehouse.transformer_dsn, manifest, graph, views)

    first, second = said.pop("airline_name").split("\n\n")
    assert first.startswith("Missing from the source since 20")
    assert second == NAME
    assert said == {name: text for name, text in before.items() if name != "airline_name"}
    assert comments(marts.warehouse) == before


@pytest.mark.slow
def test_a_run_leaves_it_on_the_views_that_it_built(marts: Transform, instance: dg.DagsterInstance) -> None:
    try:
        source_sends(marts.warehouse, "name")
        assert marts.run(instance, "staging/stg_nyc_reference__airlines").success
        assert comments(marts.warehouse)["airline_name"].endswith(f"synced since.\n\n{NAME}")
    finally:
        source_sends(marts.warehouse)
    assert marts.run(instance, "staging/stg_nyc_reference__airlines").success
    assert comments(marts.warehouse)["airline_name"] == NAME
