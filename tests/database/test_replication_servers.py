"""Servers that cannot give the log, or not any more: each says what is wrong and what to do, and keeps no slot."""

import subprocess
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg import sql

from connectors.contract import Checkpoint, CopyFile, Message, ReadContext, StreamState
from connectors.database.pg_wal import Changes, lsn
from connectors.errors import AuthError, Cancelled, ConfigError, HeadwaterError, LoaderError, TransientError
from connectors.kinds.database import KIND
from connectors.sync import Progress
from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.crash.victim import eventually
from tests.database.reading import source_spec
from tests.database.replicating import (
    SLOT,
    STREAM,
    Source,
    assert_equal,
    assert_whole,
    forgotten,
    named,
    run,
    slots,
)
from tests.database.replication_victim import changed, changed_again, filled, widened
from tests.support.servers import SYSTEM_SERVERS, TestServer, running_server, short_folder, system_server

TIMEOUT = 240.0


@pytest.fixture
def orders(source: Source, source_url: str) -> Iterator[Source]:
    filled(source)
    with named(source_url):
        yield source


def read(folder: Path, state: StreamState | None = None, stream: dict[str, object] = STREAM) -> list[Message]:
    """One read by the connector alone."""
    spec = source_spec(stream)
    with KIND.open(spec) as connector:
        return list(connector.read(spec.streams[0], state or StreamState(), ReadContext(None, folder)))


def position(messages: list[Message]) -> StreamState:
    found = [message for message in messages if isinstance(message, Checkpoint)][-1]
    return StreamState(connector=found.connector or {})


@contextmanager
def role(orders: Source, server: TestServer, words: str) -> Generator[None]:
    """The source is read by a role of these words that may read the table."""
    orders.execute(f"create role weak login password 'weak' {words}".encode())
    try:
        orders.execute("grant select on orders to weak")
        address = server.warehouse.address
        with named(f"postgresql://weak:weak@{address.host}:{address.port}/{orders.info.dbname}"):
            yield
    finally:
        orders.execute("drop owned by weak")
        orders.execute("drop role weak")


def test_a_role_that_may_not_replicate_is_told_the_statement(
    orders: Source, server: TestServer, tmp_path: Path
) -> None:
    with (
        role(orders, server, ""),
        pytest.raises(AuthError, match=r"(?i)wal ?sender.*\n.*alter role .* replication"),
    ):
        read(tmp_path)


def test_rows_that_security_hides_are_not_taken_for_all(orders: Source, server: TestServer, tmp_path: Path) -> None:
    orders.execute("alter table orders enable row level security")

    with role(orders, server, "replication"):
        with pytest.raises(ConfigError, match="row security hides rows"):
            read(tmp_path)
        assert slots(orders) == []
        orders.execute("alter role weak bypassrls")
        # and no more than that is needed
        state = position(read(tmp_path))
        changed(orders)
        assert sum(message.rows for message in read(tmp_path, state) if isinstance(message, CopyFile)) == 10_102


def test_a_server_without_a_free_slot_says_so(orders: Source, server: TestServer, tmp_path: Path) -> None:
    most = int(orders.execute("show max_replication_slots").fetchall()[0][0])
    taken = [f"taken_{number}" for number in range(most)]
    taken = taken[: most - len(orders.execute("select 1 from pg_replication_slots").fetchall())]
    for name in taken:
        orders.execute("select pg_create_physical_replication_slot(%s)", [name])
    try:
        with pytest.raises(
            ConfigError, match=r"all replication slots.*\n.*max_replication_slots.*headwater slots shop"
        ):
            read(tmp_path)
    finally:
        for name in taken:
            orders.execute("select pg_drop_replication_slot(%s)", [name])


def test_a_slot_of_that_name_in_another_database_is_left_alone(
    orders: Source, server: TestServer, warehouse: Warehouse, tmp_path: Path
) -> None:
    with psycopg.connect(server.admin_url(warehouse.database), autocommit=True) as elsewhere:
        elsewhere.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [SLOT])

        with pytest.raises(ConfigError, match=r"another database of the same server\n.*replication: {slot"):
            read(tmp_path)

        assert slots(elsewhere) == [SLOT]


def test_a_server_without_a_free_sender_is_tried_again(orders: Source, source_url: str, tmp_path: Path) -> None:
    most = int(orders.execute("show max_wal_senders").fetchall()[0][0])
    with ExitStack() as open_sessions:
        for _ in range(most):
            session = psycopg.connect(source_url, autocommit=True, replication="database")
            open_sessions.callback(session.close)
        with pytest.raises(TransientError, match=r"max_wal_senders.*\n.*Raise max_wal_senders"):
            read(tmp_path)


