"""Replication slots and publications: what a replicated stream needs at the source, and how its slot is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import errors, sql

from connectors.database.pg_wal import lsn
from connectors.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from psycopg import Connection

    from connectors.database.shape import TableShape
    from connectors.kinds.database import DatabaseStreamSpec

MAX_NAME = 54
"""Of a slot's name before the digest of one that is too long."""
_SLOTS = """
select slot_name::text, active, coalesce(wal_status, 'lost'), coalesce(confirmed_flush_lsn, '0/0')::text,
    coalesce(pg_wal_lsn_diff(
        case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn
    ), 0)::bigint
from pg_catalog.pg_replication_slots
where slot_type = 'logical' and database = current_database() and (slot_name = any(%s) or slot_name like %s)
order by slot_name
"""
_PUBLISHED = """
select p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate, t.tablename is not null,
    c.relkind = 'p' and not p.pubviaroot,
    coalesce(to_jsonb(t) ->> 'rowfilter', '') <> '',
    coalesce((
        select array_agg(a.attname::text order by a.attnum) from pg_catalog.pg_attribute a
        where a.attrelid = %(table)s::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
            and to_jsonb(t) ? 'attnames' and not (to_jsonb(t) -> 'attnames') ? a.attname::text
    ), '{}')
from pg_catalog.pg_publication p
join pg_catalog.pg_class c on c.oid = %(table)s::regclass
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_publication_tables t
    on t.pubname = p.pubname and t.schemaname = n.nspname and t.tablename = c.relname
where p.pubname = %(publication)s
"""
_IDENTITY = """
select c.relreplident::text, array(
    select a.attname::text from pg_catalog.pg_index i
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey::int2[])
    where i.indrelid = c.oid and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident end
)
from pg_catalog.pg_class c where c.oid = %s::regclass
"""
_HIDES = "select pg_catalog.row_security_active(%s::regclass)"
_GENERATED = """
select attname::text from pg_catalog.pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated <> ''
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """held_bytes: of the source's log, which it keeps for this slot. status: reserved, extended, unreserved or lost."""

    name: str
    is_active: bool
    status: str
    confirmed: int
    held_bytes: int

    @property
    def warning(self) -> str:
        """What an operator should know before the source's disk is full or the slot is of no use; else empty."""
        match self.status:
            case "extended":
                return "more than max_wal_size: sync its stream more often, or drop it"
            case "unreserved":
                return "beyond max_slot_wal_keep_size: the next checkpoint there may make it useless"
            case "lost":
                return "useless: the source has removed log that it needs; drop it, and read its stream anew"
            case _:
                return ""

    def __str__(self) -> str:
        active = "being read" if self.is_active else "idle"
        line = f"slot {self.name}: {active}, {self.status}, holds {self.held_bytes / 2**20:,.1f} MB of the log"
        return f"{line}; {self.warning}" if self.warning else line


def find_slots(connection: "Connection[Any]", names: Iterable[str], prefix: str = "") -> list[Slot]:
    """Those of the names that exist in this database, and all whose names begin with the prefix."""
    pattern = f"{prefix[:MAX_NAME].replace('_', chr(92) + '_')}%" if prefix else ""
    rows = connection.execute(_SLOTS, [list(names), pattern]).fetchall()
    return [Slot(name, active, status, lsn(confirmed), held) for name, active, status, confirmed, held in rows]


def find_slot(connection: "Connection[Any]", name: str) -> Slot | None:
    return next(iter(find_slots(connection, [name])), None)


def drop_slot(connection: "Connection[Any]", slot: Slot, where: str) -> None:
    """Raises TransientError when somebody reads it."""
    if slot.is_active:
        raise TransientError(where, f"{slot}", "It is being read; end that reader first, or try again when it is done.")
    connection.execute("select pg_drop_replication_slot(%s)", [slot.name])


