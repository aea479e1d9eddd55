"""Killed at each step and inside each step, cut off, restarted, overlapped: the next sync makes everything right."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from connectors.errors import HeadwaterError, LoaderError, ResourceError, TransientError
from connectors.sync import Progress, SyncRequest, replay
from connectors.sync.settle import settle_lost
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.crash.victim import (
    DISPOSITIONS,
    PATIENCE_SECONDS,
    Cue,
    Paged,
    die,
    eventually,
    killed,
    limit_file_size,
    started,
    step_changes,
    sync,
    verify,
    windows_published,
)
from tests.support import scripted
from tests.support.servers import TestServer

Note = Callable[[str, str], None]
ALL = list(DISPOSITIONS)
# start, extract, three windows of land / publish / audit and back, finalize
STEPS = range(1, 33)


def sampled(cases: list[Any], every: int = 36) -> list[Any]:
    """Every twelfth case by default; the others with `make test-all`."""
    slow = pytest.mark.slow
    return [case if index % every == 0 else pytest.param(*case, marks=slow) for index, case in enumerate(cases)]


TWO_WAYS = [pytest.param(name, marks=[] if name in ("append", "replace") else pytest.mark.slow) for name in ALL]
"""For what happens outside of the disposition's own SQL: into the table itself, and into one beside it."""


@pytest.mark.parametrize(("disposition", "step"), sampled([(d, step) for d in ALL for step in STEPS]))
def test_killed_at_a_step_change_the_rerun_is_right(
    warehouse: Warehouse, work_folder: Path, matrix: Note, disposition: str, step: int
) -> None:
    matrix(disposition, f"killed at step change {step}")
    died = killed(warehouse.loader_dsn, disposition, Cue(step=step))
    if step % 2:
        shutil.rmtree(work_folder, ignore_errors=True)  # odd cases lose the working folder, even ones keep it
    if died or step < 4:
        assert died, "the sync has fewer steps than the matrix asks for"
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)
    assert list(work_folder.iterdir()) == [], "a left-over folder"


@pytest.mark.parametrize("disposition", ALL)
def test_the_matrix_covers_every_step_change(warehouse: Warehouse, disposition: str) -> None:
    assert step_changes(warehouse.loader_dsn, disposition) <= max(STEPS)


@pytest.mark.parametrize(("disposition", "page"), sampled([(d, page) for d in ALL for page in (1, 2, 3)], every=4))
def test_killed_while_reading_the_sealed_pages_stay(
    warehouse: Warehouse, matrix: Note, disposition: str, page: int
) -> None:
    matrix(disposition, f"killed before page {page}")
    assert killed(warehouse.loader_dsn, disposition, Cue(page=page))
    if disposition != "replace" and page > 1:
        with psycopg.connect(warehouse.admin_dsn) as connection:
            assert connection.execute("select count(*) from raw_unit.things").fetchone() == ((page - 1) * 100,)
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


@pytest.mark.parametrize(("disposition", "after"), sampled([(d, 0.02 * tick) for d in ALL for tick in range(1, 25)]))
def test_killed_at_any_moment_the_rerun_is_right(
    warehouse: Warehouse, matrix: Note, disposition: str, after: float
) -> None:
    matrix(disposition, f"killed after {after:.2f} s")
    killed(warehouse.loader_dsn, disposition, Cue(after=after))
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


def _blocked_publication(warehouse: Warehouse, disposition: str) -> Any:
    """A child whose second publication waits for a lock of ours, in the middle of its transaction."""
    sync(warehouse.loader_dsn, disposition)
    blocker = psycopg.connect(warehouse.admin_dsn)
    blocker.execute("truncate raw_unit.things")
    blocker.execute("delete from ops.stream_state")
    blocker.execute("delete from ops.quarantine")
    blocker.execute("delete from ops.schema_versions where sync_id is not null")
    blocker.execute("delete from ops.syncs")
    blocker.commit()
    blocker.execute("lock table raw_unit.things in share mode")
    return blocker


