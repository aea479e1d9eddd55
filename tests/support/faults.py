"""Streams of their own in one shared warehouse: what a fault did to the table, to quarantine and to the ledger."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.sql import SQL, Identifier

from connectors.contract import CopyFile, Frame, JsonRecords, Message
from connectors.copy_columns import copy_columns
from connectors.sync import SyncResult, Verdict
from tests.support.scripted import sync

_OURS = ("_synced_at", "_deleted", "_dlt_load_id")


def lines(*records: str | bytes, position: str = "page 1") -> JsonRecords:
    """JSON exactly as it is spelt here, one record a line."""
    bodies = [record.encode("utf-8", "surrogatepass") if isinstance(record, str) else record for record in records]
    return JsonRecords(b"\n".join(bodies), position)


def frame(position: str = "frame 1", /, **columns: Any) -> Frame:
    return Frame(pa.table(columns), position)


def copy_file(
    path: Path, body: str | bytes, /, *, rows: int | None = None, **columns: tuple[Any, str] | Any
) -> CopyFile:
    """A COPY file of `body`, by default of a row a line. columns: an Arrow type, or one with PostgreSQL's own type."""
    raw = body.encode() if isinstance(body, str) else body
    path.write_bytes(raw)
    fields = [
        pa.field(name, kind[0], metadata={"pg_type": kind[1]}) if isinstance(kind, tuple) else pa.field(name, kind)
        for name, kind in columns.items()
    ]
    return CopyFile(path, copy_columns(fields), raw.count(b"\n") if rows is None else rows, "file 1")


@dataclass(slots=True)
class Stream:
    """One stream of the source `unit`, synced as often as a test likes; every sync is held to balance."""

    dsn: str
    admin_dsn: str
    name: str
    options: dict[str, Any]
    results: list[SyncResult] = field(default_factory=list[SyncResult])

    def sync(self, *messages: Message, **overrides: Any) -> SyncResult:
        options = {"write": "append", "max_quarantined": {"share": 1}} | self.options | overrides
        before = len(self.held()), self._count()
        result = sync(self.dsn, messages, name=self.name, **options)
        rows = result.rows
        assert rows.extracted == rows.loaded + rows.deduplicated + rows.filtered + rows.quarantined
        assert len(self.held()) - before[0] == rows.quarantined
        if options["write"] == "append":
            assert self._count() - before[1] == rows.loaded
        self.results.append(result)
        return result

    def fetch(self, query: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(query, parameters or None).fetchall()

    def execute(self, query: str, *parameters: Any) -> None:
        """As the administrator: what a test changes behind the engine's back."""
        with psycopg.connect(self.admin_dsn, autocommit=True) as connection:
            connection.execute(query.encode(), parameters or None)

    def _count(self) -> int:
        if self.fetch("select to_regclass(%s)", f"raw_unit.{self.name}") == [(None,)]:
            return 0
        return self.fetch(SQL("select count(*) from {}").format(self.table))[0][0]

    @property
    def table(self) -> Identifier:
        return Identifier("raw_unit", self.name)

    def values(self, column: str = "v", *, order: str = "id") -> list[Any]:
        """The column as PostgreSQL writes it, in the order of `order`."""
        query = SQL("select {}::text as value from {} order by {}").format(
            Identifier(column), self.table, Identifier(order)
        )
        return [value for (value,) in self.fetch(query)]

    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.results[-1].columns if column.name not in _OURS}

    def held(self) -> list[tuple[str, str | None, str]]:
        """(reason, field, position) of every record in quarantine."""
        return self.fetch(
            "select reason, field, position from ops.quarantine where stream = %s order by quarantine_id", self.name
        )

    def payloads(self) -> list[str]:
        found = self.fetch("select payload from ops.quarantine where stream = %s order by quarantine_id", self.name)
        return [payload for (payload,) in found]

    def drift(self) -> list[tuple[str, str, str]]:
        """(change, column, action) of every difference on record."""
        found = self.fetch(
            "select item ->> 'change', item ->> 'column', item ->> 'action' from ops.schema_versions, "
            "jsonb_array_elements(diff) with ordinality as items (item, place) where stream = %s "
            "order by version, place",
            self.name,
        )
        return [(change, column, action) for change, column, action in found]

    def decisions(self) -> list[str]:
        found = self.fetch("select decision from ops.schema_versions where stream = %s order by version", self.name)
        return [decision for (decision,) in found]

    def warning(self, name: str) -> Verdict | None:
        """The newest sync's failed verdict of that name."""
        return next((item for item in self.results[-1].verdicts if item.name == name and not item.passed), None)


@dataclass(slots=True)
class Lab:
    """Makes streams in one warehouse."""

    dsn: str
    admin_dsn: str
    _numbers: Any = field(default_factory=lambda: count(1))

    def stream(self, **options: Any) -> Stream:
        return Stream(self.dsn, self.admin_dsn, f"things_{next(self._numbers)}", options)


__all__ = ["Lab", "Stream", "copy_file", "frame", "lines"]
