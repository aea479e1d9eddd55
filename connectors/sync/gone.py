"""A column that the source no longer sends stays in the raw table, typed and NULL, so that what is built on it still
builds; a comment on the column says so, where dbt's catalogue and every SQL client show it."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from connectors.sync.result import SyncRequest
from connectors.sync.schema import Drift

MARK = "Missing from the source since"
_LATER = """
select 1 from ops.syncs where source = %s and stream = %s and window_start > %s and status like 'succeeded%%' limit 1
"""


def speaks_of_now(connection: psycopg.Connection[Any], request: SyncRequest) -> bool:
    """Whether the sync shows what the source sends by now: a live one, or one of the newest window read so far.

    An older window may well lack a column that came later.
    """
    if request.window is None:
        return request.is_live
    return not connection.execute(_LATER, [request.source.source, request.stream.name, request.window.start]).fetchall()


def say_missing(connection: psycopg.Connection[Any], raw: Identifier, missing: Sequence[Drift]) -> None:
    """Comment on the columns that are missing, once, and take the comment from those that came back.

    missing: of a sync that speaks of now and read records; also renamed columns, by their new names, may be among them.
    """
    gone = {drift.column for drift in missing if drift.change == "missing"}
    rows = connection.execute(
        """
        select attname, coalesce(col_description(attrelid, attnum), '') from pg_attribute
        where attrelid = %s::regclass and attnum > 0 and not attisdropped
        """,
        [raw.as_string(connection)],
    ).fetchall()
    for name, said in rows:
        is_marked = said.startswith(MARK)
        if is_marked == (name in gone):
            continue
        row = connection.execute("select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24:MI')").fetchone()
        assert row is not None
        text = None if is_marked else f"{MARK} {row[0]} UTC: NULL in every row synced since."
        connection.execute(SQL("comment on column {}.{} is {}").format(raw, Identifier(name), Literal(text)))
