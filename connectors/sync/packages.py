"""dlt's half of a publication, in a thread of its own: it builds the load package, makes tables, keeps its bookkeeping.

PostgreSQL takes the rows meanwhile, as soon as the raw table is as it has to be, which most often it is already.
"""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from connectors.errors import LoaderError
from connectors.sync.columns import Column
from connectors.sync.destination import TABLES_LOCK
from connectors.sync.folders import sync_folder
from connectors.sync.lease import connect
from connectors.sync.package import Part, load, prepare, target_of
from connectors.sync.result import SyncRequest

_PATIENCE = "10min"
"""For others that make tables in the same dataset."""


class BuiltSchema(NamedTuple):
    """The dlt schema that a package was built with, as `_dlt_loads` names it."""

    name: str
    hash: str


class Package:
    """One package. The publication waits for what it needs of it; dlt tells it, see `Sink`."""

    def __init__(self, label: str, dsn: str, parts: Sequence[Part]) -> None:
        self._label = label
        self._dsn = dsn
        # dlt renames a package's files by hard link, so the inode tells which part it has
        self._expected = {part.path.stat().st_ino for part in parts}
        self._taken: set[int] = set()
        self._tables = Future[None]()
        self._schema = Future[BuiltSchema]()

    # the publication's side

    def wait_for_tables(self) -> None:
        """Until the raw table has every column. Raises what dlt failed with."""
        self._tables.result()

    def wait(self) -> BuiltSchema:
        """Until the package is whole. Raises what dlt failed with."""
        return self._schema.result()

    # dlt's side

    def fail(self, error: BaseException) -> None:
        """Whoever waits, waits no longer."""
        for future in (self._tables, self._schema):
            if not future.done():
                future.set_exception(error)

    def require_whole(self) -> None:
        """dlt has ended. Raises LoaderError: without a word on the package's end."""
        if not self._schema.done():
            raise LoaderError(self._label, "dlt ended without completing the package", "Run the stream again.")

    @contextmanager
    def alone(self, dataset: str) -> Generator[None]:
        """The lock is on a connection of its own: dlt resets its own after every failed statement, and with it would
        free the lock."""
        connection = connect(self._dsn, self._label, autocommit=True)
        try:
            # bounded: who holds it may wait for a reader that waits for our own transaction
            connection.execute("select set_config('lock_timeout', %s, false)", [_PATIENCE])
            connection.execute(f"select pg_advisory_lock({TABLES_LOCK})", [dataset])
            yield
            # closing frees it too, but only once the server has noticed
            connection.execute(f"select pg_advisory_unlock({TABLES_LOCK})", [dataset])
        finally:
            connection.close()

    def tables_are_made(self) -> None:
        self._tables.set_result(None)

    def take(self, path: Path) -> None:
        self._taken.add(path.stat().st_ino)

    def complete(self, schema_name: str, schema_hash: str) -> None:
        if self._taken != self._expected:
            raise LoaderError(
                self._label,
                f"the load package has {len(self._taken)} of {len(self._expected)} files",
                "Run the stream again; if it repeats, report it with --debug.",
            )
        self._schema.set_result(BuiltSchema(schema_name, schema_hash))


class Packages:
    """One sync's packages, one after the other; the thread begins with the import of dlt."""

    def __init__(self, request: SyncRequest, dsn: str) -> None:
        self._request = request
        self._target = target_of(request.source.schema_name, request.stream, dsn)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"package {request.label}")
        self._pool.submit(prepare)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    @contextmanager
    def build(self, columns: Sequence[Column], parts: Sequence[Part]) -> Generator[Package]:
        """A package while dlt works at it; leaving waits until dlt has ended, for its folder goes away.

        columns: the raw table's. parts: at least one; a part of no rows creates the table.
        """
        package = Package(self._request.label, self._target.dsn, parts)
        with sync_folder(self._request, self._target.dsn, "package") as folder:
            running = self._pool.submit(self._build, package, columns, parts, folder)
            try:
                yield package
            finally:
                wait([running])
            running.result()

    def _build(self, package: Package, columns: Sequence[Column], parts: Sequence[Part], folder: Path) -> None:
        try:
            load(self._target, columns, parts, package, folder)
            package.require_whole()
        except BaseException as error:
            package.fail(error)
            raise
