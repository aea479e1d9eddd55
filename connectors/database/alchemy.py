"""Any SQLAlchemy database as a source: server-side cursors, batches as Arrow tables of exact types."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa
from sqlalchemy import event, exc

from connectors.contract import DiscoveredStream, Message, ReadContext, StreamState
from connectors.database import failures
from connectors.database.alchemy_read import MYSQL, AlchemyRead
from connectors.database.alchemy_shape import read_shape, table_names
from connectors.database.prefetch import Prefetch, interrupting
from connectors.errors import ConfigError, HeadwaterError
from connectors.secrets import mask

if TYPE_CHECKING:
    from connectors.kinds.database import DatabaseConnectorSpec, DatabaseStreamSpec

# a batch may wait for the engine that loads the one before: MySQL's default of 60 s would cut the read off
NET_WRITE_SECONDS = 3600


class AlchemyConnector:
    """One database behind an SQLAlchemy URL. Each read has a connection of its own and leaves none behind."""

    def __init__(self, source: str, spec: "DatabaseConnectorSpec", url: str, password: str | None) -> None:
        """Loads the driver.

        Raises:
            ConfigError: no URL, an unknown dialect, a driver that is not installed, an SQLite file that is not there.
        """
        self._source = source
        self._spec = spec
        where = f"{source}: connector.url"
        try:
            parsed = sa.make_url(url)
            self._url = parsed if password is None else parsed.set(password=password)
            self._secrets = [secret for secret in (url, str(self._url.password or "")) if secret]
            self._engine = sa.create_engine(
                self._url, poolclass=sa.NullPool, connect_args=self._connect_args(self._url)
            )
        except exc.NoSuchModuleError as error:
            raise ConfigError(
                where, f"no dialect for {url.split('://', 1)[0]!r}", "Install the database's SQLAlchemy dialect."
            ) from error
        except exc.ArgumentError as error:  # its text would echo the URL
            raise ConfigError(where, "not a URL", "Write e.g. mysql+pymysql://user@host:3306/database.") from error
        except ModuleNotFoundError as error:
            raise ConfigError(
                where, f"the driver {error.name} is not installed", f"Run `uv add {error.name}`."
            ) from error
        if self.dialect == "sqlite":
            self._require_file(where)
        if spec.statement_timeout is not None and self.dialect not in MYSQL:
            raise ConfigError(
                f"{source}: connector.statement_timeout",
                f"not known for {self.dialect}",
                "Leave it out, and set limits.time on the stream.",
            )
        event.listen(self._engine, "connect", self._prepare)

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @property
    def place(self) -> str:
        """Host, port and database, or the file; no credential."""
        if not self._url.host:
            return self._url.database or self.dialect
        port = f":{self._url.port}" if self._url.port else ""
        return f"{self._url.host}{port}/{self._url.database or ''}"

    def check(self) -> str:
        """Connects and lists the tables: `mariadb 10.11.6 at db:3306/shop: 12 tables`."""
        with self._connected(self._source) as connection, self._classified(self._source, "listing tables"):
            tables = table_names(sa.inspect(connection), self._spec.default_schema)
            version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
            return f"{self.dialect} {version} at {self.place}: {len(tables)} tables"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        """The tables and views of the schema."""
        with self._connected(self._source) as connection, self._classified(self._source, "listing tables"):
            inspector = sa.inspect(connection)
            schema = self._spec.default_schema
            names = table_names(inspector, schema)
            return tuple(read_shape(inspector, schema, name, self._source).discovered() for name in names)

    def read(self, stream: "DatabaseStreamSpec", state: StreamState, context: ReadContext) -> Iterator[Message]:
        """Arrow batches of the rows after `state`, or inside `context.window`; one batch is read ahead.

        Raises:
            ConfigError: no such table or column. AuthError: refused. TransientError: the connection was lost; what
            was sealed stays. ResourceError: a timeout at the source. Cancelled: asked to stop.
        """
        where = f"{self._source}.{stream.name}"

        current: list[sa.Connection] = []

        def interrupt() -> None:
            for connection in current:
                self._interrupt(connection)

        def produce(emit: Callable[[Message], None]) -> None:
            with self._connected(where) as connection:
                current.append(connection)
                read = AlchemyRead(connection, where, self._spec.default_schema, stream, state, context)
                with (
                    interrupting(context.cancelled, interrupt),
                    self._classified(where, f"reading {stream.table_name}", context, read),
                ):
                    read.run(emit)

        yield from Prefetch(produce, interrupt)

    @contextmanager
    def _connected(self, where: str) -> Generator[sa.Connection]:
        try:
            connection = self._engine.connect()
        except exc.DBAPIError as error:
            original = error.orig or error
            raise self._masked(failures.connect_failure(where, original, self.place)) from error
        try:
            yield connection
        finally:
            # a half-read server-side cursor is not drained: the connection ends with it
            connection.invalidate() if self.dialect in MYSQL else connection.close()

    @contextmanager
    def _classified(
        self, where: str, doing: str, context: ReadContext | None = None, read: AlchemyRead | None = None
    ) -> Generator[None]:
        """Errors of the driver as the platform's."""
        try:
            yield
        except exc.DBAPIError as error:
            if context is not None and context.cancelled.is_set():
                raise failures.cancelled(where, read.rows if read else 0) from error
            after = f"{doing} after {read.rows:,} rows" if read else doing
            raise self._masked(failures.driver_failure(where, error, after)) from error

    def _interrupt(self, connection: sa.Connection) -> None:
        """Ends the running statement from another thread, where the database knows how; else the next batch does."""
        with suppress(exc.SQLAlchemyError):
            driver: Any = connection.connection.driver_connection
            if self.dialect == "sqlite":
                driver.interrupt()
            elif self.dialect in MYSQL:
                with self._engine.connect() as other:
                    other.exec_driver_sql(f"kill {int(driver.thread_id())}")

    def _masked(self, error: HeadwaterError) -> HeadwaterError:
        error.what = mask(error.what, self._secrets)
        return error

    def _connect_args(self, url: sa.URL) -> dict[str, Any]:
        connect_seconds = max(1, round(self._spec.connect_timeout.total_seconds()))
        if url.get_driver_name() in ("pymysql", "mysqldb"):
            return {"connect_timeout": connect_seconds}
        if url.get_backend_name() == "sqlite" and self._spec.lock_timeout is not None:
            return {"timeout": self._spec.lock_timeout.total_seconds()}
        return {}

    def _prepare(self, raw: Any, _record: object) -> None:
        """One session's settings: UTC, read only, limits."""
        if self.dialect == "sqlite":
            # an undecodable byte becomes a lone surrogate, which rejects its row and not the whole read
            raw.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
            raw.execute("pragma query_only = on")
            return
        if self.dialect not in MYSQL:
            return
        settings = ["time_zone = '+00:00'", f"net_write_timeout = {NET_WRITE_SECONDS}"]
        if (lock := self._spec.lock_timeout) is not None:
            settings.append(f"lock_wait_timeout = {max(1, round(lock.total_seconds()))}")
        if (limit := self._spec.statement_timeout) is not None:
            is_mariadb = getattr(self._engine.dialect, "is_mariadb", False)
            seconds = limit.total_seconds()
            settings.append(
                f"max_statement_time = {seconds:.3f}" if is_mariadb else f"max_execution_time = {round(seconds * 1000)}"
            )
        with raw.cursor() as cursor:
            cursor.execute("set " + ", ".join(f"session {setting}" for setting in settings))
            cursor.execute("set session transaction isolation level repeatable read, read only")

    def _require_file(self, where: str) -> None:
        """SQLite would make a file that is not there."""
        database = self._url.database
        if not database or database == ":memory:" or database.startswith("file:"):
            return
        if not Path(database).is_file():
            raise ConfigError(where, f"no file {database}", "Correct the path in connector.url.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()
