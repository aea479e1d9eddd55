"""The index that a write disposition works with, and its change when the key does."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ContractError
from connectors.specs import StreamSpec
from connectors.sync.columns import VALID_TO
from connectors.sync.tables import Tables, names


def is_prepared(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec) -> bool:
    """Whether the table has its index, and the platform's columns their defaults: nothing has to be locked for them."""
    parts = _columns_of(tables, stream)
    has_defaults = connection.execute(
        "select exists (select 1 from pg_attrdef where adrelid = to_regclass(%s))", [tables.raw.as_string(connection)]
    ).fetchone() == (True,)
    found = _found(connection, tables.raw, _name(stream))
    return has_defaults and (not parts or (found is not None and found[0] == tuple(parts)))


def ensure_index(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec, label: str) -> None:
    """The unique index of a merge's key, or the index of an append's cursor; one on other columns gives way.

    Raises:
        ContractError: rows of the table share a value of a new key.
    """
    parts = _columns_of(tables, stream)
    if not parts:
        return
    on, kind, where = names(parts), SQL("unique index"), SQL("")
    if stream.write == "append":
        on, kind = tables.position, SQL("index")
    elif stream.write == "scd2":
        where = SQL(" where {} is null").format(Identifier(VALID_TO))
    name = _name(stream)
    found = _found(connection, tables.raw, name)
    if found is not None and found[0] != tuple(parts):
        connection.execute(SQL("drop index {}").format(Identifier(found[1], name)))
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


def _columns_of(tables: Tables, stream: StreamSpec) -> Sequence[str]:
    """What the write disposition needs an index on."""
    if stream.write in ("merge", "scd2"):
        return tables.keys
    return (tables.cursor,) if stream.write == "append" and tables.cursor else ()


def _name(stream: StreamSpec) -> str:
    return f"{stream.name}_by_{'key' if stream.write != 'append' else 'cursor'}"[:63]


def _found(connection: psycopg.Connection[Any], raw: Identifier, name: str) -> tuple[tuple[str, ...], str] | None:
    """Columns and schema of the table's index of that name."""
    row = connection.execute(
        """
        select array_agg(attname::text order by place), nspname
        from pg_index
        join pg_class as indexes on indexes.oid = indexrelid
        join pg_namespace on pg_namespace.oid = relnamespace
        cross join unnest(indkey::smallint[]) with ordinality as keys (number, place)
        join pg_attribute on attrelid = indrelid and attnum = number
        where indrelid = to_regclass(%s) and indexes.relname = %s
        group by nspname
        """,
        [raw.as_string(connection), name],
    ).fetchone()
    return (tuple(row[0]), row[1]) if row else None
