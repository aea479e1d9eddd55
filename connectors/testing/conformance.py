"""Does a connector keep the contract of connectors/contract.py? One call is a connector's whole test.

    def test_shop_conforms() -> None:
        assert_conforms(source)

Asked of every stream, against the source that `source` points to:
check        says what answered
discover     names the stream
read         yields records with every key, cursor and column that is declared not nullable
new          a second read, from the state that the first one leaves, asks only for what is new, and loses nothing
window       a partition's read has exactly the records of its time
checkpoints  after an ordered checkpoint no earlier record comes
cancel       a cancelled read hands over no more than what it holds
errors       a missing variable and a dead address raise errors of connectors.errors, in at most six lines
"""

import os
import socket
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from connectors.contract import (
    Checkpoint,
    Connector,
    CopyFile,
    Frame,
    JsonRecords,
    Message,
    ReadContext,
    StreamState,
    Window,
)
from connectors.errors import MAX_LINES, Cancelled, ConfigError, HeadwaterError, TransientError
from connectors.registry import kind
from connectors.secrets import REFERENCE
from connectors.specs import SourceSpec, StreamSpec

_DEADLINE_SECONDS: Final = 60.0

Row = Mapping[str, Any]
Key = tuple[str, ...]


class ConformanceError(AssertionError):
    """The connector breaks its contract; the message says which rule, what was measured and what to do."""