def create_slot(
    replication: "Connection[Any]", name: str, where: str, *, is_temporary: bool = False
) -> tuple[int, str]:
    """A slot and a snapshot of the very moment from which it has the changes; (position, snapshot).

    The snapshot holds while the connection does nothing else; a temporary slot ends with it.

    Raises:
        ConfigError: the source has no slot left, or one of this name in another of its databases.
    """
    command = sql.SQL("CREATE_REPLICATION_SLOT {}{} LOGICAL pgoutput EXPORT_SNAPSHOT").format(
        sql.Identifier(name), sql.SQL(" TEMPORARY" if is_temporary else "")
    )
    try:
        row = replication.execute(command).fetchone()
    except errors.ConfigurationLimitExceeded as error:
        hint = f"Raise max_replication_slots there, or drop one: headwater slots {where.partition('.')[0]}"
        raise ConfigError(where, "all replication slots of the source are in use", hint) from error
    except errors.DuplicateObject as error:
        hint = "Name this one otherwise: replication: {slot: ...}. Names of slots are the whole server's."
        raise ConfigError(where, f"slot {name} is one of another database of the same server", hint) from error
    assert row is not None
    return lsn(row[1]), row[2]


def system_of(replication: "Connection[Any]") -> str:
    """Names the server's data for ever, on all its replicas too."""
    row = replication.execute("IDENTIFY_SYSTEM").fetchone()
    assert row is not None
    return str(row[0])


def generated_columns(connection: "Connection[Any]", shape: "TableShape") -> list[str]:
    """Their values are not in the log before PostgreSQL 18, so they are not read at all."""
    return [row[0] for row in connection.execute(_GENERATED, [quoted(shape)]).fetchall()]


def require_published(
    connection: "Connection[Any]", stream: "DatabaseStreamSpec", shape: "TableShape", where: str
) -> None:
    """The source can tell every change of the table.

    Raises:
        ConfigError: wal_level, publication or replica identity; with the statement that mends it.
    """
    assert stream.replication is not None
    name, table = stream.replication.publication, quoted(shape)
    level = connection.execute("show wal_level").fetchone()
    if level != ("logical",):
        what = f"wal_level of the source is {level[0] if level else 'unknown'}, not logical"
        raise ConfigError(where, what, "There: alter system set wal_level = 'logical', then restart the server.")
    found = connection.execute(_PUBLISHED, {"publication": name, "table": table}).fetchone()
    if found is None:
        hint = f"There, as the owner of the table: create publication {name} for table {table}"
        raise ConfigError(where, f"no publication {name!r} in this database", hint)
    is_whole, has_table, is_split, is_filtered, missing = found
    if is_split:
        what = f"publication {name!r} tells the changes of each partition of {table}, not of the table"
        raise ConfigError(where, what, f"There: alter publication {name} set (publish_via_partition_root = true)")
    if not has_table:
        hint = f"There, as its owner: alter publication {name} add table {table}"
        raise ConfigError(where, f"publication {name!r} does not publish {table}", hint)
    if not is_whole:
        hint = f"There: alter publication {name} set (publish = 'insert, update, delete, truncate')"
        raise ConfigError(where, f"publication {name!r} leaves kinds of changes out", hint)
    wanted = [column.name for column in shape.chosen(stream, where)]
    left_out = sorted(set(missing) & set(wanted))
    if is_filtered or left_out:
        what = "rows by a condition" if is_filtered else f"columns {', '.join(left_out)}"
        hint = "Publish the whole table, or name what is published in select."
        raise ConfigError(where, f"publication {name!r} leaves out {what} of {table}", hint)
    hides = connection.execute(_HIDES, [table]).fetchone()
    if hides == (True,):
        what = f"row security hides rows of {table} from this role, and not their changes"
        raise ConfigError(where, what, "There: alter role ... bypassrls, or read as the owner of the table.")
    _require_identity(connection, stream, table, where)


def _require_identity(connection: "Connection[Any]", stream: "DatabaseStreamSpec", table: str, where: str) -> None:
    """A deletion is told by the replica identity: the stream's key must be in it."""
    row = connection.execute(_IDENTITY, [table]).fetchone()
    assert row is not None
    identity, columns = row
    if identity != "f" and (absent := [key for key in stream.primary_key if key not in columns]):
        said = f"({', '.join(columns)})" if columns else "nothing"
        what = f"a deletion in {table} would name {said}, without {', '.join(absent)} of primary_key"
        hint = f"Correct primary_key; or, there: alter table {table} replica identity full"
        raise ConfigError(where, what, hint)


def quoted(shape: "TableShape") -> str:
    return sql.Identifier(shape.schema or "public", shape.table).as_string(None)
