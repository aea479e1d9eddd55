"""HEADWATER_WAREHOUSE_URL: any PostgreSQL 14+, with an administrator that need not be a superuser."""

import os
import socket
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from connectors.errors import AuthError, ConfigError, TransientError
from platform_assets.settings import Settings, load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, is_running, stop_warehouse
from platform_assets.warehouse.address import Login, parse_url
from tests.support.servers import TestServer, short_folder, system_server
from tests.support.sql import run

OTHER_SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.fixture
def other() -> Generator[TestServer]:
    """A stranger's server: none of our roles, and an administrator `boss` who is no superuser."""
    with short_folder() as folder:
        settings = Settings(home=folder / "home")
        warehouse = ensure_warehouse(settings)
        stranger = TestServer(settings, warehouse)
        for database in ("warehouse", "dagster"):
            stranger.execute(sql.SQL("drop database {}").format(sql.Identifier(database)))
        for role in ("loader", "transformer", "reader"):
            stranger.execute(sql.SQL("drop role {}").format(sql.Identifier(f"headwater_{role}")))
        stranger.execute(sql.SQL("create role boss login createrole createdb password 'p@ss/w:rd%'"))
        try:
            yield stranger
        finally:
            stop_warehouse(settings)


def boss_url(other: TestServer, database: str = "prod") -> str:
    return replace(other.warehouse.address, database=database).url(Login("boss", "p@ss/w:rd%"), tcp=True)


def test_an_administrator_without_superuser_is_enough(other: TestServer, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", warehouse_url=boss_url(other))
    warehouse = ensure_warehouse(settings)
    assert ensure_warehouse(settings) == warehouse
    assert warehouse.database == "prod"
    assert is_running(settings)
    assert not stop_warehouse(settings)

    run(warehouse.loader_dsn, "create schema raw_shop", "create table raw_shop.orders as select 1 as id")
    run(warehouse.transformer_dsn, "create view marts.orders as select id from raw_shop.orders")
    run(
        warehouse.loader_dsn,
        "create table raw_shop.orders_next as select 2 as id",
        "select ops.swap_table('raw_shop', 'orders', 'orders_next')",
    )
    assert run(warehouse.reader_dsn, "select id from marts.orders") == [(2,)]
    with psycopg.connect(warehouse.dagster_url.replace("+psycopg2", "")) as session:
        assert session.execute("select current_database(), current_user").fetchone() == ("dagster", "boss")


def test_bootstraps_at_once_from_two_homes_agree(other: TestServer, tmp_path: Path) -> None:
    given = {role: f"{role}-password" for role in ("loader", "transformer", "reader")}
    homes = [
        Settings(home=tmp_path / str(number), warehouse_url=boss_url(other), passwords=given) for number in range(4)
    ]
    with ThreadPoolExecutor(len(homes)) as pool:
        warehouses = list(pool.map(ensure_warehouse, homes))
    assert len({warehouse.loader_dsn for warehouse in warehouses}) == 1
    assert run(warehouses[0].loader_dsn, "select count(*) from ops.migrations where version = 1") == [(1,)]


def test_a_second_home_never_takes_the_roles_away(other: TestServer, tmp_path: Path) -> None:
    first = ensure_warehouse(Settings(home=tmp_path / "first", warehouse_url=boss_url(other)))
    second = Settings(home=tmp_path / "second", warehouse_url=boss_url(other))
    with pytest.raises(AuthError, match="HEADWATER_LOADER_PASSWORD") as refused:
        ensure_warehouse(second)
    assert len(str(refused.value).splitlines()) <= 6
    assert run(first.loader_dsn, "select 1") == [(1,)]


def test_a_user_without_createrole_is_told_what_it_needs(other: TestServer, tmp_path: Path) -> None:
    other.execute(sql.SQL("alter role boss nocreaterole"))
    with pytest.raises(ConfigError, match="CREATEROLE and CREATEDB"):
        ensure_warehouse(Settings(home=tmp_path / "home", warehouse_url=boss_url(other)))


def test_a_database_of_somebody_else_is_told_what_it_needs(other: TestServer, tmp_path: Path) -> None:
    other.execute(sql.SQL("create database prod"))
    other.execute(sql.SQL("grant create on database prod to boss"))
    with pytest.raises(ConfigError, match="make it the database's owner"):
        ensure_warehouse(Settings(home=tmp_path / "home", warehouse_url=boss_url(other)))


def test_a_wrong_password_names_the_setting_and_not_the_password(env: dict[str, str]) -> None:
    address, login = parse_url(env["HEADWATER_WAREHOUSE_URL"])
    wrong = env | {"HEADWATER_WAREHOUSE_URL": address.url(Login(login.user, "wrong-password"), tcp=True)}
    with pytest.raises(AuthError, match="HEADWATER_WAREHOUSE_URL") as refused:
        ensure_warehouse(load_settings(wrong))
    assert f"user {login.user} was refused" in str(refused.value)
    assert "wrong-password" not in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 6


def test_a_wrong_password_is_told_also_after_a_good_start(env: dict[str, str]) -> None:
    ensure_warehouse(load_settings(env))
    address, login = parse_url(env["HEADWATER_WAREHOUSE_URL"])
    with pytest.raises(AuthError):
        ensure_warehouse(load_settings(env | {"HEADWATER_WAREHOUSE_URL": address.url(Login(login.user, "wrong"))}))


def test_a_server_that_does_not_answer_is_a_passing_fault(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"postgresql://admin:secret-word@127.0.0.1:{reserved.getsockname()[1]}/warehouse"
        with pytest.raises(TransientError, match="no answer") as refused:
            ensure_warehouse(Settings(home=tmp_path / "home", warehouse_url=url))
    assert "secret-word" not in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 6


@pytest.mark.parametrize(
    "url", ["mysql://root@localhost/db", "localhost:5432", "postgresql://a:b@host:port/db", "postgresql://a:p%@h/db"]
)
def test_a_url_that_is_not_one_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="HEADWATER_WAREHOUSE_URL") as refused:
        ensure_warehouse(load_settings({"HEADWATER_HOME": str(tmp_path / "home"), "HEADWATER_WAREHOUSE_URL": url}))
    assert url not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p%40%2F@db.example.com:6543/prod?sslmode=require",
        "postgresql://u:p@/prod?host=/run/postgresql&port=5433",
        "postgresql://u@[::1]:5432/prod",
    ],
)
def test_a_url_survives_reading_and_writing(url: str) -> None:
    address, login = parse_url(url)
    assert parse_url(address.url(login)) == (address, login)


@pytest.mark.skipif(not OTHER_SERVERS or os.geteuid() != 0, reason="needs a PostgreSQL of the system, and root")
@pytest.mark.parametrize("program", OTHER_SERVERS, ids=lambda path: path.parts[-3])
def test_an_older_server_of_the_system_serves(program: Path, tmp_path: Path) -> None:
    with short_folder() as folder, system_server(program.parent, folder) as url:
        warehouse: Warehouse = ensure_warehouse(Settings(home=tmp_path / "home", warehouse_url=url))
        run(warehouse.loader_dsn, "create schema raw_shop", "create table raw_shop.orders as select 1 as id")
        run(warehouse.transformer_dsn, "create view marts.orders as select id from raw_shop.orders")
        run(
            warehouse.loader_dsn,
            "create table raw_shop.orders_next as select 2 as id",
            "select ops.swap_table('raw_shop', 'orders', 'orders_next')",
        )
        assert run(warehouse.reader_dsn, "select id from marts.orders") == [(2,)]
