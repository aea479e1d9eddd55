"""Each role can what it must, and cannot what it must not."""

import psycopg
import pytest
from psycopg import errors

from platform_assets.warehouse import Warehouse


def run(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as session:
        for statement in statements:
            cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_transformer_reads_what_the_loader_makes_and_the_reader_does_not(warehouse: Warehouse) -> None:
    run(warehouse.loader_dsn, "create schema raw_shop", "create table raw_shop.orders as select 1 as id")
    assert run(warehouse.transformer_dsn, "select id from raw_shop.orders") == [(1,)]
    with pytest.raises(errors.InsufficientPrivilege):
        run(warehouse.reader_dsn, "select id from raw_shop.orders")
