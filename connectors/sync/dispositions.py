"""Write dispositions as SQL: staged rows to the raw table, inside the publication's transaction.

Every statement is set-based.
"""

from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from connectors.contract import Window
from connectors.sync.columns import DELETED, LOAD_ID, SYNCED_AT, VALID_FROM, VALID_TO
from connectors.sync.sifting import drop_boundary
from connectors.sync.tables import Connection, Tables, changed, count, differs, match, names


@dataclass(frozen=True, slots=True)
class Written:
    """What a disposition did with the staged rows: loaded + deduplicated + filtered = staged."""

    loaded: int = 0
    updated: int = 0
    deleted: int = 0
    deduplicated: int = 0
    filtered: int = 0


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


def _insert(tables: Tables, source: Composable) -> Composed:
    columns = (*tables.columns, DELETED)
    return SQL("insert into {raw} ({columns}) select {columns} from {source}").format(
        raw=tables.raw, columns=names(columns), source=source
    )


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
