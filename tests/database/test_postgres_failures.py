"""What a PostgreSQL source can do wrong, each as its own class of error with a next step."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from connectors.contract import Checkpoint, CopyFile, Message, StreamState
from connectors.errors import (
    AuthError,
    Cancelled,
    ConfigError,
    HeadwaterError,
    ResourceError,
    SourceError,
    TransientError,
)
from tests.database.dropping_proxy import dropping_after
from tests.database.reading import Reader, column_of
from tests.support.servers import TestServer

Source = psycopg.Connection[Any]
ReaderOf = Callable[[str], Reader]
SLOW = "pg_sleep(60) is not null"


def with_options(url: str, **options: Any) -> str:
    """The URL over TCP, its options changed."""
    now = {key: str(value) for key, value in (conninfo.conninfo_to_dict(url) | options).items()}
    return f"postgresql://{now['user']}:{now['password']}@{now['host']}:{now['port']}/{now['dbname']}"


def failure(reader: Reader, stream: dict[str, Any] | None = None) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as caught:
        reader.read(stream)
    assert len(str(caught.value).splitlines()) <= 6
    assert str(conninfo.conninfo_to_dict(reader.url).get("password") or "no password") not in str(caught.value)
    return caught.value


@pytest.fixture
def orders(source: Source) -> Source:
    source.execute("create table orders as select g as id, repeat('x', 9000) as note from generate_series(1, 2000) g")
    source.execute("alter table orders add primary key (id)")
    return source


def test_a_wrong_password_is_auth(orders: Source, source_url: str, reader_of: ReaderOf) -> None:
    error = failure(reader_of(with_options(source_url, host="127.0.0.1", password="not-the-password")))

    assert isinstance(error, AuthError)
    assert "password authentication failed" in error.what


def test_a_table_that_the_role_may_not_read_is_auth(orders: Source, source_url: str, reader_of: ReaderOf) -> None:
    orders.execute("drop role if exists nobody_here")
    orders.execute("create role nobody_here login password 'pass-of-nobody'")
    try:
        url = with_options(source_url, host="127.0.0.1", user="nobody_here", password="pass-of-nobody")
        error = failure(reader_of(url))
    finally:
        orders.execute("drop role nobody_here")

    assert isinstance(error, AuthError)
    assert "permission denied for table orders" in error.what
    assert "Grant the role select" in error.hint


def test_a_refused_connection_is_transient(source_url: str, reader_of: ReaderOf) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    error = failure(reader_of(with_options(source_url, host="127.0.0.1", port=port)))

    assert isinstance(error, TransientError)
    assert f"cannot connect to 127.0.0.1:{port}/" in error.what


def test_a_missing_database_is_config(source_url: str, reader_of: ReaderOf) -> None:
    error = failure(reader_of(with_options(source_url, host="127.0.0.1", dbname="nowhere")))

    assert isinstance(error, ConfigError)
    assert 'database "nowhere" does not exist' in error.what


def test_a_url_that_is_none_is_config_and_not_echoed(reader_of: ReaderOf) -> None:
    with pytest.raises(ConfigError, match="not a PostgreSQL URL") as caught:
        reader_of("postgresql://user:s3cret@host:5432/x?nonsense=s3cret").read()

    assert "s3cret" not in str(caught.value)


def test_a_missing_table_names_the_nearest_one(orders: Source, reader: Reader) -> None:
    error = failure(reader, {"table": "order"})

    assert isinstance(error, ConfigError)
    assert (error.what, error.hint) == ("no table 'order' in schema 'public'", "Did you mean 'orders'?")


def test_a_table_of_another_schema_is_pointed_to(orders: Source, reader: Reader) -> None:
    orders.execute("create schema sales")
    orders.execute("create table sales.refunds (id int)")

    assert failure(reader, {"table": "refunds"}).hint == "There is one in schema 'sales': set schema: sales."


@pytest.mark.parametrize(
    "stream",
    [
        {"select": ["id", "notes"]},
        {"exclude": ["notes"]},
        {"cursor": {"field": "notes"}},
        {"keyset": {"by": "notes"}},
        {"primary_key": "notes", "write": "merge"},
    ],
    ids=lambda stream: next(iter(stream)),
)
def test_a_missing_column_names_the_nearest_one(orders: Source, reader: Reader, stream: dict[str, Any]) -> None:
    error = failure(reader, stream)

    assert isinstance(error, ConfigError)
    assert (error.what, error.hint) == ("public.orders has no column 'notes'", "Did you mean 'note'?")


def test_a_condition_that_does_not_parse_is_config(orders: Source, reader: Reader) -> None:
    error = failure(reader, {"where": "id >"})

    assert isinstance(error, ConfigError)
    assert "syntax error" in error.what


def test_a_source_cannot_be_written_to(orders: Source, reader: Reader) -> None:
    orders.execute("create function burn() returns boolean language sql as 'delete from orders returning true'")

    error = failure(reader, {"where": "burn()"})

    assert isinstance(error, ConfigError)
    assert "read-only transaction" in error.what


def test_a_value_that_cannot_be_computed_is_source(orders: Source, reader: Reader) -> None:
    error = failure(reader, {"where": "1 / (id - 1500) < 5"})

    assert isinstance(error, SourceError)
    assert "division by zero" in error.what


def test_a_statement_timeout_is_resource(orders: Source, reader: Reader) -> None:
    error = failure(reader.but(statement_timeout="PT0.2S"), {"where": SLOW})

    assert isinstance(error, ResourceError)
    assert "statement timeout" in error.what
    assert "keyset" in error.hint


def test_a_table_locked_for_too_long_is_transient(orders: Source, source_url: str, reader: Reader) -> None:
    with psycopg.connect(source_url) as other:
        other.execute("lock table orders in access exclusive mode")
        error = failure(reader.but(lock_timeout="PT0.2S"))

    assert isinstance(error, TransientError)
    assert "lock timeout" in error.what


def test_a_connection_cut_midway_keeps_the_sealed_windows(
    orders: Source, server: TestServer, source_url: str, reader: Reader, reader_of: ReaderOf
) -> None:
    stream = {"keyset": {"rows": 400}}
    address = server.warehouse.address
    kept: list[Message] = []
    with dropping_after((address.host, address.port), 8_000_000) as port:
        through = reader_of(with_options(source_url, host="127.0.0.1", port=port) + "?sslmode=disable")
        with pytest.raises(TransientError, match="the connection was lost while reading orders after"):
            _collect(through.messages(stream), kept)

    sealed = [message for message in kept if isinstance(message, Checkpoint)]
    assert sealed
    assert sealed[-1].connector is not None
    rest = reader.read(stream, StreamState(connector=sealed[-1].connector))
    whole = kept[: kept.index(sealed[-1])]
    assert column_of(whole, "id") + column_of(rest, "id") == [str(number) for number in range(1, 2001)]


def test_a_session_ended_by_the_source_is_transient(orders: Source, reader: Reader) -> None:
    found = reader.but(part_mb=1).messages()
    kept: list[Message] = [next(found)]
    _end_reader(orders)

    with pytest.raises(TransientError, match=r"terminating connection|the connection was lost"):
        kept.extend(found)

    assert isinstance(kept[0], CopyFile)


def test_a_cancelled_read_stops_a_source_that_sends_nothing(orders: Source, reader: Reader) -> None:
    cancelled = threading.Event()
    starter = threading.Thread(target=lambda: (_await_reader(orders, "active"), cancelled.set()))
    starter.start()

    with pytest.raises(Cancelled, match="stopped after 0 rows"):
        reader.read({"where": SLOW}, cancelled=cancelled)

    starter.join()
    _await_reader(orders, None)


def test_a_cancelled_read_stops_between_rows(orders: Source, reader: Reader) -> None:
    cancelled = threading.Event()
    found = reader.but(part_mb=1).messages(context=reader.context(cancelled=cancelled))
    next(found)
    cancelled.set()

    with pytest.raises(Cancelled):
        list(found)


def test_a_consumer_that_leaves_early_leaves_no_session_behind(orders: Source, reader: Reader) -> None:
    early = reader.but(part_mb=1).messages()
    next(early)

    early.close()

    _await_reader(orders, None)


def test_a_folder_that_cannot_be_written_is_resource(orders: Source, reader: Reader) -> None:
    context = reader.context()
    context.folder.rmdir()

    with pytest.raises(ResourceError, match="a part file could not be written"):
        list(reader.messages(context=context))


def _collect(messages: Iterator[Message], kept: list[Message]) -> None:
    for message in messages:
        kept.append(message)  # noqa: PERF402 extend would lose them with the error


def _sessions(session: Source) -> list[tuple[int, str]]:
    return session.execute(
        "select pid, state from pg_stat_activity where application_name = 'headwater' and datname = current_database()"
    ).fetchall()


def _await_reader(session: Source, state: str | None) -> None:
    """Until the reader's session is in this state at the server; None until it is gone."""
    while [found for _, found in _sessions(session)] != ([state] if state else []):
        session.execute("select pg_sleep(0.02)")


def _end_reader(session: Source) -> None:
    for pid, _ in _sessions(session):
        session.execute(sql.SQL("select pg_terminate_backend({}, 10000)").format(pid))
