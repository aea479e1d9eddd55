"""Is a new column an old one under another name? Weighed by name and by values, before the old values are gone."""

from itertools import product
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from connectors.sync.columns import Column
from connectors.sync.differences import RENAMED_FROM, likeness, name_likeness
from connectors.sync.schema import StreamSchema
from connectors.sync.tables import Tables

_SAMPLE = 200
"""Distinct values of a new column that are looked for in the old one."""
_MAX_PAIRS = 60
"""Of columns of one type; beyond it somebody exchanged the whole record, and names alone are compared."""


def weigh(connection: psycopg.Connection[Any], tables: Tables, schema: StreamSchema) -> None:
    """Note in `schema.likely` which column not seen so far each new one may be. Before the staged rows are written.

    Values are compared as texts, over at most 200 distinct ones of the new column.
    """
    known = {column.name for column in schema.version_columns}
    new = [c for c in schema.table_columns if c.name not in known and c.variant_of is None and c.name in tables.columns]
    gone = [
        c
        for c in schema.version_columns
        if c.place == "column" and c.variant_of is None and c.source_name not in schema.seen
    ]
    if not known or not new or not gone:
        return
    pairs = [(old, column) for old, column in product(gone, new) if old.type == column.type]
    scored = sorted(
        ((_likeness(connection, tables, old, column, len(pairs)), old.name, column.name) for old, column in pairs),
        reverse=True,
    )
    taken = {old for old, _ in schema.likely.values()}
    for score, old, name in scored:
        if score >= RENAMED_FROM and name not in schema.likely and old not in taken:
            schema.likely[name] = (old, score)
            taken.add(old)


def _likeness(connection: psycopg.Connection[Any], tables: Tables, old: Column, new: Column, pairs: int) -> float:
    values = _shared_values(connection, tables, old, new) if pairs <= _MAX_PAIRS else None
    return likeness(name_likeness(old.source_name, new.source_name), values)


def _shared_values(connection: psycopg.Connection[Any], tables: Tables, old: Column, new: Column) -> float | None:
    """The share of the new column's values that the table has in the old one; None when either has no value."""
    row = connection.execute(
        SQL(
            """
            with arrived as (
                select distinct {new}::text as value from {staged} where {new} is not null limit %(sample)s
            ), known as (
                select distinct {old}::text as value from {raw}
                where {old}::text in (select value from arrived)
            )
            select (select count(*) from known)::float8, (select count(*) from arrived),
                exists (select from {raw} where {old} is not null)
            """
        ).format(new=Identifier(new.name), old=Identifier(old.name), staged=tables.staged, raw=tables.raw),
        {"sample": _SAMPLE},
    ).fetchone()
    assert row is not None
    shared, arrived, has_old = row
    return shared / arrived if arrived and has_old else None
