"""Records of any shape to typed Arrow columns; what does not fit comes back as rejects.

Raw JSON is decoded by msgspec into slotted structs typed by the schema, never into dicts, as long as every record
fits. The first record that does not (a new field, another type) sends its page through `rows_to_table`, which decides
record by record, lets the schema grow, and the next page is fast again.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pyarrow_compute

from connectors.contract import Frame, JsonRecords
from connectors.specs import ColumnType
from connectors.sync.columns import DELETED, OVERFLOW, Column
from connectors.sync.columnwise import dates, decimal_texts, raw_numbers
from connectors.sync.schema import StreamSchema
from connectors.sync.splitting import BadRecord, split_json
from connectors.sync.values import (
    INT64_MAX,
    INT64_MIN,
    UnfitError,
    convert,
    infer,
    json_text,
    strip_nul_escapes,
    widest,
)

_STRUCT_TYPES: Mapping[ColumnType, Any] = {
    "text": str | None,
    "bigint": int | None,
    "double": float | None,
    # its own digits: a number that went through Decimal or float would cost more, or lose some
    "decimal": msgspec.Raw,
    "bool": bool | None,
    "timestamp": str | None,
    "date": str | None,
    "time": str | None,
    "json": msgspec.Raw,
    "binary": str | None,
}
# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_NO_RAW = msgspec.Raw(b"")
_SURROGATE = re.compile(rb"\\u[dD][89abAB]")
_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class Reject:
    """A record for quarantine. payload: JSON or the raw line. field: the column it failed on, if one."""

    payload: str
    reason: str
    field: str | None
    position: str


@dataclass(slots=True)
class Decoded:
    """tables: Table[n, columns] in warehouse names and canonical Arrow types, possibly with different column sets."""

    tables: list[pa.Table] = field(default_factory=list[pa.Table])
    rejects: list[Reject] = field(default_factory=list[Reject])


class Decoder:
    """Decodes one stream's payloads against its growing schema.

    null_values: texts that mean NULL. max_record_bytes: a larger record is quarantined unread.
    """

    def __init__(self, schema: StreamSchema, null_values: Sequence[str], max_record_bytes: int) -> None:
        self._schema = schema
        self._null_values = frozenset(null_values)
        self._max_record_bytes = max_record_bytes
        self._revision = -1
        self._lines: Callable[[bytes], list[Any]] | None = None
        self._fields: list[tuple[Column, str]] = []

    def json(self, payload: JsonRecords) -> Decoded:
        """Table of the payload's records, and its rejects."""
        return self._fast_json(payload) or self._slow_json(payload)

    def _fast_json(self, payload: JsonRecords) -> Decoded | None:
        """None when some record does not fit the schema as it is."""
        if self._revision != self._schema.revision or self._lines is None:
            self._compile()
        assert self._lines is not None
        body = payload.body
        if not self._fields or _has_longer_line(body, self._max_record_bytes) or _SURROGATE.search(body):
            return None
        try:
            records = self._lines(body)
            table = self._columns(records, has_nul=b"\\u0000" in body)
        except (msgspec.MsgspecError, pa.ArrowException, OverflowError, RecursionError, UnfitError):
            return None  # the slow path finds out which record it was, and says so
        self._schema.mark_seen(column.source_name for column, _ in self._fields)
        return Decoded([table] if table.num_rows else [])

    def _slow_json(self, payload: JsonRecords) -> Decoded:
        rows: list[dict[str, Any]] = []
        sources: list[Callable[[], str]] = []
        rejects: list[Reject] = []
        for number, item in enumerate(split_json(payload.body, self._max_record_bytes), 1):
            position = f"{payload.position}, record {number}"
            if isinstance(item, BadRecord):
                rejects.append(Reject(item.text, item.reason, None, position))
                continue
            rows.append(item.value)
            sources.append(partial(bytes.decode, item.raw, "utf-8", "replace"))
        before = self._schema.revision
        _observe_new(self._schema, rows)
        # new fields were all that stood in the way, as on the first page: value by value costs five times as much
        if not rejects and self._schema.revision != before and (decoded := self._fast_json(payload)) is not None:
            return decoded
        decoded = rows_to_table(self._schema, rows, sources, payload.position, self._null_values)
        return Decoded(decoded.tables, rejects + decoded.rejects)

    def frame(self, payload: Frame) -> Decoded:
        """The frame's columns cast to the schema; rows that do not cast are rejected one by one."""
        table, schema = payload.table, self._schema
        schema.mark_seen(table.column_names)
        arrays: dict[str, pa.ChunkedArray] = {}
        misfits: list[str] = []
        for item in table.schema:
            if item.name == DELETED and pa.types.is_boolean(item.type):
                arrays[DELETED] = table.column(item.name)
                continue
            if pa.types.is_null(item.type) and schema.find(item.name) is None:
                continue
            column = schema.find(item.name) or schema.observe_arrow(item)
            if column is None or column.place == "overflow":
                misfits.append(item.name)
            elif column.place == "column":
                try:
                    arrays[column.name] = self._cast(table.column(item.name), column)
                except (pa.ArrowException, UnfitError):
                    misfits.append(item.name)
        if not misfits:
            return Decoded([pa.table(arrays)] if table.num_rows and arrays else [])
        rows = table.to_pylist()
        sources = [partial(json_text, _plain(row)) for row in rows]
        return rows_to_table(schema, rows, sources, payload.position, self._null_values)

    def _compile(self) -> None:
        """A struct type with one slot a known field; an unknown field makes the decoder stop and the schema grow."""
        self._fields = [
            (column, f"f{index}")
            for index, column in enumerate(c for c in self._schema.columns if not c.variant_of)
            if column.place != "overflow"
        ]
        slots: list[tuple[str, Any, Any]] = []
        for column, slot in self._fields:
            is_raw = column.type in ("json", "decimal") or column.place == "ignored"
            slots.append((slot, msgspec.Raw if is_raw else _STRUCT_TYPES[column.type], _NO_RAW if is_raw else None))
        rename = {slot: column.source_name for column, slot in self._fields}
        for index, name in enumerate(n for n in sorted(self._schema.null_fields) if self._schema.find(n) is None):
            rename[f"n{index}"] = name
            slots.append((f"n{index}", None, None))
        slots.append((DELETED, bool | None, None))
        record = msgspec.defstruct("Record", slots, rename=rename, forbid_unknown_fields=True, gc=False)
        self._lines = msgspec.json.Decoder(record).decode_lines
        self._revision = self._schema.revision

    def _columns(self, records: Sequence[Any], *, has_nul: bool) -> pa.Table:
        arrays: dict[str, Any] = {}
        for column, slot in self._fields:
            if column.place != "column":
                continue
            values = list(map(attrgetter(slot), records))
            arrays[column.name] = self._array(values, column, has_nul=has_nul)
        deleted = list(map(attrgetter(DELETED), records))
        if any(deleted):
            arrays[DELETED] = pa.array([bool(value) for value in deleted], pa.bool_())
        return pa.table(arrays)

    def _array(self, values: list[Any], column: Column, *, has_nul: bool) -> Any:
        match column.type:
            case "json":
                texts = [None if raw is _NO_RAW else bytes(raw).decode() for raw in values]
                if has_nul:
                    texts = [strip_nul_escapes(text) if text else text for text in texts]
                return pa.array([None if text == "null" else text for text in texts], pa.string())
            case "decimal":
                return self._cast(raw_numbers([None if raw is _NO_RAW else bytes(raw) for raw in values]), column)
            case "date":
                return self._cast(pa.array(values, pa.string()), column)
            case "binary" | "time":
                return pa.array([convert(value, column) for value in values], column.arrow_type)
            case "text":
                if has_nul:
                    values = [value.replace("\x00", "") if value else value for value in values]
                return self._cast(pa.array(values, pa.string()), column)
            case "timestamp":
                return self._cast(pa.array(values, pa.string()), column)
            case _:
                return pa.array(values, column.arrow_type)

    def _cast(self, array: Any, column: Column) -> Any:
        """The array in the column's canonical type.

        Raises:
            ArrowException, UnfitError: some value does not fit; the slow path names it.
        """
        kind = array.type
        if (pa.types.is_string(kind) or pa.types.is_large_string(kind)) and self._null_values:
            nulls = pa.array(sorted(self._null_values), kind)
            array = pc.if_else(pc.is_in(array, value_set=nulls), pa.scalar(None, kind), array)
        if column.type == "decimal" and not (pa.types.is_floating(kind) or pa.types.is_large_string(kind)):
            return decimal_texts(array, column)
        if column.type == "date" and pa.types.is_string(kind):
            return dates(array)
        if pa.types.is_string(kind) and column.type in ("text", "json"):
            if column.type != "text" or bool(pc.any(pc.match_substring(array, "\x00")).as_py()):
                raise UnfitError("needs a look at each value")
            return array
        if column.type == "timestamp":
            return _timestamps(array)
        if column.type in ("decimal", "json", "binary") or (pa.types.is_nested(kind) or pa.types.is_dictionary(kind)):
            return _by_value(array, column)
        if column.type == "text" and not pa.types.is_large_string(kind):
            return _by_value(array, column)
        return array.cast(column.arrow_type, safe=True)