@pytest.mark.parametrize("disposition", ALL)
def test_killed_inside_a_publication_nothing_of_it_is_visible(
    warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "killed inside a publication")
    with _blocked_publication(warehouse, disposition) as blocker:
        child = started(_sync_quietly, warehouse.loader_dsn, disposition)
        _wait_for_waiter(warehouse)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert blocker.execute("select count(*) from raw_unit.things").fetchone() == (0,)
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_cut_connection_inside_a_publication_fails_the_sync_and_loses_nothing(
    warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "connection cut inside a publication")
    failures: list[HeadwaterError] = []
    with _blocked_publication(warehouse, disposition):
        victim = threading.Thread(target=_sync_collecting, args=(warehouse.loader_dsn, disposition, failures))
        victim.start()
        _wait_for_waiter(warehouse)
        with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where wait_event_type = 'Lock' and application_name like 'headwater unit%' "
                "and datname = current_database()"
            )
        victim.join(PATIENCE_SECONDS)
    assert [type(failure) for failure in failures] == [LoaderError]
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_process_that_lost_its_stream_can_never_publish_late(
    warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "paused, overtaken, woken up")
    child = started(_sync_stopping_itself, warehouse.loader_dsn, disposition)
    eventually(warehouse.admin_dsn, "select 1 from ops.syncs where status = 'running' and windows = 0")
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
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_restarted_server_fails_the_sync_and_loses_nothing(
    server: TestServer, warehouse: Warehouse, matrix: Note, disposition: str
) -> None:
    matrix(disposition, "PostgreSQL restarted")

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
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


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
    refused: list[HeadwaterError] = []

    def overlap() -> None:
        _sync_collecting(warehouse.loader_dsn, disposition, refused)

    sync(warehouse.loader_dsn, disposition, Paged({2: overlap}))
    assert [type(error) for error in refused] == [TransientError]
    assert "another sync of this stream is running" in str(refused[0])
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


@pytest.mark.parametrize("disposition", TWO_WAYS)
def test_a_full_disk_is_a_resource_failure(warehouse: Warehouse, matrix: Note, disposition: str) -> None:
    matrix(disposition, "disk full")
    child = started(_sync_on_a_full_disk, warehouse.loader_dsn, disposition)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == ResourceError.exit_code
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse.loader_dsn, disposition, warehouse.admin_dsn)


REPLAYED: dict[str, Any] = {"write": "append", "columns": {"n": {"type": "bigint"}}, "max_quarantined": {"share": 1}}
REPLAY_STEPS = [pytest.param(step, marks=[] if step == 6 else pytest.mark.slow) for step in range(1, 9)]


@pytest.mark.parametrize("step", REPLAY_STEPS)
def test_a_replay_killed_at_a_step_change_loads_its_records_once(warehouse: Warehouse, matrix: Note, step: int) -> None:
    matrix("replay", f"killed at step change {step}")
    scripted.sync(warehouse.loader_dsn, [scripted.records({"n": 1}, {"n": "x"})], **REPLAYED)
    with psycopg.connect(warehouse.admin_dsn) as admin:
        # as if the contract had been mended
        admin.execute("update ops.quarantine set payload = '{\"n\": 2}'")
    child = started(_replay_until, warehouse.loader_dsn, step)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == -signal.SIGKILL
    declared = scripted.source(**REPLAYED)
    replay.replay(SyncRequest(declared, declared.streams[0], "replay"), warehouse.loader_dsn)
    with psycopg.connect(warehouse.admin_dsn) as admin:
        assert admin.execute("select n from raw_unit.things order by n").fetchall() == [(1,), (2,)]
        assert admin.execute("select status from ops.quarantine").fetchall() == [("replayed",)]
        assert admin.execute("select 1 from ops.syncs where status = 'running'").fetchall() == []


def _replay_until(dsn: str, step: int) -> None:
    steps = 0

    def on_step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            die()

    declared = scripted.source(**REPLAYED)
    replay.replay(SyncRequest(declared, declared.streams[0], "replay"), dsn, progress=Progress(on_step=on_step))


def test_a_killed_sync_is_settled_without_waiting_for_the_next(warehouse: Warehouse) -> None:
    assert killed(warehouse.loader_dsn, "append", Cue(page=2))
    eventually(
        warehouse.admin_dsn,
        "select 1 where not exists (select 1 from pg_stat_activity where application_name like 'headwater unit%')",
    )
    assert len(settle_lost(warehouse.loader_dsn, silent_for=timedelta(0))) == 1
    with psycopg.connect(warehouse.admin_dsn) as admin:
        assert admin.execute("select status, failure_class, rows_loaded, windows from ops.syncs").fetchone() == (
            "failed", "transient", 100, 1,
        )  # fmt: skip


def test_a_sync_killed_after_its_last_publication_counts_as_succeeded(warehouse: Warehouse) -> None:
    def die_when_done(step: str) -> None:
        if step == "finalize":
            os.kill(os.getpid(), signal.SIGKILL)

    child = started(_sync_with, warehouse.loader_dsn, "append", die_when_done)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == -signal.SIGKILL
    sync(warehouse.loader_dsn, "append")
    with psycopg.connect(warehouse.admin_dsn) as admin:
        first = admin.execute("select status, rows_loaded from ops.syncs order by started_at limit 1").fetchone()
    assert first == ("succeeded", 300)


def _sync_quietly(dsn: str, disposition: str) -> None:
    sync(dsn, disposition)


def _sync_with(dsn: str, disposition: str, on_step: Callable[[str], None]) -> None:
    sync(dsn, disposition, progress=Progress(on_step=on_step))


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


def _wait_for_waiter(warehouse: Warehouse) -> None:
    eventually(
        warehouse.admin_dsn,
        "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'headwater unit%' "
        "and datname = current_database()",
    )


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the child never stopped itself"
        time.sleep(0.02)
