"""A real PostgreSQL for the tests: one server a session, a pair of databases a test."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from platform_assets.settings import Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, stop_warehouse


@dataclass(frozen=True, slots=True)
class TestServer:
    """A running embedded server that the tests treat as any PostgreSQL."""

    __test__ = False

    settings: Settings
    warehouse: Warehouse

    def admin_url(self, database: str) -> str:
        return replace(self.warehouse.address, database=database).url(self.warehouse.logins["admin"])

    def execute(self, statement: sql.Composable) -> None:
        with psycopg.connect(self.admin_url("postgres"), autocommit=True) as session:
            session.execute(statement)


@contextmanager
def short_folder() -> Generator[Path]:
    """A folder that the server's own user can reach when the tests run as root; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_server() -> Generator[TestServer]:
    with short_folder() as folder:
        settings = Settings(home=folder / "home")
        warehouse = ensure_warehouse(settings)
        server = TestServer(settings, warehouse)
        # the crash tests kill processes, never the machine
        for option in ("fsync", "full_page_writes", "synchronous_commit"):
            server.execute(sql.SQL("alter system set {} = off").format(sql.Identifier(option)))
        server.execute(sql.SQL("select pg_reload_conf()"))
        try:
            yield server
        finally:
            stop_warehouse(settings)


@contextmanager
def database_pair(server: TestServer, name: str) -> Generator[dict[str, str]]:
    """Two empty databases and the environment that makes them a platform's; dropped at the end."""
    pair = [name, f"{name}_dagster"]
    for database in pair:
        server.execute(sql.SQL("create database {} template template0").format(sql.Identifier(database)))
    try:
        yield {
            "HEADWATER_WAREHOUSE_URL": server.admin_url(pair[0]),
            "HEADWATER_DAGSTER_URL": server.admin_url(pair[1]),
            **{
                f"HEADWATER_{role.upper()}_PASSWORD": server.warehouse.logins[role].password
                for role in ("loader", "transformer", "reader")
            },
        }
    finally:
        for database in pair:
            server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database)))


def clean_environment() -> dict[str, str]:
    """What a newcomer's shell has, and nothing of ours."""
    keep = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "VIRTUAL_ENV", "SSL_CERT_FILE")
    return {name: os.environ[name] for name in keep if name in os.environ}
