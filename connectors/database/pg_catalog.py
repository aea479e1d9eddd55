"""The shape of PostgreSQL's tables, read from its catalog."""

from typing import TYPE_CHECKING, Any

from connectors.database.pg_types import PgType, map_type
from connectors.database.shape import TableColumn, TableShape
from connectors.errors import ConfigError
from connectors.specs import did_you_mean

if TYPE_CHECKING:
    from psycopg import Connection

DEFAULT_SCHEMA = "public"
# tables, partitioned tables, views, materialized views, foreign tables
RELATIONS = "rpvmf"

TABLES = """
select c.oid, c.relname, c.reltuples::bigint
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relkind = any(%(kinds)s::"char"[]) and not c.relispartition
order by c.relname
"""
SCHEMAS_OF = """
select n.nspname
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relname = %(table)s and c.relkind = any(%(kinds)s::"char"[]) and n.nspname <> %(schema)s
    and n.nspname not like 'pg\\_%%' and n.nspname <> 'information_schema'
order by n.nspname
"""
ONE_TABLE = """
select c.oid, c.relname, c.reltuples::bigint
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(schema)s and c.relname = %(table)s and c.relkind = any(%(kinds)s::"char"[])
"""
# a domain is followed to the type it rests on, whose modifier then counts
COLUMNS = """
with recursive resolved as (
    select a.attrelid, a.attnum, a.attname, a.attnotnull, a.atttypid as type_id, a.atttypmod as modifier
    from pg_catalog.pg_attribute a
    where a.attrelid = any(%(oids)s::oid[]) and a.attnum > 0 and not a.attisdropped
    union all
    select r.attrelid, r.attnum, r.attname, r.attnotnull or t.typnotnull, t.typbasetype, t.typtypmod
    from resolved r
    join pg_catalog.pg_type t on t.oid = r.type_id
    where t.typtype = 'd'
)
select
    r.attrelid, r.attname, r.attnotnull, t.typname, n.nspname = 'pg_catalog' as is_builtin,
    t.typcategory::text, r.modifier, pg_catalog.format_type(t.oid, r.modifier)
from resolved r
join pg_catalog.pg_type t on t.oid = r.type_id
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where t.typtype <> 'd'
order by r.attrelid, r.attnum
"""
KEYS = """
select i.indrelid, i.indisprimary, array_agg(a.attname::text order by k.position)
from pg_catalog.pg_index i
cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
join pg_catalog.pg_class x on x.oid = i.indexrelid
join pg_catalog.pg_am m on m.oid = x.relam
join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
where i.indrelid = any(%(oids)s::oid[]) and i.indisvalid and i.indpred is null and m.amname = 'btree'
    and k.position <= i.indnkeyatts and i.indkey[0] <> 0
group by i.indexrelid, i.indrelid, i.indisprimary
order by i.indexrelid
"""


def read_table(connection: "Connection[Any]", schema: str, table: str, where: str) -> TableShape:
    """The shape of one table, view or foreign table.

    Raises:
        ConfigError: it is not there; the nearest name, or the schema that has it.
    """
    named = {"schema": schema, "table": table, "kinds": list(RELATIONS)}
    found = connection.execute(ONE_TABLE, named).fetchall()
    if found:
        return _shapes(connection, schema, found)[0]
    elsewhere = [row[0] for row in connection.execute(SCHEMAS_OF, named).fetchall()]
    if elsewhere:
        hint = f"There is one in schema {elsewhere[0]!r}: set schema: {elsewhere[0]}."
    else:
        known = [row[1] for row in connection.execute(TABLES, named).fetchall()]
        hint = did_you_mean(table, known[:40]) if known else f"Schema {schema!r} has no table that this role can see."
    raise ConfigError(where, f"no table {table!r} in schema {schema!r}", hint)


def read_tables(connection: "Connection[Any]", schema: str) -> tuple[TableShape, ...]:
    """Every table and view of a schema, by name."""
    found = connection.execute(TABLES, {"schema": schema, "kinds": list(RELATIONS)}).fetchall()
    return _shapes(connection, schema, found)


def _shapes(connection: "Connection[Any]", schema: str, tables: list[tuple[Any, ...]]) -> tuple[TableShape, ...]:
    oids = [row[0] for row in tables]
    columns: dict[int, list[TableColumn]] = {oid: [] for oid in oids}
    for oid, name, not_null, *words in connection.execute(COLUMNS, {"oids": oids}).fetchall():
        mapped = map_type(PgType(*words))
        columns[oid].append(TableColumn(name, words[-1], mapped.pg_type, mapped.house_type, not not_null, mapped.cast))
    primary: dict[int, tuple[str, ...]] = {}
    leads: dict[int, set[str]] = {oid: set() for oid in oids}
    for oid, is_primary, names in connection.execute(KEYS, {"oids": oids}).fetchall():
        leads[oid].add(names[0])
        if is_primary:
            primary[oid] = tuple(names)
    return tuple(
        TableShape(
            schema,
            name,
            tuple(columns[oid]),
            primary.get(oid, ()),
            frozenset(leads[oid]),
            # -1: never analyzed
            rows if rows >= 0 else None,
        )
        for oid, name, rows in tables
    )
