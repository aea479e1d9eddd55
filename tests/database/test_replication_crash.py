"""Killed at each step and inside each step, cut off, restarted, overlapped: the next sync has the table as it is."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from connectors.contract import Message, ReadContext, StreamState
from connectors.errors import HeadwaterError, TransientError
from connectors.kinds.database import KIND
from connectors.sync import Progress
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.crash.conftest import matrix, work_folder
from tests.crash.victim import die, eventually
from tests.database.dropping_proxy import dropping_after
from tests.database.reading import source_spec
from tests.database.replicating import SLOT, STREAM, WRITES, Source, Stream, assert_whole, named, raw, run, saved, slots
from tests.support.servers import TestServer, running_server

__all__ = ["matrix", "work_folder"]
Note = Callable[[str, str], None]
_fork = multiprocessing.get_context("fork")
WAIT_SECONDS = 240
# every checkpoint of the read is a publication of its own
SEALED = {"window": {"rows": 1}}


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    filled(source)
    with named(source_url):
        yield source


def filled(source: Source) -> None:
    """400 rows in two parts."""
    source.execute("set synchronous_commit = on")
    source.execute("create table orders (id bigint primary key, amount numeric(12,2), note text)")
    source.execute("create publication shop for table orders")
    source.execute("insert into orders select g, g + 0.25, repeat(md5(g::text), 128) from generate_series(1, 400) g")


def changed(source: Source) -> None:
    """Transactions of which two are sealed by themselves; one has deletions, a key that changes and a large value
    that is left alone."""
    source.execute("insert into orders select g, 1 from generate_series(1001, 6000) g")
    with source.transaction():
        source.execute("update orders set amount = 2 where id > 1000")
        source.execute("delete from orders where id <= 50")
    with source.transaction():
        source.execute("update orders set id = 9101 where id = 101")
        source.execute("update orders set amount = -1 where id between 51 and 100")


def changed_again(source: Source) -> None:
    source.execute("insert into orders values (7001, 0, ''), (1, 1, 'back') on conflict (id) do update set amount = 9")
    source.execute("delete from orders where id in (60, 1500)")
    source.execute("update orders set note = 'new' where id in (61, 1501)")


def widened(source: Source) -> None:
    """Older rows get values that are not in the log."""
    changed(source)
    source.execute("alter table orders add column state text not null default 'open'")


@dataclass(frozen=True, slots=True)
class Cue:
    """When the process dies: at a change of step, at a line of the log, or before a message of the read."""

    step: int | None = None
    line: str | None = None
    message: int | None = None

    def __str__(self) -> str:
        return next(f"{n} {v}" for n in ("step", "line", "message") if (v := getattr(self, n)) is not None)


class Dying:
    """The connector itself; before its n-th message something happens."""

    def __init__(self, inner: Any, at: int, event: Callable[[], None]) -> None:
        self._inner, self._at, self._event = inner, at, event

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        for number, message in enumerate(self._inner.read(stream, state, context), 1):
            if number == self._at:
                self._event()
            yield message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *problem: Any) -> None:
        self._inner.__exit__(*problem)


def reading(stream: Stream, at: int, event: Callable[[], None]) -> Dying:
    return Dying(KIND.open(source_spec(stream, part_mb=1)), at, event)


def _run_until(warehouse: Warehouse, stream: Stream, cue: Cue) -> None:
    steps = 0

    def on_step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == cue.step:
            die()

    def on_log(line: str) -> None:
        if cue.line is not None and cue.line in line:
            die()

    progress = Progress(on_step=on_step, on_log=on_log)
    if cue.message is not None:
        run(warehouse, stream, reading(stream, cue.message, die), progress)
    else:
        run(warehouse, stream, progress=progress, part_mb=1)
    os._exit(0)


def killed(warehouse: Warehouse, stream: Stream, cue: Cue) -> bool:
    """Run a sync in a child until the cue; True when it died of it, False when it was done before."""
    child = _fork.Process(target=_run_until, args=(warehouse, stream, cue), daemon=True)
    child.start()
    child.join(WAIT_SECONDS)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == -signal.SIGKILL


STATES: dict[str, tuple[Callable[[Source], None] | None, tuple[Cue, ...]]] = {
    "joining": (
        None,
        (
            *(Cue(line=line) for line in ("begins at", "part 1", "part 2")),
            *(Cue(message=number) for number in range(1, 5)),
            *(Cue(step=number) for number in range(1, 8)),
        ),
    ),
    "following": (
        changed,
        (
            *(Cue(line=line) for line in ("reading from",)),
            *(Cue(message=number) for number in range(1, 7)),
            *(Cue(step=number) for number in range(1, 17)),
        ),
    ),
    "reading again": (
        widened,
        (*(Cue(line=line) for line in ("again", "part 2")), *(Cue(message=number) for number in (6, 8, 10, 11))),
    ),
}
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


def test_killed_once_the_slot_was_told_the_position_stays(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    changed(orders)
    told = "select 1 from pg_replication_slots where slot_name = %s and confirmed_flush_lsn = %s::pg_lsn"

    def die_behind_the_slot() -> None:
        eventually(os.environ["TEST_DATABASE_KIND_URL"], told, [SLOT, saved(warehouse)["lsn"]], WAIT_SECONDS)
        die()

    child = _fork.Process(target=lambda: run(warehouse, STREAM, reading(STREAM, 1, die_behind_the_slot)), daemon=True)
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
        with psycopg.connect(warehouse.admin_dsn) as admin:
            admin.execute("truncate raw_shop.orders")
            for table in ("stream_state", "quarantine", "syncs"):
                admin.execute(f"delete from ops.{table}".encode())
    else:
        changed(orders)
    before = raw(warehouse, "select id, amount from raw_shop.orders order by 1, 2")
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        blocker.execute("lock table raw_shop.orders in share mode")
        child = _fork.Process(target=lambda: run(warehouse, stream), daemon=True)
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
    with orders.transaction():
        for _ in range(20):
            orders.execute("insert into orders select max(id) + g, 0, repeat('y', 900) from orders, "
                           "generate_series(1, 1000) g group by g")  # fmt: skip
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
            with pytest.raises(TransientError):
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
