"""A fresh database that plays the source, and a connector on it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.database.reading import Reader
from tests.support.servers import TestServer


@pytest.fixture
def source_url(server: TestServer) -> Iterator[str]:
    """URL of an empty database."""
    name = f"source_{uuid4().hex[:12]}"
    server.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    yield server.admin_url(name)
    server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def source(source_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A session at the source, to fill and to change it."""
    with psycopg.connect(source_url, autocommit=True) as session:
        yield session


@pytest.fixture
def reader(source_url: str, tmp_path: Path) -> Reader:
    return Reader(source_url, tmp_path)


@pytest.fixture
def reader_of(tmp_path: Path) -> Callable[[str], Reader]:
    return lambda url: Reader(url, tmp_path)
