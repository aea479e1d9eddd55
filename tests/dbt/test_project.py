"""The dbt project: what it builds, refuses and promises. Real dbt on a real PostgreSQL."""

import re
from pathlib import Path

import psycopg
import pytest

from platform_assets.warehouse import Warehouse
from tests.dbt.conftest import Built
from tests.dbt.processes import Dbt, edit, project_copy


def test_a_whole_build_is_green_with_its_unit_tests(built: Built) -> None:
    last = built.output.strip().splitlines()[-1]
    counts = {name: int(number) for name, number in re.findall(r"([A-Z-]+)=(\d+)", last)}

    assert counts["ERROR"] == counts["WARN"] == counts["SKIP"] == 0
    assert counts["PASS"] > 50
    assert len(re.findall(r"PASS \w+::test_", built.output)) == 8


def test_schemas_are_exactly_staging_intermediate_and_marts(built: Built) -> None:
    with psycopg.connect(built.warehouse.admin_dsn) as session:
        found = session.execute(
            "select distinct schemaname from pg_tables where tableowner = 'headwater_transformer'"
            " union select distinct schemaname from pg_views where viewowner = 'headwater_transformer'"
        ).fetchall()

    assert {schema for (schema,) in found} == {"staging", "intermediate", "marts"}


def test_both_versions_of_a_versioned_mart_are_served(built: Built) -> None:
    with psycopg.connect(built.warehouse.reader_dsn) as session:
        old = session.execute("select latitude, altitude from marts.airports_v1 where airport_code = 'JFK'").fetchone()
        new = session.execute(
            "select latitude_degrees, altitude_feet, altitude_metres from marts.airports_v2 where airport_code = 'JFK'"
        ).fetchone()

    assert old is not None
    assert new is not None
    assert new[:2] == old
    assert str(new[2]) == "4.0"


def test_keys_are_constraints_that_postgres_holds(built: Built) -> None:
    with psycopg.connect(built.warehouse.admin_dsn) as session:
        keyed = session.execute(
            "select conrelid::regclass::text from pg_constraint where contype = 'p'"
            " and connamespace = 'marts'::regnamespace order by 1"
        ).fetchall()
        tables = session.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'marts' order by 1"
        ).fetchall()

    assert keyed == tables
    assert len(tables) == 11


@pytest.mark.slow
def test_a_broken_contract_and_a_new_incremental_column_are_refused(built: Built, tmp_path: Path) -> None:
    project = project_copy(tmp_path)
    marts = project / "models/marts"
    edit(marts / "reference/airlines.sql", "airline_name\n    from", "length(airline_name) as airline_name\n    from")
    edit(marts / "flights/flights.sql", "is_cancelled,\n", "is_cancelled,\n        1 as surplus,\n")
    edit(
        marts / "flights/flights.yml",
        "      - name: flight_date\n",
        "      - name: surplus\n        data_type: integer\n        description: New.\n      - name: flight_date\n",
    )

    done = Dbt(built.warehouse, tmp_path / "target", project)("run", "--select", "airlines", "flights")

    assert done.returncode == 1
    assert "enforced contract that failed" in done.stdout
    assert "out of sync" in done.stdout
    with psycopg.connect(built.warehouse.reader_dsn) as session:
        served = session.execute("select airline_name from marts.airlines where carrier_code = 'UA'").fetchone()
    assert served == ("United Air Lines Inc.",)


@pytest.mark.slow
def test_the_incremental_mart_follows_late_corrected_and_deleted_rows(dbt: Dbt) -> None:
    assert dbt("run", "--select", "+flights").returncode == 0
    before = _flights(dbt.warehouse)
    with psycopg.connect(dbt.warehouse.loader_dsn) as session:
        table = "raw_nyc_flights.flights"
        late = f"ctid = (select max(ctid) from {table} where flight = 1545)"
        for statement in (
            # a correction, stamped before the newest row that is built already
            f"update {table} set dep_delay = 999, _synced_at = '2013-01-15T05:00:00Z' where flight = 1545",
            # a late row, stamped earlier still
            f"insert into {table} select * from {table} where flight = 1545 limit 1",
            f"update {table} set flight = 99999, _synced_at = '2013-01-01T00:00:00Z' where {late}",
            f"update {table} set _deleted = true where flight = 1696",
            f"delete from {table} where flight = 1714",
        ):
            assert session.execute(statement.encode()).rowcount > 0, statement

    assert dbt("run", "--select", "flights").returncode == 0

    after = _flights(dbt.warehouse)
    assert after == _expected(dbt.warehouse)
    numbers = {flight for _, flight, _, _, _ in after}
    assert 99999 in numbers
    assert not {1696, 1714} & numbers
    assert {delay for _, flight, _, _, delay in after if flight == 1545} == {999}
    assert len(before - after) > 2


@pytest.mark.slow
def test_rebuilding_a_staging_view_leaves_the_views_on_top_of_it(built: Built) -> None:
    done = built.dbt("run", "--select", "stg_nyc_reference__planes")

    assert done.returncode == 0, done.stdout
    with psycopg.connect(built.warehouse.reader_dsn) as session:
        found = session.execute("select to_regclass('intermediate.int_flights_joined_weather') is not null").fetchone()
    assert found == (True,)


def _flights(warehouse: Warehouse) -> set[tuple[object, ...]]:
    with psycopg.connect(warehouse.reader_dsn) as session:
        return set(
            session.execute(
                "select carrier_code, flight_number, origin_airport_code, scheduled_hour_at, departure_delay_minutes"
                " from marts.flights"
            )
        )


def _expected(warehouse: Warehouse) -> set[tuple[object, ...]]:
    with psycopg.connect(warehouse.loader_dsn) as session:
        return set(
            session.execute(
                "select carrier, flight, origin, time_hour, dep_delay from raw_nyc_flights.flights where not _deleted"
            )
        )
