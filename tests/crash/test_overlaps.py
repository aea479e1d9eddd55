"""Cut off, overtaken, restarted, overlapped, out of room: the sync says so, and the next one makes everything right."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import psutil
import psycopg
import pytest

from connectors.errors import HeadwaterError, LoaderError, ResourceError, TransientError
from connectors.sync.settle import settle_lost
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.crash.history import DISPOSITIONS, verify
from tests.crash.victim import (
    NEXT,
    PATIENCE_SECONDS,
    Paged,
    eventually,
    held,
    killed,
    limit_file_size,
    started,
    sync,
    sync_earlier,
    wait_until_gone,
    wait_until_held,
    windows_published,
)
from tests.support.servers import TestServer

Note = Callable[..., None]
TWO_WAYS = [
    pytest.param(name, marks=[] if name in ("append", "replace") else pytest.mark.slow) for name in DISPOSITIONS
]
"""For what happens outside of the disposition's own SQL: into the table itself, and into one beside it."""


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_cut_connection_inside_a_publication_fails_the_sync_and_loses_nothing(
    warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "connection cut inside a publication")
    sync_earlier(warehouse.loader_dsn, disposition)
    failures: list[HeadwaterError] = []
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        blocker.execute("lock table raw_unit.things in share mode")
        victim = threading.Thread(target=_sync_collecting, args=(warehouse.loader_dsn, disposition, failures))
        victim.start()
        wait_until_held(warehouse.admin_dsn)
        with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and application_name like 'headwater unit%' "
                "and datname = current_database()"
            )
        victim.join(PATIENCE_SECONDS)
    assert [type(failure) for failure in failures] == [LoaderError]
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse, disposition)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_process_that_lost_its_stream_can_never_publish_late(
    warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "paused, overtaken, woken up")
    sync_earlier(warehouse.loader_dsn, disposition)
    child = started(_sync_stopping_itself, warehouse.loader_dsn, disposition)
    eventually(warehouse.admin_dsn, "select 1 from ops.syncs where status = 'running'")
    _wait_until_stopped(child.pid)
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
        # the server gives up on the silent process, as it would behind a dead network
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name like 'headwater unit%' and datname = current_database()"
        )
    eventually(
        warehouse.admin_dsn,
        "select 1 where not exists (select 1 from pg_locks where locktype = 'advisory' "
        "and database = (select oid from pg_database where datname = current_database()))",
    )
    sync(warehouse.loader_dsn, disposition)
    os.kill(child.pid, signal.SIGCONT)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == 3, "the overtaken process must end with an error"
    verify(warehouse, disposition)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_restarted_server_fails_the_sync_and_loses_nothing(
    server: TestServer, warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "PostgreSQL restarted")
    sync_earlier(warehouse.loader_dsn, disposition)
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
        # the tests' server does not flush at every commit; here a lost commit would be the test's own
        admin.execute("alter role headwater_loader set synchronous_commit = on")
        admin.execute("checkpoint")
    layout = layout_of(server.settings.home)

    def restart() -> None:
        command = [str(layout.bin_dir / "pg_ctl"), "-D", str(layout.data_dir), "-m", "immediate", "-w", "restart"]
        owner = layout.owner.uid if layout.owner.is_other else None
        subprocess.run(command, check=True, user=owner, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    with pytest.raises(LoaderError):
        sync(warehouse.loader_dsn, disposition, Paged({3: restart}))
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse, disposition)


def test_an_epoch_that_moved_on_refuses_the_publication(warehouse: Warehouse) -> None:
    def overtake() -> None:
        windows_published(warehouse.admin_dsn, 1)
        with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
            admin.execute("update ops.leases set epoch = epoch + 1")

    with pytest.raises(LoaderError, match="a later sync took the stream over"):
        sync(warehouse.loader_dsn, "append", Paged({2: overtake}))
    with psycopg.connect(warehouse.admin_dsn) as admin:
        assert admin.execute("select count(*) from raw_unit.things").fetchone() == (100,)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_second_sync_is_refused_at_once(warehouse: Warehouse, matrix: Note, disposition: str) -> None:
    matrix(disposition, "two syncs at once")
    sync_earlier(warehouse.loader_dsn, disposition)
    refused: list[HeadwaterError] = []

    def overlap() -> None:
        _sync_collecting(warehouse.loader_dsn, disposition, refused)

    sync(warehouse.loader_dsn, disposition, Paged({2: overlap}))
    assert [type(error) for error in refused] == [TransientError]
    assert "another sync of this stream is running" in str(refused[0])
    verify(warehouse, disposition)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_full_disk_is_a_resource_failure(warehouse: Warehouse, matrix: Note, disposition: str) -> None:
    matrix(disposition, "disk full")
    sync_earlier(warehouse.loader_dsn, disposition)
    child = started(_sync_on_a_full_disk, warehouse.loader_dsn, disposition)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == ResourceError.exit_code
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse, disposition)


def test_a_killed_sync_is_settled_without_waiting_for_the_next(warehouse: Warehouse) -> None:
    assert killed(warehouse.loader_dsn, "append", ("page", 2))
    wait_until_gone(warehouse.admin_dsn)
    assert len(settle_lost(warehouse.loader_dsn, silent_for=timedelta(0))) == 1
    with psycopg.connect(warehouse.admin_dsn) as admin:
        assert admin.execute("select status, failure_class, rows_loaded, windows from ops.syncs").fetchone() == (
            "failed", "transient", 100, 1,
        )  # fmt: skip


def test_a_sync_killed_after_its_last_publication_counts_as_succeeded(warehouse: Warehouse) -> None:
    assert killed(warehouse.loader_dsn, "append", ("finalize", 1))
    sync(warehouse.loader_dsn, "append")
    with psycopg.connect(warehouse.admin_dsn) as admin:
        first = admin.execute("select status, rows_loaded from ops.syncs order by started_at limit 1").fetchone()
    assert first == ("succeeded_with_warnings", 299)


@pytest.mark.slow
def test_a_sync_killed_while_it_closes_its_row_counts_in_the_usage(warehouse: Warehouse) -> None:
    dsn = warehouse.loader_dsn
    with psycopg.connect(warehouse.admin_dsn) as blocker, held(dsn, "append", ("finalize", NEXT)) as child:
        child.wait_for(("finalize", NEXT))
        blocker.execute("lock table ops.syncs in share mode")
        child.go()
        wait_until_held(warehouse.admin_dsn, "%update ops.syncs%finished_at%")
        child.kill()
    wait_until_gone(warehouse.admin_dsn)
    sync(dsn, "append")
    with psycopg.connect(warehouse.admin_dsn) as admin:
        ledger = admin.execute("select count(*), sum(rows_loaded) from ops.syncs").fetchone()
        assert admin.execute("select sum(syncs), sum(rows_loaded) from ops.usage").fetchone() == ledger


def _sync_collecting(dsn: str, disposition: str, failures: list[HeadwaterError]) -> None:
    try:
        sync(dsn, disposition)
    except HeadwaterError as error:
        failures.append(error)


def _sync_stopping_itself(dsn: str, disposition: str) -> None:
    try:
        sync(dsn, disposition, Paged({2: lambda: os.kill(os.getpid(), signal.SIGSTOP)}))
    except HeadwaterError:
        os._exit(3)
    os._exit(0)


def _sync_on_a_full_disk(dsn: str, disposition: str) -> None:
    limit_file_size(512)
    try:
        sync(dsn, disposition)
    except HeadwaterError as error:
        os._exit(error.exit_code)
    os._exit(0)


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the child never stopped itself"
        time.sleep(0.02)