def test_a_position_of_another_server_is_refused(orders: Source, tmp_path: Path) -> None:
    state = position(read(tmp_path))
    replication = state.connector["replication"]
    other = StreamState(connector={"replication": {**replication, "system": "7000000000000000000"}})

    with pytest.raises(ConfigError, match=r"position is one of another server\n.*headwater state reset shop.orders"):
        read(tmp_path, other)


def test_a_slot_that_falls_behind_is_a_warning_and_a_lost_one_an_error(
    orders: Source, server: TestServer, warehouse: Warehouse
) -> None:
    run(warehouse)
    server.execute(sql.SQL("alter system set max_slot_wal_keep_size = '1MB'"))
    server.execute(sql.SQL("select pg_reload_conf()"))
    status = "select 1 from pg_replication_slots where slot_name = %s and wal_status = %s"
    try:
        eventually(
            warehouse.admin_dsn, "select 1 where current_setting('max_slot_wal_keep_size') = '1MB'", None, TIMEOUT
        )
        for _ in range(4):
            orders.execute("insert into orders select max(id) + 1 from orders")
            orders.execute("select pg_switch_wal()")
        eventually(warehouse.admin_dsn, status, [SLOT, "unreserved"], TIMEOUT)

        behind = run(warehouse)

        assert (behind.status, behind.rows.loaded) == ("succeeded_with_warnings", 4)
        verdict = next(verdict for verdict in behind.verdicts if verdict.name == "replication_slot")
        assert "beyond max_slot_wal_keep_size" in verdict.explanation
        assert behind.measures["slot_held_bytes"] > 4 << 20
        assert_whole(orders, warehouse)

        _lose(orders)
        eventually(warehouse.admin_dsn, status, [SLOT, "lost"], TIMEOUT)
        with pytest.raises(
            ConfigError, match=r"has lost changes.*\n.*state reset shop.orders.*\n.*max_slot_wal_keep_size"
        ):
            run(warehouse)
    finally:
        server.execute(sql.SQL("alter system reset max_slot_wal_keep_size"))
        server.execute(sql.SQL("select pg_reload_conf()"))
    forgotten(warehouse)
    run(warehouse)
    assert_whole(orders, warehouse)


def _lose(orders: Source) -> None:
    """More log than the slot may keep, then what removes it."""
    for _ in range(4):
        orders.execute("delete from orders where id = (select max(id) from orders)")
        orders.execute("select pg_switch_wal()")
    orders.execute("checkpoint")


def test_a_source_that_was_restored_from_an_older_copy_is_refused(orders: Source, tmp_path: Path) -> None:
    """From there on the log of the copy would be skipped up to the saved position."""
    replication = position(read(tmp_path)).connector["replication"]
    ahead = StreamState(connector={"replication": {**replication, "lsn": "FFFFFF/0"}})

    with pytest.raises(ConfigError, match=r"before the saved FFFFFF/0: an older copy of it runs\n.*state reset"):
        read(tmp_path, ahead)


def test_a_slot_that_has_to_wait_for_a_transaction_can_be_given_up(
    orders: Source, source_url: str, warehouse: Warehouse
) -> None:
    cancelled, asked = threading.Event(), threading.Event()

    def on_log(line: str) -> None:
        if "waits for transactions" in line:
            asked.set()

    def give_up() -> None:
        asked.wait(TIMEOUT)
        waiting = "select 1 from pg_stat_activity where query like 'CREATE_REPLICATION_SLOT%%' and state = 'active'"
        eventually(source_url, waiting, None, TIMEOUT)
        cancelled.set()

    with psycopg.connect(source_url) as writer:
        writer.execute("insert into orders values (999)")
        thread = threading.Thread(target=give_up)
        thread.start()
        with pytest.raises(Cancelled):
            run(warehouse, progress=Progress(on_log=on_log, cancelled=cancelled))
        thread.join(TIMEOUT)
        writer.rollback()
    assert slots(orders) == []


