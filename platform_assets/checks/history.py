"""What the warehouse remembers of a stream, read once after its sync for all of its checks."""

from typing import TYPE_CHECKING, Any

from connectors.sync import SyncRequest
from platform_assets.checks.contract import History, PastSync, SchemaVersion
from platform_assets.checks.data_time import read_data_times

if TYPE_CHECKING:
    import psycopg

MAX_SYNCS = 100
MAX_COUNTED_BYTES = 1 << 30
"""A raw table up to this size is counted exactly after a sync (about 1 s); a larger one shows no row count."""

_SYNCS = """
select finished_at, status, rows_loaded, extract(epoch from finished_at - started_at)::float8
from ops.syncs
where source = %(source)s and stream = %(stream)s and sync_id is distinct from %(sync_id)s::uuid
  and status <> 'running' and trigger <> 'replay' and (window_start is not null) = %(is_partition)s
order by started_at desc
limit %(limit)s
"""

_SCHEMAS = """
select version, decision, diff, reason, first_seen_at
from ops.schema_versions
where source = %(source)s and stream = %(stream)s
order by version
"""


def read_history(dsn: str, request: SyncRequest, sync_id: str | None = None) -> History:
    """The stream's syncs but the named one, its schema versions, the age of its data, the rows now in its raw table.

    Raises:
        LoaderError: the warehouse did not answer; the sync itself is already final.
    """
    import psycopg  # the driver loads with the first sync, not with definitions

    from connectors.errors import LoaderError

    key = request.source.source, request.stream.name
    stream = {"source": key[0], "stream": key[1]}
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            syncs = connection.execute(
                _SYNCS,
                {
                    **stream,
                    "sync_id": sync_id,
                    "is_partition": request.window is not None,
                    "limit": MAX_SYNCS,
                },
            ).fetchall()
            schemas = connection.execute(_SCHEMAS, stream).fetchall()
            return History(
                syncs=tuple(PastSync(*row) for row in syncs),
                schemas=tuple(SchemaVersion(row[0], row[1], _changes(row[2]), row[3], row[4]) for row in schemas),
                table_rows=_table_rows(connection, request),
                data=read_data_times(connection, [key])[key],
            )
    except psycopg.Error as error:
        raise LoaderError(
            request.label,
            f"the sync has ended, but its history could not be read: {str(error).strip().splitlines()[0]}",
            "Run `headwater doctor`; the data is loaded, a retry reads only what is new.",
        ) from error


def _changes(diff: Any) -> tuple[dict[str, Any], ...]:
    return tuple(dict(change) if isinstance(change, dict) else {"change": str(change)} for change in diff or ())


def _table_rows(connection: "psycopg.Connection[Any]", request: SyncRequest) -> int | None:
    from psycopg import sql

    name = (request.source.schema_name, request.stream.name)
    size = connection.execute(
        "select pg_relation_size(c.oid) from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where n.nspname = %s and c.relname = %s",
        name,
    ).fetchone()
    if size is None or size[0] > MAX_COUNTED_BYTES:
        return None
    query = sql.SQL("select count(*) from {} where _deleted is not true").format(sql.Identifier(*name))
    counted = connection.execute(query).fetchone()
    return int(counted[0]) if counted else None