def _has_longer_line(body: bytes, size_bytes: int) -> bool:
    return len(body) > size_bytes and max(map(len, body.split(b"\n"))) > size_bytes


def _by_value(array: Any, column: Column) -> Any:
    if pa.types.is_binary(array.type) and column.type == "binary":
        return array
    return pa.array([convert(value, column) for value in array.to_pylist()], column.arrow_type)


def _timestamps(array: Any) -> Any:
    """timestamp[us, UTC]; texts with an offset are moved to UTC, texts and times without one are taken as UTC."""
    target = pa.timestamp("us", "UTC")
    if pa.types.is_timestamp(array.type):
        if array.type.tz is None:
            array = pc.assume_timezone(array.cast(pa.timestamp("us"), safe=False), "UTC")
        return array.cast(target, safe=False)
    return array.cast(target, safe=True)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: (value.hex() if isinstance(value, bytes) else value) for key, value in row.items()}


def rows_to_table(
    schema: StreamSchema,
    rows: Sequence[Mapping[str, Any]],
    sources: Sequence[Callable[[], str]],
    position: str,
    null_values: frozenset[str] = frozenset(),
) -> Decoded:
    """Record by record: new fields grow the schema, values that do not fit go to a variant column or reject the record.

    sources: for each row, its raw text for quarantine, made only when needed.
    """
    _observe_new(schema, rows)
    columns: dict[str, list[Any]] = {column.name: [] for column in schema.table_columns}
    if schema.has_overflow:
        columns[OVERFLOW] = []
    has_deletes = any(row.get(DELETED) for row in rows)
    if has_deletes:
        columns[DELETED] = []
    rejects: list[Reject] = []
    length = 0
    for number, row in enumerate(rows):
        try:
            values = _fit(schema, row, null_values)
        except UnfitError as error:
            column, reason = error.args
            rejects.append(Reject(sources[number](), reason[:_MAX_REASON], column, f"{position}, record {number + 1}"))
            continue
        for name in values.keys() - columns.keys():  # a variant column born on this page
            columns[name] = [None] * length
        for name, cells in columns.items():
            cells.append(values.get(name, False if name == DELETED else None))
        length += 1
    if not length:
        return Decoded([], rejects)
    types = {column.name: column.arrow_type for column in schema.table_columns}
    types |= {OVERFLOW: pa.string(), DELETED: pa.bool_()}
    table = pa.table({name: pa.array(cells, types[name]) for name, cells in columns.items()})
    return Decoded([table], rejects)


