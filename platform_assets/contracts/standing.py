"""What stands in the warehouse: the newest schema of every stream, its table's columns, and what operators block."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from connectors.sync import schemabook
from connectors.sync.registry import SchemaVersion


@dataclass(frozen=True, slots=True)
class Standing:
    """One stream. columns: of the raw table, by their names there. blocked: by operators, by the source's names."""

    version: SchemaVersion
    columns: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()


def standing(connection: psycopg.Connection[Any]) -> Mapping[tuple[str, str], Standing]:
    """By (source, stream); a stream that was never synced is left out."""
    columns = _gathered(
        connection,
        """
        select substr(n.nspname, 5), c.relname, a.attname from pg_attribute a
        join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
        where n.nspname like 'raw\\_%' and a.attnum > 0 and not a.attisdropped
        """,
    )
    blocked = _gathered(connection, "select source, stream, column_name from ops.column_rules where lifted_at is null")
    return {
        place: Standing(one.schema, columns.get(place, frozenset()), blocked.get(place, frozenset()))
        for one in schemabook.newest(connection)
        for place in [(one.source, one.stream)]
    }


def _gathered(connection: psycopg.Connection[Any], query: str) -> dict[tuple[str, str], frozenset[str]]:
    """The third columns by the first two."""
    found: dict[tuple[str, str], set[str]] = {}
    for source, stream, name in connection.execute(query.encode()):
        found.setdefault((source, stream), set()).add(name)
    return {place: frozenset(names) for place, names in found.items()}
