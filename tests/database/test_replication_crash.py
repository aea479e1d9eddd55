"""Killed at each step and inside each step, cut off, restarted, overlapped: the next sync has the table as it is."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from connectors.contract import ReadContext, StreamState
from connectors.errors import HeadwaterError, TransientError
from connectors.kinds.database import KIND
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.crash.conftest import matrix, work_folder
from tests.crash.victim import die, eventually
from tests.database.dropping_proxy import dropping_after
from tests.database.reading import source_spec
from tests.database.replicating import (
    SLOT,
    STREAM,
    WRITES,
    Source,
    assert_whole,
    forgotten,
    named,
    raw,
    run,
    saved,
    slots,
)
from tests.database.replication_victim import (
    STATES,
    WAIT_SECONDS,
    Cue,
    changed,
    changed_again,
    filled,
    fork,
    killed,
    reading,
)
from tests.support.servers import TestServer, running_server

__all__ = ["matrix", "work_folder"]
Note = Callable[[str, str], None]
# every checkpoint of the read is a publication of its own
SEALED = {"window": {"rows": 1}}


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    filled(source)
    with named(source_url):
        yield source


CASES = [
    (write, state, cue)
    for state, (_, cues) in STATES.items()
    for cue in cues
    for write in WRITES
    if write in ("merge", "scd2") or cue.message is not None
]
SAMPLE = [
    ("merge", "joining", Cue(message=3)),
    ("scd2", "following", Cue(message=4)),
    ("merge", "reading again", Cue(message=10)),
]


@pytest.mark.parametrize(
    ("write", "state", "cue"),
    [case if case in SAMPLE else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
    ids=str,
)
def test_killed_anywhere_the_next_sync_has_the_table_as_it_is(
    orders: Source, warehouse: Warehouse, work_folder: Path, matrix: Note, write: str, state: str, cue: Cue
) -> None:
    matrix(f"log, {write}", f"killed {state}, {cue}")
    stream = WRITES[write] | SEALED
    change = STATES[state][0]
    if change is not None:
        run(warehouse, stream)
        change(orders)

    died = killed(warehouse, stream, cue)

    assert died or cue.step is not None, "the sync never came to the cue"
    if CASES.index((write, state, cue)) % 2:
        shutil.rmtree(work_folder, ignore_errors=True)
    changed_again(orders)
    run(warehouse, stream, part_mb=1)
    assert_whole(orders, warehouse, write)
    assert list(work_folder.iterdir()) == [], "a left-over folder"
    after = run(warehouse, stream)
    assert (after.status, after.rows.extracted) == ("succeeded_empty", 0)
    assert_whole(orders, warehouse, write)


@pytest.mark.slow
def test_killed_once_the_slot_was_told_the_position_stays(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    changed(orders)
    told = "select 1 from pg_replication_slots where slot_name = %s and confirmed_flush_lsn = %s::pg_lsn"

    def die_behind_the_slot() -> None:
        eventually(os.environ["TEST_DATABASE_KIND_URL"], told, [SLOT, saved(warehouse)["lsn"]], WAIT_SECONDS)
        die()

    child = fork.Process(target=lambda: run(warehouse, STREAM, reading(STREAM, 1, die_behind_the_slot)), daemon=True)
    child.start()
    child.join(WAIT_SECONDS)

    assert child.exitcode == -signal.SIGKILL
    changed_again(orders)
    run(warehouse)
    assert_whole(orders, warehouse)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("state", ["joining", "following"])
def test_killed_inside_a_publication_nothing_of_it_shows(
    orders: Source, warehouse: Warehouse, matrix: Note, write: str, state: str
) -> None:
    matrix(f"log, {write}", f"killed inside a publication, {state}")
    stream = WRITES[write] | SEALED
    run(warehouse, stream)
    if state == "joining":
        forgotten(warehouse)
    changed(orders)
    before = raw(warehouse, "select id, amount from raw_shop.orders order by 1, 2")
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        blocker.execute("lock table raw_shop.orders in share mode")
        child = fork.Process(target=lambda: run(warehouse, stream), daemon=True)
        child.start()
        eventually(
            warehouse.admin_dsn,
            "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database() "
            "and application_name like 'headwater shop%'",
            seconds=WAIT_SECONDS,
        )
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert raw(warehouse, "select id, amount from raw_shop.orders order by 1, 2") == before

    changed_again(orders)
    run(warehouse, stream)

    assert_whole(orders, warehouse, write)


CUT = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and application_name = 'headwater' and {}
"""
SESSIONS = {
    "log": "backend_type = 'walsender'",
    "table": "backend_type = 'client backend' and query ~* '^copy'",
    "catalog": "backend_type = 'client backend' and query !~* '^copy'",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "session", "at"),
    [
        ("joining", "log", 2),
        ("joining", "table", 2),
        ("joining", "catalog", 2),
        ("following", "log", 2),
        ("following", "catalog", 2),
        ("reading again", "log", 9),
        ("reading again", "table", 9),
    ],
)
def test_a_session_that_is_cut_loses_nothing(
    orders: Source, warehouse: Warehouse, matrix: Note, state: str, session: str, at: int
) -> None:
    matrix("log, merge", f"{session} session cut, {state}")
    stream = STREAM | SEALED
    change = STATES[state][0]
    if change is not None:
        run(warehouse, stream)
        change(orders)
    failures: list[HeadwaterError] = []

    def cut() -> None:
        orders.execute(CUT.format(SESSIONS[session]).encode())

    try:
        run(warehouse, stream, reading(stream, at, cut))
    except TransientError as error:
        failures.append(error)
        if state == "joining":
            assert slots(orders) == []
    changed_again(orders)
    run(warehouse, stream)

    assert_whole(orders, warehouse)
    assert failures or session != "log" or state != "following"


