"""How far the inbox may be read while others write to it.

A sequence number is taken before its row is committed, so number 8 may be visible while 7 is still on its way. Every
writer therefore announces, before it takes a number, the greatest number that it sees: it will take greater ones. The
announcement is a shared advisory lock of its transaction, so nobody ever waits for it, it goes with the commit (which
is visible before locks are released), and with the connection when the writer is killed.

A reader asks in this order, each in a snapshot of its own: the greatest number visible, the announcements, the rows.
A row up to that greatest number was numbered before the first question, so its writer had announced itself before: at
the second question it either still had, and the row lies above what it announced, or it had committed, and the third
question sees the row.
"""

from typing import Any

import psycopg

SPACE = 0x4857
"""The upper 16 bits of the locks' keys; the lower 48 hold the number."""

ANNOUNCE = f"""
    select pg_advisory_xact_lock_shared(({SPACE}::bigint << 48) | coalesce(max(sequence), 0)) from ops.webhook_inbox
"""
"""What every transaction that writes to the inbox does first: a statement, or a part that its insert reads from."""

_NEWEST = "select coalesce(max(sequence), 0) from ops.webhook_inbox"
_ANNOUNCED = f"""
    select min(((classid::bigint & 65535) << 32) | objid::bigint) from pg_locks
    where locktype = 'advisory' and objsubid = 1 and classid::bigint >> 16 = {SPACE}
    and database = (select oid from pg_database where datname = current_database())
"""


def readable_until(session: "psycopg.Connection[Any]") -> int:
    """The greatest sequence number below which nothing can appear any more; 0 for an empty inbox.

    The session is in autocommit: each question needs a snapshot of its own.
    """
    newest = _number(session, _NEWEST) or 0
    announced = _number(session, _ANNOUNCED)
    return newest if announced is None else min(newest, announced)


def _number(session: "psycopg.Connection[Any]", statement: str) -> int | None:
    row = session.execute(statement.encode()).fetchone()
    return row[0] if row else None
