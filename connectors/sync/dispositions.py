"""Write dispositions as SQL: staged rows to the raw table, inside the publication's transaction.

Every statement is set-based; identifiers are composed by the driver.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from connectors.contract import Window
from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, VALID_FROM, VALID_TO

Connection = psycopg.Connection[Any]
ROW_NUMBER = "_row"
PLATFORM = (SYNCED_AT, LOAD_ID, ROW_NUMBER, VALID_FROM, VALID_TO, DELETED)
"""Columns that are not the source's."""


@dataclass(frozen=True, slots=True)
class Tables:
    """raw: the table that readers see. staged: this window's rows, in a relation nobody else sees.

    columns: the stream's own columns. keys: a part of them. cursor: one of them, or None; cursor_type: PostgreSQL's.
    has_marks: a staged row may be a delete mark. unequal: columns of a type without equality, such as json.
    """

    raw: Identifier
    staged: Identifier
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    cursor: str | None
    cursor_type: str = ""
    has_marks: bool = True
    unequal: frozenset[str] = frozenset()

    @property
    def position(self) -> Composable:
        """The cursor as positions are compared: a text by code points, whatever the database's locale is.

        That is the order of ISO dates, of Python, and of the source that is asked for what comes after a position.
        """
        return self.position_in()

    def position_in(self, *alias: str) -> Composable:
        assert self.cursor is not None
        is_text = self.cursor_type == "text" or self.cursor_type.startswith("character")
        return SQL('{} collate "C"' if is_text else "{}").format(Identifier(*alias, self.cursor))

    def becomes_position(self, tolerance: timedelta) -> Composable | None:
        """Whether a cursor value may be a position; None: every one may.

        Nothing would come after the far future, an infinity, NaN or a year before 1.
        """
        kind, cursor = self.cursor_type, Identifier(self.cursor or "")
        if kind == "date" or kind.startswith("timestamp"):
            return SQL("({c} >= '0001-01-01' and {c} <= now() + {t})").format(c=cursor, t=Literal(tolerance))
        if kind in ("real", "double precision") or kind.startswith("numeric"):
            return SQL("({c} > '-Infinity' and {c} < 'Infinity')").format(c=cursor)
        return None


@dataclass(frozen=True, slots=True)
class Written:
    """What a disposition did with the staged rows: loaded + deduplicated + filtered = staged."""

    loaded: int = 0
    updated: int = 0
    deleted: int = 0
    deduplicated: int = 0
    filtered: int = 0


def names(columns: Sequence[str], alias: str | None = None) -> Composed:
    """`"a", "b"` or `x."a", x."b"`."""
    return SQL(", ").join(Identifier(alias, column) if alias else Identifier(column) for column in columns)


def match(keys: Sequence[str], left: str, right: str) -> Composed:
    """`l."k" = r."k" and ...`"""
    return SQL(" and ").join(SQL("{} = {}").format(Identifier(left, key), Identifier(right, key)) for key in keys)


def differs(tables: Tables, columns: Sequence[str], left: str, right: str) -> Composable:
    """True when some column is distinct; false for an empty list."""
    if not columns:
        return SQL("false")

    def row(alias: str) -> Composable:
        values = [(Identifier(alias, name), SQL("::text" if name in tables.unequal else "")) for name in columns]
        return SQL(", ").join(SQL("{}{}").format(value, cast) for value, cast in values)

    return SQL("row({}) is distinct from row({})").format(row(left), row(right))


def count(connection: Connection, query: SQL | Composed, parameters: Sequence[Any] = ()) -> int:
    row = connection.execute(SQL("select count(*) from ({}) as q").format(query), parameters).fetchone()
    assert row is not None
    return int(row[0])


def changed(
    connection: Connection, query: SQL | Composed, parameters: Sequence[Any] | Mapping[str, Any] | None = None
) -> int:
    """Run a data-changing statement; rows it touched."""
    return max(connection.execute(query, parameters).rowcount, 0)


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


