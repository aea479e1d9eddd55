"""Messages of a read as lines of JSON: raw records as they came, typed ones exactly; column rules are followed."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from connectors.contract import (
    Attestation,
    Checkpoint,
    CopyFile,
    Emptied,
    Frame,
    Hints,
    JsonRecords,
    Message,
    Rejected,
    Replaces,
)
from connectors.errors import ConfigError
from connectors.specs import ColumnType, StreamSpec
from connectors.sync.protect import Protector

if TYPE_CHECKING:
    import pyarrow as pa

# a decimal is a number with all its digits; infinities and NaN, which JSON does not have, are null
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder(type=Any, float_hook=Decimal)
_BATCH_ROWS = 1_000


class Rows:
    """Of one stream. where: it, for messages. keep: the properties to pass on; None passes all but blocked columns.

    Values are hashed, masked and made null by the very code that loading uses, so they are equal in the warehouse.

    rejected: why records could not be passed on; they are not among the lines.
    last: the value of the cursor's field in the line that was yielded last.

    Raises:
        ConfigError: the key of a hash is not set.
    """

    def __init__(self, stream: StreamSpec, where: str, keep: frozenset[str] | None = None) -> None:
        self._where = where
        self._protector = Protector(stream.columns, where, stream.null_values)
        self._blocked = frozenset(name for name, column in stream.columns.items() if column.rule == "block")
        self._rewritten = frozenset(name for name, column in stream.columns.items() if column.rewrites)
        self._nulls = frozenset(stream.null_values)
        self._keep = keep
        self._cursor = stream.cursor.field if stream.cursor is not None else None
        self.rejected: list[str] = []
        self.last: Any = None

    def of(self, message: Message) -> Iterator[bytes]:
        """One JSON object a line; none for a message that carries no records.

        Raises:
            ConfigError: rows are gone at the source, which lines of records cannot say.
        """
        match message:
            case JsonRecords():
                for number, line in enumerate(message.body.split(b"\n"), start=1):
                    if line.strip():
                        yield from self._raw(line.strip(), f"{message.position}, line {number}")
            case Frame():
                yield from self._frame(self._protector.frame(message))
            case CopyFile():
                yield from self._copied(message)
                message.path.unlink(missing_ok=True)
            case Rejected():
                self.rejected.append(f"{message.position}: {self._protector.rejected(message).reason}")
            case Emptied() | Replaces():
                what = "the read says that earlier rows are gone, and an export passes on records alone"
                raise ConfigError(self._where, what, "Sync it here, or let its connector read all rows every time.")
            case Attestation() | Hints() | Checkpoint():
                return

    def _raw(self, line: bytes, position: str) -> Iterator[bytes]:
        try:
            fields = _FIELDS.decode(line)
            value = _ANY.decode(fields[self._cursor]) if self._cursor in fields else None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.rejected.append(f"{position}: {error}")
            return
        self.last = value
        if self._protector.touches(fields):
            fields = _FIELDS.decode(self._protector.json(JsonRecords(line, position)).body)
        elif self._keep is None and not self._nulls:
            yield line
            return
        yield _ENCODER.encode({name: self._or_null(item) for name, item in fields.items() if self._passes(name)})

    def _or_null(self, value: msgspec.Raw) -> msgspec.Raw | None:
        text = bytes(value)
        if not (self._nulls and text.startswith(b'"')):
            return value
        # Python's parser also takes what is no good Unicode
        return None if json.loads(text.decode("utf-8", "replace"), strict=False) in self._nulls else value

    def _passes(self, name: str) -> bool:
        return name not in self._blocked and (self._keep is None or name in self._keep)

    def _typed(self, row: dict[str, Any]) -> bytes:
        self.last = row.get(self._cursor) if self._cursor is not None else None
        return _ENCODER.encode({name: value for name, value in row.items() if self._passes(name)})

    def _frame(self, frame: Frame) -> Iterator[bytes]:
        for batch in _utc(frame.table).to_batches(max_chunksize=_BATCH_ROWS):
            for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                yield self._typed({name: self._plain(value) for name, value in row.items()})

    def _plain(self, value: Any) -> Any:
        return None if isinstance(value, str) and value in self._nulls else _plain(value)

    def _copied(self, file: CopyFile) -> Iterator[bytes]:
        from connectors.sync.extract import frames_of  # the one reader of such files

        readers = [(column.name, self._reader(column.name, column.type)) for column in file.columns]
        for frame in frames_of(file) if file.rows else ():
            for row in cast("list[dict[str, Any]]", self._protector.frame(frame).table.to_pylist()):
                values = {
                    name: (None if (text := row[name]) is None or text in self._nulls else read(text))
                    for name, read in readers
                }
                yield self._typed(values)

    def _reader(self, name: str, kind: ColumnType) -> Callable[[Any], Any]:
        return str if name in self._rewritten else _READERS[kind]


def _utc(table: "pa.Table") -> "pa.Table":
    """Timestamps in microseconds UTC: naive ones are declared UTC."""
    import pyarrow as pa

    fields = [
        item.with_type(pa.timestamp("us", item.type.tz or "UTC")) if pa.types.is_timestamp(item.type) else item
        for item in cast("Sequence[pa.Field]", table.schema)
    ]
    return table.cast(pa.schema(fields), safe=False)


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON has it; containers at any depth."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case timedelta():
            return value.total_seconds()
        case Decimal() if not value.is_finite():
            return None
        case dict():
            return {str(key): _plain(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list():
            return [_plain(item) for item in cast("list[Any]", value)]
        case _:
            return value


def _moment(parse: Callable[[str], Any], text: str) -> Any:
    """infinity and years beyond Python's stay the text that they are; a time of no zone is UTC's."""
    try:
        found = parse(text)
    except ValueError:
        return text
    if isinstance(found, datetime) and found.tzinfo is None:
        return found.replace(tzinfo=UTC)
    return found


_READERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    "text": str,
    "bigint": int,
    "double": float,
    "decimal": lambda text: _plain(Decimal(text)),
    # `_deleted` is a bool already
    "bool": lambda value: value if isinstance(value, bool) else value in ("t", "true", "1"),
    "timestamp": partial(_moment, datetime.fromisoformat),
    "date": partial(_moment, date.fromisoformat),
    "time": partial(_moment, time.fromisoformat),
    "json": lambda text: msgspec.Raw(text.encode()),
    "binary": lambda text: base64.b64encode(bytes.fromhex(text.removeprefix("\\x"))).decode(),
}
"""From the text that COPY has to the value."""
