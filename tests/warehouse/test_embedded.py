"""The embedded server: starts once, asks for passwords everywhere, and comes back from whatever was done to it."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from connectors.errors import ConfigError, ResourceError
from platform_assets.settings import PROJECT_ROOT, Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, is_running, stop_warehouse
from tests.support.servers import TestServer, clean_environment, short_folder
from tests.support.sql import run

ENSURE = """
import sys
from platform_assets.settings import load_settings
from platform_assets.warehouse import ensure_warehouse
print(ensure_warehouse(load_settings()).loader_dsn)
"""


@pytest.fixture
def empty_home() -> Generator[Settings]:
    """A home that does not exist yet; whatever was started in it is stopped."""
    with short_folder() as folder:
        settings = Settings(home=folder / "home")
        yield settings
        stop_warehouse(settings)


@pytest.fixture(scope="module")
def stopped() -> Generator[Path]:
    """A home whose server was made, bootstrapped and stopped: copied, for making one takes seconds."""
    with short_folder() as folder:
        settings = Settings(home=folder / "home")
        ensure_warehouse(settings)
        stop_warehouse(settings)
        (settings.home / "server.json").unlink()
        with (settings.home / "postgres/data/postgresql.auto.conf").open("a", encoding="utf-8") as conf:
            conf.write("fsync = off\n")
        yield settings.home


@pytest.fixture
def home(empty_home: Settings, stopped: Path) -> Settings:
    """A home with a stopped server."""
    subprocess.run(["cp", "-a", str(stopped), str(empty_home.home)], check=True)
    return empty_home


def postmaster_pid(settings: Settings) -> int:
    return int((settings.home / "postgres/data/postmaster.pid").read_text(encoding="utf-8").splitlines()[0])


def ensure_in_processes(settings: Settings, count: int) -> list[str]:
    """Let `count` processes ensure the warehouse at once; what each printed."""
    environment = clean_environment() | {"HEADWATER_HOME": str(settings.home)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ENSURE],
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    printed: list[str] = []
    for process in processes:
        out, err = process.communicate()
        assert process.returncode == 0, err
        printed.append(out)
    return printed


def test_processes_that_start_it_at_once_get_one_server(empty_home: Settings) -> None:
    assert len(set(ensure_in_processes(empty_home, 3))) == 1
    assert run(ensure_warehouse(empty_home).admin_dsn, "select count(*) from ops.migrations where version = 1") == [
        (1,)
    ]


def test_it_keeps_its_data_port_and_passwords_over_a_restart(home: Settings) -> None:
    before = ensure_warehouse(home)
    run(before.loader_dsn, "create schema raw_kept")
    assert stop_warehouse(home)
    assert not is_running(home)
    assert not stop_warehouse(home)
    after = ensure_warehouse(home)
    assert is_running(home)
    assert after == before
    assert run(after.loader_dsn, "select to_regnamespace('raw_kept')::text") == [("raw_kept",)]


def test_a_killed_server_comes_back_with_what_was_committed(home: Settings) -> None:
    warehouse = ensure_warehouse(home)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        session.execute("create schema raw_kept")
        os.kill(postmaster_pid(home), signal.SIGKILL)
        again = ensure_warehouse(home)
    assert again == warehouse
    assert run(again.loader_dsn, "select to_regnamespace('raw_kept')::text") == [("raw_kept",)]


def test_a_pid_file_that_names_another_program_is_stale(home: Settings) -> None:
    ensure_warehouse(home)
    pid_file = home.home / "postgres/data/postmaster.pid"
    content = pid_file.read_text(encoding="utf-8")
    stop_warehouse(home)
    pid_file.write_text(content.replace(content.splitlines()[0], str(os.getpid()), 1), encoding="utf-8")
    assert not is_running(home)
    ensure_warehouse(home)
    assert postmaster_pid(home) != os.getpid()


def test_a_half_made_cluster_is_made_anew(home: Settings) -> None:
    store = home.home / "postgres"
    (store / "data").rename(store / "init-killed")
    (store / "data").mkdir()
    assert run(ensure_warehouse(home).reader_dsn, "select 1") == [(1,)]
    assert not list(store.glob("init-*"))


@pytest.mark.parametrize("is_stopped", [True, False])
def test_lost_passwords_are_made_anew_and_the_data_stays(home: Settings, is_stopped: bool) -> None:
    run(ensure_warehouse(home).loader_dsn, "create schema raw_kept")
    if is_stopped:
        stop_warehouse(home)
    (home.home / "secrets.json").unlink()
    again = ensure_warehouse(home)
    for dsn in (again.admin_dsn, again.loader_dsn, again.transformer_dsn, again.reader_dsn):
        assert run(dsn, "select count(*) from pg_namespace where nspname = 'raw_kept'") == [(1,)]


def test_a_taken_port_is_changed_and_said(home: Settings, caplog: pytest.LogCaptureFixture) -> None:
    before = ensure_warehouse(home)
    stop_warehouse(home)
    with socket.create_server(("127.0.0.1", before.address.port)):
        after = ensure_warehouse(home)
    assert after.address.port != before.address.port
    assert f"port {before.address.port} is taken" in caplog.text
    assert run(after.tcp_dsn("reader"), "select 1") == [(1,)]


def test_a_long_home_gets_a_short_private_socket(home: Settings) -> None:
    deep = Settings(home=home.home.parent / ("d" * 60) / ("e" * 60))
    deep.home.parent.mkdir(parents=True)
    home.home.rename(deep.home)
    warehouse = ensure_warehouse(deep)
    folder = Path(str(warehouse.address.socket_dir))
    try:
        assert not folder.is_relative_to(deep.home)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert run(warehouse.loader_dsn, "select 1") == [(1,)]
    finally:
        stop_warehouse(deep)
        shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_serves_a_home_that_nobody_else_can_reach(empty_home: Settings) -> None:
    empty_home.home.parent.chmod(0o700)
    warehouse = ensure_warehouse(empty_home)
    store = (empty_home.home / "postgres").resolve()
    try:
        assert run(warehouse.loader_dsn, "select 1") == [(1,)]
        assert stat.S_IMODE(empty_home.home.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(store.stat().st_mode) == 0o700
    finally:
        stop_warehouse(empty_home)
        shutil.rmtree(store)


def test_a_cluster_of_another_version_is_refused(home: Settings) -> None:
    (home.home / "postgres/data/PG_VERSION").write_text("17\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"was made by PostgreSQL 17, the embedded server is 18"):
        ensure_warehouse(home)


def test_a_server_that_cannot_start_says_why_in_six_lines(home: Settings) -> None:
    (home.home / "postgres/data/global/pg_control").unlink()
    with pytest.raises(ResourceError, match="PostgreSQL did not start: ") as refused:
        ensure_warehouse(home)
    assert len(str(refused.value).splitlines()) <= 6
    assert "postgres.log" in str(refused.value)


def test_a_home_that_cannot_be_made_says_so(empty_home: Settings) -> None:
    empty_home.home.write_text("a file", encoding="utf-8")
    with pytest.raises(ResourceError, match="point HEADWATER_HOME at a folder"):
        ensure_warehouse(empty_home)
    empty_home.home.unlink()


def test_the_passwords_are_readable_by_their_owner_only(server: TestServer) -> None:
    for name in ("secrets.json", "server.json", "bootstrapped.json", "lock"):
        assert stat.S_IMODE((server.settings.home / name).stat().st_mode) == 0o600


def test_nobody_enters_without_a_password(server: TestServer) -> None:
    rules = run(server.admin_url("postgres"), "select distinct type, auth_method from pg_hba_file_rules order by 1")
    assert {method for _, method in rules} == {"scram-sha-256"}
    assert run(server.admin_url("postgres"), "show listen_addresses") == [("127.0.0.1",)]


@pytest.mark.parametrize("is_tcp", [True, False])
@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused_on_both_ways_in(server: TestServer, is_tcp: bool, password: str) -> None:
    warehouse: Warehouse = server.warehouse
    right = warehouse.tcp_dsn("loader") if is_tcp else warehouse.loader_dsn
    with pytest.raises(psycopg.OperationalError, match=r"password authentication failed|no password supplied"):
        psycopg.connect(right.replace(warehouse.logins["loader"].password, password))


def test_the_passwords_never_show_in_a_repr(server: TestServer) -> None:
    shown = repr(server.warehouse) + repr(server.settings)
    assert not [login.user for login in server.warehouse.logins.values() if login.password in shown]
