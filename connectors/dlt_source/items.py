"""What dlt resources yield, as the engine's messages."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

import msgspec
import pyarrow as pa

from connectors.contract import Frame, JsonRecords, Message, Rejected
from connectors.decimals import DecimalFields

_BATCH: Final = 1_000


def messages(items: Iterable[Any]) -> Iterator[Message]:
    """Records gathered to batches; tables as they come. Positions count batches and tables from 1."""
    decimals = DecimalFields()
    waiting: list[Any] = []
    number = 0
    for item in items:
        table = _table(item)
        if table is None:
            waiting.extend(cast("list[Any]", item) if isinstance(item, list) else [item])
        if waiting and (table is not None or len(waiting) >= _BATCH):
            number += 1
            yield from _records(waiting, f"batch {number}", decimals)
            waiting = []
        if table is not None:
            number += 1
            yield Frame(table, f"table {number}")
    if waiting:
        yield from _records(waiting, f"batch {number + 1}", decimals)


def size_bytes(message: Message) -> int:
    """Of its records; what dlt received for them it does not tell."""
    match message:
        case JsonRecords():
            return len(message.body)
        case Frame():
            return message.table.nbytes
        case _:
            return 0


def _table(item: Any) -> pa.Table | None:
    match item:
        case pa.Table():
            return item
        case pa.RecordBatch():
            return pa.Table.from_batches([item])
        case _ if type(item).__module__.startswith("pandas."):
            return pa.Table.from_pandas(item, preserve_index=False)
        case _:
            return None


def _records(rows: list[Any], position: str, decimals: DecimalFields) -> Iterator[Message]:
    good: list[bytes] = []
    rejected: list[Rejected] = []
    for row in rows:
        if not isinstance(row, Mapping):
            reason = f"the record is a {type(row).__name__}, not a mapping"
            rejected.append(Rejected(repr(row).encode(), reason, position))
            continue
        decimals.see(cast("object", row))
        try:
            good.append(_ENCODER.encode(row))
        except (TypeError, ValueError, RecursionError) as error:
            text = repr(cast("object", row)).encode()
            rejected.append(Rejected(text, f"the record is no JSON: {error}", position))
    if hints := decimals.hints():
        yield hints
    if good:
        yield JsonRecords(b"\n".join(good), position)
    yield from rejected


def _plain(value: object) -> object:
    """Types of dlt's helpers that JSON has no form for: pendulum's are the standard library's, the rest are texts."""
    if isinstance(value, set | frozenset):
        return list(cast("set[object]", value))
    return str(value)


_ENCODER: Final = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain)