def _observe_new(schema: StreamSchema, rows: Iterable[Mapping[str, Any]]) -> None:
    """Infer the type of every unknown field over the whole page; a field that is always null stays unknown."""
    kinds: dict[str, ColumnType | None] = {}
    for row in rows:
        for name, value in row.items():
            if schema.find(name) is None and name != DELETED:
                kinds[name] = widest(kinds.get(name), infer(value))
        schema.mark_seen(row)
    for name, kind in kinds.items():
        if kind is None:
            schema.note_null(name)
        else:
            schema.observe(name, kind)


def _fit(schema: StreamSchema, row: Mapping[str, Any], null_values: frozenset[str]) -> dict[str, Any]:
    """Warehouse values of one record. Raises UnfitError(column, reason)."""
    values: dict[str, Any] = {}
    overflow: dict[str, Any] = {}
    for name, value in row.items():
        if name == DELETED:
            values[DELETED] = bool(value)
            continue
        if value is None or (isinstance(value, str) and value in null_values):
            continue
        column = schema.find(name)
        if column is None:
            raise UnfitError(name, "new column, and the stream says drift.new: quarantine")
        if column.place == "overflow":
            overflow[column.name] = value
        elif column.place == "column":
            try:
                values[column.name] = convert(value, column)
            except UnfitError as error:
                variant = schema.retype(column, _variant_kind(value, column))
                if variant is None:
                    raise UnfitError(column.name, str(error)) from None
                values[variant.name] = convert(value, variant)
    if overflow:
        values[OVERFLOW] = json_text(overflow)
    return values


def _variant_kind(value: Any, column: Column) -> ColumnType | None:
    """The type of the variant column; None when the value is of the right type but out of range."""
    kind = infer(value)
    if column.type in ("timestamp", "date", "time") and kind in ("text", "timestamp"):
        return None
    if column.type == "bigint" and isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return "decimal"
    return None if kind == column.type else kind
