"""What the check modules share: one question to PostgreSQL, and words for a column that is gone."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from connectors.sync.checks.contract import Outcome, Whole

if TYPE_CHECKING:
    import psycopg
    from psycopg.sql import Composed


def one_row(
    connection: "psycopg.Connection[Any]", query: "Composed", values: Sequence[Any] | Mapping[str, Any] = ()
) -> tuple[Any, ...]:
    row = connection.execute(query, values).fetchone()
    assert row is not None
    return row


def one_number(
    connection: "psycopg.Connection[Any]", query: "Composed", values: Sequence[Any] | Mapping[str, Any] = ()
) -> int:
    return int(one_row(connection, query, values)[0])


def gone(whole: Whole, *columns: str) -> Outcome | None:
    """Red when records came and none had the column any more. It stops no sync: an optional field may well be absent
    from three records. `drift: {missing: ignore}` says that it always may."""
    missing = [column for column in columns if column in whole.gone]
    if not missing or whole.request.stream.drift.missing == "ignore":
        return None
    names = ", ".join(missing)
    said = f"column {names} is gone: none of {whole.rows.extracted} records has it, so there is nothing to judge"
    return Outcome(False, said, {"rows": whole.rows.extracted}, may_block=False)
