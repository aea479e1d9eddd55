"""One-line SQL for the tests."""

from typing import Any

import psycopg


def run(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run the statements one by one, each committed; the last one's rows."""
    rows: list[tuple[Any, ...]] = []
    with psycopg.connect(dsn, autocommit=True) as session:
        for statement in statements:
            cursor = session.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
    return rows
