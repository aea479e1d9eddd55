"""Columns: house types, their Arrow and PostgreSQL forms, and names that cannot collide."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from connectors.contract import CopyColumn
from connectors.copy_columns import PG_TYPES
from connectors.specs import ColumnSpec, ColumnType

if TYPE_CHECKING:
    import pyarrow as pa
    from dlt.common.schema.typing import TColumnSchema

SYNCED_AT = "_synced_at"
DELETED = "_deleted"
LOAD_ID = "_dlt_load_id"
VALID_FROM = "_valid_from"
VALID_TO = "_valid_to"
OVERFLOW = "_overflow"
RESERVED = frozenset({SYNCED_AT, DELETED, LOAD_ID, VALID_FROM, VALID_TO, OVERFLOW, "_dlt_id", "_row"})
SYSTEM_NAMES = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Columns that every PostgreSQL table has already."""
MAX_COLUMNS = 1_500
"""PostgreSQL holds 1,600 columns at most; the rest of a wider record goes into one jsonb."""
MAX_ROW_BYTES = 7_600
"""Of a row's inline values: a row must fit into a page of 8 kB, long texts aside, which PostgreSQL moves out."""
INLINE_BYTES = 24
"""What a text, numeric, jsonb or bytea takes in the row at most, near enough; the rest is moved out."""
MAX_NAME_BYTES = 63
_SNAKE = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
"""Names that dlt's naming leaves as they are. Most are, and a first read then does not wait for the import of dlt."""
_TEXTS = ("text", "character varying", "character")
_NUMERIC = re.compile(r"^numeric\((\d+)(?:,\s*(-?\d+))?\)$")

Place = Literal["column", "overflow", "ignored"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a stream.

    name: in the warehouse. source_name: the source's own spelling. pg_type: PostgreSQL's words.
    place: a table column, a key of the overflow jsonb, or dropped by `drift.new: ignore` or `rule: block`.
    """

    name: str
    source_name: str
    type: ColumnType
    pg_type: str
    place: Place = "column"
    variant_of: str | None = None

    @property
    def arrow_type(self) -> "pa.DataType":
        return _arrow_types()[self.type]

    @property
    def decimal_bounds(self) -> tuple[int, int] | None:
        """(precision, scale) of numeric(p,s); None when unbounded."""
        match = _NUMERIC.match(self.pg_type)
        return (int(match[1]), int(match[2] or 0)) if match else None

    def to_json(self) -> dict[str, Any]:
        row = {"name": self.name, "source_name": self.source_name, "type": self.type, "pg_type": self.pg_type}
        if self.place != "column":
            row["place"] = self.place
        if self.variant_of is not None:
            row["variant_of"] = self.variant_of
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        return cls(**row)

    def to_dlt(self, *, nullable: bool = True, is_key: bool = False) -> "TColumnSchema":
        """The dlt hint: `x-pg-type` carries the exact type to our destination, the rest is what the contract promises.

        A promise only: our destination makes every column of the raw table nullable, and no constraint.
        """
        dlt_type = "text" if self.type == "decimal" else self.type
        hint = {"name": self.name, "data_type": dlt_type, "nullable": nullable, "x-pg-type": self.pg_type}
        return cast("TColumnSchema", hint | ({"primary_key": True} if is_key else {}))


@cache
def _arrow_types() -> "Mapping[ColumnType, pa.DataType]":
    import pyarrow as pa

    return {
        "text": pa.string(),
        "bigint": pa.int64(),
        "double": pa.float64(),
        # unbounded numerics travel as their decimal text: no Arrow decimal holds every numeric
        "decimal": pa.string(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "json": pa.string(),
        "binary": pa.binary(),
    }


def declared(source_name: str, name: str, spec: ColumnSpec) -> Column | None:
    """The column that a contract declares; None when it leaves the type to be observed. A rule other than keep needs
    no type: it stores text, or nothing."""
    if spec.type is None:
        if spec.rule == "keep":
            return None
        return Column(name, source_name, "text", PG_TYPES["text"], "ignored" if spec.rule == "block" else "column")
    pg_type = PG_TYPES[spec.type]
    if spec.type == "decimal" and spec.precision is not None:
        pg_type = f"numeric({spec.precision},{spec.scale or 0})"
    if spec.type == "text" and spec.precision is not None:
        pg_type = f"character varying({spec.precision})"
    return Column(name, source_name, spec.type, pg_type, "ignored" if spec.rule == "block" else "column")


def copies_into(arriving: CopyColumn, column: Column, *, is_binary: bool = False) -> bool:
    """COPY may put the texts into the column unseen: it would neither round nor coerce one of them.

    is_binary: not its texts but its bytes, whose meaning is the type's own; texts of all types have the same.
    """
    if arriving.pg_type == column.pg_type:
        return True
    base = arriving.pg_type.partition("(")[0]
    has_same_bytes = column.pg_type == base or (column.pg_type == "text" and base in _TEXTS)
    is_wider = arriving.type == column.type and column.pg_type == PG_TYPES[column.type]
    return is_wider and (has_same_bytes or not is_binary)


@cache
def _naming() -> Any:
    # all of it first: while another thread imports it, a part alone may find it gone from sys.modules (KeyError: 'dlt')
    import dlt  # noqa: F401  # pyright: ignore[reportUnusedImport] for its import alone
    from dlt.common.normalizers.naming.snake_case import NamingConvention

    return NamingConvention(MAX_NAME_BYTES)


def warehouse_name(source_name: str, taken: Collection[str]) -> str:
    """A column name for the warehouse: snake_case, at most 63 bytes, never one of ours, never twice.

    `userId` and `USER_ID` beside `user_id` become `user_id_2`, `user_id_3` in order of appearance; the registry
    remembers which is which. Names of our own and of PostgreSQL's system columns get the prefix `src_`. dlt's naming
    leaves the outcome as it is.
    """
    name = own_name(source_name)
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        suffix = f"_{number}"
        candidate = name[: MAX_NAME_BYTES - len(suffix)].rstrip("_") + suffix
    return candidate


def own_name(source_name: str) -> str:
    """The name that a field gets where no other field has it yet."""
    name = _snake(source_name)
    if not name.strip("_"):
        return f"column_{hashlib.sha256(source_name.encode('utf-8', 'replace')).hexdigest()[:6]}"
    if is_reserved(name):
        name = str(_naming().normalize_identifier(f"src_{name.lstrip('_')}"))
    return name


def clash(source_name: str, name: str) -> str | None:
    """The plain name of the field where something else has it already; None when the field's `name` is its own."""
    plain = _snake(source_name)
    return plain if is_reserved(plain) or own_name(source_name) != name else None


def _snake(source_name: str) -> str:
    if len(source_name) <= MAX_NAME_BYTES and _SNAKE.fullmatch(source_name):
        return source_name
    text = re.sub(r"[\x00-\x1f]", "_", source_name).strip()
    return str(_naming().normalize_identifier(text)) if text.strip("_ ") else ""


def is_reserved(name: str) -> bool:
    return name in RESERVED or name in SYSTEM_NAMES or name.startswith("_dlt")


def row_end(start: int, kind: ColumnType, longest: int | None = None) -> int:
    """Where a column ends in a row that is `start` bytes long so far; values of fixed size are aligned.

    longest: of the values seen, for the types of no fixed size.
    """
    size = {"bool": 1, "date": 4, "bigint": 8, "double": 8, "timestamp": 8, "time": 8}.get(kind)
    if size is None:
        return start + (INLINE_BYTES if longest is None else min(longest + 2, INLINE_BYTES))
    return -(-start // size) * size + size
