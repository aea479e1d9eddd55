"""Messages of a read to batches: decoded, written to part files, sealed by checkpoints, cut into windows."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from connectors.contract import (
    Attestation,
    Checkpoint,
    CopyColumn,
    CopyFile,
    Emptied,
    Frame,
    Hints,
    JsonRecords,
    Message,
    Rejected,
    Replaces,
)
from connectors.errors import ContractError
from connectors.sync.audit import Audit
from connectors.sync.batches import Batch
from connectors.sync.columns import DELETED, copies_into
from connectors.sync.lease import Stop
from connectors.sync.notices import notices
from connectors.sync.package import Part
from connectors.sync.parts import PartWriter
from connectors.sync.protect import Protector
from connectors.sync.rejects import Reject
from connectors.sync.result import Progress, SyncRequest, Verdict
from connectors.sync.schema import StreamSchema
from connectors.sync.splitting import SHOWN_BYTES, bad_record
from connectors.sync.values import Cleaning, is_clean_text

if TYPE_CHECKING:
    from connectors.sync.decode import Decoder
    from connectors.sync.records import Decoded

_PROGRESS_SECONDS = 0.5
_HELD_BYTES = 32 << 20
_PIECE_BYTES = (8 << 20, 128 << 20)
"""A replacement is handed on in pieces: at least this size when nothing is being published, at most that when something
is. Small enough to overlap from the beginning to the end, large enough for a transaction each."""


class Extraction:
    """One read. Only what a checkpoint has sealed ever leaves it."""

    def __init__(
        self,
        request: SyncRequest,
        schema: StreamSchema,
        audit: Audit,
        stop: Stop,
        folder: Path,
        progress: Progress,
    ) -> None:
        self._request = request
        self._cleaning = Cleaning()
        self._schema = schema
        self._audit = audit
        self._stop = stop
        stream = request.stream
        is_replay = request.trigger == "replay"
        self._protector = Protector(stream.columns, request.label, stream.null_values, is_replay=is_replay)
        self._writer = PartWriter(folder)
        self._progress = progress
        self._open = Batch(schema)
        self._sealed = Batch(schema)
        self._has_sealed = False
        self._rows = 0
        self._held = 0
        self._reported = 0.0
        self._replaces: Replaces | None = None

    @cached_property
    def _decoder(self) -> "Decoder":
        """Made for the first payload that is no finished file: it brings Arrow along."""
        from connectors.sync.decode import Decoder

        stream = self._request.stream
        return Decoder(self._schema, stream.null_values, stream.max_record_bytes, self._cleaning)

    @property
    def notices(self) -> list[Verdict]:
        """What was done to the data that nobody asked for."""
        return notices(self._cleaning, self._schema.overflowing)

    @property
    def _waits_for_the_end(self) -> bool:
        """A snapshot is compared with the table as a whole, a blocking check may judge the whole sync, a partition's
        rows take the place of all that an append has of it, and a replay resolves its records in one publication."""
        stream, request = self._request.stream, self._request
        judged = self._audit.waits_for_the_end and stream.write != "replace"
        takes_place = request.window is not None and stream.write in (None, "append")
        return stream.snapshot or judged or takes_place or request.trigger == "replay"

    @property
    def _can_cut_anywhere(self) -> bool:
        """Nobody sees a replacement before it is whole, so its pieces need no checkpoint of the source."""
        return self._request.stream.write == "replace" and not self._waits_for_the_end

    def batches(self, messages: Iterator[Message], is_idle: Callable[[], bool]) -> Iterator[Batch]:
        """Sealed batches: one whenever a window is full, and the last at the end of the read, be it empty.

        is_idle: called at every message: nothing is being published; raises what has failed elsewhere.
        """
        window = self._request.stream.window
        since = time.monotonic()
        is_due = False
        for message in messages:
            self._stop.check(self._request.label)
            idle = is_idle()
            if self._can_cut_anywhere and (self._writer.size_bytes >= _PIECE_BYTES[not idle] or is_due):
                # not before there is more to come: the last piece carries the swap, and an empty one costs as much
                self._seal(Checkpoint())
                yield self._next()
                since, is_due = time.monotonic(), False
            self._take(message)
            if not isinstance(message, Checkpoint):
                continue
            self._seal(message)
            is_full = self._sealed.extracted >= window.rows
            is_due = is_full or time.monotonic() - since >= window.seconds.total_seconds()
            if is_due and self._sealed.extracted and not self._waits_for_the_end and not self._can_cut_anywhere:
                yield self._next()
                since = time.monotonic()
        self._stop.check(self._request.label)
        self._seal(Checkpoint())
        self._progress.on_rows(self._rows)
        batch = self._next()
        batch.is_last = True
        batch.replaces = self._replaces
        yield batch

    @property
    def refused(self) -> list[Reject]:
        """Rejects of what is not handed out yet."""
        return [*self._sealed.rejects, *self._open.rejects]

    def sealed_batch(self) -> Batch | None:
        """What is sealed but not handed out yet; None when nothing is, or when a part of a read is worth nothing."""
        is_whole = self._waits_for_the_end or self._request.stream.write == "replace"
        if is_whole or not self._has_sealed or not self._sealed.extracted:
            return None
        return self._next()

    def _next(self) -> Batch:
        self._held = 0
        batch = self._sealed
        batch.schema = self._schema.frozen()
        self._sealed, self._has_sealed = Batch(self._schema, connector_state=batch.connector_state), False
        return batch

    def _seal(self, checkpoint: Checkpoint) -> None:
        sealed, fresh = self._sealed, self._open
        if fresh.emptied_after is not None:
            sealed.emptied_after = len(sealed.parts) + fresh.emptied_after
            sealed.by_snapshot, sealed.may_be_none = fresh.by_snapshot, fresh.may_be_none
        sealed.parts += self._writer.seal()
        sealed.rejects += fresh.rejects
        sealed.extracted += fresh.extracted
        sealed.advances_cursor = checkpoint.is_ordered
        if checkpoint.connector is not None:
            sealed.connector_state = dict(checkpoint.connector)
        self._open, self._has_sealed = Batch(self._schema), True

    def _take(self, message: Message) -> None:
        protector = self._protector
        match message:
            case JsonRecords():
                message = protector.json(message) if protector else message
                self._keep(self._decoder.json(message), message.position)
            case Frame():
                message = protector.frame(message) if protector else message
                self._keep(self._decoder.frame(message), message.position, message.table.num_rows)
            case CopyFile():
                self._adopt(message)
            case Rejected():
                message = protector.rejected(message) if protector else message
                bad = bad_record(message.payload, message.reason)
                self._count(1)
                self._refuse([Reject(bad.text, bad.reason, None, message.position)])
            case Hints():
                self._schema.expect(message.types)
            case Replaces():
                self._replaces = message
            case Emptied():
                self._open.emptied_after = self._writer.cut()
                self._open.by_snapshot, self._open.may_be_none = message.by_snapshot, message.may_be_none
            case Attestation():
                self._audit.attest(message)
            case Checkpoint():
                pass

    def _keep(self, decoded: "Decoded", position: str, rows: int | None = None) -> None:
        loaded = 0
        for table in decoded.tables:
            self._writer.write(table, position, decoded.numbers)
            loaded += table.num_rows
        self._count(loaded + len(decoded.rejects) if rows is None else rows)
        self._refuse(decoded.rejects)

    def _refuse(self, rejects: Sequence[Reject]) -> None:
        found = map(self._protector.withheld, rejects) if self._protector else rejects
        self._open.rejects += map(self._bounded, found)
        self._audit.refuse_flood(len(self._open.rejects) + len(self._sealed.rejects))

    def _bounded(self, reject: Reject) -> Reject:
        """Rejects wait in memory for their publication: beyond 32 MB of them only their beginnings are kept."""
        size = len(reject.payload)
        self._held += size
        if self._held <= _HELD_BYTES or size <= SHOWN_BYTES:
            return reject
        reason = f"{reject.reason} (payload cut to {SHOWN_BYTES:,} of {size:,} characters: too many large ones at once)"
        return replace(reject, payload=reject.payload[:SHOWN_BYTES], reason=reason)

    def takes_binary(self, columns: Sequence[CopyColumn]) -> bool:
        """Every column of a file goes, or will go when it is first seen, into a column of the very same type.

        COPY checks a binary value against nothing but its type, and nobody here can read it.
        """
        if self._protector.touches(item.name for item in columns):
            return False
        trial = self._schema.frozen()
        for item in columns:
            column = trial.find(item.name) if is_clean_text(item.name) else None
            if column is None and item.name != DELETED and is_clean_text(item.name):
                try:
                    column = trial.observe_exact(item)
                except ContractError:
                    return False
            if column is None or column.place != "column" or not copies_into(item, column, is_binary=True):
                return False
        return True

    def _adopt(self, file: CopyFile) -> None:
        columns: list[str] = []
        # every column is observed by its own type, also in a file that is read again as text
        for item in file.columns:
            if item.name == DELETED and item.type == "bool":
                columns.append(DELETED)
            elif item.name != DELETED and is_clean_text(item.name):
                column = self._schema.find(item.name) or self._schema.observe_exact(item)
                if column is not None and column.place == "column" and copies_into(item, column):
                    columns.append(column.name)
        if len(columns) < len(file.columns) or self._protector.touches(file.names):
            self._adopt_by_value(file)
            return
        self._schema.mark_seen(file.names)
        self._writer.add(Part(file.path, file.rows, tuple(columns), file.position, format=file.format))
        self._count(file.rows)

    def _adopt_by_value(self, file: CopyFile) -> None:
        """A file with a column that must not be loaded as it is goes through the decoder."""
        assert file.format == "csv", f"{file.position}: binary, though takes_binary said no"
        for frame in frames_of(file) if file.rows else ():
            kept = self._protector.frame(frame) if self._protector else frame
            self._keep(self._decoder.frame(kept), frame.position, frame.table.num_rows)
        self._schema.mark_seen(file.names)
        file.path.unlink()

    def _count(self, rows: int) -> None:
        self._open.extracted += rows
        self._rows += rows
        if (now := time.monotonic()) - self._reported >= _PROGRESS_SECONDS:
            self._reported = now
            self._progress.on_rows(self._rows)


def frames_of(file: CopyFile) -> Iterator[Frame]:
    """A COPY file back to frames of text; the decoder gives the texts their types."""
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    from connectors.sync.arrow_csv import csv_reading

    rows = 0
    with pa_csv.open_csv(str(file.path), **csv_reading(file.names, 1 << 22)) as reader:
        for batch in reader:
            table = pa.Table.from_batches([batch])
            if DELETED in file.names:
                marks = [mark in ("t", "true") for mark in table.column(DELETED).to_pylist()]
                table = table.set_column(file.names.index(DELETED), DELETED, pa.array(marks, pa.bool_()))
            yield Frame(table, f"{file.position} from row {rows + 1}" if rows else file.position)
            rows += batch.num_rows
