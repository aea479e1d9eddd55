"""PostgreSQL as a source: every read is one COPY, or one a window, inside one snapshot."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import conninfo

from connectors.contract import DiscoveredStream, Message, ReadContext, StreamState
from connectors.database import failures
from connectors.database.pg_catalog import DEFAULT_SCHEMA, read_tables
from connectors.database.pg_read import TableRead
from connectors.database.prefetch import Prefetch, interrupting
from connectors.errors import ConfigError, HeadwaterError
from connectors.secrets import mask

if TYPE_CHECKING:
    from connectors.kinds.database import DatabaseConnectorSpec, DatabaseStreamSpec

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
CANCEL_SECONDS = 5.0


class PostgresConnector:
    """One PostgreSQL database. Each read opens a connection of its own and leaves none behind."""

    def __init__(self, source: str, spec: "DatabaseConnectorSpec", url: str, password: str | None) -> None:
        """Raises ConfigError when the URL is not one of libpq's."""
        self._source = source
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
        with self._connected(self._source) as connection, self._classified(self._source, "listing tables"):
            tables = read_tables(connection, self.schema)
            version = connection.info.parameter_status("server_version") or "?"
            return (
                f"PostgreSQL {version.split()[0]} at {self.place} as {connection.info.user}: "
                f"{len(tables)} tables in {self.schema}"
            )

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """The tables and views of the schema."""
        with self._connected(self._source) as connection, self._classified(self._source, "listing tables"):
            return tuple(shape.discovered() for shape in read_tables(connection, self.schema))

    def read(self, stream: "DatabaseStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """COPY files of the rows after `state`, or inside `context.window`; one part is read ahead.

        Raises:
            ConfigError: no such table or column. AuthError: refused. TransientError: the connection was lost; what
            was sealed stays. ResourceError: a timeout at the source, or no disk here. Cancelled: asked to stop.
        """
        where = f"{self._source}.{stream.name}"
        current: list[psycopg.Connection[Any]] = []

        def interrupt() -> None:
            for connection in current:
                _cancel(connection)

        def produce(emit: Any) -> None:
            with self._connected(where) as connection:
                current.append(connection)
                with interrupting(context.cancelled, interrupt):
                    read = TableRead(connection, where, self.schema, stream, state, context, self._spec.part_mb << 20)
                    with self._classified(where, f"reading {stream.table_name}", context, read):
                        read.run(emit)

        yield from Prefetch(produce, interrupt)

    @contextmanager
    def _connected(self, where: str) -> Generator["psycopg.Connection[Any]"]:
        """A connection in one read-only snapshot: what is read in it is of one moment."""
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
        self, where: str, doing: str, context: ReadContext | None = None, read: "TableRead | None" = None
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
        """Nothing is left open: every read closes its own connection."""


def _libpq_url(url: str) -> str:
    """The URL without SQLAlchemy's driver suffix: postgresql+psycopg:// becomes postgresql://."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme.split('+', 1)[0].lower()}{separator}{rest}"


def _cancel(connection: "psycopg.Connection[Any]") -> None:
    """Asks the server to stop the running statement; a connection that is gone needs no more."""
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CANCEL_SECONDS)
