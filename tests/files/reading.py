"""A folder of files as a source, read the way the engine reads it, with no engine behind."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from connectors.contract import Checkpoint, CopyFile, Frame, Message, ReadContext, Rejected, StreamState, Window
from connectors.database.pg_types import arrow_type
from connectors.errors import HeadwaterError
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source

HOUR_NS = 3_600_000_000_000


def source(stream: Mapping[str, Any], url: Path | str, **connector: Any) -> SourceSpec:
    attributes = {
        "source": "drop",
        "owner": "team:data",
        "connector": {"kind": "files", "url": str(url), **connector},
        "streams": [{"name": "t", **stream}],
    }
    return parse_source(attributes, "defs.yaml")


@dataclass
class Reading:
    """What one read yielded, also when it failed on the way."""

    messages: list[Message] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    error: HeadwaterError | None = None
    context: ReadContext | None = None
    scratch: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def of(self, kind: type | tuple[type, ...]) -> list[Any]:
        return [message for message in self.messages if isinstance(message, kind)]

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(map(table_of, self.of((Frame, CopyFile))), promote_options="default")

    @property
    def rows(self) -> list[dict[str, Any]]:
        return self.table.to_pylist() if self.of((Frame, CopyFile)) else []

    @property
    def rejected(self) -> list[tuple[str, bytes, str]]:
        return [(found.position, found.payload, found.reason) for found in self.of(Rejected)]

    @property
    def state(self) -> StreamState:
        """What the engine would keep: the last checkpoint's."""
        sealed = [found.connector for found in self.of(Checkpoint) if found.connector is not None]
        return StreamState(connector=sealed[-1] if sealed else {})

    @property
    def sealed_rows(self) -> list[dict[str, Any]]:
        """The rows before the last checkpoint."""
        ends = [index for index, message in enumerate(self.messages) if isinstance(message, Checkpoint)]
        frames = [message for message in self.messages[: ends[-1] if ends else 0] if isinstance(message, Frame)]
        return [row for frame in frames for row in frame.table.to_pylist()]


def table_of(message: Frame | CopyFile) -> pa.Table:
    if isinstance(message, Frame):
        return message.table
    return pa_csv.read_csv(
        message.path,
        read_options=pa_csv.ReadOptions(column_names=message.names),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types={column.name: arrow_type(column.pg_type) for column in message.columns},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )


def read(
    folder: Path | str,
    stream: Mapping[str, Any],
    state: StreamState | None = None,
    window: Window | None = None,
    work: Path | None = None,
    options: Mapping[str, str] | None = None,
    **context: Any,
) -> Reading:
    """Reads the stream; an error of the platform is kept in the result. options: of the store."""
    spec = source(stream, folder, **({"options": options} if options else {}))
    found = Reading()
    with kind("files").open(spec) as connector:
        found.context = ReadContext(
            window=window, folder=work or Path(found.scratch.name), log=found.log.append, **context
        )
        try:
            for message in connector.read(spec.streams[0], state or StreamState(), found.context):
                found.messages.append(message)
        except HeadwaterError as error:
            found.error = error
    return found


def put(folder: Path, name: str, content: bytes | str, hour: int = 0) -> Path:
    """A file modified at the given hour of 2024, so that files have an order."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    modified = 1_704_067_200_000_000_000 + hour * HOUR_NS
    os.utime(path, ns=(modified, modified))
    return path
