"""The differences of a stream that are on record in `ops.schema_versions` and have not ended since.

A column that was missing and is back ends its loss; what the source file says otherwise than before ends the
differences of that kind and column. Another loss is a difference of its own then.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from connectors.sync.columns import LOAD_ID
from connectors.sync.schema import BLOCKED

Item = Mapping[str, Any]
"""One difference as `Drift.to_json` writes it; a returned one has its share, too."""

CHANCE = 0.01
"""A column is lost again when so many records would lack it by chance less often than this, at the share it had."""
_SAMPLE_BYTES = 8 << 20
"""At the table's end, where a load puts most of its rows; nobody waits for a scan of the rest."""


@dataclass(frozen=True, slots=True)
class OnRecord:
    """waiting, settled: differences whose version waits for a decision, and the others.

    shares: of columns that are back, how many of the rows had a value when they came, 0 to 1.
    """

    waiting: Sequence[Item]
    settled: Sequence[Item]
    shares: Mapping[str, float]

    def has(self, item: Item) -> bool:
        return item in self.settled or item in self.waiting

    @property
    def lost(self) -> frozenset[str]:
        """Missing columns whose loss waits for nobody."""
        return frozenset(_missing(self.settled) - _missing(self.waiting))

    @property
    def released(self) -> frozenset[tuple[str, str]]:
        """(change, column) that a policy `freeze` has stopped, and that a person has accepted since."""
        return frozenset((item["change"], item["column"]) for item in self.settled if item["action"] == BLOCKED)

    def may_be_chance(self, item: Item, records: int) -> bool:
        """So many records may well lack a column that many a record lacks."""
        if item["change"] != "missing":
            return False
        return (1 - self.shares.get(item["column"], 1.0)) ** records > CHANCE


def read(connection: psycopg.Connection[Any], source: str, stream: str) -> OnRecord:
    rows = connection.execute(
        """
        select diff, decision in ('pending', 'blocked') and version > coalesce((
            select max(version) from ops.schema_versions as accepted
            where accepted.source = v.source and accepted.stream = v.stream and accepted.decision = 'accepted'
        ), 0)
        from ops.schema_versions v where source = %s and stream = %s and diff <> '[]' order by version
        """,
        [source, stream],
    ).fetchall()
    return _folded(rows)


def _folded(versions: Iterable[Sequence[Any]]) -> OnRecord:
    """versions: (diff, waits), oldest first."""
    stands: list[tuple[Item, bool]] = []
    shares: dict[str, float] = {}
    for diff, waits in versions:
        ended = {("missing", item["column"]) for item in diff if item["change"] == "returned"}
        ended |= {(item["change"], item["column"]) for item in diff if item["action"] == "declared"}
        stands = [one for one in stands if (one[0]["change"], one[0]["column"]) not in ended]
        for item in diff:
            if item["change"] == "returned":
                shares[item["column"]] = item.get("share", 1.0)
            elif item["action"] != "declared":
                stands.append((item, waits))
        for column in _missing(diff):
            shares.pop(column, None)
    return OnRecord([item for item, waits in stands if waits], [item for item, waits in stands if not waits], shares)


def _missing(items: Iterable[Item]) -> set[str]:
    return {item["column"] for item in items if item["change"] == "missing"}


def shares_of(
    connection: psycopg.Connection[Any], raw: Identifier, columns: Collection[str], load_id: str
) -> dict[str, float]:
    """The share of the load's rows with a value in each column; 1.0 when none of its rows is found.

    Inside its publication: of the staged rows, where there are some (a merge leaves equal ones out of the table).
    """
    staged = connection.execute("select to_regclass('pg_temp.staged') is not null").fetchone() == (True,)
    table = Identifier("pg_temp", "staged") if staged else raw
    row = connection.execute(
        "select greatest(pg_relation_size(%(table)s::regclass) - %(bytes)s, 0) / current_setting('block_size')::bigint",
        {"table": table.as_string(connection), "bytes": _SAMPLE_BYTES},
    ).fetchone()
    assert row is not None
    names = list(columns)
    counts = connection.execute(
        SQL("select count(*){} from {} where {} = %s and ctid >= {}::tid").format(
            SQL("").join(SQL(", count({})").format(Identifier(name)) for name in names),
            table,
            Identifier(LOAD_ID),
            Literal(f"({row[0]},0)"),
        ),
        [load_id],
    ).fetchone()
    assert counts is not None
    rows, *filled = counts
    return {name: count / rows if rows else 1.0 for name, count in zip(names, filled, strict=True)}
