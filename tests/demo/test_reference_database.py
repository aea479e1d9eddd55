"""The reference database in a real PostgreSQL, over TCP."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from demo.database import NAME, ensure_reference_database
from tests.support.servers import TestServer


@pytest.fixture
def place(server: TestServer) -> Generator[tuple[str, str, int]]:
    """Administrator's URL, host, port; the database and its role are dropped afterwards."""
    address = server.warehouse.address
    yield server.admin_url("postgres"), address.host, address.port
    server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(NAME)))
    server.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(NAME)))


def counts(url: str) -> dict[str, int]:
    with psycopg.connect(url) as source:
        return {
            table: source.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchall()[0][0]
            for table in ("airlines", "airports", "planes")
        }


def test_every_row_of_the_three_tables_is_there(place: tuple[str, str, int]) -> None:
    url = ensure_reference_database(*place, "secret: /@?")
    assert counts(url) == {"airlines": 16, "airports": 1_458, "planes": 3_322}
    with psycopg.connect(url) as source:
        row = source.execute("select * from airports where faa = '04G'").fetchone()
        assert row == ("04G", "Lansdowne Airport", 41.1304722, -80.6195833, 1044, -5, "A", "America/New_York")
        assert source.execute("select count(*) from planes where year is null").fetchone() == (70,)


def test_a_second_start_changes_nothing_but_the_password(place: tuple[str, str, int]) -> None:
    first = ensure_reference_database(*place, "one")
    with psycopg.connect(first) as source:
        source.execute("delete from planes where year is null")
    second = ensure_reference_database(*place, "two")
    assert counts(second)["planes"] == 3_322 - 70
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(first)


def test_four_starts_at_once_make_one_database(place: tuple[str, str, int]) -> None:
    with ThreadPoolExecutor(4) as pool:
        urls = list(pool.map(lambda _: ensure_reference_database(*place, "same"), range(4)))
    assert len(set(urls)) == 1
    assert counts(urls[0])["airports"] == 1_458


def test_the_source_role_sees_nothing_of_the_warehouse(place: tuple[str, str, int], server: TestServer) -> None:
    url = ensure_reference_database(*place, "secret")
    with psycopg.connect(url) as source:
        flags = source.execute("select rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolname = %s", [NAME])
        assert flags.fetchone() == (False, False, False)
    other = url.replace(f"/{NAME}?", f"/{server.warehouse.database}?")
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(other)
