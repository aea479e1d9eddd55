"""The index that a write disposition works with, and its change when the key or the disposition does."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.errors import ContractError
from connectors.specs import StreamSpec
from connectors.sync.columns import VALID_TO
from connectors.sync.tables import Tables, names


class _Index(NamedTuple):
    """is_partial: of current versions only."""

    columns: tuple[str, ...]
    is_unique: bool
    is_partial: bool


def is_prepared(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec) -> bool:
    """Whether the table has its index and no other key's, and the platform's columns their defaults: nothing has to be
    locked for them."""
    has_defaults = connection.execute(
        "select exists (select 1 from pg_attrdef where adrelid = to_regclass(%s))", [tables.raw.as_string(connection)]
    ).fetchone() == (True,)
    wanted, found = _wanted(tables, stream), _indexes(connection, tables.raw)
    has_index = wanted is None or found.get(_name(stream, wanted)) == wanted
    return has_defaults and has_index and not _has_stale_key(found, stream, wanted)


def ensure_index(connection: psycopg.Connection[Any], tables: Tables, stream: StreamSpec, label: str) -> None:
    """The unique index of a merge's key, or the index of an append's cursor. Another one of that name gives way, and so
    does that of a key by which rows are told apart no more.

    Raises:
        ContractError: rows of the table share a value of a new key.
    """
    wanted, found = _wanted(tables, stream), _indexes(connection, tables.raw)
    if _has_stale_key(found, stream, wanted):
        _drop(connection, tables.raw, _key_name(stream.name))
    if wanted is None or found.get(name := _name(stream, wanted)) == wanted:
        return
    if name in found:
        _drop(connection, tables.raw, name)
    on, kind = (names(wanted.columns), SQL("unique index")) if wanted.is_unique else (tables.position, SQL("index"))
    where = SQL(" where {} is null").format(Identifier(VALID_TO)) if wanted.is_partial else SQL("")
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


def drop_copied_key(connection: psycopg.Connection[Any], raw: Identifier, copy: Identifier, stream: str) -> None:
    """Of a table made like the raw one, the copy of the platform's unique index: rows that are replaced need none, and
    another key's refuses them. A copy has a name that PostgreSQL made, so it is told by its columns."""
    found, name = _indexes(connection, raw), _key_name(stream)
    key = found.get(name)
    if key is None or not key.is_unique:
        return
    theirs = [other for other, index in found.items() if index == key and other != name]
    copies = [other for other, index in _indexes(connection, copy).items() if index == key]
    for other in copies[len(theirs) :]:
        _drop(connection, copy, other)


def _wanted(tables: Tables, stream: StreamSpec) -> _Index | None:
    """What the write disposition needs an index on."""
    if stream.write in ("merge", "scd2"):
        return _Index(tuple(tables.keys), is_unique=True, is_partial=stream.write == "scd2")
    if stream.write == "append" and tables.cursor:
        return _Index((tables.cursor,), is_unique=False, is_partial=False)
    return None


def _name(stream: StreamSpec, wanted: _Index) -> str:
    return _key_name(stream.name) if wanted.is_unique else f"{stream.name}_by_cursor"


def _key_name(stream: str) -> str:
    """Within PostgreSQL's 63 bytes, as a stream's name has 51 at most."""
    return f"{stream}_by_key"


def _has_stale_key(found: Mapping[str, _Index], stream: StreamSpec, wanted: _Index | None) -> bool:
    key = found.get(_key_name(stream.name))
    return key is not None and key.is_unique and not (wanted is not None and wanted.is_unique)


def _drop(connection: psycopg.Connection[Any], table: Identifier, name: str) -> None:
    row = connection.execute(
        "select nspname from pg_class join pg_namespace n on n.oid = relnamespace where pg_class.oid = %s::regclass",
        [table.as_string(connection)],
    ).fetchone()
    assert row is not None
    connection.execute(SQL("drop index {}").format(Identifier(row[0], name)))


def _indexes(connection: psycopg.Connection[Any], table: Identifier) -> dict[str, _Index]:
    """The table's indexes on plain columns by their names, but those of constraints, which nobody here has made."""
    rows = connection.execute(
        """
        select relname, array_agg(attname::text order by place), indisunique, indpred is not null
        from pg_index
        join pg_class as indexes on indexes.oid = indexrelid
        cross join unnest(indkey::smallint[]) with ordinality as keys (number, place)
        join pg_attribute on attrelid = indrelid and attnum = number
        where indrelid = to_regclass(%s) and not exists (select from pg_constraint where conindid = indexrelid)
        group by relname, indisunique, indpred is not null
        """,
        [table.as_string(connection)],
    ).fetchall()
    return {name: _Index(tuple(columns), unique, partial) for name, columns, unique, partial in rows}
