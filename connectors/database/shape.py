"""What a table looks like, and which of its columns a stream reads: the same for every dialect."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from connectors.contract import CopyColumn, DiscoveredColumn, DiscoveredStream
from connectors.database.pg_types import arrow_type
from connectors.errors import ConfigError
from connectors.specs import ColumnType, did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.kinds.database import DatabaseStreamSpec


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a source table.

    native_type: the source's words. pg_type: PostgreSQL's words for the column that holds its values exactly.
    cast: an SQL cast that the source applies, in its own words with `{}` for the column; empty for none.
    """

    name: str
    native_type: str
    pg_type: str
    house_type: ColumnType
    is_nullable: bool = True
    cast: str = ""

    @property
    def binary_cast(self) -> str:
        """Like `cast`, to the very type of the warehouse: its bytes are then those that the warehouse reads."""
        if self.cast or self.native_type == self.pg_type:
            return self.cast
        # what a CSV would hold, the type's own text, read as the warehouse's type
        return "({})::text" if self.pg_type == "text" else f"({{}})::text::{self.pg_type}"

    @property
    def arrow_type(self) -> "pa.DataType":
        return arrow_type(self.pg_type)

    @property
    def copied(self) -> CopyColumn:
        return CopyColumn(self.name, self.house_type, self.pg_type)

    def field(self) -> "pa.Field":
        import pyarrow as pa

        return pa.field(self.name, self.arrow_type, self.is_nullable, metadata={b"pg_type": self.pg_type.encode()})


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table or view with its columns in the source's order; `leads` are columns that lead an index."""

    schema: str | None
    table: str
    columns: tuple[TableColumn, ...]
    primary_key: tuple[str, ...] = ()
    leads: frozenset[str] = frozenset()
    estimated_rows: int | None = None

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.table}" if self.schema else self.table

    def column(self, name: str, where: str) -> TableColumn:
        """Raises ConfigError with the nearest name when the table has no such column."""
        for column in self.columns:
            if column.name == name:
                return column
        raise ConfigError(
            where, f"{self.label} has no column {name!r}", did_you_mean(name, [c.name for c in self.columns])
        )

    def chosen(self, stream: "DatabaseStreamSpec", where: str) -> tuple[TableColumn, ...]:
        """The columns that the stream reads, in order; every name that it mentions must exist."""
        for name in (*stream.exclude, *stream.primary_key):
            self.column(name, where)
        if stream.select:
            picked = tuple(self.column(name, where) for name in stream.select)
        else:
            picked = tuple(column for column in self.columns if column.name not in stream.exclude)
        picked = tuple(column for column in picked if column.name not in stream.blocked)
        if not picked:
            raise ConfigError(where, f"no column of {self.label} is left to read", "Change select, exclude or columns.")
        return picked

    def key(self, stream: "DatabaseStreamSpec", where: str) -> tuple[TableColumn, ...]:
        """The columns of the stream's keyset; NOT NULL, for a window would skip a NULL.

        Raises:
            ConfigError: there is no key, a column is unknown or may be NULL.
        """
        names = (stream.keyset.by if stream.keyset else ()) or self.primary_key
        if not names:
            raise ConfigError(where, f"{self.label} has no primary key for keyset", "Set keyset.by to a unique key.")
        columns = tuple(self.column(name, where) for name in names)
        if loose := [column.name for column in columns if column.is_nullable]:
            raise ConfigError(
                where,
                f"keyset.by: {', '.join(loose)} of {self.label} may be NULL, so windows would skip rows",
                "Name columns that are NOT NULL and unique together, or leave keyset out.",
            )
        return columns

    def discovered(self) -> DiscoveredStream:
        return DiscoveredStream(
            name=self.table,
            columns=tuple(DiscoveredColumn(c.name, c.house_type, c.is_nullable) for c in self.columns),
            primary_key=self.primary_key,
            estimated_rows=self.estimated_rows,
        )


def schema_of(columns: Sequence[TableColumn]) -> "pa.Schema":
    """Names, Arrow types and, in each field's metadata, `pg_type`."""
    import pyarrow as pa

    return pa.schema([column.field() for column in columns])


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC ending in Z, as a saved cursor is written."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
