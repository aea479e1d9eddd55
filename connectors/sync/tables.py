"""What the raw table looks like now, in PostgreSQL's own words."""

from typing import Any

import psycopg

from connectors.sync.result import ObservedColumn, SyncRequest


def observed_columns(connection: psycopg.Connection[Any], request: SyncRequest) -> tuple[ObservedColumn, ...]:
    """Columns of the raw table in order, with the contract's descriptions."""
    rows = connection.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod), not a.attnotnull
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = %s and c.relname = %s and a.attnum > 0 and not a.attisdropped
        order by a.attnum
        """,
        [request.source.schema_name, request.stream.name],
    ).fetchall()
    described = {name: spec.description for name, spec in request.stream.columns.items()}
    return tuple(ObservedColumn(name, kind, nullable, described.get(name, "")) for name, kind, nullable in rows)
