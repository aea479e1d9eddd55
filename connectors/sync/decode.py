"""Records of any shape to typed Arrow columns; what does not fit comes back as rejects.

Raw JSON of plain values is read by Arrow, any other is decoded by msgspec into slotted structs typed by the schema,
never into dicts, as long as every record fits. The first record that does not (a new field, another type) sends its
page through `rows_to_table`, which decides record by record, lets the schema grow, and the next page is fast again.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pyarrow_compute
from msgspec.structs import astuple

from connectors.contract import Frame, JsonRecords
from connectors.copy_columns import copy_column, house_type
from connectors.errors import SourceError
from connectors.specs import ColumnType
from connectors.sync.casting import by_value, cast, has_long_integers, json_values, payload_text, python_values
from connectors.sync.columns import DELETED, Column
from connectors.sync.columnwise import raw_numbers, raw_values
from connectors.sync.flat import FlatReader
from connectors.sync.records import Decoded, Page, observe_new, rows_to_table, whole
from connectors.sync.schema import StreamSchema
from connectors.sync.splitting import BadRecord, split_json
from connectors.sync.values import Cleaning, UnfitError, is_clean_text
from connectors.texts import has_longer_line

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
_NO_RAW = msgspec.Raw(b"")
# pyarrow makes its kernels at import, where no type checker sees them
pc: Any = pyarrow_compute
_UNCOMPILED = re.compile(r'["\\\x00-\x1f]')
_ODD = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""A NUL, or half of a character: both in one search, for `in` alone takes twice as long."""
_NUL = rb"\u0000"


