"""A shop with a partitioned stream, in a location that real Dagster processes load."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from connectors.specs import SourceSpec
from platform_assets.settings import PROJECT_ROOT, load_settings, process_environment
from platform_assets.sources import FOLDER, read_source_file
from platform_assets.warehouse import Warehouse
from tests.backfills.ledger import Ledger
from tests.ingest.shop import SOURCE, TOKEN, Shop, open_shop
from tests.support.servers import TestServer, clean_environment, database_pair

START = date(2023, 1, 1)
PARTITIONED = f"{SOURCE}      partitions: {{by: day, start: {START}}}\n"
DEFINITIONS = """
from pathlib import Path
from tests.ingest.conftest import load
defs = load(Path({root!r}))
"""
BIN = Path(sys.executable).parent


def daily_orders(days: int) -> list[dict[str, Any]]:
    """Two orders on each of the first days since START."""
    moments = [START + timedelta(days=day) for day in range(days)]
    return [
        {"id": 2 * number + half, "at": f"{day}T{6 + 12 * half:02}:00:00Z", "cents": 100}
        for number, day in enumerate(moments)
        for half in (0, 1)
    ]


@dataclass(frozen=True, slots=True)
class Platform:
    """root: a project with the shop's source file; env: of a Dagster process; file: the definitions it loads."""

    root: Path
    env: dict[str, str]
    file: Path
    shop: Shop
    warehouse: Warehouse

    @property
    def source(self) -> SourceSpec:
        path = self.root / FOLDER / "shop" / "defs.yaml"
        return read_source_file(path, self.root)[0]

    def declare(self, text: str) -> None:
        path = self.root / FOLDER / "shop" / "defs.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.warehouse.admin_dsn, autocommit=True) as session:
            session.execute("set time zone 'UTC'")
            return session.execute(query.encode()).fetchall()

    def wait_for(self, query: str, seconds: float) -> None:
        """Until the query finds a row."""
        deadline = time.monotonic() + seconds
        with psycopg.connect(self.warehouse.admin_dsn, autocommit=True) as session:
            while session.execute(query.encode()).fetchone() is None:
                assert time.monotonic() < deadline, f"not within {seconds} s: {query}"
                time.sleep(0.1)

    @contextmanager
    def daemon(self, log: str = "daemon") -> Generator["subprocess.Popen[bytes]"]:
        """Dagster's daemon in a process group of its own, with the code server and the runs that it starts."""
        with (self.file.parent / f"{log}.log").open("wb") as out:
            process = subprocess.Popen(
                [str(BIN / "dagster-daemon"), "run", "-f", str(self.file)],
                cwd=PROJECT_ROOT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            kill_all(process)


def kill_all(process: "subprocess.Popen[bytes]") -> None:
    """A power cut: the process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


EMPTY = """
do $$
declare
    found record;
begin
    for found in select nspname from pg_namespace where nspname like 'raw\\_%' loop
        execute format('drop schema %I cascade', found.nspname);
    end loop;
    for found in select tablename from pg_tables where schemaname = 'ops' and tablename <> 'migrations' loop
        execute format('truncate ops.%I cascade', found.tablename);
    end loop;
end
$$
"""


@pytest.fixture(scope="module")
def pair(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    """One pair of databases a module: a bootstrap costs more than most of these tests."""
    with database_pair(server, f"test_{uuid4().hex[:12]}") as urls:
        yield clean_environment() | urls | {"HEADWATER_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture
def env(pair: dict[str, str]) -> dict[str, str]:
    """The module's databases, emptied."""
    with psycopg.connect(pair["HEADWATER_WAREHOUSE_URL"], autocommit=True) as session:
        session.execute(EMPTY)
    return dict(pair)


@pytest.fixture
def platform(
    warehouse: Warehouse, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Platform]:
    root = tmp_path / "project"
    file = tmp_path / "location.py"
    file.write_text(DEFINITIONS.format(root=str(root)), encoding="utf-8")
    with open_shop() as shop:
        full = env | process_environment(load_settings(env))
        full |= {"SHOP_URL": shop.url, "SHOP_TOKEN": TOKEN, "PYTHONPATH": str(PROJECT_ROOT)}
        for name, value in full.items():
            monkeypatch.setenv(name, value)
        made = Platform(root, full, file, shop, warehouse)
        made.declare(PARTITIONED)
        yield made


@pytest.fixture
def ledger(warehouse: Warehouse) -> Generator[Ledger]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as connection:
        connection.execute("set time zone 'UTC'")
        yield Ledger(connection)