@dataclass(slots=True)
class Report:
    """shown: rules that were proven, as `stream: rule`. skipped: rules that could not be, each with the reason."""

    shown: list[str] = field(default_factory=list[str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class _Segment:
    """Records up to the next checkpoint. is_ordered: what that checkpoint says; the end of the read says nothing."""

    rows: tuple[Row, ...]
    is_ordered: bool | None


def assert_conforms(source: SourceSpec, *, requests: Sequence[str] | None = None) -> Report:
    """Ask every rule of every stream.

    Args:
        source: what it points to must not change meanwhile; references must be set.
        requests: a list that grows with every request that the source gets: the second read must then ask differently.

    Raises:
        ConformanceError: at the first rule that is broken.
        HeadwaterError: the connector failed where it should not.
    """
    report = Report()
    for stream in source.streams:
        _Suite(source, stream, requests, report).run()
    _errors(source, report)
    return report


class _Suite:
    def __init__(self, source: SourceSpec, stream: StreamSpec, requests: Sequence[str] | None, report: Report) -> None:
        self.source, self.stream, self.requests, self.report = source, stream, requests, report
        self.label = f"{source.source}.{stream.name}"

    def run(self) -> None:
        with kind(self.source.connector.kind).open(self.source) as connector:
            self.require(
                "check", bool(connector.check().strip()), "said nothing", "Return a line that says what answered."
            )
            names = [found.name for found in connector.discover()]
            self.require("discover", self.stream.name in names, f"names {names}, not the stream", "Add it.")
            segments, asked = self.read(connector, StreamState(), None)
            rows = [row for segment in segments for row in segment.rows]
            self.declared(rows)
            self.checkpoints(segments)
            self.new(connector, rows, asked)
            self.window(connector, rows)
            self.cancelled(connector)

    def require(self, rule: str, is_kept: bool, what: str, hint: str) -> None:
        if not is_kept:
            raise ConformanceError(f"{self.label}: {rule}: {what}\n{hint}")
        if (line := f"{self.stream.name}: {rule}") not in self.report.shown:
            self.report.shown.append(line)

    def skip(self, rule: str, reason: str) -> None:
        self.report.skipped[f"{self.stream.name}: {rule}"] = reason

    def read(self, connector: Connector, state: StreamState, window: Window | None) -> tuple[list[_Segment], list[str]]:
        """The records between checkpoints, and the requests that the source got for them."""
        before = len(self.requests or ())
        segments: list[_Segment] = []
        rows: list[Row] = []
        with _context(window) as context:
            for message in connector.read(self.stream, state, context):
                if isinstance(message, Checkpoint):
                    segments.append(_Segment(tuple(rows), message.is_ordered))
                    rows = []
                else:
                    rows += rows_of(message)
        segments.append(_Segment(tuple(rows), None))
        return segments, list((self.requests or ())[before:])

    def declared(self, rows: Sequence[Row]) -> None:
        self.require("read", bool(rows), "no record came", "Let the source have some, else nothing is shown.")
        needed = {*self.stream.primary_key, *([self.stream.cursor.field] if self.stream.cursor else [])}
        needed |= {name for name, column in self.stream.columns.items() if not column.nullable}
        for number, row in enumerate(rows, 1):
            missing = sorted(name for name in needed if row.get(name) is None)
            what = f"record {number} has no {', '.join(missing)}; its keys are {', '.join(list(row)[:8])}"
            self.require("read", not missing, what, "Yield them, or correct the source file.")

    def checkpoints(self, segments: Sequence[_Segment]) -> None:
        cursor = self.stream.cursor
        if cursor is None or not any(segment.is_ordered for segment in segments):
            self.skip("checkpoints", "no ordered checkpoint came")
            return
        greatest: Any = None
        for number, segment in enumerate(segments, 1):
            values = [_comparable(row[cursor.field]) for row in segment.rows]
            if greatest is not None and values:
                what = f"after checkpoint {number - 1} at {greatest} came {min(values)}: a resumed read misses it"
                hint = "Sort by the cursor, or yield Checkpoint(is_ordered=False) or none (ordered: false)."
                self.require("checkpoints", min(values) >= greatest, what, hint)
            if segment.is_ordered and values:
                greatest = max(values) if greatest is None else max(greatest, *values)

    def new(self, connector: Connector, rows: Sequence[Row], asked: Sequence[str]) -> None:
        cursor = self.stream.cursor
        if cursor is None:
            self.skip("new", "the stream has no cursor")
            return
        state = state_after(self.stream, rows)
        sample = _comparable(rows[0][cursor.field])
        position = Decimal(str(state.cursor)) if isinstance(sample, Decimal) else _comparable(state.cursor)
        again, asked_again = self.read(connector, state, None)
        second = [row for segment in again for row in segment.rows]
        old = [row for row in second if _comparable(row[cursor.field]) < position]
        what = f"{len(old)} of {len(second)} records of the second read lie before its position {_text(position)}"
        self.require("new", not old, what, "Hand the position to the source (incremental, or since).")
        expected = {self.key(row) for row in rows if _comparable(row[cursor.field]) > position}
        lost = expected - {self.key(row) for row in second}
        what = f"{len(lost)} records after the position {_text(position)} did not come again"
        self.require("new", not lost, what, "The position is inclusive; do not skip beyond it.")
        if self.requests is not None:
            what = f"the second read began with the request of the first: {next(iter(asked), 'none')}"
            self.require("new", asked_again[:1] != list(asked[:1]), what, "Hand the position to the source.")
        elif all(_comparable(row[cursor.field]) >= position for row in rows):
            self.report.shown.remove(f"{self.stream.name}: new")
            self.skip("new", "every record lies within cursor.lag of the newest; pass requests, or use older records")

    def window(self, connector: Connector, rows: Sequence[Row]) -> None:
        cursor, partitions = self.stream.cursor, self.stream.partitions
        if cursor is None or partitions is None:
            self.skip("window", "the stream has no partitions")
            return
        times = sorted({_comparable(row[cursor.field]) for row in rows})
        if len(times) < 3 or not isinstance(times[0], datetime):
            self.skip("window", "fewer than three different times came")
            return
        window = Window(times[len(times) // 3], times[-1])
        inside, _ = self.read(connector, StreamState(), window)
        got = sorted(self.key(row) for segment in inside for row in segment.rows)
        expected = sorted(self.key(row) for row in rows if window.start <= _comparable(row[cursor.field]) < window.end)
        what = f"[{_text(window.start)}, {_text(window.end)}) has {len(expected)} records, the read {len(got)}"
        self.require("window", got == expected, what, "Bound the read by both ends, the first in, the second out.")

    def cancelled(self, connector: Connector) -> None:
        payloads, failures = 0, list[Exception]()
        with _context(None) as context:
            context.cancelled.set()

            def run() -> None:
                nonlocal payloads
                try:
                    with closing(cast("Any", iter(connector.read(self.stream, StreamState(), context)))) as messages:
                        for message in messages:
                            payloads += bool(rows_of(message))
                except Exception as error:  # noqa: BLE001  judged below, in the test's own thread
                    failures.append(error)

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(_DEADLINE_SECONDS)
            hint = "Look at context.cancelled between two records."
            self.require("cancel", not thread.is_alive(), f"did not end in {_DEADLINE_SECONDS:.0f} s", hint)
        is_calm = all(isinstance(error, Cancelled) for error in failures)
        self.require("cancel", is_calm, f"raised {failures}", "Raise connectors.errors.Cancelled, or end.")
        self.require("cancel", payloads <= 1, f"{payloads} payloads came after it was cancelled", hint)

    def key(self, row: Row) -> Key:
        names = self.stream.primary_key or tuple(sorted(row))
        return tuple(str(row.get(name)) for name in names)


def _errors(source: SourceSpec, report: Report) -> None:
    """What goes wrong outside of the connector is raised in classes and not as whatever the library raised."""
    for name in sorted(set(references_in(source.connector.model_dump()))):
        with _unset(name):
            _expect(source, ConfigError, f"variable {name} unset", report)
    connector = source.connector
    if not getattr(connector, "base_url", None):
        report.skipped["errors: dead address"] = "the connector has no base_url"
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    changed = connector.model_dump(by_alias=True, exclude_unset=True) | {
        "base_url": dead,
        "retries": {"attempts": 1},
        "rate_limit": {"pool": f"conformance {source.source}"},
    }
    broken = source.model_copy(update={"connector": type(connector).model_validate(changed)})
    _expect(broken, TransientError, "dead address", report)


def _expect(source: SourceSpec, expected: type[HeadwaterError], case: str, report: Report) -> None:
    try:
        with kind(source.connector.kind).open(source) as connector:
            connector.check()
    except expected as error:
        lines = len(str(error).splitlines())
        if lines > MAX_LINES:
            raise ConformanceError(f"{source.source}: errors: {case}: {lines} lines\nSay it in six.") from error
        report.shown.append(f"errors: {case}")
        return
    except Exception as error:
        what = f"{source.source}: errors: {case}: raised {type(error).__name__}: {error}"
        raise ConformanceError(f"{what}\nRaise {expected.__name__} instead.") from error
    raise ConformanceError(f"{source.source}: errors: {case}: nothing was raised\nRaise {expected.__name__}.")


@contextmanager
def _context(window: Window | None) -> Generator[ReadContext]:
    with tempfile.TemporaryDirectory(prefix="headwater-conformance-") as folder:
        yield ReadContext(window=window, folder=Path(folder))


@contextmanager
def _unset(name: str) -> Generator[None]:
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def references_in(value: object) -> Iterator[str]:
    """Names of the variables that texts in it refer to."""
    match value:
        case str():
            if found := REFERENCE.match(value):
                yield found[1]
        case Mapping():
            for item in cast("Mapping[object, object]", value).values():
                yield from references_in(item)
        case list() | tuple():
            for item in cast("list[object]", value):
                yield from references_in(item)
        case _:
            return


def state_after(stream: StreamSpec, rows: Sequence[Row]) -> StreamState:
    """The state that a sync of these records leaves, as the next read gets it; empty without a cursor."""
    if stream.cursor is None or not rows:
        return StreamState()
    newest = max(_comparable(row[stream.cursor.field]) for row in rows)
    return StreamState(cursor=_text(newest - stream.cursor.lag if isinstance(newest, datetime) else newest))


def rows_of(message: Message) -> list[Row]:
    """The records of a payload; none of any other message."""
    match message:
        case JsonRecords():
            return [msgspec.json.decode(line, type=dict[str, Any]) for line in message.body.split(b"\n") if line]
        case Frame():
            return cast("list[Row]", message.table.to_pylist())
        case CopyFile():
            import csv

            with message.path.open(encoding="utf-8", newline="") as file:
                return [dict(zip(message.names, row, strict=True)) for row in csv.reader(file)]
        case _:
            return []


def _comparable(value: Any) -> Any:
    """A time as aware datetime, a number as Decimal, else text."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return Decimal(str(value))
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return str(value)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _text(value: Any) -> str:
    """As the engine writes a position."""
    if isinstance(value, datetime):
        spec = "microseconds" if value.microsecond else "seconds"
        return value.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
