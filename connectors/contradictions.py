"""Facts of one stream that contradict each other, refused where they are declared and not by the first sync."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connectors.column_spec import ColumnSpec
    from connectors.specs import StreamSpec

_WITHOUT_HARD_DELETES: Mapping[str, str] = {
    "append": "which adds every record",
    "replace": "which holds exactly what was read",
    "scd2": "which closes the version of a deleted key",
}


def refuse_contradictions(stream: "StreamSpec") -> None:
    """Raises ValueError: the keys, and what is to be done about them."""
    _write(stream)
    _backfill(stream)
    _key(stream)
    _cursor(stream)
    _columns(stream)


def _write(stream: "StreamSpec") -> None:
    write = stream.write or "append"
    if write in ("merge", "scd2") and not stream.primary_key:
        raise ValueError(f"write: {write} needs a primary_key")
    if stream.write == "append" and stream.cursor is not None and stream.cursor.lag:
        raise ValueError("cursor.lag with write: append would load the rows of the lag twice; use write: merge")
    if stream.snapshot and write not in ("merge", "scd2"):
        raise ValueError("snapshot: true finds deletes by key; it needs write: merge or scd2")
    if stream.deletes == "hard" and write not in stream.hard_deletes:
        raise ValueError(
            f"deletes: hard has no effect with write: {write}, {_WITHOUT_HARD_DELETES[write]}; "
            "take it out, or set write: merge"
        )
    if stream.merge != "upsert" and write != "merge":
        raise ValueError(f"merge: {stream.merge} has no effect with write: {write}; take it out, or set write: merge")


def _backfill(stream: "StreamSpec") -> None:
    backfill = stream.backfill
    if windowed := [name for name in backfill.reasons if name not in ("contract", "new_files")]:
        if stream.partitions is None:
            raise ValueError(f"backfill.reasons: {windowed[0]} fills windows; it needs partitions")
        if "webhook_gaps" in windowed and backfill.webhook_gaps is None:
            raise ValueError("backfill.reasons: webhook_gaps needs backfill.webhook_gaps: {source, longer_than}")


def _key(stream: "StreamSpec") -> None:
    for name in stream.primary_key:
        if stream.primary_key.count(name) > 1:
            raise ValueError(f"primary_key names {name} twice; take one out")
        column = stream.columns.get(name)
        if column is None:
            if stream.columns and stream.drift.new == "freeze":
                raise ValueError(f"primary_key {name} is not in columns, and drift.new: freeze lets no other column in")
            continue
        if column.rule in ("block", "truncate", "mask"):
            raise ValueError(f"columns.{name}.rule: {column.rule} contradicts primary_key: different keys would be one")
        _refuse_null(name, column, "primary_key: no key may be NULL")


def _cursor(stream: "StreamSpec") -> None:
    cursor = stream.cursor
    column = stream.columns.get(cursor.field) if cursor is not None else None
    if cursor is None or column is None:
        return
    name, kind = cursor.field, column.type
    if column.rule != "keep":
        raise ValueError(f"columns.{name}.rule: {column.rule} contradicts cursor, which is compared")
    _refuse_null(name, column, "cursor: a record without it goes to quarantine")
    if kind in ("json", "bool", "binary"):
        raise ValueError(f"columns.{name}.type: {kind} contradicts cursor: such values have no order")
    if cursor.lag and kind not in (None, "timestamp", "date"):
        raise ValueError(f"cursor.lag is a time, and columns.{name}.type is {kind}: it would have no effect")
    # a text may hold times
    if stream.partitions is not None and kind in ("bigint", "double", "decimal", "time"):
        raise ValueError(
            f"partitions are slices of time, and the cursor {name} is a {kind}; take a column with a moment, or none"
        )


def _columns(stream: "StreamSpec") -> None:
    for name, column in stream.columns.items():
        for value in column.accepted_values:
            if value in stream.null_values:
                raise ValueError(
                    f"columns.{name}.accepted_values: {value!r} is one of null_values, so it is never stored"
                )


def _refuse_null(name: str, column: "ColumnSpec", what: str) -> None:
    if column.nullable and "nullable" in column.model_fields_set:
        raise ValueError(f"columns.{name}.nullable: true contradicts {what}")
