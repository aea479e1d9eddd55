"""sources, check, discover, preview and sync against a real HTTP source and a real warehouse."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from threading import Event
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from connectors.errors import AuthError, ConfigError, RateLimited, TransientError
from platform_assets.cli.sync import exit_code
from platform_assets.warehouse import Warehouse
from tests.cli.conftest import Project, serving

SHOP = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector: {kind: rest, base_url: env:SHOP_URL, auth: {type: bearer, token: env:SHOP_TOKEN}}
  streams:
    - {name: refused, path: /refused, primary_key: id, write: merge}
    - {name: orders, path: /orders, primary_key: id, write: merge, pagination: {type: page_number}}
"""
TOKEN = "tok_9f8e7d6c5b4a"
ORDERS = [{"id": number, "note": f"order {number}", "cents": number * 100} for number in range(1, 6)]


class Shop(BaseHTTPRequestHandler):
    """Five orders; everything under /refused is forbidden."""

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        page = int(parse_qs(place.query).get("page", ["1"])[0])
        is_right = self.headers["Authorization"] == f"Bearer {TOKEN}" and place.path != "/refused"
        body = json.dumps(ORDERS[(page - 1) * 2 : page * 2] if is_right else {"error": "no"}).encode()
        self.send_response(200 if is_right else 403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@contextmanager
def shop(project: Project, handler: type[BaseHTTPRequestHandler] = Shop) -> Iterator[dict[str, str]]:
    project.source(SHOP)
    with serving(handler) as url:
        yield {"SHOP_URL": url, "SHOP_TOKEN": TOKEN}


def headwater_only(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith("HEADWATER_")}


def test_sources_lists_what_is_declared_without_any_secret(project: Project) -> None:
    project.source(SHOP)
    done = project.run("sources", "--json")
    assert done.returncode == 0, done.stderr
    assert [(row["source"], row["stream"], row["kind"], row["write"]) for row in json.loads(done.stdout)] == [
        ("shop", "refused", "rest", "merge"),
        ("shop", "orders", "rest", "merge"),
    ]
    assert "2 streams of 1 source" in project.run("sources").stdout


def test_preview_shows_the_first_rows_and_loads_nothing(project: Project) -> None:
    with shop(project) as env:
        done = project.run("preview", "shop.orders", "--rows", "2", "--json", **env)
        table = project.run("preview", "shop.orders", "--rows", "1", **env)
    assert [json.loads(line) for line in done.stdout.splitlines()] == ORDERS[:2], done.stderr
    assert "order 1" in table.stdout
    assert "order 2" not in table.stdout
    assert not (project.root.parent / "home").exists()


def test_preview_of_a_source_asks_for_a_stream(project: Project) -> None:
    project.source(SHOP)
    done = project.run("preview", "shop")
    assert done.returncode == 3
    assert "names a source, not a stream" in done.stderr


def test_discover_shows_streams_and_columns_of_the_source(project: Project) -> None:
    with shop(project) as env:
        project.source("".join(line for line in SHOP.splitlines(keepends=True) if "refused" not in line))
        done = project.run("discover", "shop", "--json", **env)
        table = project.run("discover", "shop", **env)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["name"], [column["name"] for column in found["columns"]]) == ("orders", ["id", "note", "cents"])
    assert "1 stream offered, 1 declared in the source file" in table.stdout


def test_sync_loads_the_good_stream_although_its_sibling_fails(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    with shop(project) as source:
        done = project.run("sync", "shop", **headwater_only(env), **source)
    assert done.returncode == 4, done.stderr
    assert "auth error: shop.refused: " in done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert any(line.split()[:3] == ["shop.refused", "failed", "(auth)"] for line in lines), done.stdout
    assert any(line.split()[:4] == ["shop.orders", "succeeded", "5", "5"] for line in lines), done.stdout
    with psycopg.connect(warehouse.admin_dsn) as session:
        assert session.execute("select count(*), sum(cents) from raw_shop.orders").fetchone() == (5, 1500)
        ledger = session.execute("select stream, status, trigger from ops.syncs order by started_at").fetchall()
    assert ledger == [("refused", "failed", "cli"), ("orders", "succeeded", "cli")]


def test_sync_of_one_stream_leaves_the_others_alone(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    with shop(project) as source:
        done = project.run("sync", "shop.orders", **headwater_only(env), **source)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(warehouse.admin_dsn) as session:
        assert session.execute("select stream from ops.syncs").fetchall() == [("orders",)]


def test_ctrl_c_in_a_sync_settles_its_ledger_row_and_ends_with_130(
    project: Project, env: dict[str, str], warehouse: Warehouse
) -> None:
    asked, may_go_on = Event(), Event()

    class Stuck(Shop):
        def do_GET(self) -> None:
            if "page=2" in self.path:
                asked.set()
                may_go_on.wait(60)
            super().do_GET()

    with shop(project, Stuck) as source:
        process = project.start("sync", "shop.orders", **headwater_only(env), **source)
        try:
            assert asked.wait(60), process.communicate(timeout=10)
            process.send_signal(signal.SIGINT)
            # the line proves that the signal has arrived before the source goes on
            assert process.stderr is not None
            assert any("stopping after what is sealed" in line for line in process.stderr)
            may_go_on.set()
            _, err = process.communicate(timeout=60)
        finally:
            may_go_on.set()
            process.kill()
    assert process.returncode == 130, err
    with psycopg.connect(warehouse.admin_dsn) as session:
        (found,) = session.execute("select status, failure_class from ops.syncs").fetchall()
    assert found == ("cancelled", "cancelled")


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([TransientError("a", "b")], 6),
        ([RateLimited("a", "b"), TransientError("a", "b")], 5),
        ([TransientError("a", "b"), AuthError("a", "b"), ConfigError("a", "b")], 4),
        ([AuthError("a", "b"), ValueError("x")], 1),
    ],
)
def test_the_worst_error_decides_the_exit_code(errors: list[Exception], code: int) -> None:
    assert exit_code(errors) == code
