"""What the log does not tell of a table: that it is another one, or that older rows have values in other columns.

A table is marked when a position is saved. The next read compares: where the mark says that the log alone would leave
rows wrong or out, the table is read anew, joined to the log as the first read was.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

if TYPE_CHECKING:
    from psycopg import Connection

_PARTITIONS = """
with tables as (
    select %(table)s::regclass::oid as oid
    union select relid::oid from pg_catalog.pg_partition_tree(%(table)s::regclass)
)
"""
_TABLE = f"""
{_PARTITIONS}
select c.oid::bigint, c.relnatts::int, (
    select md5(string_agg(concat(t.oid, ' ', pg_catalog.pg_relation_filenode(t.oid)), ',' order by t.oid)) from tables t
)
from pg_catalog.pg_class c where c.oid = %(table)s::regclass
"""
_COLUMNS = f"""
{_PARTITIONS}
select a.attnum::int, a.attname::text, a.xmin::text, exists (
    select 1 from pg_catalog.pg_attribute p
    where p.attrelid in (select oid from tables) and p.attname = a.attname and p.atthasmissing
)
from pg_catalog.pg_attribute a
where a.attrelid = %(table)s::regclass and a.attnum > 0 and not a.attisdropped
order by a.attnum
"""
# every ALTER makes a new version of a row, also one that is taken back later
_PUBLICATION = """
select md5(concat_ws(' ', p.oid, p.xmin, (
    select string_agg(concat(r.oid, ' ', r.xmin), ',' order by r.oid) from pg_catalog.pg_publication_rel r
    where r.prpubid = p.oid and (r.prrelid = %(table)s::regclass
        or r.prrelid in (select relid from pg_catalog.pg_partition_ancestors(%(table)s::regclass)))
), {schemas}))
from pg_catalog.pg_publication p where p.pubname = %(publication)s
"""
_SCHEMAS = """(
    select string_agg(concat(n.oid, ' ', n.xmin), ',' order by n.oid) from pg_catalog.pg_publication_namespace n
    join pg_catalog.pg_class c on c.relnamespace = n.pnnspid
    where n.pnpubid = p.oid and c.oid = %(table)s::regclass
)"""
HAS_SCHEMAS = 150000


@dataclass(frozen=True, slots=True)
class MarkedColumn:
    """version: another one when the column was altered. has_defaults: rows that are older show a default of it."""

    number: int
    name: str
    version: str
    has_defaults: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """One table and its publication at one moment.

    files: where its rows lie; another when it was rewritten or emptied. numbers: columns that it ever had.
    columns: those that are read.
    """

    table: int
    publication: str
    files: str
    numbers: int
    columns: tuple[MarkedColumn, ...]

    def state(self) -> dict[str, Any]:
        """As it is saved; some 30 bytes a column, for the widest of tables too."""
        columns = {str(column.number): [_digest(column.name), column.version] for column in self.columns}
        return {
            "table": self.table, "publication": self.publication, "files": self.files, "numbers": self.numbers,
            "columns": columns,
        }  # fmt: skip

    def is_followed(self, saved: Mapping[str, Any]) -> bool:
        """The log since then has this table's changes, as far as it can have them."""
        return saved.get("table") == self.table and saved.get("publication") == self.publication

    def missed(self, saved: Mapping[str, Any]) -> str:
        """Why the log alone is not enough; empty when it is."""
        if saved.get("table") != self.table:
            return "the table is not the one that was read before"
        if saved.get("publication") != self.publication:
            return "the publication was altered, which may have left changes out"
        was = cast("Mapping[str, list[str]]", saved["columns"])
        names = {name for name, _ in was.values()}
        is_rewritten = saved["files"] != self.files
        for column in self.columns:
            name = _digest(column.name)
            known = was.get(str(column.number))
            if known is None:
                is_older = column.number <= saved["numbers"]
                if is_older or column.has_defaults or is_rewritten or name in names:
                    return f"column {column.name} is new, and older rows may have values in it"
            elif known[0] != name:
                return f"column {column.name} had another name"
            elif known[1] != column.version and is_rewritten:
                return f"column {column.name} had another type or other values"
        return ""


def read_mark(connection: "Connection[Any]", table: str, publication: str, columns: Collection[str]) -> Mark:
    """table: quoted, with its schema. columns: those that are read."""
    named = {"table": table, "publication": publication}
    row = connection.execute(_TABLE, named).fetchone()
    assert row is not None
    found = [MarkedColumn(*item) for item in connection.execute(_COLUMNS, named).fetchall()]
    schemas = _SCHEMAS if connection.info.server_version >= HAS_SCHEMAS else "null"
    published = connection.execute(_PUBLICATION.replace("{schemas}", schemas).encode(), named).fetchone()
    return Mark(row[0], published[0] if published else "", row[2], row[1], tuple(c for c in found if c.name in columns))


def _digest(text: str) -> str:
    return f"{crc32(text.encode()):08x}"
