"""Each role can what it must, and cannot what it must not."""

from collections.abc import Generator

import psycopg
import pytest
from psycopg import errors

from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.support.servers import TestServer, database_pair
from tests.support.sql import run

SYNC = """insert into ops.syncs (sync_id, source, stream, kind, trigger, epoch)
    values (gen_random_uuid(), 'shop', 'orders', 'rest', 'cli', 1)"""


@pytest.fixture(scope="module")
def shop(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Warehouse]:
    """A raw table of the loader, and a model in each of the transformer's schemas; what the tests do is rolled back."""
    with database_pair(server, "test_privileges") as pair:
        yield _shop(ensure_warehouse(load_settings(pair | {"HEADWATER_HOME": str(tmp_path_factory.mktemp("home"))})))


def _shop(warehouse: Warehouse) -> Warehouse:
    run(warehouse.loader_dsn, "create schema raw_shop", "create table raw_shop.orders as select 1 as id", SYNC)
    for schema in ("staging", "intermediate", "marts"):
        run(warehouse.transformer_dsn, f"create view {schema}.orders as select id from raw_shop.orders")
    return warehouse


def attempt(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as session:
        session.execute(statement.encode())
        session.rollback()


def dsn(warehouse: Warehouse, role: str) -> str:
    return {
        "loader": warehouse.loader_dsn,
        "transformer": warehouse.transformer_dsn,
        "reader": warehouse.reader_dsn,
    }[role]


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("loader", "create schema raw_other"),
        ("loader", "create temporary table t (id int)"),
        ("loader", "select * from ops.migrations"),
        ("loader", "update ops.syncs set windows = 2"),
        ("loader", "insert into ops.leases (source, stream) values ('shop', 'orders')"),
        ("loader", "delete from ops.webhook_inbox"),
        ("transformer", "select * from raw_shop.orders"),
        ("transformer", "create temporary table t (id int)"),
        ("transformer", "create table marts.customers (id int)"),
        ("transformer", "select * from ops.syncs"),
        ("transformer", "select * from ops.schema_versions"),
        ("reader", "select * from staging.orders"),
        ("reader", "select * from intermediate.orders"),
        ("reader", "select * from marts.orders"),
        ("reader", "select * from ops.syncs"),
        ("reader", "select * from ops.usage"),
    ],
)
def test_a_role_can_what_it_must(shop: Warehouse, role: str, statement: str) -> None:
    attempt(dsn(shop, role), statement)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("loader", "create table ops.mine (id int)"),
        ("loader", "alter table ops.syncs add column mine int"),
        ("loader", "drop table ops.syncs"),
        ("loader", "truncate ops.syncs"),
        ("loader", "delete from ops.syncs"),
        ("loader", "update ops.stream_state set state = '{}'"),
        ("loader", "delete from ops.stream_state"),
        ("loader", "update ops.migrations set checksum = ''"),
        ("loader", "select * from marts.orders"),
        ("loader", "create table marts.mine (id int)"),
        ("loader", "create table public.mine (id int)"),
        ("loader", "create role mine"),
        ("loader", "set role headwater_transformer"),
        ("transformer", "insert into raw_shop.orders values (2)"),
        ("transformer", "drop table raw_shop.orders"),
        ("transformer", "create table raw_shop.mine (id int)"),
        ("transformer", "create schema mine"),
        ("transformer", "select * from ops.stream_state"),
        ("transformer", "select * from ops.quarantine"),
        ("transformer", "update ops.syncs set windows = 2"),
        ("reader", "select * from raw_shop.orders"),
        ("reader", "select * from ops.quarantine"),
        ("reader", "select * from ops.webhook_inbox"),
        ("reader", "insert into ops.usage (day, source, stream) values (now(), 'a', 'b')"),
        ("reader", "create table marts.mine (id int)"),
        ("reader", "create temporary table t (id int)"),
        ("reader", "create schema mine"),
    ],
)
def test_a_role_cannot_what_it_must_not(shop: Warehouse, role: str, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        attempt(dsn(shop, role), statement)


def test_a_role_of_nobodys_cannot_enter(warehouse: Warehouse) -> None:
    run(warehouse.admin_dsn, "drop role if exists stranger", "create role stranger login password 'stranger'")
    user = warehouse.admin_dsn.partition("://")[2].partition("@")[0]
    with pytest.raises(errors.OperationalError, match="permission denied for database"):
        run(warehouse.admin_dsn.replace(user, "stranger:stranger"), "select 1")
    run(warehouse.admin_dsn, "drop role stranger")


def test_roles_are_ordinary(warehouse: Warehouse) -> None:
    powers = "rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls"
    rows = run(warehouse.admin_dsn, f"select rolname, {powers} from pg_roles where rolname like 'headwater\\_%'")
    assert dict(rows) == {
        "headwater_admin": True,
        "headwater_loader": False,
        "headwater_transformer": False,
        "headwater_reader": False,
    }
