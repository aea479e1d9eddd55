"""One load package: built and loaded by dlt in a fresh folder that nobody trusts afterwards.

dlt takes half of a sync's imports: `prepare` brings it while the source begins to answer.
"""

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from connectors.contract import CopyFormat
from connectors.specs import StreamSpec
from connectors.sync.columns import DELETED, LOAD_ID, OVERFLOW, SYNCED_AT, VALID_FROM, VALID_TO, Column
from connectors.sync.destination import Sink
from connectors.sync.interpreter import importing

if TYPE_CHECKING:
    from dlt.common.schema.typing import TColumnSchema

_SETTINGS: Mapping[str, Any] = {
    "runtime.log_level": "CRITICAL",
    # files go to COPY within the second: packing and unpacking them costs more than the disk they save
    "data_writer.disable_compression": True,
    "normalize.data_writer.disable_compression": True,
    # a file that the warehouse refuses is decided by us, not tried five times
    "load.raise_on_max_retries": 1,
    "load.workers": 1,
    "normalize.workers": 1,
}
_CONTRACT: Any = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}
"""dlt's own contract: the columns are those of the stream's schema, and dlt adds and retypes none."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run of a part's rows came from.

    first: the index of its first row. numbers: its rows' places in the payload; None when they are 1, 2, 3, ...
    """

    first: int
    position: str
    numbers: Sequence[int] | None = None


PartFormat = CopyFormat | Literal["text"]
"""Connectors hand over the first ones; the engine writes text."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file ready for COPY, a CSV one without header.

    columns: warehouse names in file order. position: where the rows came from. origins: the same by payload, in order.
    """

    path: Path
    rows: int
    columns: tuple[str, ...]
    position: str = ""
    origins: tuple[Origin, ...] = ()
    format: PartFormat = "csv"

    def place(self, index: int) -> str:
        """The source's own place of a row, e.g. `page 3, record 7`; a copied file counts rows."""
        if not self.origins:
            return f"{self.position or self.path.name}, row {index + 1}"
        origin = self.origins[bisect_right(self.origins, index, key=lambda item: item.first) - 1]
        number = index - origin.first
        return f"{origin.position}, record {origin.numbers[number] if origin.numbers else number + 1}"


@dataclass(frozen=True, slots=True)
class Target:
    """dataset: the schema `raw_<source>`. table: the stream's name.

    key, required: the columns that the contract calls a key and never NULL, by the source's names.
    """

    dataset: str
    table: str
    dsn: str
    key: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()

    def hint(self, column: Column) -> "TColumnSchema":
        """What dlt is told of a column. One that takes the values of another type beside it is promised nothing."""
        name = column.source_name if column.variant_of is None else ""
        return column.to_dlt(nullable=name not in self.key | self.required, is_key=name in self.key)


def target_of(dataset: str, stream: StreamSpec, dsn: str) -> Target:
    """The stream's raw table, with what its contract promises."""
    required = frozenset(name for name, spec in stream.columns.items() if not spec.nullable)
    return Target(dataset, stream.name, dsn, frozenset(stream.primary_key), required)


def table_columns(columns: Sequence[Column], *, is_scd2: bool, has_overflow: bool = False) -> tuple[Column, ...]:
    """The raw table's columns: the stream's own, then the platform's."""
    own = [
        Column(SYNCED_AT, SYNCED_AT, "timestamp", "timestamp with time zone"),
        Column(DELETED, DELETED, "bool", "boolean"),
        Column(LOAD_ID, LOAD_ID, "text", "text"),
    ]
    if has_overflow:
        own.insert(0, Column(OVERFLOW, OVERFLOW, "json", "jsonb"))
    if is_scd2:
        own += [
            Column(VALID_FROM, VALID_FROM, "timestamp", "timestamp with time zone"),
            Column(VALID_TO, VALID_TO, "timestamp", "timestamp with time zone"),
        ]
    return (*columns, *own)


@cache
def prepare() -> None:
    """dlt and its settings for this process, in memory only."""
    # read by dlt before any setting of ours
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    with importing():
        import dlt

        for key, value in _SETTINGS.items():
            dlt.config[key] = value
        import_module("connectors.sync.dlt_destination")


def load(target: Target, columns: Sequence[Column], parts: Sequence[Part], sink: Sink, folder: Path) -> None:
    """Build the package from `parts`, create or widen the table, tell the sink the files.

    parts: at least one; a part of no rows creates the table. folder: fresh and empty; each call needs its own.

    Raises:
        the sink's own error when it refuses; dlt's error chain when the warehouse does.
    """
    prepare()
    import dlt

    from connectors.sync.dlt_destination import publishing_to

    pipeline = dlt.pipeline(
        pipeline_name=target.table,
        pipelines_dir=str(folder),
        destination=publishing_to(sink, target.dsn),
        dataset_name=target.dataset,
    )
    pipeline.config.restore_from_destination = False
    hints: Any = [target.hint(column) for column in columns]

    def files() -> Iterator[Any]:
        for part in parts:
            yield dlt.mark.with_file_import(str(part.path), "csv", part.rows)

    resource = dlt.resource(
        files, name=target.table, columns=hints, schema_contract=_CONTRACT, write_disposition="append",
        file_format="csv", max_table_nesting=0,
    )  # fmt: skip
    pipeline.extract(resource, schema=dlt.Schema(target.table), loader_file_format="csv")
    pipeline.normalize()
    pipeline.load()
