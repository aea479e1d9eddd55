"""A partition of files: the rows whose cursor lies inside its window."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from connectors.contract import Frame, JsonRecords, Message, Window
from connectors.errors import ConfigError
from connectors.texts import TextType, compute, convert

if TYPE_CHECKING:
    from connectors.specs import CursorSpec


def inside(window: Window | None, cursor: "CursorSpec | None", message: Message, where: str) -> Iterator[Message]:
    """The message, cut to [start, end) of the window; nothing when no row is inside. All of it without a window.

    Raises:
        ConfigError: the cursor's column is missing or no time, or the file is JSON Lines.
    """
    import pyarrow as pa

    if window is None or cursor is None:
        yield message
        return
    if isinstance(message, JsonRecords):
        raise ConfigError(where, "JSON Lines have no partitions", "Drop partitions, or deliver CSV or Parquet.")
    if not isinstance(message, Frame):
        yield message
        return
    if cursor.field not in message.table.column_names:
        raise ConfigError(where, f"no column {cursor.field!r} in {message.position}", "Correct cursor.field.")
    column: Any = message.table.column(cursor.field)
    if pa.types.is_string(column.type):
        column = convert(column, TextType("timestamp"))
    target = pa.timestamp("us", "UTC")
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = compute().assume_timezone(column.cast(pa.timestamp("us")), "UTC")
    if not pa.types.is_timestamp(column.type):
        raise ConfigError(
            where, f"cursor {cursor.field!r} is {column.type} in {message.position}", "Name a time, or drop partitions."
        )
    column = column.cast(target)
    start, end = pa.scalar(window.start, target), pa.scalar(window.end, target)
    pc = compute()
    is_inside = pc.and_(pc.greater_equal(column, start), pc.less(column, end))
    table = message.table.filter(is_inside)
    if table.num_rows:
        numbers = message.numbers or range(1, message.table.num_rows + 1)
        kept = [number for number, keep in zip(numbers, is_inside.to_pylist(), strict=True) if keep]
        yield Frame(table, message.position, kept)
