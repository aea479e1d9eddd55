"""The kind with the rest of the platform: the demo's source, the scaffold, a sync."""

import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from connectors.registry import kind
from connectors.sync import SyncRequest, sync
from connectors.testing.conformance import assert_conforms
from connectors.testing.stand_in import stand_in
from demo.release import Release
from demo.stack import DemoStack
from platform_assets.sources import find_source
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, project
from tests.python_kind.modules import Modules

__all__ = ["project"]


def test_the_demos_rest_source_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DemoStack(tmp_path, refuse_every=0) as stack:
        stack.release(Release(date(2013, 1, 3)))
        for name, value in stack.environment().items():
            monkeypatch.setenv(name, value)
        report = assert_conforms(find_source("nyc_flights"))
    assert "flights: new" in report.shown
    assert "flights: checkpoints" in report.shown
    assert "errors: dead address" in report.shown


def test_a_scaffolded_connector_passes_its_own_test(project: Project) -> None:
    done = project.run("new", "connector", "web_shop")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("wrote")] == [
        "wrote connectors/custom/web_shop.py",
        "wrote platform_assets/defs/ingest/web_shop/defs.yaml",
        "wrote tests/custom/test_web_shop.py",
    ]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/custom/test_web_shop.py"],
        cwd=project.root,
        env={**project.env, "PYTHONPATH": str(project.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    for path in ("connectors/custom/web_shop.py", "tests/custom/test_web_shop.py"):
        text = (project.root / path).read_text("utf-8")
        subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--check", "-q", "-"], input=text, text=True, check=True
        )
    again = project.run("new", "connector", "web_shop")
    assert again.returncode == 3
    assert "connectors/custom/web_shop.py exists already" in again.stderr
    listed = project.run("sources")
    assert "web_shop" in listed.stdout
    assert "python" in listed.stdout


@pytest.mark.parametrize("name", ["Shop", "1shop", "../shop", "shop-x"])
def test_a_name_that_no_source_can_have_is_refused(project: Project, name: str) -> None:
    done = project.run("new", "connector", name)
    assert done.returncode == 3
    assert "can be no source's name" in done.stderr


CLASS = """
from connectors.custom import CursorPaging, HttpConnector, IncrementalSpec


class Shop(HttpConnector):
    records = "data"
    pagination = CursorPaging(param="after", path="next")
    incremental = IncrementalSpec(param="since", ordered=True)
"""


def test_a_sync_loads_what_a_bespoke_connector_reads_and_then_what_is_new(
    modules: Modules, warehouse: Warehouse
) -> None:
    rows = [{"id": n, "updated_at": f"2024-01-0{n}T00:00:00Z"} for n in range(1, 6)]
    stream = {"primary_key": "id", "cursor": {"field": "updated_at"}, "write": "merge"}
    with stand_in({"orders": rows}) as api:
        spec = modules.source(CLASS, stream, base_url=api.url)
        first = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)
        assert first.rows.loaded == 5
        rows.append({"id": 6, "updated_at": "2024-01-06T00:00:00Z"})
        asked = len(api.requests)
        second = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)
        assert api.requests[asked:] == ["/orders?since=2024-01-05T00%3A00%3A00Z"]
    assert second.rows.extracted == 2
    with psycopg.connect(warehouse.loader_dsn) as session:
        found = session.execute(f"select count(*), max(id) from {spec.schema_name}.orders".encode()).fetchone()
    assert found == (6, 6)


LEDGER = """
from decimal import Decimal
from connectors.custom import RowsConnector


class Ledger(RowsConnector):
    batch = 2

    def rows(self, stream, since, until):
        yield {"id": 1, "share": 0.5, "cents": None}
        yield {"id": 2, "share": 0.25, "cents": Decimal("9007199254740993.10")}
        yield {"id": 3, "share": 1, "cents": Decimal("7"), "fee": Decimal("0.10")}
"""


def test_a_decimal_of_python_keeps_its_digits_without_being_declared(modules: Modules, warehouse: Warehouse) -> None:
    spec = modules.source(LEDGER, {"primary_key": "id", "write": "replace"})
    assert sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn).rows.loaded == 3
    with kind("python").open(spec) as connector:
        found = {column.name: column.type for column in connector.discover()[0].columns}
    assert (found["share"], found["cents"], found["fee"]) == ("double", "decimal", "decimal")
    with psycopg.connect(warehouse.loader_dsn) as session:
        query = f"select id, share, cents, fee from {spec.schema_name}.orders order by id"
        got = session.execute(query.encode()).fetchall()
    assert got == [
        (1, 0.5, None, None),
        (2, 0.25, Decimal("9007199254740993.10"), None),
        (3, 1.0, Decimal(7), Decimal("0.10")),
    ]
