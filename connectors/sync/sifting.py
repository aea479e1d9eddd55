"""Staged rows that go no further: of one key all but the last, what is outdated, outside the window, or loaded before.

Every statement is set-based, inside the publication's transaction.
"""

from datetime import timedelta
from typing import Any

from psycopg.sql import SQL, Identifier, Literal

from connectors.contract import Window
from connectors.sync.tables import PLATFORM, ROW_NUMBER, Connection, Tables, changed, match, names


def deduplicate(connection: Connection, tables: Tables) -> int:
    """Of rows with one key the last by cursor, then by order of arrival, stays; the number of rows dropped."""
    keys = names(tables.keys)
    twice = SQL("select 1 from {} group by {} having count(*) > 1 limit 1").format(tables.staged, keys)
    if not connection.execute(twice).fetchone():
        return 0
    order = SQL("{} desc nulls last, ").format(tables.position) if tables.cursor else SQL("")
    return changed(
        connection,
        SQL(
            """
            delete from {staged} s using (
                select ctid as place, row_number() over (partition by {keys} order by {order}{row} desc) as position
                from {staged}
            ) d
            where s.ctid = d.place and d.position > 1
            """
        ).format(staged=tables.staged, keys=keys, order=order, row=Identifier(ROW_NUMBER)),
    )


def drop_outdated(connection: Connection, tables: Tables, *, by_cursor: bool) -> int:
    """Drop staged rows whose key the raw table has, by cursor only where its cursor is greater; rows dropped."""
    known = match(tables.keys, "t", "s")
    if by_cursor:
        known = SQL("{} and {} > {}").format(known, tables.position_in("t"), tables.position_in("s"))
    return changed(
        connection,
        SQL("delete from {staged} s where exists (select 1 from {raw} t where {known})").format(
            staged=tables.staged, raw=tables.raw, known=known
        ),
    )


def filter_window(connection: Connection, tables: Tables, window: Window) -> int:
    """Drop rows outside the partition's window; a source that ignores the bounds must not double a neighbour."""
    assert tables.cursor is not None
    return changed(
        connection,
        SQL("delete from {staged} where {cursor} < %s or {cursor} >= %s").format(
            staged=tables.staged, cursor=Identifier(tables.cursor)
        ),
        [window.start, window.end],
    )


def remember_boundary(connection: Connection, tables: Tables, boundary: Any | None, tolerance: timedelta) -> bool:
    """Count the loaded rows that the source may send again, by digest, once a sync; False when there are none.

    The source is asked for the boundary inclusively, and from a rewound one on; rows that never become the position,
    see `Tables.becomes_position`, come again until then, also where there is no position yet. So the cost is that of
    what is read again, and the state holds none of it. NULLs are left out of a digest: a column that is added later
    must not make an old row look new.
    """
    apart = tables.becomes_position(tolerance)
    if boundary is not None:
        again = SQL("{} >= {}").format(tables.position, Literal(boundary))
    elif apart is not None:
        again = SQL("not {}").format(apart)
    else:
        return False
    if connection.execute("select to_regclass('pg_temp.boundary')").fetchone() == (None,):
        connection.execute(
            SQL(
                "create temporary table boundary as select {cursor} as position, digest, count(*) as rows from ("
                "select {cursor}, md5(jsonb_strip_nulls(to_jsonb(t) - {ours}::text[])::text) as digest from {raw} t "
                "where {again}) as loaded group by 1, 2"
            ).format(raw=tables.raw, cursor=Identifier(tables.cursor or ""), ours=Literal(list(PLATFORM)), again=again)
        )
        # a window looks up its own rows in it, however large it is
        connection.execute("create index on boundary (position, digest)")
        connection.execute("analyze boundary")
    return connection.execute("select 1 from boundary limit 1").fetchone() is not None


def drop_boundary(connection: Connection, tables: Tables) -> int:
    """Drop as many staged rows as equal ones were loaded before this sync; each of those counts once."""
    return changed(
        connection,
        SQL(
            """
            with again as (
                select place, position, digest, row_number() over (partition by position, digest) as number from (
                    select ctid as place, {cursor} as position,
                        md5(jsonb_strip_nulls(to_jsonb(s) - %(ours)s::text[])::text) as digest
                    from {staged} s where exists (select 1 from boundary b where b.position = s.{cursor})
                ) as digests
            ),
            matched as (
                select again.place, position, digest from again join boundary b using (position, digest)
                where again.number <= b.rows
            ),
            used as (
                update boundary b set rows = b.rows - m.rows
                from (select position, digest, count(*) as rows from matched group by 1, 2) m
                where b.position = m.position and b.digest = m.digest
            )
            delete from {staged} s using matched m where s.ctid = m.place
            """
        ).format(staged=tables.staged, cursor=Identifier(tables.cursor or "")),
        {"ours": list(PLATFORM)},
    )