@pytest.mark.slow
def test_a_network_that_ends_inside_a_transaction_loses_nothing(
    orders: Source, warehouse: Warehouse, server: TestServer, matrix: Note
) -> None:
    matrix("log, merge", "network cut inside a transaction")
    run(warehouse)
    orders.execute("insert into orders select g, 0, repeat('y', 900) from generate_series(1001, 20000) g")
    address, admin = server.warehouse.address, server.warehouse.logins["admin"]
    for size in (50_000, 5_000_000, 15_000_000):
        # the session for SQL comes first, so it is the session for the log that goes around the proxy or through it
        with dropping_after((address.host, address.port), size) as port:
            through = (
                f"postgresql://{admin.user}:{admin.password}@127.0.0.1:{port}/{orders.info.dbname}?sslmode=disable"
            )
            with named(through), pytest.raises(TransientError):
                run(warehouse)
    run(warehouse)

    assert_whole(orders, warehouse)


@pytest.mark.slow
def test_a_second_sync_at_once_is_refused(orders: Source, warehouse: Warehouse, matrix: Note) -> None:
    matrix("log, merge", "two syncs at once")
    run(warehouse)
    changed(orders)
    refused: list[HeadwaterError] = []

    def overlap() -> None:
        try:
            run(warehouse)
        except HeadwaterError as error:
            refused.append(error)

    run(warehouse, STREAM | SEALED, reading(STREAM, 2, overlap))

    assert [type(error) for error in refused] == [TransientError]
    assert_whole(orders, warehouse)


@pytest.mark.slow
def test_a_second_installation_on_one_slot_waits_for_the_first(
    orders: Source, warehouse: Warehouse, tmp_path: Path, matrix: Note
) -> None:
    matrix("log, merge", "two installations on one slot at once")
    run(warehouse)
    changed(orders)
    state = StreamState(connector={"replication": saved(warehouse)})
    spec = source_spec(STREAM)
    refused: list[HeadwaterError] = []

    def overlap() -> None:
        try:
            list(KIND.open(spec).read(spec.streams[0], state, ReadContext(None, tmp_path)))
        except HeadwaterError as error:
            refused.append(error)

    run(warehouse, STREAM | SEALED, reading(STREAM, 2, overlap))

    assert [type(error) for error in refused] == [TransientError]
    assert "is active for PID" in str(refused[0])
    assert_whole(orders, warehouse)


@pytest.mark.slow
@pytest.mark.parametrize(("state", "at"), [("joining", 2), ("following", 2), ("following", 4), ("reading again", 9)])
def test_a_source_that_restarts_loses_nothing(warehouse: Warehouse, matrix: Note, state: str, at: int) -> None:
    matrix("log, merge", f"source restarted, {state}, message {at}")
    with running_server() as server:
        layout = layout_of(server.settings.home)
        owner = layout.owner.uid if layout.owner.is_other else None

        def restart() -> None:
            command = [str(layout.bin_dir / "pg_ctl"), "-D", str(layout.data_dir), "-m", "immediate", "-w", "restart"]
            subprocess.run(
                command, check=True, user=owner, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )

        url = server.admin_url("postgres")
        stream = STREAM | SEALED
        with named(url):
            with psycopg.connect(url, autocommit=True) as source:
                filled(source)
                change = STATES[state][0]
                if change is not None:
                    run(warehouse, stream)
                    change(source)
            # what has come before the restart may have been all
            with suppress(TransientError):
                run(warehouse, stream, reading(stream, at, restart))
            with psycopg.connect(url, autocommit=True) as source:
                source.execute("set synchronous_commit = on")
                changed_again(source)
                run(warehouse, stream)
                assert_whole(source, warehouse)


@pytest.mark.slow
def test_writers_that_never_stop_are_read_without_gap_or_double(
    orders: Source, source_url: str, warehouse: Warehouse, matrix: Note
) -> None:
    """Four sessions with interleaved transactions, some rolled back, while five syncs follow."""
    matrix("log, merge", "interleaved transactions while syncing")
    finished = threading.Event()
    failures: list[BaseException] = []

    def write(number: int) -> None:
        low = 10_000 * (number + 1)
        try:
            with psycopg.connect(source_url) as session:
                session.execute("set synchronous_commit = on")
                turn = 0
                while not finished.is_set() and turn < 400:
                    turn += 1
                    key = low + turn
                    session.execute("insert into orders values (%s, %s, 'a')", [key, turn])
                    session.execute("update orders set amount = -amount where id = %s", [key - 1])
                    session.execute("delete from orders where id = %s", [key - 5])
                    session.execute("update orders set note = note || 'b' where id = %s", [key - 2])
                    session.rollback() if turn % 7 == 0 else session.commit()
                    time.sleep(0.001)
        except BaseException as error:  # noqa: BLE001 shown by the test
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for _ in range(5):
        run(warehouse)
    finished.set()
    for writer in writers:
        writer.join(WAIT_SECONDS)
    assert failures == []

    run(warehouse)

    assert_whole(orders, warehouse)
    after = run(warehouse)
    assert after.rows.extracted == 0