def _insert(tables: Tables, source: Composable) -> Composed:
    columns = (*tables.columns, DELETED)
    return SQL("insert into {raw} ({columns}) select {columns} from {source}").format(
        raw=tables.raw, columns=names(columns), source=source
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


def append(connection: Connection, tables: Tables, window: Window | None, *, comes_again: bool) -> Written:
    """Insert every staged row. A partition's window is replaced, so its rerun doubles nothing.

    comes_again: rows that were loaded before are remembered, and are not loaded twice.
    """
    dropped = 0
    if window is not None and tables.cursor is not None:
        connection.execute(
            SQL("delete from {raw} where {cursor} >= %s and {cursor} < %s").format(
                raw=tables.raw, cursor=Identifier(tables.cursor)
            ),
            [window.start, window.end],
        )
    elif comes_again:
        dropped = drop_boundary(connection, tables)
    return Written(loaded=changed(connection, _insert(tables, tables.staged)), deduplicated=dropped)


def merge(connection: Connection, tables: Tables, *, is_hard: bool, delete_insert: bool) -> Written:
    """Insert new keys, update changed rows, leave equal rows alone (counted as deduplicated), apply delete marks."""
    deleted, absent = _apply_deletes(connection, tables, is_hard=is_hard)
    if delete_insert:
        return _delete_insert(connection, tables, deleted, absent)
    others = [column for column in tables.columns if column not in tables.keys]
    written = (*others, DELETED)
    settings = SQL(", ").join(
        SQL("{c} = excluded.{c}").format(c=Identifier(column)) for column in (*written, SYNCED_AT, LOAD_ID)
    )
    row = connection.execute(
        SQL(
            """
            with merged as (
                insert into {raw} as t ({columns}) select {columns} from {staged}
                on conflict ({keys}) do update set {settings} where {differs}
                returning (xmax = 0) as is_new, {deleted} as is_deleted
            )
            select count(*), count(*) filter (where not is_new), count(*) filter (where is_deleted),
                (select count(*) from {staged})
            from merged
            """
        ).format(
            raw=tables.raw, staged=tables.staged, columns=names((*tables.columns, DELETED)), keys=names(tables.keys),
            settings=settings, differs=differs(tables, written, "t", "excluded"), deleted=Identifier("t", DELETED),
        )
    ).fetchone()  # fmt: skip
    assert row is not None
    loaded, updated, tombstones, staged = row
    return Written(
        loaded=loaded + deleted,
        updated=updated,
        deleted=deleted + tombstones,
        deduplicated=staged - loaded,
        filtered=absent,
    )


def _apply_deletes(connection: Connection, tables: Tables, *, is_hard: bool) -> tuple[int, int]:
    """Delete marks on known keys; (rows deleted, marks on keys that are not there). The marks leave the stage.

    A soft delete keeps the row's last values. A mark on an unknown key stays staged as a tombstone when soft, and is
    dropped when hard.
    """
    mark = Identifier("s", DELETED)
    if not tables.has_marks:
        return 0, 0
    if not connection.execute(SQL("select 1 from {} s where {} limit 1").format(tables.staged, mark)).fetchone():
        return 0, 0
    on = SQL("{} and {}").format(match(tables.keys, "t", "s"), mark)
    if is_hard:
        deleted = changed(connection, SQL("delete from {} t using {} s where {}").format(tables.raw, tables.staged, on))
        marks = changed(connection, SQL("delete from {} s where {}").format(tables.staged, mark))
        return deleted, marks - deleted
    deleted = changed(
        connection,
        SQL(
            "update {raw} t set {flag} = true, {synced} = s.{synced}, {load} = s.{load} from {staged} s "
            "where {on} and not t.{flag}"
        ).format(
            raw=tables.raw, staged=tables.staged, on=on, flag=Identifier(DELETED), synced=Identifier(SYNCED_AT),
            load=Identifier(LOAD_ID),
        ),
    )  # fmt: skip
    known = changed(connection, SQL("delete from {} s using {} t where {}").format(tables.staged, tables.raw, on))
    return deleted, known - deleted


def _delete_insert(connection: Connection, tables: Tables, deleted: int, absent: int) -> Written:
    unchanged = changed(
        connection,
        SQL("delete from {staged} s using {raw} t where {on} and not ({differs})").format(
            staged=tables.staged, raw=tables.raw, on=match(tables.keys, "t", "s"),
            differs=differs(tables, (*tables.columns, DELETED), "t", "s"),
        ),
    )  # fmt: skip
    updated = changed(
        connection,
        SQL("delete from {raw} t using {staged} s where {on}").format(
            raw=tables.raw, staged=tables.staged, on=match(tables.keys, "t", "s")
        ),
    )
    tombstones = count(connection, SQL("select 1 from {} where {}").format(tables.staged, Identifier(DELETED)))
    loaded = changed(connection, _insert(tables, tables.staged))
    return Written(
        loaded=loaded + deleted,
        updated=updated,
        deleted=deleted + tombstones,
        deduplicated=unchanged,
        filtered=absent,
    )


def mark_all_deleted(connection: Connection, tables: Tables) -> None:
    """The source was emptied after these staged rows."""
    connection.execute(SQL("update {} set {} = true").format(tables.staged, Identifier(DELETED)))


def delete_absent(connection: Connection, tables: Tables, *, is_hard: bool, is_scd2: bool) -> int:
    """A full snapshot lacks keys that the raw table has: they were deleted at the source. Rows deleted."""
    absent = SQL("not exists (select 1 from {staged} s where {on})").format(
        staged=tables.staged, on=match(tables.keys, "t", "s")
    )
    return _delete(connection, tables, absent, is_hard=is_hard, is_scd2=is_scd2)


def delete_others(
    connection: Connection, tables: Tables, column: str, value: int, *, is_hard: bool, is_scd2: bool
) -> int:
    """Rows whose `column` is not `value` are gone at the source. Rows deleted."""
    other = SQL("{} is distinct from {}").format(Identifier("t", column), value)
    return _delete(connection, tables, other, is_hard=is_hard, is_scd2=is_scd2)


def _delete(connection: Connection, tables: Tables, gone: Composed, *, is_hard: bool, is_scd2: bool) -> int:
    """Raw rows `t` that are gone: deleted, marked as deleted, or their version closed. Rows that were not so before."""
    if is_scd2:
        query = SQL("update {raw} t set {until} = now(), {synced} = now() where {until} is null and {gone}")
    elif is_hard:
        query = SQL("delete from {raw} t where {gone}")
    else:
        query = SQL("update {raw} t set {flag} = true, {synced} = now() where not {flag} and {gone}")
    return changed(
        connection,
        query.format(
            raw=tables.raw, gone=gone, flag=Identifier(DELETED),
            until=Identifier(VALID_TO), synced=Identifier(SYNCED_AT),
        ),
    )  # fmt: skip


def scd2(connection: Connection, tables: Tables) -> Written:
    """Close the current version of every changed key and insert the new one; `_valid_to` is null on current rows."""
    staged = count(connection, SQL("select 1 from {}").format(tables.staged))
    current = SQL("{} and {} is null").format(match(tables.keys, "t", "s"), Identifier("t", VALID_TO))
    deleted = changed(
        connection,
        SQL("update {raw} t set {until} = now(), {synced} = now() from {staged} s where {on} and {mark}").format(
            raw=tables.raw, staged=tables.staged, on=current, mark=Identifier("s", DELETED),
            until=Identifier(VALID_TO), synced=Identifier(SYNCED_AT),
        ),
    )  # fmt: skip
    marks = changed(connection, SQL("delete from {} where {}").format(tables.staged, Identifier(DELETED)))
    updated = changed(
        connection,
        SQL("update {raw} t set {until} = now(), {synced} = now() from {staged} s where {on} and {differs}").format(
            raw=tables.raw, staged=tables.staged, on=current, differs=differs(tables, tables.columns, "t", "s"),
            until=Identifier(VALID_TO), synced=Identifier(SYNCED_AT),
        ),
    )  # fmt: skip
    columns = (*tables.columns, DELETED)
    loaded = changed(
        connection,
        SQL(
            """
            insert into {raw} ({columns}, {since}) select {columns}, now() from {staged} s
            where not exists (select 1 from {raw} t where {on})
            """
        ).format(
            raw=tables.raw, staged=tables.staged, columns=names(columns), since=Identifier(VALID_FROM), on=current
        ),
    )
    return Written(
        loaded=loaded + deleted,
        updated=updated,
        deleted=deleted,
        deduplicated=staged - marks - loaded,
        filtered=marks - deleted,
    )
