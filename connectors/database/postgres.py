"""PostgreSQL as a source: every read is one COPY, or one a window, inside one snapshot."""

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import conninfo, sql

from connectors.contract import Common, Connector, DiscoveredStream, Message, ReadContext, StreamState
from connectors.database import failures
from connectors.database.pg_catalog import DEFAULT_SCHEMA, read_tables
from connectors.database.pg_read import TableRead
from connectors.database.pg_replication import ReplicatedRead
from connectors.database.pg_slot import Slot, drop_slot, find_slots
from connectors.database.pg_together import Member, SharedSnapshot
from connectors.database.prefetch import Prefetch, interrupting
from connectors.errors import ConfigError, HeadwaterError, LoaderError, TransientError
from connectors.secrets import mask
from connectors.specs import did_you_mean

if TYPE_CHECKING:
    from connectors.kinds.database import DatabaseConnectorSpec, DatabaseStreamSpec

log = logging.getLogger(__name__)

# texts that every PostgreSQL reads back as the same values; a part waits while the engine loads the one before, so an
# idle transaction is not an error here
SESSION: tuple[tuple[str, str], ...] = (
    ("datestyle", "ISO, YMD"),
    ("timezone", "UTC"),
    ("intervalstyle", "iso_8601"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("idle_in_transaction_session_timeout", "0"),
)
# a publication may take longer than the minute after which a server gives up a silent reader
# so it is TCP that tells the server of a reader that is gone, and lets the slot go
REPLICATION_SESSION: tuple[tuple[str, str], ...] = (
    ("wal_sender_timeout", "1h"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
)
CANCEL_SECONDS = 5.0


class PostgresConnector:
    """One PostgreSQL database. Each read opens a connection of its own and leaves none behind."""

    def __init__(
        self,
        source: str,
        spec: "DatabaseConnectorSpec",
        url: str,
        password: str | None,
        slots: Mapping[str, str] | None = None,
    ) -> None:
        """slots: names of the replication slots, by stream. Raises ConfigError when the URL is not one of libpq's."""
        self._source = source
        self._slots = slots or {}
        self._created: list[str] = []
        self._spec = spec
        try:
            options = conninfo.conninfo_to_dict(_libpq_url(url))
        except psycopg.Error as error:
            # libpq's words may echo a part of the URL, which may be the password
            raise ConfigError(
                f"{source}: connector.url", "not a PostgreSQL URL", "Write postgresql://user@host:5432/database."
            ) from error
        if password is not None:
            options["password"] = password
        self._options = options
        self._secrets = [value for value in (url, str(options.get("password") or "")) if value]

    @property
    def schema(self) -> str:
        return self._spec.default_schema or DEFAULT_SCHEMA

    @property
    def place(self) -> str:
        """Host, port and database; no credential."""
        options = self._options
        return f"{options.get('host') or 'localhost'}:{options.get('port') or 5432}/{options.get('dbname') or ''}"

    def check(self) -> str:
        """Connects and lists the schema: `PostgreSQL 18.1 at db:5432/shop as headwater: 12 tables in public`."""
        with self.connected(self._source) as connection, self._classified(self._source, "listing tables"):
            tables = read_tables(connection, self.schema)
            version = connection.info.parameter_status("server_version") or "?"
            line = (
                f"PostgreSQL {version.split()[0]} at {self.place} as {connection.info.user}: "
                f"{len(tables)} tables in {self.schema}"
            )
            return "\n  ".join([line, *map(str, find_slots(connection, self._slots.values()))])

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """The tables and views of the schema."""
        with self.connected(self._source) as connection, self._classified(self._source, "listing tables"):
            return tuple(shape.discovered() for shape in read_tables(connection, self.schema))

    def read(self, stream: "DatabaseStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """COPY files of the rows after `state`, or inside `context.window`; one part is read ahead.

        Raises:
            ConfigError: no such table or column. AuthError: refused. TransientError: the connection was lost; what
            was sealed stays. ResourceError: a timeout at the source, or no disk here. Cancelled: asked to stop.
        """
        return self.read_at(stream, state, context, None)

    def together(self, streams: "Sequence[DatabaseStreamSpec]", common: Common) -> Mapping[str, Connector]:
        """Reads of one moment."""
        snapshot = SharedSnapshot(self, [stream.name for stream in streams])
        return {stream.name: Member(self, snapshot, stream.name) for stream in streams}

    def read_at(
        self,
        stream: "DatabaseStreamSpec",
        state: StreamState,
        context: ReadContext,
        snapshot: Callable[[str], str] | None,
    ) -> Iterator[Message]:
        """`read`, in a snapshot that another session has exported and holds."""
        where = f"{self._source}.{stream.name}"
        current: list[psycopg.Connection[Any]] = []

        def interrupt() -> None:
            for connection in (*current,):
                _cancel(connection)

        def replicate(emit: Any) -> None:
            with self._aside(where) as aside:
                current.append(aside)
                with interrupting(context.cancelled, interrupt):
                    read = ReplicatedRead(
                        aside,
                        lambda: self._replicating(where, current),
                        lambda snapshot: self.connected(where, snapshot),
                        where,
                        self.schema,
                        stream,
                        self._slots[stream.name],
                        state,
                        context,
                        self._spec.part_mb << 20,
                    )
                    try:
                        with self._classified(where, f"reading {stream.table_name}", context, read):
                            read.run(emit)
                    finally:
                        if read.has_created:
                            self._created.append(read.slot_name)

        def produce(emit: Any) -> None:
            if stream.replication is not None and context.page_limit is None:
                replicate(emit)
                return
            with self.connected(where, snapshot(where) if snapshot is not None else None) as connection:
                current.append(connection)
                with interrupting(context.cancelled, interrupt):
                    read = TableRead(connection, where, self.schema, stream, state, context, self._spec.part_mb << 20)
                    with self._classified(where, f"reading {stream.table_name}", context, read):
                        read.run(emit)

        yield from Prefetch(produce, interrupt)

    def slots(self, saved: Collection[str] = (), others: Collection[str] = ()) -> list[tuple[Slot, str | None]]:
        """The source's replication slots, and the stream of each; None where no stream of the source file has it.

        saved: names of earlier slots. others: names of slots that are other sources', whatever they look like.
        """
        streams = {slot: stream for stream, slot in self._slots.items()}
        with self._aside(self._source) as connection, self._classified(self._source, "listing slots"):
            found = find_slots(connection, {*streams, *saved}, f"headwater_{self._source}_")
            return [(slot, streams.get(slot.name)) for slot in found if slot.name not in others]

    def drop_slot(self, name: str, saved: Collection[str] = (), others: Collection[str] = ()) -> None:
        """Raises ConfigError when there is no such slot of this source, TransientError when it is being read."""
        found = {slot.name: slot for slot, _ in self.slots(saved, others)}
        if name not in found:
            hint = did_you_mean(name, list(found)) if found else "This source has none."
            raise ConfigError(self._source, f"no slot {name!r}", hint)
        with self._aside(self._source) as connection, self._classified(self._source, f"dropping slot {name}"):
            drop_slot(connection, found[name], self._source)

    @contextmanager
    def _aside(self, where: str) -> Generator["psycopg.Connection[Any]"]:
        """A connection without a transaction, for catalogs and slots."""
        try:
            connection = psycopg.connect(self._conninfo(), autocommit=True, prepare_threshold=None)
        except psycopg.Error as error:
            raise self._masked(failures.connect_failure(where, error, self.place)) from error
        try:
            with self._classified(where, "preparing the session"):
                for name, value in (*SESSION, *self._timeouts()):
                    connection.execute("select set_config(%s, %s, false)", (name, value))
                # nothing may be asked of it for as long as the log is read; servers before 14 do not know it
                connection.execute(
                    "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'"
                )
            yield connection
        finally:
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def _replicating(
        self, where: str, current: "list[psycopg.Connection[Any]]"
    ) -> Generator["psycopg.Connection[Any]"]:
        """A connection that speaks the replication protocol; while it is open, one of the current ones."""
        try:
            connection = psycopg.connect(
                self._conninfo(), autocommit=True, prepare_threshold=None, replication="database"
            )
        except psycopg.Error as error:
            raise self._masked(failures.connect_failure(where, error, self.place)) from error
        try:
            with self._classified(where, "preparing the session"):
                for name, value in (*SESSION, *REPLICATION_SESSION):
                    connection.execute(sql.SQL("set {} to {}").format(sql.Identifier(name), sql.Literal(value)))
            current.append(connection)
            yield connection
        finally:
            if connection in current:
                current.remove(connection)
            with suppress(psycopg.Error):
                connection.close()

    @contextmanager
    def connected(self, where: str, snapshot: str | None = None) -> Generator["psycopg.Connection[Any]"]:
        """A connection in one read-only snapshot: what is read in it is of one moment.

        snapshot: one that another session has exported.
        """
        try:
            connection = psycopg.connect(self._conninfo())
        except psycopg.Error as error:
            raise self._masked(failures.connect_failure(where, error, self.place)) from error
        try:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            # a pooler hands the session to others: nothing of ours outlives the transaction
            connection.prepare_threshold = None
            with self._classified(where, "preparing the session"):
                if snapshot is not None:
                    _enter(connection, snapshot, where)
                for name, value in (*SESSION, *self._timeouts()):
                    connection.execute("select set_config(%s, %s, true)", (name, value))
            yield connection
        finally:
            with suppress(psycopg.Error):
                connection.close()

    def _conninfo(self) -> str:
        timeout = max(2, round(self._spec.connect_timeout.total_seconds()))
        usual = {
            "application_name": "headwater",
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        }
        return conninfo.make_conninfo("", **(usual | self._options | {"connect_timeout": timeout}))

    def _timeouts(self) -> Iterator[tuple[str, str]]:
        for name in ("statement_timeout", "lock_timeout"):
            if (limit := getattr(self._spec, name)) is not None:
                yield name, str(round(limit.total_seconds() * 1000))

    @contextmanager
    def _classified(
        self,
        where: str,
        doing: str,
        context: ReadContext | None = None,
        read: "TableRead | ReplicatedRead | None" = None,
    ) -> Generator[None]:
        """Errors of psycopg and of the disk as the platform's."""
        try:
            yield
        except psycopg.Error as error:
            rows = read.rows if read else 0
            if context is not None and context.cancelled.is_set():
                raise failures.cancelled(where, rows) from error
            after = f"{doing} after {rows:,} rows" if read else doing
            raise self._masked(failures.query_failure(where, error, error.sqlstate, after)) from error
        except OSError as error:
            raise failures.disk_failure(where, error) from error

    def _masked(self, error: HeadwaterError) -> HeadwaterError:
        error.what = mask(error.what, self._secrets)
        return error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Every read closes its own connections. A slot whose first read has failed is not left behind.

        When the warehouse failed its position may have been committed after all: then the next read decides.
        """
        for name in self._created if _is_not_committed(error) else ():
            try:
                self.drop_slot(name)
            except HeadwaterError as failure:
                log.warning("slot %s was left behind, the next sync drops it: %s", name, failure)


def _is_not_committed(error: BaseException | None) -> bool:
    """The error, or what it was raised from, says that the read or its rows were refused."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, HeadwaterError):
            return not isinstance(error, LoaderError)
        seen.add(id(error))
        # dlt keeps what its job has raised beside the chain
        error = getattr(error, "client_exception", None) or error.__cause__ or error.__context__
    return False


def _libpq_url(url: str) -> str:
    """The URL without SQLAlchemy's driver suffix: postgresql+psycopg:// becomes postgresql://."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.split('+', 1)[0].lower()}{separator}{rest}"


def _enter(connection: "psycopg.Connection[Any]", snapshot: str, where: str) -> None:
    try:
        connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
    except psycopg.DatabaseError as error:
        what = f"the common snapshot {snapshot} is gone: the connection that held it was lost"
        raise TransientError(where, what, "The next attempt reads all of its streams from a new one.") from error


def _cancel(connection: "psycopg.Connection[Any]") -> None:
    """Asks the server to stop the running statement; a connection that is gone needs no more."""
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCEL_SECONDS)
