"""Record by record: what does not fit the schema as a whole page gets a place of its own, or a place in quarantine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from connectors.specs import ColumnType
from connectors.sync.columns import DELETED, OVERFLOW, Column
from connectors.sync.rejects import Reject
from connectors.sync.schema import StreamSchema
from connectors.sync.splitting import KEPT_BYTES
from connectors.sync.values import (
    INT64_MAX,
    INT64_MIN,
    Cleaning,
    UnfitError,
    clean_names,
    convert,
    infer,
    json_text,
    widest,
)

_MAX_REASON = 300


@dataclass(slots=True)
class Decoded:
    """tables: Table[n, columns] in warehouse names and canonical Arrow types, possibly with different column sets.

    numbers: the places of the table's rows in the payload, where they are not 1, 2, 3, ...
    """

    tables: list[pa.Table] = field(default_factory=list[pa.Table])
    rejects: list[Reject] = field(default_factory=list[Reject])
    numbers: Sequence[int] | None = None


@dataclass(slots=True)
class Page:
    """The records of one payload that are taken one by one.

    texts: for each row, its raw text for quarantine, made only when needed. numbers: its place in the payload, from 1.
    """

    position: str
    cleaning: Cleaning
    rows: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    texts: list[Callable[[], str]] = field(default_factory=list[Callable[[], str]])
    numbers: list[int] = field(default_factory=list[int])
    _rejects: dict[int, Reject] = field(default_factory=dict[int, Reject])

    @property
    def rejects(self) -> list[Reject]:
        """In the order of the payload."""
        return [self._rejects[number] for number in sorted(self._rejects)]

    def add(self, row: dict[str, Any], text: Callable[[], str], number: int) -> None:
        try:
            self.rows.append(clean_names(row, self.cleaning))
        except UnfitError as error:
            self.reject(text(), str(error), None, number)
            return
        self.texts.append(text)
        self.numbers.append(number)

    def reject(self, text: str, reason: str, name: str | None, number: int) -> None:
        if len(text) > KEPT_BYTES // 4 and len(raw := text.encode("utf-8", "replace")) > KEPT_BYTES:
            reason = f"{reason[:_MAX_REASON]} (payload cut to {KEPT_BYTES:,} of {len(raw):,} bytes)"
            text = raw[:KEPT_BYTES].decode("utf-8", "ignore")
        self._rejects[number] = Reject(text, reason[: 2 * _MAX_REASON], name, f"{self.position}, record {number}")


def whole(arrays: Mapping[str, Any], rows: int) -> pa.Table:
    """A table of so many rows, also where no column is left: a record without values is a record."""
    return pa.table(dict(arrays) or {DELETED: pa.array([False] * rows, pa.bool_())})


def rows_to_table(schema: StreamSchema, page: Page, null_values: frozenset[str] = frozenset()) -> Decoded:
    """Rows whose fields are all observed; values that do not fit go to a variant column or reject the record."""
    columns: dict[str, list[Any]] = {column.name: [] for column in schema.table_columns}
    if schema.has_overflow:
        columns[OVERFLOW] = []
    if any(row.get(DELETED) is True for row in page.rows):
        columns[DELETED] = []
    kept: list[int] = []
    for row, text, number in zip(page.rows, page.texts, page.numbers, strict=True):
        cleaning = Cleaning()
        try:
            values = _fit(schema, row, null_values, cleaning)
        except UnfitError as error:
            name, reason = error.args
            page.reject(text(), reason, name, number)
            continue
        page.cleaning.add(cleaning)
        for name in values.keys() - columns.keys():  # a variant column born on this page
            columns[name] = [None] * len(kept)
        for name, cells in columns.items():
            cells.append(values.get(name, False if name == DELETED else None))
        kept.append(number)
    if not kept:
        return Decoded([], page.rejects)
    types = {column.name: column.arrow_type for column in schema.table_columns}
    types |= {OVERFLOW: pa.string(), DELETED: pa.bool_()}
    table = whole({name: pa.array(cells, types[name]) for name, cells in columns.items()}, len(kept))
    return Decoded([table], page.rejects, kept if kept[-1] != len(kept) else None)


def observe_new(schema: StreamSchema, rows: Sequence[Mapping[str, Any]]) -> None:
    """Infer the type of every unknown field over the whole page; a field that is always null stays unknown."""
    kinds: dict[str, ColumnType | None] = {}
    longest: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if schema.find(name) is None and name != DELETED:
                kinds[name] = widest(kinds.get(name), infer(value))
                size = len(value) if isinstance(value, str) else 0 if value is None else KEPT_BYTES
                longest[name] = max(longest.get(name, 0), size)
        schema.mark_seen(row)
    for name, kind in kinds.items():
        if kind is None:
            schema.note_null(name)
        else:
            schema.observe(name, kind, longest[name])


def _fit(
    schema: StreamSchema, row: Mapping[str, Any], null_values: frozenset[str], cleaning: Cleaning
) -> dict[str, Any]:
    """Warehouse values of one record. Raises UnfitError(column, reason)."""
    values: dict[str, Any] = {}
    overflow: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or (isinstance(value, str) and value in null_values):
            continue
        if name == DELETED:
            if not isinstance(value, bool):
                raise UnfitError(DELETED, f"{DELETED} marks a deleted record; it is true or false, nothing else")
            values[DELETED] = value
            continue
        column = schema.find(name)
        if column is None:
            raise UnfitError(name, "new column, and the stream says drift.new: quarantine")
        if column.place == "overflow":
            overflow[column.name] = value
        elif column.place == "column":
            target, fit = _placed(schema, column, value, cleaning)
            values[target] = fit
    if overflow:
        try:
            values[OVERFLOW] = json_text(overflow, cleaning)
        except UnfitError as error:
            raise UnfitError(OVERFLOW, str(error)) from None
    return values


def _placed(schema: StreamSchema, column: Column, value: Any, cleaning: Cleaning) -> tuple[str, Any]:
    """Column and warehouse value: the field's own column, or the variant that holds a value of another type."""
    try:
        fit = convert(value, column, cleaning)
        if column.type == "text" and not isinstance(value, str) and (kind := infer(value)):
            schema.keep_as_text(column, kind)
    except UnfitError as error:
        variant = schema.retype(column, _variant_kind(value, column))
        if variant is None:
            raise UnfitError(column.name, str(error)) from None
        try:
            return variant.name, convert(value, variant, cleaning)
        except UnfitError as second:
            raise UnfitError(column.name, str(second)) from None
    return column.name, fit


def _variant_kind(value: Any, column: Column) -> ColumnType | None:
    """The type of the variant column; None when the value is of the right type but out of range."""
    kind = infer(value)
    if column.type in ("timestamp", "date", "time") and kind in ("text", "timestamp"):
        return None
    if column.type == "bigint" and isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        return "decimal"
    return None if kind == column.type else kind
