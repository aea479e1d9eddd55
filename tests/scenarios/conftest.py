"""One platform for all scenarios: five days are read and every mart is built."""

import os
import shutil
import socket
import sys
from collections.abc import Generator
from datetime import date
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from demo.stack import DemoStack
from platform_assets.settings import PROJECT_ROOT, load_settings, process_environment
from platform_assets.warehouse import ensure_warehouse
from tests.dbt.demo_raw import FLIGHTS, TABLES, load_demo_raw
from tests.scenarios.platform import Platform, dagster_dev
from tests.support.servers import TestServer, clean_environment, database_pair

PARTS = ("platform_assets", "connectors", "dbt_project")
FILES = ("dagster.yaml", "workspace.yaml", "pyproject.toml")
HISTORY = 5
LATE = ("2013-01-03", "2013-01-04")


def copy_of_project(root: Path) -> Path:
    for name in PARTS:
        shutil.copytree(
            PROJECT_ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "target", "logs")
        )
    for name in FILES:
        shutil.copy(PROJECT_ROOT / name, root / name)
    return root


@pytest.fixture(scope="session")
def platform(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Platform]:
    folder = tmp_path_factory.mktemp("scenarios")
    root = copy_of_project(folder / "project")
    with (
        database_pair(server, f"scenarios_{uuid4().hex[:12]}") as urls,
        DemoStack(folder / "home", refuse_every=0) as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        env = clean_environment() | urls | {"HEADWATER_HOME": str(folder / "home")}
        settings = load_settings(env, root)
        warehouse = ensure_warehouse(settings)
        stack.serve_database(warehouse.tcp_dsn("admin"), warehouse.address.host, warehouse.address.port)
        env |= process_environment(settings) | dict(stack.environment()) | {"PYTHONPATH": str(root)}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        for name, value in env.items():
            patch.setenv(name, value)
        load_demo_raw(warehouse, [table for table in TABLES if table is not FLIGHTS])
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        with dg.DagsterInstance.get() as instance:
            made = Platform(root, env, f"http://127.0.0.1:{port}", stack, warehouse, instance)
            made.declare(newest=date(2013, 1, HISTORY))
            made.usual = {"late": LATE}
            made.day = date(2013, 1, HISTORY)
            made.misbehave()
            with dagster_dev(root, env, port):
                for table in TABLES:
                    if table is not FLIGHTS:
                        made.report(f"{table.source}/{table.stream}")
                made.history = made.read_history(HISTORY)
                yield made
