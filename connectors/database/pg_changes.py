"""A replicated table: messages of pgoutput to typed rows, sealed where a transaction ends."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString, cast

from psycopg import sql

from connectors.contract import CopyColumn, CopyFile, Emptied, Frame
from connectors.database import pg_output
from connectors.database.pg_output import UNCHANGED, Row, Value
from connectors.database.pg_types import PgType, map_type
from connectors.database.shape import TableColumn, TableShape
from connectors.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg import Connection

    from connectors.kinds.database import DatabaseStreamSpec

DELETED = "_deleted"
ROWS, BYTES = 20_000, 8 << 20
"""At which the rows so far are handed on, whether their transaction has ended or not."""
LACKING = 50
"""Rows whose large values are read from the table at a time: each may have a megabyte of them."""
# a domain is followed to the type that it rests on
_TYPES = """
with recursive resolved as (
    select position, type_id, modifier
    from unnest(%s::oid[], %s::int[]) with ordinality as t (type_id, modifier, position)
    union all
    select r.position, t.typbasetype, t.typtypmod
    from resolved r join pg_catalog.pg_type t on t.oid = r.type_id where t.typtype = 'd'
)
select r.position, t.typname, n.nspname = 'pg_catalog', t.typcategory::text, r.modifier, format_type(t.oid, r.modifier)
from resolved r
join pg_catalog.pg_type t on t.oid = r.type_id
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
where t.typtype <> 'd'
"""


@dataclass(frozen=True, slots=True)
class Known:
    """The table as the log last described it. places: of the columns that are read, in its rows.

    untold: columns of the key that a deletion, or a change of the key, does not name.
    """

    columns: tuple[TableColumn, ...]
    places: tuple[int, ...]
    untold: tuple[str, ...]


@dataclass(slots=True)
class Changes:
    """Turns the messages of one table into files; other tables of the publication pass by.

    shape: the table as it is now. table: its number, which stays when it is renamed.
    aside: a session for what the log does not say: types by their numbers, and large values that an update left alone.
    """

    aside: "Connection[Any]"
    where: str
    stream: "DatabaseStreamSpec"
    shape: TableShape
    table: int
    generated: Sequence[str]
    folder: Path
    rows: int = 0
    _known: Known | None = None
    _pending: list[Row] = field(default_factory=list[Row])
    _marks: list[bool] = field(default_factory=list[bool])
    _size: int = 0
    _lacking: list[int] = field(default_factory=list[int])

    def take(self, message: pg_output.Message) -> Iterator[CopyFile | Frame | Emptied]:
        """What the message completes."""
        match message:
            case pg_output.Relation() if message.relation_id == self.table:
                yield from self.flush()
                self._known = self._describe(message)
            case pg_output.Insert() if message.relation_id == self.table:
                self._add(message.row)
            case pg_output.Update() if message.relation_id == self.table:
                self._update(message)
            case pg_output.Delete() if message.relation_id == self.table:
                self._require_keys("deletion")
                self._add(message.old, is_deleted=True)
            case pg_output.Truncate() if self.table in message.relation_ids:
                yield from self.flush()
                yield Emptied()
            case _:
                pass
        if len(self._lacking) >= LACKING:
            self._fill()
        if len(self._pending) >= ROWS or self._size >= BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[CopyFile | Frame]:
        """The rows so far."""
        if not self._pending:
            return
        self._fill()
        rows, marks = self._pending, self._marks
        self._pending, self._marks, self._size = [], [], 0
        if rows:
            assert self._known is not None
            self.rows += len(rows)
            yield self._payload(self._known, rows, marks)

    @property
    def pending(self) -> int:
        """Rows that are not handed on yet."""
        return len(self._pending)

    def _update(self, message: pg_output.Update) -> None:
        known, old, row = self._known, message.old, message.row
        assert known is not None
        self._require_keys("change of the key")
        if old is not None:
            # a full old row has its large values too, another one those of its key
            row = [
                before if now is UNCHANGED and (before is not None or not message.is_key_only) else now
                for now, before in zip(row, old, strict=True)
            ]
            if self._key(old) != self._key(row):
                self._add(old, is_deleted=True)
        if any(row[place] is UNCHANGED for place in known.places):
            self._lacking.append(len(self._pending))
        self._add(row)

    def _require_keys(self, change: str) -> None:
        """Raises SourceError when the replica identity was another one as the change was made."""
        assert self._known is not None
        if self._known.untold:
            raise SourceError(
                self.where,
                f"a {change} in {self.shape.label} did not name {', '.join(self._known.untold)} of primary_key: the "
                "table had another replica identity for a while",
                f"Read the table anew: headwater state reset {self.where} --yes",
            )

    def _key(self, row: Row) -> list[Value]:
        assert self._known is not None
        return [row[place] for place in self._key_places(self._known)]

    def _key_places(self, known: Known) -> list[int]:
        at = {column.name: place for column, place in zip(known.columns, known.places, strict=True)}
        if gone := [key for key in self.stream.primary_key if key not in at]:
            raise SourceError(
                self.where,
                f"{self.shape.label} has no {', '.join(gone)} any more, which is in primary_key",
                "Correct primary_key, then read the table anew: headwater state reset.",
            )
        return [at[key] for key in self.stream.primary_key]

    def _add(self, row: Row, *, is_deleted: bool = False) -> None:
        self._pending.append(row)
        self._marks.append(is_deleted)
        self._size += sum(len(value) for value in row if isinstance(value, bytes))

    def _describe(self, relation: pg_output.Relation) -> Known:
        """Raises SourceError when a column of the key is gone."""
        columns = relation.columns
        found = self.aside.execute(_TYPES, [[c.type_id for c in columns], [c.modifier for c in columns]]).fetchall()
        types = {position: PgType(*words) for position, *words in found}
        # a type that was dropped since is its text
        unknown = PgType("", is_builtin=False, category="U", modifier=-1, formatted="text")
        chosen: list[TableColumn] = []
        places: list[int] = []
        for place, column in enumerate(columns):
            if not self._wants(column.name):
                continue
            kind = types.get(place + 1, unknown)
            mapped = map_type(kind)
            chosen.append(TableColumn(column.name, kind.formatted, mapped.pg_type, mapped.house_type, cast=mapped.cast))
            places.append(place)
        named = {column.name for column in columns if column.is_key}
        untold = tuple(key for key in self.stream.primary_key if key not in named)
        known = Known(tuple(chosen), tuple(places), untold)
        self._key_places(known)
        return known

    def _wants(self, name: str) -> bool:
        stream = self.stream
        if name in stream.exclude or name in stream.blocked or name in self.generated:
            return False
        return not stream.select or name in stream.select

    def _fill(self) -> None:
        """Large values that an update left alone, as the table has them now; a later change of them follows anyway.

        A row that is gone by now is left out: what took it away follows too, and until then it stays as it was. A
        column that is gone by now has NULL, as in every row after it.
        """
        known, rows, lacking = self._known, self._pending, self._lacking
        if not lacking:
            return
        assert known is not None
        self._lacking = []
        present = {column.name for column in self.shape.columns}
        wanted = [
            (column, at)
            for column, at in zip(known.columns, known.places, strict=True)
            if column.name in present and any(rows[place][at] is UNCHANGED for place in lacking)
        ]
        keys = self._key_places(known)
        of = list(dict.fromkeys(tuple(rows[place][at] for at in keys) for place in lacking))
        by_key = dict(zip(of, self._current(known, keys, of, wanted), strict=True))
        gone: set[int] = set()
        for place in lacking:
            row = rows[place]
            now = by_key[tuple(row[at] for at in keys)]
            if now is None:
                gone.add(place)
                continue
            for at, value in enumerate(row):
                if value is UNCHANGED:
                    row[at] = found = now.get(at)
                    self._size += len(found or b"")
        if gone:
            kept = [place for place in range(len(rows)) if place not in gone]
            self._pending, self._marks = [rows[place] for place in kept], [self._marks[place] for place in kept]

    def _current(
        self,
        known: Known,
        keys: Sequence[int],
        wanted_keys: Sequence[tuple[Value, ...]],
        wanted: Sequence[tuple[TableColumn, int]],
    ) -> Iterable[dict[int, bytes | None] | None]:
        """The wanted values of each key as texts, None for a key that is gone."""
        by_place = dict(zip(known.places, known.columns, strict=True))
        names = [by_place[place].name for place in keys]
        texts = [
            [value.decode() if isinstance(value := key[index], bytes) else None for key in wanted_keys]
            for index in range(len(keys))
        ]
        query = sql.SQL(
            "select {values} from unnest({texts}) with ordinality as k ({labels}, n) "
            "left join {table} t on {on} order by n"
        ).format(
            values=sql.SQL(", ").join(
                [
                    sql.SQL("t.{} is not null").format(sql.Identifier(names[0])),
                    *(sql.SQL("t.{}::text").format(sql.Identifier(column.name)) for column, _ in wanted),
                ]
            ),
            texts=sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in keys),
            labels=sql.SQL(", ").join(sql.Identifier(f"k{index}") for index in range(len(keys))),
            table=sql.Identifier(self.shape.schema or "", self.shape.table),
            on=sql.SQL(" and ").join(
                sql.SQL("t.{} = k.{}::{}").format(
                    sql.Identifier(name), sql.Identifier(f"k{index}"), _type(by_place[keys[index]])
                )
                for index, name in enumerate(names)
            ),
        )
        for is_there, *found in self.aside.execute(query, texts).fetchall():
            values = zip(wanted, found, strict=True)
            yield {at: None if text is None else text.encode() for (_, at), text in values} if is_there else None

    def _payload(self, known: Known, rows: Sequence[Row], marks: Sequence[bool]) -> CopyFile | Frame:
        """A file for COPY, as of a read of the table; values that a rule rewrites must not reach a file as they are."""
        values = [
            self._cast(column, [None if (value := row[place]) is UNCHANGED else value for row in rows])
            for column, place in zip(known.columns, known.places, strict=True)
        ]
        position = f"{self.shape.label} changes {self.rows - len(rows) + 1:,} to {self.rows:,}"
        if any(column.rewrites for column in self.stream.columns.values()):
            return Frame(_table(known.columns, values, marks), position)
        path = self.folder / f"changes-{self.rows:012d}.csv"
        cells = [[_cell(value) for value in column] for column in values]
        with path.open("wb") as file:
            file.writelines(
                b",".join(row) + b"\n" for row in zip(*cells, (b"t" if mark else b"f" for mark in marks), strict=True)
            )
        columns = (*(column.copied for column in known.columns), CopyColumn(DELETED, "bool", "boolean"))
        return CopyFile(path, columns, len(rows), position)

    def _cast(self, column: TableColumn, values: Sequence[Any]) -> Sequence[bytes | None]:
        """What a read of the table would have given: the source itself casts what it would have cast there."""
        if not column.cast or not any(value is not None for value in values):
            return values
        query = sql.SQL("select ({})::text from unnest(%s::text[]) with ordinality as v (text, n) order by n").format(
            sql.SQL(cast("LiteralString", column.cast)).format(sql.SQL("text::{}").format(_type(column)))
        )
        texts = [None if value is None else value.decode() for value in values]
        return [None if text is None else text.encode() for (text,) in self.aside.execute(query, [texts]).fetchall()]


def _cell(value: bytes | None) -> bytes:
    return b"" if value is None else b'"' + value.replace(b'"', b'""') + b'"'


def _table(
    columns: Sequence[TableColumn], values: Sequence[Sequence[bytes | None]], marks: Sequence[bool]
) -> "pa.Table":
    """Texts of exact types, in memory."""
    import pyarrow as pa

    arrays: list[Any] = []
    fields: list[Any] = []
    for column, cells in zip(columns, values, strict=True):
        if pa.types.is_binary(column.arrow_type):
            array: Any = pa.array([None if cell is None else bytes.fromhex(cell[2:].decode()) for cell in cells])
        else:
            array = pa.array(cells, pa.binary()).cast(pa.string())
        arrays.append(array)
        fields.append(pa.field(column.name, array.type, metadata=column.field().metadata))
    arrays.append(pa.array(marks, pa.bool_()))
    fields.append(pa.field(DELETED, pa.bool_(), nullable=False))
    return pa.table(arrays, schema=pa.schema(fields))


def _type(column: TableColumn) -> sql.Composable:
    return sql.SQL(cast("LiteralString", column.native_type))
