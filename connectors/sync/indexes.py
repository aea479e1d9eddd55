"""The index that a write disposition works with, and its change when the key does."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ContractError
from connectors.specs import StreamSpec
from connectors.sync.columns import VALID_TO
from connectors.sync.dispositions import Tables, names


def ensure_index(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec, label: str) -> None:
    """The unique index of a merge's key, or the index of an append's cursor; one on other columns gives way.

    Raises:
        ContractError: rows of the table share a value of a new key.
    """
    parts: Sequence[str]
    if stream.write in ("merge", "scd2"):
        parts, on, kind, where = tables.keys, names(tables.keys), SQL("unique index"), SQL("")
        if stream.write == "scd2":
            where = SQL(" where {} is null").format(Identifier(VALID_TO))
    elif stream.write == "append" and tables.cursor:
        parts, on, kind, where = (tables.cursor,), tables.position, SQL("index"), SQL("")
    else:
        return
    name = f"{stream.name}_by_{'key' if stream.write != 'append' else 'cursor'}"[:63]
    _drop_other(connection, tables.raw, name, parts)
    try:
        connection.execute(
            SQL("create {} if not exists {} on {} ({}){}").format(kind, Identifier(name), tables.raw, on, where)
        )
    except psycopg.errors.UniqueViolation as error:
        raise ContractError(
            f"{label}: primary_key",
            f"rows of the raw table share a value of {', '.join(stream.primary_key)}: {error.diag.message_detail}",
            "Restore the key, or remove the rows that the new key takes for one.",
        ) from error


def _drop_other(connection: psycopg.Connection[Any], raw: Identifier, name: str, parts: Sequence[str]) -> None:
    """Drop the table's index of that name when it is on other columns: the stream has another key now."""
    row = connection.execute(
        """
        select array_agg(attname::text order by place), nspname
        from pg_index
        join pg_class as indexes on indexes.oid = indexrelid
        join pg_namespace on pg_namespace.oid = relnamespace
        cross join unnest(indkey::smallint[]) with ordinality as keys (number, place)
        join pg_attribute on attrelid = indrelid and attnum = number
        where indrelid = %s::regclass and indexes.relname = %s
        group by nspname
        """,
        [raw.as_string(connection), name],
    ).fetchone()
    if row is not None and tuple(row[0]) != tuple(parts):
        connection.execute(SQL("drop index {}").format(Identifier(row[1], name)))
