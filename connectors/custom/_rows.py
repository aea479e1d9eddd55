"""The base of a bespoke connector that yields records, wherever it has them from."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Final, Self, cast

import msgspec

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredStream,
    JsonRecords,
    Message,
    ReadContext,
    Rejected,
    StreamState,
)
from connectors.decimals import DecimalFields
from connectors.errors import Cancelled, ConfigError, HeadwaterError, SourceError, TransientError
from connectors.http.discovery import guess_columns
from connectors.http.source import HttpConnectorSpec, HttpStreamSpec
from connectors.kinds.python import Given, PythonStreamSpec
from connectors.secrets import mask
from connectors.specs import StreamSpec

_SAMPLE: Final = 100
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_HTTP_CONNECTOR_KEYS: Final = frozenset(HttpConnectorSpec.model_fields) - {"kind"}
_HTTP_STREAM_KEYS: Final = frozenset(HttpStreamSpec.model_fields) - frozenset(StreamSpec.model_fields)


class RowsConnector:
    """One method, `rows`, yields the records; this does the rest.

    ordered: records come in cursor order, so that a long read may commit after any `batch` and resume there.
    batch: records that are handed on together.
    """

    ordered: ClassVar[bool] = False
    batch: ClassVar[int] = 1_000

    def __init__(self, given: Given) -> None:
        self.options = given.options
        self.secrets = given.secrets
        self._source = given.source
        self._name = given.place.rpartition(".")[2]
        said = sorted(given.source.connector.model_fields_set & _HTTP_CONNECTOR_KEYS)
        said += sorted({key for stream in given.source.streams for key in stream.model_fields_set & _HTTP_STREAM_KEYS})
        if said:
            hint = "Take it out, or hand it to the class in options; only an HttpConnector knows the keys of rest."
            raise ConfigError(f"{given.source.source}: {said[0]}", f"{given.place} does not read over HTTP", hint)

    def rows(self, stream: PythonStreamSpec, since: str | None, until: str | None) -> Iterable[Mapping[str, Any]]:
        """The records whose cursor is in [since, until); None is no bound.

        since is the stream's position, the lag already subtracted: ISO 8601 in UTC, or a number's text.
        ConnectionError and TimeoutError count as transient; raise an error of connectors.errors to say more.
        """
        raise NotImplementedError

    def check(self) -> str:
        stream = cast("PythonStreamSpec", self._source.streams[0])
        with closing(self._classified(stream, None, None)) as rows:
            return f"{self._name} answered; {stream.name}: {'a' if next(rows, None) is not None else 'no'} record came"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        found: list[DiscoveredStream] = []
        for item in self._source.streams:
            stream = cast("PythonStreamSpec", item)
            decimals = DecimalFields()
            with closing(self._classified(stream, None, None, decimals)) as rows:
                body = b"\n".join(row for row, _ in islice(rows, _SAMPLE))
            columns = (
                replace(column, type="decimal") if column.name in decimals.names else column
                for column in guess_columns(body)
            )
            found.append(DiscoveredStream(stream.name, tuple(columns), stream.primary_key))
        return tuple(found)

    def read(self, stream: PythonStreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        window = context.window
        start = stream.cursor.start if stream.cursor is not None else None
        since = _iso(window.start) if window else state.cursor or start
        until = _iso(window.end) if window else None
        label = f"{self._source.source}.{stream.name}"
        number = count = 0
        decimals = DecimalFields()
        with closing(self._classified(stream, since, until, decimals)) as rows:
            while chunk := list(islice(_until_stopped(rows, context, label), self.batch)):
                if number:
                    yield from [Checkpoint(is_ordered=True)] if self.ordered else []
                number += 1
                count += len(chunk)
                position = f"batch {number}"
                if hints := decimals.hints():
                    yield hints
                if body := b"\n".join(row for row, reason in chunk if not reason):
                    context.usage.received_bytes += len(body)
                    yield JsonRecords(body, position)
                yield from (Rejected(row, reason, position) for row, reason in chunk if reason)
                context.log(f"{position}: {len(chunk)} records")
                if number == context.page_limit:
                    return
        if not count and window is None and state.cursor is not None:
            yield Attestation(nothing_new=True)

    def _classified(
        self, stream: PythonStreamSpec, since: str | None, until: str | None, decimals: DecimalFields | None = None
    ) -> Generator[tuple[bytes, str]]:
        """Each record as JSON, or as text with the reason why it is none. decimals: told of each record."""
        label = f"{self._source.source}.{stream.name}"
        number = 0
        try:
            for row in self.rows(stream, since, until):
                number += 1
                if decimals is not None:
                    decimals.see(row)
                yield _encoded(row)
        except HeadwaterError:
            raise
        except (ConnectionError, TimeoutError) as error:
            what = self._told(error, number)
            raise TransientError(label, what, "The source or the network failed; the next sync resumes.") from error
        except Exception as error:
            hint = "The source is not as the method expects it; correct one of them. `--debug` shows where."
            raise SourceError(label, self._told(error, number), hint) from error

    def _told(self, error: Exception, number: int) -> str:
        what = f"{self._name}.rows raised {type(error).__name__} after {number} records: {error}"
        return mask(what, self.secrets.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open; a class that opens something closes it here."""


def _until_stopped(rows: Iterable[tuple[bytes, str]], context: ReadContext, label: str) -> Iterator[tuple[bytes, str]]:
    for row in rows:
        if context.cancelled.is_set():
            raise Cancelled(label, "stopped between two records", "Start the sync again; it resumes.")
        yield row


def _encoded(row: object) -> tuple[bytes, str]:
    if not isinstance(row, Mapping):
        return repr(row).encode(), f"the record is a {type(row).__name__}, not a mapping"
    try:
        return _ENCODER.encode(row), ""
    except (TypeError, ValueError, RecursionError) as error:
        return repr(cast("object", row)).encode(), f"the record is no JSON: {error}"


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
