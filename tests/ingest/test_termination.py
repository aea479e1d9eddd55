"""A run that is terminated: the sync ends in order, what was sealed stays, the ledger is settled."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg

from platform_assets.settings import PROJECT_ROOT
from platform_assets.warehouse import Warehouse
from tests.ingest.conftest import Write
from tests.ingest.shop import SOURCE, TOKEN, open_shop, order

DEFINITIONS = """
from pathlib import Path
from tests.ingest.conftest import load
defs = load(Path({root!r}))
"""


def test_a_terminated_run_keeps_what_was_sealed_and_settles_its_sync(
    warehouse: Warehouse, env: dict[str, str], write_source: Write, tmp_path: Path
) -> None:
    location = tmp_path / "location.py"
    location.write_text(DEFINITIONS.format(root=str(write_source(SOURCE))), encoding="utf-8")
    (tmp_path / "dagster_home").mkdir()
    hangs, go_on = threading.Event(), threading.Event()

    def hang_at_the_fourth_page(request: int) -> None:
        if request == 4:
            hangs.set()
            go_on.wait(60)

    with open_shop() as shop:
        shop.orders, shop.on_page = [order(number) for number in range(1, 9)], hang_at_the_fourth_page
        run = subprocess.Popen(
            [Path(sys.executable).with_name("dagster"), "asset", "materialize", "--select", "*", "-f", location],
            cwd=PROJECT_ROOT,
            env={**env, "SHOP_URL": shop.url, "SHOP_TOKEN": TOKEN, "DAGSTER_HOME": str(tmp_path / "dagster_home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert hangs.wait(60), "the sync never asked for its fourth page"
            run.send_signal(signal.SIGINT)
            said, _ = run.communicate(timeout=55)
        finally:
            go_on.set()
            run.kill()

    assert run.returncode != 0, said
    (ledger,) = _rows(warehouse, "select status, failure_class, step, rows_loaded from ops.syncs")
    published = [number for (number,) in _rows(warehouse, "select id from raw_shop.orders order by id")]
    # a window ends before a page's last value; the second may be on its way when the signal comes; whole windows only,
    # and the ledger knows them
    assert published in ([1, 2, 3], [1, 2, 3, 4, 5])
    assert ledger == ("cancelled", "cancelled", "done", len(published))


def _rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(query).fetchall()
