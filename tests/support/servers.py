"""A real PostgreSQL for the tests: one server a session, a pair of databases a test."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
from psycopg import sql

from platform_assets.settings import Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, stop_warehouse

SYSTEM_SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.geteuid() == 0 else []
"""Programs of the PostgreSQL servers that this machine has beside the embedded one, where the tests may run them."""
MEMORY_BYTES = 4 << 30
"""Free memory from which the tests' databases are kept in it."""


@dataclass(frozen=True, slots=True)
class TestServer:
    """A running embedded server that the tests treat as any PostgreSQL."""

    __test__ = False

    settings: Settings
    warehouse: Warehouse

    def admin_url(self, database: str) -> str:
        return replace(self.warehouse.address, database=database).url(self.warehouse.logins["admin"])

    def execute(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self.admin_url("postgres"), autocommit=True) as session:
            session.execute(statement)


@contextmanager
def short_folder() -> Generator[Path]:
    """A folder that the server's own user can reach when the tests run as root; in memory where there is room."""
    memory = Path("/dev/shm")  # noqa: S108  mkdtemp makes a private folder in it
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_BYTES
    folder = Path(tempfile.mkdtemp(prefix="headwater-test-", dir=memory if has_room else None))
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
def system_server(programs: Path, folder: Path, *options: str, port: int = 5432, settings: str = "") -> Generator[str]:
    """Another PostgreSQL on this machine, on its own socket; the URL of an administrator without superuser.

    options: of initdb. settings: more of the server's, `-c name=value`. Run by the system user `postgres`, so for root
    only.
    """

    def program(name: str, *words: str) -> None:
        subprocess.run(
            [str(programs / name), *words],
            check=True,
            user="postgres",
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    work = folder / "system"
    work.mkdir()
    shutil.chown(work, "postgres")
    program("initdb", "-D", f"{work}/data", "--auth=trust", "--username=postgres", "--no-sync", *options)
    started = f"-k {work} -c port={port} -c listen_addresses='' -c fsync=off {settings}"
    program("pg_ctl", "-D", f"{work}/data", "-l", f"{work}/log", "-o", started, "--wait", "start")
    try:
        where = f"host={work}&port={port}"
        with psycopg.connect(f"postgresql://postgres@/postgres?{where}", autocommit=True) as session:
            session.execute("create role boss login createrole createdb")
        yield f"postgresql://boss@/prod?{where}"
    finally:
        program("pg_ctl", "-D", f"{work}/data", "--mode=immediate", "stop")


# a copy of files is quicker than one through the log
_CREATE = sql.SQL("create database {} template template0 strategy file_copy")


@contextmanager
def database_pair(server: TestServer, name: str) -> Generator[dict[str, str]]:
    """Two empty databases and the environment that makes them a platform's; dropped at the end."""
    pair = [name, f"{name}_dagster"]
    for database in pair:
        server.execute(_CREATE.format(sql.Identifier(database)))
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


CONNECTORS = Path(__file__).parents[2] / ".headwater" / "connectors"
"""Where `make demo` has them, too; ignored by git."""


def clean_environment() -> dict[str, str]:
    """What a newcomer's shell has, and where programs of others are installed once for all tests."""
    keep = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "VIRTUAL_ENV", "SSL_CERT_FILE")
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    return kept | {"HEADWATER_CONNECTORS": str(CONNECTORS)}
