"""Kind `singer`: any Singer tap, in an environment of its own; all chosen streams come out of one process.

    connector: {kind: singer, package: meltanolabs-tap-postgres==0.10.0, config: {sqlalchemy_url: env:SHOP_URL}}
    streams:
      - {name: orders, stream: public-orders, replication_key: updated_at, primary_key: id, write: merge}

See docs/singer.md.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from connectors.contract import Connector, Kind
from connectors.installing.spec import BesidePath
from connectors.process.specs import ProcessConnectorSpec, ProcessStreamSpec
from connectors.specs import Names, Write

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

ReplicationMethod = Literal["full_table", "incremental", "log_based"]


class SingerConnectorSpec(ProcessConnectorSpec):
    """How to run the tap.

    catalog: a catalog file in place of discovery before every run. catalog_flag: old taps take `properties`.
    batch: ask the tap for files of records (jsonl, gzip), which taps of meltano's SDK can.
    """

    catalog: BesidePath | None = None
    catalog_flag: Literal["catalog", "properties"] = "catalog"
    batch: bool = False

    @model_validator(mode="after")
    def _maps_records_itself(self) -> Self:
        if self.batch and "stream_maps" in self.config:
            raise ValueError("batch: true goes round config.stream_maps: the files hold unmapped records")
        return self


class SingerStreamSpec(ProcessStreamSpec):
    """One stream of the tap.

    stream: the tap's id of it; None takes our name. select, exclude: columns by pattern, `*` for any text.
    replication_method, replication_key: None leaves the tap's own; the key is cursor.field when there is a cursor.
    metadata, column_metadata: overrides in the catalog, of the stream and by column.
    rename: the tap's name of a column to ours. flatten: so many levels of objects become columns, `a.b` is a_b.
    """

    # a tap's new version takes the rows of the old one away, whatever their key
    hard_deletes: ClassVar[tuple[Write, ...]] = ("merge", "append")
    stream: str | None = None
    select: Names = ()
    exclude: Names = ()
    replication_method: ReplicationMethod | None = None
    replication_key: str | None = None
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    column_metadata: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)
    rename: Mapping[str, str] = Field(default_factory=dict)
    flatten: int = Field(default=0, ge=0, le=10)

    @model_validator(mode="after")
    def _consistent_with_the_tap(self) -> Self:
        if self.replication_method in ("incremental", "log_based") and (self.write == "replace" or self.snapshot):
            raise ValueError("an incremental read has only what is new; write: replace and snapshot need everything")
        if len(set(self.rename.values())) < len(self.rename):
            raise ValueError("rename gives two columns one name")
        return self

    @property
    def tap_stream(self) -> str:
        return self.stream or self.name

    @property
    def offered_as(self) -> str:
        return self.tap_stream

    @property
    def blocked(self) -> frozenset[str]:
        return frozenset(name for name, column in self.columns.items() if column.rule == "block")


def _open(source: "SourceSpec") -> Connector:
    """The connector with its references resolved; no process is started.

    Raises:
        ConfigError: a reference is not set.
    """
    from connectors.process.connector import ProcessConnector
    from connectors.singer.program import TapProgram

    return ProcessConnector(source.source, TapProgram(source, cast("SingerConnectorSpec", source.connector)))


KIND = Kind(
    name="singer",
    connector=SingerConnectorSpec,
    stream=SingerStreamSpec,
    open=_open,
    storage_kind="singer",
    reads_together=True,
)
