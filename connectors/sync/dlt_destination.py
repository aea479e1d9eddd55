"""dlt's PostgreSQL destination, with one difference: a load package is published in one transaction of ours.

dlt keeps building the package, the schema and the tables. Its load jobs tell a `Sink` their files, and completing the
load says that there are no more; rows, state, ledger and dlt's own `_dlt_loads` row then become visible together or not
at all. So no kill, and no second writer, can leave a half-loaded package or an orphan row behind:
docs/decisions/0002-one-transaction.md.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from dlt.common.configuration import configspec
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import LoadJob, RunnableLoadJob
from dlt.common.destination.typing import PreparedTableSchema
from dlt.destinations.impl.postgres.configuration import PostgresClientConfiguration, PostgresCredentials
from dlt.destinations.impl.postgres.factory import PostgresTypeMapper, postgres
from dlt.destinations.impl.postgres.postgres import PostgresClient
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors.sync.destination import Sink

if TYPE_CHECKING:
    from dlt.common.schema.typing import TColumnSchema


class ExactTypeMapper(PostgresTypeMapper):
    """Creates a column with the very type that the stream's schema names."""

    def to_destination_type(self, column: "TColumnSchema", table: PreparedTableSchema) -> str:
        exact = column.get("x-pg-type")
        return str(exact) if exact else super().to_destination_type(column, table)


class SinkJob(RunnableLoadJob):
    """A package file on its way into the sink."""

    def __init__(self, file_path: str, sink: Sink) -> None:
        super().__init__(file_path)
        self._sink = sink

    def run(self) -> None:
        self._sink.take(Path(self._file_path))


class SinkClient(PostgresClient):
    """dlt's client with our jobs, and without a commit; `sink` is set by the subclass that `publishing_to` makes."""

    sink: ClassVar[Sink]

    def __enter__(self) -> Self:
        # dlt enters four times a package; what needs a connection opens one
        return self

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        return SinkJob(file_path, self.sink)

    def initialize_storage(self, truncate_tables: Iterable[str] | None = None) -> None:
        if self.sql_client.native_connection is None:
            self.sql_client.open_connection()
        with self.sink.alone(self.sql_client.dataset_name):
            super().initialize_storage(truncate_tables)  # pyright: ignore[reportArgumentType] None is dlt's own default

    def update_stored_schema(
        self, only_tables: Iterable[str] | None = None, expected_update: Any = None, force: bool = False
    ) -> Any:
        # always compared with the table itself: one that somebody dropped is made again
        with self.sink.alone(self.sql_client.dataset_name):
            applied = super().update_stored_schema(only_tables, expected_update, force=True)  # pyright: ignore[reportArgumentType]
        self.sink.tables_are_made()
        return applied

    def _get_column_def_sql(self, c: "TColumnSchema", table: PreparedTableSchema | None = None) -> str:
        # dlt would make a promise of the contract a NOT NULL of the raw table, which staged rejects, rows of another
        # time and soft deletes cannot keep; its own tables stay as it makes them
        is_raw = "x-pg-type" in c
        return super()._get_column_def_sql(
            cast("TColumnSchema", {**c, "nullable": True}) if is_raw else c, cast("Any", table)
        )

    def complete_load(self, load_id: str) -> None:
        self.sink.complete(self.schema.name, self.schema.version_hash)

    def should_truncate_table_before_load(self, table_name: str) -> bool:
        return False

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        return False

    def create_table_chain_completed_followup_jobs(self, *_args: Any, **_kwargs: Any) -> list[Any]:
        return []

    def verify_schema(self, only_tables: Iterable[str] | None = None, new_jobs: Any = None) -> list[Any]:
        # dlt would refuse dispositions that its own loader does not know; ours are decided by the sink
        return []


class PublishingPostgres(postgres):
    """A destination bound to one sink."""

    sink: Sink

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        caps = super()._raw_capabilities()
        caps.type_mapper = ExactTypeMapper
        caps.preferred_loader_file_format = "csv"
        caps.supported_loader_file_formats = ["csv"]
        caps.loader_file_format_selector = cast("Any", None)
        caps.loader_parallelism_strategy = "sequential"
        return caps

    def configuration(
        self, initial_config: PostgresClientConfiguration | None, accept_partial: bool = False
    ) -> PostgresClientConfiguration:
        """Complete as it is. dlt would look for each field in files and environment, fifty times a package."""
        config = initial_config.copy() if initial_config else self.spec()
        config.update(self.config_params)
        config.resolve()
        return config

    @property
    def client_class(self) -> type[PostgresClient]:
        return type("BoundSinkClient", (SinkClient,), {"sink": self.sink})


@configspec(init=False)
class LibpqCredentials(PostgresCredentials):
    """A libpq address, socket folders included. dlt's own way takes it apart with SQLAlchemy: 0.15 s of imports."""

    def to_native_representation(self) -> str:
        return make_conninfo(
            "", host=self.host, port=self.port, dbname=self.database, user=self.username,
            password=self.password, **self.get_query(),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"{self.data_location()}/{self.database}"


def _credentials(dsn: str) -> LibpqCredentials:
    parts: dict[str, Any] = conninfo_to_dict(dsn)
    credentials = LibpqCredentials()
    # dlt insists on a host; a socket folder is one to libpq
    credentials.host = parts.pop("host", None) or "localhost"
    credentials.port = int(parts.pop("port", None) or credentials.port)
    credentials.database = parts.pop("dbname", None)
    credentials.username = parts.pop("user", None)
    credentials.password = parts.pop("password", None)
    credentials.query = parts
    # complete as it is: dlt looks for nothing in files and environment
    credentials.resolve()
    return credentials


def publishing_to(sink: Sink, dsn: str) -> PublishingPostgres:
    """A dlt destination that loads into the sink; `dsn` is used by dlt for tables and its own bookkeeping."""
    destination = PublishingPostgres(credentials=_credentials(dsn), create_indexes=False, destination_name="headwater")
    destination.sink = sink
    return destination
