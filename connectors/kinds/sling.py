"""Kind `sling`: any source that Sling reads (databases, object stores, files), loaded like every other kind.

    connector: {kind: sling, connection: env:REFERENCE_DB_URL}
    streams:
      - {name: airlines, object: public.airlines, primary_key: carrier, write: merge}
      - {name: orders, object: shop.orders, cursor: {field: updated_at, lag: PT5M}, primary_key: id, write: merge}

Sling only reads: it streams Arrow batches through a pipe, the sync engine does the rest (docs/decisions/0003).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from connectors.contract import Connector, Kind
from connectors.errors import ConfigError
from connectors.secrets import ValueRef, is_reference, resolve
from connectors.specs import ConnectorSpec, Names, StreamSpec, did_you_mean

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

_ENGINE = "belongs to loading, which the sync engine does"
REFUSED: Mapping[str, str] = {
    "mode": f"mode {_ENGINE}; say how rows are written with write: append | merge | replace | scd2",
    "target": f"target {_ENGINE}; the table is raw_<source>.<stream>",
    "target_options": f"target_options {_ENGINE}; column rules and types go under columns",
    "target_object": f"target_object {_ENGINE}; object names what is read",
    "update_key": "update_key is cursor here: cursor: {field: updated_at, lag: PT5M}",
    "hooks": "hooks run outside the lifecycle; use checks, or steps of the orchestrator",
    "range": "range is a backfill; use partitions: {by: day, start: ...}",
    "single": "single has no meaning here: one stream is one table",
    "files": "Sling 1.4.11 ignores it and reads every file of the folder; make object one file, or use kind files",
    "disabled": "leave the stream out instead of disabling it",
    "source": "the connection is connector.connection",
}
SOURCE_OPTIONS = frozenset(
    {
        "compression", "datetime_format", "delimiter", "empty_as_null", "escape", "fields_per_rec", "flatten", "format",
        "header", "jmespath", "limit", "null_if", "sheet", "skip_blank_lines", "transforms",
    }
)  # fmt: skip
"""What Sling 1.4.11 heeds when it reads; it takes every other name too, and ignores it."""
REFUSED_OPTIONS: Mapping[str, str] = {
    "columns": "types go under the stream's columns, where they are part of the contract",
    "range": "range is a backfill; use partitions: {by: day, start: ...}",
    "trim_space": "Sling 1.4.11 ignores it; use transforms: {name: [trim_space]}",
    "quote": "Sling 1.4.11 ignores it; use kind files",
    "offset": "Sling 1.4.11 ignores it; use where, or sql",
    "max_decimals": "all digits are kept; declare columns: {name: {type: decimal, precision: 12, scale: 2}}",
    "encoding": "Sling 1.4.11 ignores it; use transforms: {name: [decode_latin1]}, or kind files",
    "chunk_size": "needs a paid Sling; use partitions, or order: true to commit as it goes",
    "chunk_count": "needs a paid Sling; use partitions, or order: true to commit as it goes",
    "chunk_expr": "needs a paid Sling; use partitions, or order: true to commit as it goes",
}


class SlingConnectorSpec(ConnectorSpec):
    """How Sling reaches the source.

    connection: `env:NAME` of a URL that Sling knows, or a literal one that holds no password
        (`sqlite:///data/shop.db`, `file:///data/drop`).
    options: further properties of a Sling connection, or all of them where there is no URL
        (`{type: s3, bucket: drops, secret_access_key: env:S3_SECRET}`); values may be references.
    env: environment variables for the Sling process, which gets none of ours; values may be references.
    stall_timeout: a read that delivers nothing for so long is given up.
    """

    connection: ValueRef | None = None
    options: Mapping[str, ValueRef] = Field(default_factory=dict)
    env: Mapping[str, ValueRef] = Field(default_factory=dict)
    stall_timeout: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))

    @field_validator("connection")
    @classmethod
    def _without_password(cls, url: str | None) -> str | None:
        if url is None or is_reference(url):
            return url
        try:
            has_password = "://" not in url or urlsplit(url).password is not None or "password=" in url
        except ValueError:
            has_password = True
        if has_password:
            # the value is never echoed: it may hold the secret
            raise ValueError("must be env:NAME of a connection URL, or a literal URL that holds no password")
        return url

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.connection is None and "type" not in self.options:
            raise ValueError("needs connection: env:NAME, or options with a type")
        return self


class SlingStreamSpec(StreamSpec):
    """One stream of a Sling replication, as far as it concerns reading.

    object: the table (`public.airlines`), or the file or folder for file sources; None takes the stream's name.
    sql: a query in place of a table. `{incremental_where_cond}` in it becomes the position's condition; without it the
        query is wrapped.
    where, select, transforms, source_options: as in a Sling replication stream; `-name` in select leaves a column out.
    order: read in cursor order, so that a long read commits as it goes and resumes; the source has to sort.
    """

    object: str | None = None
    sql: str | None = None
    where: str | None = None
    select: Names = ()
    transforms: Mapping[str, Any] | tuple[str, ...] = ()
    source_options: Mapping[str, Any] = Field(default_factory=dict)
    order: bool = False

    @model_validator(mode="before")
    @classmethod
    def _only_reading(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping):
            stream = cast("Mapping[str, Any]", raw)
            for name in REFUSED.keys() & stream.keys():
                raise ValueError(REFUSED[name])
            options = stream.get("source_options")
            if isinstance(options, Mapping):
                for name in cast("Mapping[str, Any]", options):
                    if name not in SOURCE_OPTIONS:
                        told = REFUSED_OPTIONS.get(name) or f"unknown. {did_you_mean(name, sorted(SOURCE_OPTIONS))}"
                        raise ValueError(f"source_options.{name}: {told}")
        return raw

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.sql is not None and (self.object or self.select or self.where):
            raise ValueError("sql takes the place of object, select and where; keep one of them")
        if self.sql is not None and ";" in self.sql.rstrip().rstrip(";"):
            raise ValueError("sql is one query, without a semicolon inside")
        if self.object is not None and "*" in self.object and "://" not in self.object and "/" not in self.object:
            raise ValueError("object is one table; give every table a stream of its own")
        if self.sql is not None and self.blocked:
            raise ValueError("sql decides its columns itself: leave the blocked ones out there")
        if self.order and self.cursor is None:
            raise ValueError("order: true needs cursor: {field: ...}")
        if self.partitions is not None and self.cursor is None:
            raise ValueError("partitions bound the read by the cursor; add cursor: {field: ...}")
        return self

    @property
    def blocked(self) -> frozenset[str]:
        return frozenset(name for name, column in self.columns.items() if column.rule == "block")

    @property
    def object_name(self) -> str:
        return self.object or self.name

    @property
    def offered_as(self) -> str:
        return self.object_name


def _open(source: "SourceSpec") -> Connector:
    """The connector with its references resolved; no process is started.

    Raises:
        ConfigError: a reference is not set, or the Sling binary is missing.
    """
    from connectors.sling.binary import find_binary
    from connectors.sling.connector import SlingConnection, SlingConnector
    from connectors.sling.types import FILES

    spec = cast("SlingConnectorSpec", source.connector)
    where = f"{source.source}: connector"

    def resolved(values: Mapping[str, str], key: str) -> dict[str, str]:
        return {name: resolve(value, f"{where}.{key}.{name}") for name, value in values.items()}

    connection = SlingConnection(
        url=resolve(spec.connection, f"{where}.connection") if spec.connection else None,
        options=resolved(spec.options, "options"),
        environment=resolved(spec.env, "env"),
        # every value that came from a reference is a secret, and so is the URL
        references=tuple(
            name for values in (spec.options, spec.env) for name, value in values.items() if is_reference(value)
        ),
    )
    if connection.dialect in FILES:
        _check_files(source)
    return SlingConnector(source.source, connection, find_binary(where), spec.stall_timeout)


def _check_files(source: "SourceSpec") -> None:
    """Raises ConfigError for what Sling does with tables alone: it would read all of a file, successfully."""
    for stream in cast("tuple[SlingStreamSpec, ...]", source.streams):
        is_twice = stream.cursor is not None and stream.write == "append"
        for name, is_set in (
            ("where", stream.where),
            ("select", stream.select),
            ("sql", stream.sql),
            ("partitions", stream.partitions),
            ("order", stream.order),
            ("cursor with write: append", is_twice),
        ):
            if is_set:
                raise ConfigError(
                    f"{source.source}.{stream.name}",
                    f"{name} means nothing to Sling's file readers, which read the whole file",
                    "Leave columns out with columns: {name: {rule: block}}; for anything else use kind files.",
                )


KIND = Kind(
    name="sling",
    connector=SlingConnectorSpec,
    stream=SlingStreamSpec,
    open=_open,
    storage_kind="sling",
    default_write="replace",
)
