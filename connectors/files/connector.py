"""Files as a connector: what is new in the folder, file by file, each sealed."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from connectors.contract import (
    Attestation,
    Checkpoint,
    CopyFile,
    DiscoveredStream,
    Frame,
    JsonRecords,
    Message,
    ReadContext,
    Rejected,
    StreamState,
)
from connectors.errors import Cancelled, ConfigError, SourceError
from connectors.files.columnar import read_parquet
from connectors.files.columns import ColumnTypes
from connectors.files.delimited import DelimitedReader
from connectors.files.excel import read_excel
from connectors.files.lines import LinesReader
from connectors.files.naming import compression_of, format_of, stream_names
from connectors.files.seen import FileInfo, Seen
from connectors.files.store import Store
from connectors.files.straight import StraightReader, goes_straight
from connectors.files.stream import opened
from connectors.files.windows import inside
from connectors.texts import declared

if TYPE_CHECKING:
    from connectors.kinds.files import FilesStreamSpec

TYPES = "types"
"""The key of the state's second part; the first is Seen's own."""


class FilesConnector:
    """One folder or bucket prefix."""

    def __init__(
        self,
        source: str,
        url: str,
        options: Mapping[str, str],
        secrets: Sequence[str],
        streams: "Sequence[FilesStreamSpec]" = (),
    ) -> None:
        """Raises ConfigError when nothing installed serves the URL's scheme."""
        self._source = source
        self._streams = streams
        self._store = Store(f"{source}: connector.url", url, options, secrets)

    def check(self) -> str:
        """Lists the folder: `27 files at s3://drop, newest weather_2013-01-27.csv.gz`."""
        files = self._store.list(self._source, "**")
        newest = f", newest {files[-1].path}" if files else ""
        return f"{len(files):,} files at {self._store.place}{newest}"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """Groups of files whose names differ in digits alone: `weather_*.csv.gz`."""
        read = {one.name: set(stream_names(self._store.list(self._source, one.path))) for one in self._streams}
        return tuple(
            DiscoveredStream(pattern, read_by=tuple(name for name, patterns in read.items() if pattern in patterns))
            for pattern in stream_names(self._store.list(self._source, "**"))
        )

    def read(self, stream: "FilesStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """Every new or changed file, oldest first, and a checkpoint after each.

        With write: replace, snapshot: true or a partition all files are read, and nothing is sealed before the end.

        Raises:
            ConfigError: nothing matches and never did, or the spec does not fit a file. SourceError: a file is broken,
            or has changed where that must not be. ResourceError: a bomb, a record without end. Cancelled.
        """
        where = f"{self._source}.{stream.name}"
        listing = self._settled(self._store.list(where, stream.path), stream)
        if not listing and not state.connector:
            hint = "Correct path, or connector.url."
            if "[" in stream.path:
                hint += f" Where the name itself has a bracket: {stream.path.replace('[', '[[]')}"
            raise ConfigError(where, f"no file matches {stream.path} at {self._store.place}", hint)
        seen = Seen.from_json(state.connector)
        types = ColumnTypes.from_json(declared(stream.columns), state.connector.get(TYPES) or {})
        is_whole = stream.reads_everything or context.window is not None
        pending = listing if is_whole else _pending(stream, seen, listing, where)
        if not pending and not is_whole:
            yield Attestation(rows=0, nothing_new=True)
            return
        pages = 0
        for number, file in enumerate(pending, 1):
            context.log(f"file {number} of {len(pending)}: {file.path}")
            for message in self._records(stream, file, types, where, context):
                pages += not isinstance(message, Rejected)
                yield from inside(context.window, stream.cursor, message, where)
                if context.cancelled.is_set():
                    raise Cancelled(where, f"stopped in {file.path}", "Files read before stay; sync again.")
                if context.page_limit is not None and pages >= context.page_limit:
                    return
            self._store.require_unchanged(where, file)
            seen.add(file)
            if not is_whole:
                yield Checkpoint({**seen.to_json(), TYPES: types.to_json()})
        if is_whole and context.window is None:
            yield Checkpoint({**seen.to_json(), TYPES: types.to_json()})

    def list_files(self, stream: "FilesStreamSpec") -> list[FileInfo]:
        """The stream's files that are whole, oldest first."""
        return self._settled(self._store.list(f"{self._source}.{stream.name}", stream.path), stream)

    def _settled(self, files: list[FileInfo], stream: "FilesStreamSpec") -> list[FileInfo]:
        if not stream.settle:
            return files
        until = time.time_ns() - int(stream.settle.total_seconds() * 1e9)
        return [file for file in files if file.modified_ns <= until]

    def _records(
        self, stream: "FilesStreamSpec", file: FileInfo, types: ColumnTypes, where: str, context: ReadContext
    ) -> Iterator[CopyFile | Frame | JsonRecords | Rejected]:
        form = format_of(file.path, stream, where)
        compression = compression_of(file.path, stream)
        if form in ("parquet", "excel"):
            # both need to jump in the file, and are packed inside
            with self._store.classified(where, f"reading {file.path}"), self._store.open(where, file) as raw:
                context.usage.requests += 1
                context.usage.received_bytes += file.size_bytes
                if form == "parquet":
                    yield from read_parquet(raw, where, file.path)
                else:
                    for found in read_excel(raw, where, file, stream):
                        yield found if isinstance(found, Rejected) else replace(found, table=types.typed(found.table))
            return
        with opened(self._store, file, compression, stream.max_expansion, where, context) as source:
            if form == "jsonl":
                yield from LinesReader(where, file.path, stream.max_record_bytes).read(source)
            elif goes_straight(stream, context):
                yield from StraightReader(where, file.path, stream, types, context).read(source)
            else:
                yield from DelimitedReader(where, file.path, stream, types).read(source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every file was closed after it was read; what is left is the store's connection."""
        self._store.close()


def _pending(stream: "FilesStreamSpec", seen: Seen, listing: list[FileInfo], where: str) -> list[FileInfo]:
    """The files to read, oldest first, as `on_change` says."""
    found = seen.pending(listing)
    if found.untold:
        first, last = found.untold[0].path, found.untold[-1].path
        raise SourceError(
            where,
            f"among {len(found.untold)} old files from {first} to {last} some came late or changed, and the state is "
            "too full to tell which",
            f"Reset the stream's state to read all files again: headwater state reset {where}",
        )
    if found.changed and stream.reaction == "fail":
        raise SourceError(
            where,
            f"{len(found.changed)} files changed after they were loaded, first {found.changed[0].path}",
            "Deliver changes as new files, or set write: merge, or on_change: ignore.",
        )
    changed: Any = found.changed if stream.reaction == "read" else ()
    return sorted((*found.new, *changed), key=lambda file: file.key)
