"""A PostgreSQL database of the test's own, reached over TCP by password, as Sling needs it."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.sling.reading import URL
from tests.support.servers import TestServer


@pytest.fixture
def shop(server: TestServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """An open connection to an empty database; the environment names its URL."""
    name = f"shop_{uuid4().hex[:12]}"
    server.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    warehouse = server.warehouse
    login = warehouse.logins["admin"]
    address = warehouse.address
    monkeypatch.setenv(
        URL, f"postgresql://{login.user}:{login.password}@{address.host}:{address.port}/{name}?sslmode=disable"
    )
    try:
        with psycopg.connect(server.admin_url(name), autocommit=True) as connection:
            yield connection
    finally:
        server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