@pytest.mark.slow
def test_a_reader_that_asks_how_far_the_server_is_tells_it_nothing(
    orders: Source, source_url: str, tmp_path: Path
) -> None:
    saved = lsn(position(read(tmp_path)).connector["replication"]["lsn"])
    changed(orders)
    cancelled = threading.Event()
    with closing(psycopg.connect(source_url, autocommit=True, replication="database")) as session:
        changes = Changes(session, cancelled)
        changes.start(SLOT, "shop", saved)
        reader = threading.Thread(target=lambda: list(changes.messages(1 << 62)))
        reader.start()
        try:
            for _ in range(3):
                now = orders.execute("select clock_timestamp()::text").fetchall()[0][0]
                eventually(source_url, "select 1 from pg_stat_replication where reply_time > %s", [now], TIMEOUT)
            reached = changes.reached
            confirmed = orders.execute("select confirmed_flush_lsn::text from pg_replication_slots").fetchall()
        finally:
            cancelled.set()
            reader.join(TIMEOUT)
    eventually(source_url, "select 1 from pg_replication_slots where slot_name = %s and not active", [SLOT], TIMEOUT)

    assert reached > saved
    assert [lsn(text) for (text,) in confirmed] == [saved]


@pytest.mark.slow
def test_a_first_sync_that_lost_the_warehouse_leaves_its_slot_to_the_next(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    forgotten(warehouse)
    waiting = (
        "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock' "
        "and datname = current_database() and application_name like 'headwater shop%%'"
    )
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        blocker.execute("lock table raw_shop.orders in share mode")
        cutter = threading.Thread(target=eventually, args=(warehouse.admin_dsn, waiting, None, TIMEOUT))
        cutter.start()
        with pytest.raises(LoaderError):
            run(warehouse)
        cutter.join(TIMEOUT)
    assert slots(orders) == [SLOT]

    run(warehouse)
    changed(orders)
    run(warehouse)

    assert_whole(orders, warehouse)


@pytest.mark.slow
def test_a_quiet_table_beside_a_busy_one_holds_up_no_log(orders: Source, warehouse: Warehouse) -> None:
    run(warehouse)
    orders.execute("create table busy as select repeat('x', 1000) as v from generate_series(1, 20000)")
    held: list[int] = []
    for _ in range(4):
        orders.execute("update busy set v = v")
        # decoding may begin where the server says which transactions run
        orders.execute("checkpoint")
        held.append(run(warehouse).measures["slot_held_bytes"])

    # each sync frees what the one before has read
    assert held[-1] < 2 * held[1]


def restarted(server: TestServer, **options: str) -> None:
    for name, value in options.items():
        server.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    layout = layout_of(server.settings.home)
    owner = layout.owner.uid if layout.owner.is_other else None
    command = [str(layout.bin_dir / "pg_ctl"), "-D", str(layout.data_dir), "-m", "fast", "-w", "restart"]
    subprocess.run(command, check=True, user=owner, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_server_that_keeps_too_little_in_its_log_is_told_how_and_another_server_is_noticed(
    warehouse: Warehouse, orders: Source
) -> None:
    run(warehouse)
    with running_server() as other:
        url = other.admin_url("postgres")
        restarted(other, wal_level="replica")
        with named(url):
            with psycopg.connect(url, autocommit=True) as source:
                filled(source)
            with pytest.raises(
                ConfigError, match=r"wal_level of the source is replica.*\n.*alter system set wal_level"
            ):
                run(warehouse)
            restarted(other, wal_level="logical")
            # the same name now leads to another server
            with pytest.raises(ConfigError, match="the saved position is one of another server"):
                run(warehouse)
            forgotten(warehouse)
            with psycopg.connect(url, autocommit=True) as source:
                source.execute("delete from orders where id > 10")
                run(warehouse)
                assert_whole(source, warehouse)


@pytest.mark.slow
@pytest.mark.parametrize("programs", SYSTEM_SERVERS, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("change", [changed, widened])
def test_older_servers_are_read_too(warehouse: Warehouse, programs: Path, change: Callable[[Source], None]) -> None:
    with short_folder() as folder, system_server(programs, folder) as url:
        host = parse_qs(urlsplit(url).query)["host"][0]
        admin = f"postgresql://postgres@/postgres?host={host}"
        with psycopg.connect(admin, autocommit=True) as source:
            source.execute("alter system set wal_level = 'logical'")
        command = [str(programs / "pg_ctl"), "-D", f"{host}/data", "-m", "fast", "-w", "restart"]
        subprocess.run(
            command, check=True, user="postgres", cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        with named(admin), psycopg.connect(admin, autocommit=True) as source:
            with pytest.raises(HeadwaterError, match="no table 'orders'"):
                run(warehouse)
            filled(source)
            run(warehouse)
            change(source)
            run(warehouse)
            assert_equal(source, warehouse)
            source.execute("truncate orders")
            changed_again(source) if change is changed else None
            run(warehouse)
            assert_equal(source, warehouse)