class Decoder:
    """Decodes one stream's payloads against its growing schema; `cleaning` counts what is not stored as it came.

    null_values: texts that mean NULL. max_record_bytes: a larger record is quarantined unread.
    """

    def __init__(
        self, schema: StreamSchema, null_values: Sequence[str], max_record_bytes: int, cleaning: Cleaning | None = None
    ) -> None:
        self._schema = schema
        self._null_values = frozenset(null_values)
        self._max_record_bytes = max_record_bytes
        self.cleaning = cleaning or Cleaning()
        self._revision = -1
        self._lines: Callable[[bytes], list[Any]] | None = None
        self._fields: list[tuple[Column, str]] = []
        self._flat: FlatReader | None = None

    def json(self, payload: JsonRecords) -> Decoded:
        """Table of the payload's records, and its rejects."""
        return self._fast_json(payload) or self._slow_json(payload)

    def _fast_json(self, payload: JsonRecords) -> Decoded | None:
        """None when some record does not fit the schema as it is."""
        if self._revision != self._schema.revision or self._lines is None:
            self._compile()
        assert self._lines is not None
        body, cleaning = payload.body, Cleaning()
        odd = {found.lower() for found in _ODD.findall(body)} if b"\\" in body else set[bytes]()
        if not self._fields or has_longer_line(body, self._max_record_bytes) or odd - {_NUL}:
            return None
        try:
            table = None if odd else self._flat_table(body, cleaning)
            if table is None:
                table = self._columns(self._lines(body), cleaning, has_nul=bool(odd))
        except (msgspec.MsgspecError, pa.ArrowException, ValueError, OverflowError, RecursionError, UnfitError):
            return None  # the slow path finds out which record it was, and says so
        self.cleaning.add(cleaning)
        self._schema.mark_seen(self._names_in(table, body))
        return Decoded([table] if table.num_rows else [])

    def _flat_table(self, body: bytes, cleaning: Cleaning) -> pa.Table | None:
        """None when the records are not read in one go; then structs are tried, until the schema grows again."""
        if self._flat is None:
            return None
        try:
            found, rows = self._flat.arrays(body)
            arrays = {
                column.name: cast(found[column.source_name], column, cleaning, self._null_values)
                for column, _ in self._fields
            }
        except (pa.ArrowException, ValueError, OverflowError, UnfitError):
            self._flat = None
            return None
        return whole(arrays | {name: found[name] for name in (DELETED,) if name in found}, rows)

    def _names_in(self, table: pa.Table, body: bytes) -> Iterator[str]:
        """Fields that some record of the page has, be they null in all of them."""
        for column, _ in self._fields:
            if column.place == "column" and table.column(column.name).null_count == table.num_rows:
                name = json.dumps(column.source_name)
                plain = json.dumps(column.source_name, ensure_ascii=False)
                if name.encode() not in body and plain.encode("utf-8", "replace") not in body:
                    continue
            yield column.source_name

    def _slow_json(self, payload: JsonRecords) -> Decoded:
        page = Page(payload.position, self.cleaning)
        for number, item in enumerate(split_json(payload.body, self._max_record_bytes), 1):
            if isinstance(item, BadRecord):
                page.reject(item.text, item.reason, None, number)
            else:
                page.add(item.value, partial(bytes.decode, item.raw, "utf-8", "replace"), number)
        before = self._schema.revision
        observe_new(self._schema, page.rows)
        # new fields were all that stood in the way, as on the first page: value by value costs five times as much
        has_grown = self._schema.revision != before
        if has_grown and not page.rejects and (decoded := self._fast_json(payload)) is not None:
            return decoded
        return rows_to_table(self._schema, page, self._null_values)

    def frame(self, payload: Frame) -> Decoded:
        """The frame's columns cast to the schema; rows that do not cast are rejected one by one."""
        table, schema = payload.table, self._schema
        if len(set(table.column_names)) < table.num_columns:
            twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
            raise SourceError(schema.label, f"{payload.position}: columns of one name: {', '.join(twice)[:200]}")
        schema.mark_seen(table.column_names)
        arrays: dict[str, pa.ChunkedArray] = {}
        cleaning = Cleaning()
        has_misfits = False
        for item in table.schema:
            if item.name == DELETED:
                is_mark = pa.types.is_boolean(item.type) and not table.column(item.name).null_count
                has_misfits |= not is_mark
                arrays[DELETED] = table.column(item.name)
                continue
            known = schema.find(item.name)
            if known is None and (pa.types.is_null(item.type) or not is_clean_text(item.name)):
                has_misfits |= not pa.types.is_null(item.type)
                continue
            column = known or schema.observe_exact(copy_column(item))
            if column is None or column.place == "overflow":
                has_misfits = True
            elif column.place == "column":
                if known is not None and column.type == "text" and (kind := house_type(item.type)) != "text":
                    schema.keep_as_text(column, kind)
                try:
                    arrays[column.name] = cast(table.column(item.name), column, cleaning, self._null_values)
                except (pa.ArrowException, ValueError, OverflowError, UnfitError):
                    has_misfits = True
        if has_misfits:
            return self._slow_frame(payload)
        self.cleaning.add(cleaning)
        return Decoded([whole(arrays, table.num_rows)] if table.num_rows else [], numbers=payload.numbers)

    def _slow_frame(self, payload: Frame) -> Decoded:
        table = payload.table
        columns = {name: self._values(table.column(name), name) for name in table.column_names}
        page = Page(payload.position, self.cleaning)
        for index, number in enumerate(payload.numbers or range(1, table.num_rows + 1)):
            row = {name: values[index] for name, values in columns.items()}
            page.add(row, partial(payload_text, row), number)
        observe_new(self._schema, page.rows)
        return rows_to_table(self._schema, page, self._null_values)

    def _values(self, array: Any, name: str) -> list[Any]:
        column = self._schema.find(name)
        if column is not None and column.type == "json" and house_type(array.type) == "text":
            return json_values(array, self._null_values)
        return python_values(array, self.cleaning)

    def _compile(self) -> None:
        """A struct type with one slot a known field; an unknown field makes the decoder stop and the schema grow."""
        self._fields = [
            (column, f"f{index}")
            for index, column in enumerate(c for c in self._schema.columns if c.variant_of is None)
            # what a struct cannot be told to expect: a page that has such a name is taken record by record
            if column.place != "overflow" and not _UNCOMPILED.search(column.source_name)
        ]
        slots: list[tuple[str, Any, Any]] = []
        for column, slot in self._fields:
            is_raw = column.type in ("json", "decimal") or column.place == "ignored"
            slots.append((slot, msgspec.Raw if is_raw else _STRUCT_TYPES[column.type], _NO_RAW if is_raw else None))
        rename = {slot: column.source_name for column, slot in self._fields}
        unknown = [name for name in sorted(self._schema.null_fields) if self._schema.find(name) is None]
        for index, name in enumerate(name for name in unknown if not _UNCOMPILED.search(name)):
            rename[f"n{index}"] = name
            slots.append((f"n{index}", None, None))
        slots.append((DELETED, bool | None, None))
        self._flat = None
        if all(column.place == "column" for column, _ in self._fields):
            nulls = list(rename.values())[len(self._fields) :]
            with suppress(UnfitError):
                self._flat = FlatReader([column for column, _ in self._fields], nulls)
        record = msgspec.defstruct("Record", slots, rename=rename, forbid_unknown_fields=True, gc=False)
        self._lines = msgspec.json.Decoder(record).decode_lines
        self._revision = self._schema.revision

    def _columns(self, records: Sequence[Any], cleaning: Cleaning, *, has_nul: bool) -> pa.Table:
        arrays: dict[str, Any] = {}
        slots = list(zip(*map(astuple, records), strict=True)) or [()] * (len(self._fields) + 1)
        for (column, _), values in zip(self._fields, slots, strict=False):
            if column.place == "column":
                arrays[column.name] = self._array(values, column, cleaning, has_nul=has_nul)
        if any(slots[-1]):
            arrays[DELETED] = pa.array([bool(value) for value in slots[-1]], pa.bool_())
        return whole(arrays, len(records))

    def _array(self, values: Sequence[Any], column: Column, cleaning: Cleaning, *, has_nul: bool) -> Any:
        match column.type:
            case "json":
                texts = raw_values(values)
                if has_nul and pc.any(pc.match_substring(texts, "\\u0000")).as_py():
                    raise UnfitError("needs a look at each value")
                return texts
            case "decimal":
                return cast(raw_numbers(values), column, cleaning, self._null_values)
            case "binary" | "time":
                return by_value(list(values), column, cleaning)
            case "text" | "timestamp" | "date":
                if has_nul and column.type == "text":
                    values = [cleaning.text(value) if value else value for value in values]
                return cast(pa.array(values, pa.string()), column, cleaning, self._null_values)
            case "double":
                numbers = pa.array(values, pa.float64())
                if has_long_integers(numbers):
                    raise UnfitError("needs a look at each value")
                return numbers
            case _:
                return pa.array(values, column.arrow_type)
