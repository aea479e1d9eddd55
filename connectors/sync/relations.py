"""A relation as a publication finds it and makes it its own: its columns, and the defaults of those of ours."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, Column
from connectors.sync.tables import ROW_NUMBER

LOAD_SETTING = "headwater.load_id"
"""Holds the load's id while its publication runs."""


def number_rows(connection: psycopg.Connection[Any], relation: Identifier) -> str:
    """Give the relation a column that keeps the order of arrival; the sequence that counts it."""
    connection.execute(
        # numbers are taken by the thousand: one writer, so they still ascend
        SQL("alter table {} add column {} bigint generated always as identity (cache 1000)").format(
            relation, Identifier(ROW_NUMBER)
        )
    )
    row = connection.execute(
        "select pg_get_serial_sequence(%s, %s)", [relation.as_string(connection), ROW_NUMBER]
    ).fetchone()
    assert row is not None
    return row[0]


def stamp(connection: psycopg.Connection[Any], relation: Identifier, load_id: str | None) -> None:
    """What the relation's rows get as load id: this one, or with None that of the publication that inserts them.

    A constant costs a row a third of what reading the setting does.
    """
    default = SQL("current_setting({})").format(LOAD_SETTING) if load_id is None else Literal(load_id)
    connection.execute(
        SQL("alter table {} alter column {} set default {}").format(relation, Identifier(LOAD_ID), default)
    )


def columns_of(connection: psycopg.Connection[Any], table: Identifier) -> set[str]:
    """The table's columns; none when it is not there."""
    found = connection.execute(
        "select attname::text from pg_attribute where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
        [table.as_string(connection)],
    )
    return {row[0] for row in found}


def has_columns(connection: psycopg.Connection[Any], table: Identifier, columns: Sequence[Column]) -> bool:
    """Whether the table is there with all of these columns; then nobody changes it before the transaction ends.

    Without them nothing stays locked, so that another connection can make them.
    """
    wanted = {column.name for column in columns}
    with connection.transaction() as attempt:
        if not columns_of(connection, table):
            return False
        connection.execute(SQL("lock table {} in access share mode").format(table))
        if wanted <= columns_of(connection, table):
            return True
        raise psycopg.Rollback(attempt)
    return False


def ensure_platform_columns(connection: psycopg.Connection[Any], raw: Identifier) -> None:
    """Defaults of our own columns, once in a table's life, so that part files need not repeat them."""
    table = connection.execute("select %s::regclass", [raw.as_string(connection)]).fetchone()
    assert table is not None
    have = connection.execute("select 1 from pg_attrdef where adrelid = %s::regclass", [table[0]]).fetchone()
    if have:
        return
    connection.execute(
        SQL("alter table {} alter column {} set default now(), alter column {} set default false").format(
            raw, Identifier(SYNCED_AT), Identifier(DELETED)
        )
    )
    stamp(connection, raw, None)
