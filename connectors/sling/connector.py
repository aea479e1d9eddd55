"""Sling as a connector: one child process a read, Arrow batches in, frames of exact values out."""

import json
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

from connectors.contract import (
    Attestation,
    Checkpoint,
    DiscoveredColumn,
    DiscoveredStream,
    Message,
    ReadContext,
    StreamState,
)
from connectors.errors import ConfigError
from connectors.process.child import write_private
from connectors.sling import plan, query
from connectors.sling.parts import cleaned, gathered, typed, written
from connectors.sling.plan import Shape
from connectors.sling.process import CONNECTION, Call, Home, SlingRun
from connectors.sling.types import FILES, text_type, text_types_of
from connectors.texts import TextType

if TYPE_CHECKING:
    import pyarrow as pa

    from connectors.kinds.sling import SlingStreamSpec

SAMPLE_ROWS = 1_000
"""Of a file, from which Sling guesses types; a query needs one row."""
_SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog", "pg_toast", "sys", "mysql", "performance_schema"})


@dataclass(frozen=True, slots=True)
class SlingConnection:
    """Resolved address and credentials. references: names in options and environment whose values are secret."""

    url: str | None
    options: Mapping[str, str]
    environment: Mapping[str, str]
    references: tuple[str, ...]

    @property
    def dialect(self) -> str:
        """postgres, mysql, sqlite, file, ...: the URL's scheme, or the `type` option."""
        return (self.url.split(":", 1)[0] if self.url else self.options.get("type", "")).lower()

    @property
    def properties(self) -> dict[str, str]:
        return {**({"url": self.url} if self.url else {}), **self.options}

    @property
    def place(self) -> str:
        """The address without credentials."""
        if not self.url:
            return f"{self.dialect} {self.options.get('host') or self.options.get('bucket') or ''}".strip()
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def secrets(self) -> tuple[str, ...]:
        found = [value for name in self.references for value in (self.options.get(name), self.environment.get(name))]
        if self.url:
            password = urlsplit(self.url).password
            found += [self.url, password, unquote(password or "")]
        return tuple(value for value in found if value)


