"""The log of a PostgreSQL read by meltanolabs-tap-postgres 0.10.0 through wal2json, where a server here has that."""

import socket
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from platform_assets.warehouse import Warehouse
from tests.singer.test_tap_postgres import extracted, tap_over
from tests.support.programs import programs
from tests.support.servers import SYSTEM_SERVERS, short_folder, system_server
from tests.support.sql import run

pytestmark = pytest.mark.slow
__all__ = ["programs"]
PLUGINS = [programs for programs in SYSTEM_SERVERS if (programs.parent / "lib" / "wal2json.so").is_file()]
# how long the tap waits for more of the log; a slow machine must not be too late for its own messages
IDLE_SECONDS = 10


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def shop() -> Iterator[psycopg.Connection[Any]]:
    if not PLUGINS:
        pytest.skip("no PostgreSQL below /usr/lib/postgresql has wal2json, or the tests do not run as root")
    with (
        short_folder() as folder,
        system_server(
            PLUGINS[-1],
            folder,
            "--auth-host=scram-sha-256",
            port=free_port(),
            settings="-c wal_level=logical -c listen_addresses=127.0.0.1",
        ) as url,
        psycopg.connect(url.replace("boss@/prod", "postgres@/postgres"), autocommit=True) as session,
    ):
        session.execute("alter role postgres password 'unused'")
        session.execute("create table orders (id bigint primary key, note text, cents numeric(12,2))")
        session.execute("insert into orders select n, 'order ' || n, n + 0.25 from generate_series(1, 500) n")
        # newer servers ask for leave
        if session.execute("select 1 from pg_settings where name = 'output_plugin_libraries'").fetchone():
            session.execute("alter system set output_plugin_libraries = 'wal2json'")
            session.execute("select pg_reload_conf()")
            while session.execute("show output_plugin_libraries").fetchone() != ("wal2json",):
                session.execute("select pg_sleep(0.05)")
        session.execute("select pg_create_logical_replication_slot('tappostgres', 'wal2json')")
        yield session


@pytest.mark.parametrize("is_shared", [False, True])
def test_changes_and_deletions_of_the_log_arrive_once(
    shop: psycopg.Connection[Any], warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    stream = {"name": "orders", "stream": "public-orders", "replication_method": "log_based", "primary_key": "id",
              "write": "merge"}  # fmt: skip
    # to read the log it connects in a way that knows no folder of a socket
    place = {"host": "127.0.0.1", "port": shop.info.port, "user": "postgres", "password": "unused",
             "database": "postgres"}  # fmt: skip
    spec = tap_over(
        shop, monkeypatch, stream, sqlalchemy_url=None, **place, replication_idle_exit_seconds=IDLE_SECONDS,
        log_based_single_connection=is_shared, auto_bootstrap_log_based=is_shared,
    )  # fmt: skip
    rows = "select count(*), count(*) filter (where _deleted), max(id) from raw_shop.orders"
    if not is_shared:
        shop.execute("update orders set note = note")  # without a first full read the log is all there is

    extracted(spec, warehouse)
    assert run(warehouse.admin_dsn, rows) == [(500, 0, 500)]

    shop.execute("insert into orders values (501, 'new', 1)")
    shop.execute("update orders set note = 'changed' where id = 7")
    shop.execute("delete from orders where id <= 3")
    extracted(spec, warehouse)

    assert run(warehouse.admin_dsn, rows) == [(501, 3, 501)]
    assert run(warehouse.admin_dsn, "select note, _deleted from raw_shop.orders where id in (7, 501) order by id") == [
        ("changed", False), ("new", False),
    ]  # fmt: skip
    # what the log re-sends is merged
    extracted(spec, warehouse)
    assert run(warehouse.admin_dsn, rows) == [(501, 3, 501)]