class SlingConnector:
    """One source that Sling reads."""

    def __init__(self, source: str, connection: SlingConnection, binary: Path, stall_timeout: timedelta) -> None:
        self._source = source
        self._connection = connection
        self._binary = binary
        self._stall_seconds = stall_timeout.total_seconds()
        self._secrets = connection.secrets

    def check(self) -> str:
        """`sling conns test`: connects, and lists what is there."""
        with self._temporary_home() as home:
            self._command(home, ("conns", "test", CONNECTION), "testing the connection")
        return f"Sling reached {self._connection.place}"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """Tables and views with their columns; for file sources the files of the folder."""
        with self._temporary_home() as home:
            if self._connection.dialect in FILES:
                listing = self._listing(home, "--pattern", f"{self._folder}/*")
                return tuple(DiscoveredStream(str(row["Name"])) for row in listing if row.get("Type") == "file")
            rows = self._listing(home, "--columns")
        tables: dict[str, list[DiscoveredColumn]] = {}
        for row in rows:
            if row["Schema"] not in _SYSTEM_SCHEMAS:
                kind = self._type_of(row)
                tables.setdefault(f"{row['Schema']}.{row['Table']}", []).append(
                    DiscoveredColumn(str(row["Column"]), kind.name)
                )
        return tuple(DiscoveredStream(name, tuple(columns)) for name, columns in tables.items())

    def read(self, stream: "SlingStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """COPY files of the rows after `state`, or inside `context.window`; the count that Sling itself reports.

        Raises:
            ConfigError: no such object or column. AuthError, TransientError, SourceError: as Sling met them.
            Cancelled: asked to stop; the child and its group are gone.
        """
        where = f"{self._source}.{stream.name}"
        home = self._home(context.folder / "sling")
        shape = self._shape(stream, home, where, context)
        types = shape.types
        bounds = plan.bounds_of(stream, state, context)
        replication = self._plan(stream, shape, bounds)
        rows, parts, received = 0, 0, 0
        sealed: Any = None
        with self._run(home, replication, where, f"reading {self._label(stream)}", context) as run:
            for arrived in gathered(run.batches()):
                self._judge_warnings(run, where, context)
                position = f"rows {rows + 1:,} to {rows + arrived.num_rows:,}"
                # Sling's file readers know no selection of columns
                arrived = arrived.drop_columns(sorted(stream.blocked & set(arrived.column_names)))
                is_loose = self._connection.dialect == "sqlite"
                table, rejected = cleaned(arrived, types, stream.null_values, position, has_loose_times=is_loose)
                cursor = _values(table, stream)
                # rows that share a value are not cut in two by a checkpoint between them
                if sealed is not None and cursor is not None and cursor[0].as_py() != sealed:
                    yield Checkpoint()
                yield from rejected
                parts += 1
                if any(column.rewrites for column in stream.columns.values()):
                    # values that a rule rewrites must not reach a file as they are
                    yield typed(table, types, position)
                else:
                    yield written(table, types, context.folder / f"part-{parts:05}.csv", position)
                rows += arrived.num_rows
                context.usage.received_bytes += run.received_bytes - received
                received = run.received_bytes
                if context.page_limit is not None and parts >= context.page_limit:
                    return
                sealed = cursor[-1].as_py() if cursor is not None else None
        is_live = context.window is None and state.cursor is not None
        yield Attestation(rows=rows, nothing_new=rows == 0 and is_live and bounds is not None)

    def _shape(self, stream: "SlingStreamSpec", home: Home, where: str, context: ReadContext) -> Shape:
        """Column types: from the catalog for a table, else from a short typed read."""
        if stream.sql is None and self._connection.dialect not in FILES:
            rows = self._listing(home, "--pattern", stream.object_name, "--columns", context=context)
            tables = {(str(row["Schema"]), str(row["Table"])) for row in rows}
            if len(tables) == 1:
                types = {str(row["Column"]): self._type_of(row) for row in rows}
                return Shape(types, next(iter(tables)))
        limit = SAMPLE_ROWS if self._connection.dialect in FILES else 1
        replication = self._plan(stream, Shape({}), None, limit)
        with self._run(home, replication, where, f"sampling {self._label(stream)}", context) as run:
            schema = next((batch.schema for batch in run.batches()), None)
        return Shape(text_types_of(schema, self._connection.dialect) if schema is not None else {})

    def _plan(
        self, stream: "SlingStreamSpec", shape: Shape, bounds: query.Bounds | None, limit: int | None = None
    ) -> Mapping[str, Any]:
        return plan.replication(stream, shape, bounds, self._connection.dialect, self._folder, limit)

    @property
    def _folder(self) -> str:
        """Of a local file source: where it lies."""
        return unquote(urlsplit(self._connection.url or "").path).rstrip("/")

    def _label(self, stream: "SlingStreamSpec") -> str:
        return "its query" if stream.sql is not None else stream.object_name

    def _type_of(self, row: Mapping[str, Any]) -> TextType:
        return text_type(str(row["Native Type"]), str(row["General Type"]), self._connection.dialect)

    def _judge_warnings(self, run: SlingRun, where: str, context: ReadContext) -> None:
        """Sling goes on without a transform that it does not know; here that is an error."""
        while run.warnings:
            line = run.warnings.popleft()
            if "transform" in line:
                raise ConfigError(
                    where, f"Sling ignored a transform: {line}", "Use transforms of the free Sling, or sql."
                )
            context.log(f"Sling warned: {line}")

    def _home(self, folder: Path) -> Home:
        return Home.create(folder, self._connection.properties, self._connection.environment)

    @contextmanager
    def _temporary_home(self) -> Generator[Home]:
        with tempfile.TemporaryDirectory(prefix="headwater-sling-") as folder:
            yield self._home(Path(folder) / "home")

    def _listing(self, home: Home, *options: str, context: ReadContext | None = None) -> list[dict[str, Any]]:
        """Rows of `sling conns discover` by column name; none when it found nothing."""
        spoken = Home(home.folder, {**home.environment, "SLING_OUTPUT": "json"})
        text = self._command(spoken, ("conns", "discover", CONNECTION, *options), "listing what is there", context)
        if not text.strip():
            return []
        answer = json.loads(text)
        return [dict(zip(answer["fields"], row, strict=True)) for row in answer["rows"] or ()]

    def _command(self, home: Home, arguments: Sequence[str], doing: str, context: ReadContext | None = None) -> bytes:
        cancelled = context.cancelled if context else Event()
        if context:
            context.usage.requests += 1
        call = Call(self._binary, home, self._source, doing, self._secrets, cancelled, self._stall_seconds)
        with SlingRun(call, arguments) as run:
            return run.output()

    def _run(
        self, home: Home, replication: Mapping[str, Any], where: str, doing: str, context: ReadContext
    ) -> SlingRun:
        path = home.folder / "replication.json"
        write_private(path, json.dumps(replication, default=str))
        context.usage.requests += 1
        call = Call(self._binary, home, where, doing, self._secrets, context.cancelled, self._stall_seconds)
        return SlingRun(call, ("run", "--replication", str(path)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left open: every command and every read ends its own process."""


def _values(table: "pa.Table", stream: "SlingStreamSpec") -> Any:
    """The cursor's column of an ordered read; None for any other."""
    if not stream.order or stream.cursor is None or not table.num_rows:
        return None
    return table.column(stream.cursor.field) if stream.cursor.field in table.column_names else None
