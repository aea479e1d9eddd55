"""Kind `files`: CSV, JSON Lines, Parquet and Excel, plain or compressed, from a folder or any fsspec store.

    connector: {kind: files, url: env:WEATHER_FILES}
    streams:
      - {name: weather, path: "weather_*.csv.gz", primary_key: [origin, time_hour], write: merge, null_values: [NA]}

A file is read when it is new or has changed; each is a checkpoint of its own. Libraries load when a source is opened.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self, cast
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from connectors.contract import Connector, Kind
from connectors.secrets import ValueRef, is_reference, resolve
from connectors.specs import ConnectorSpec, Names, StreamSpec

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

Format = Literal["csv", "jsonl", "parquet", "excel"]
Compression = Literal["auto", "none", "gzip", "zstd", "bz2", "xz"]


class FilesConnectorSpec(ConnectorSpec):
    """Where the files lie.

    url: a folder, a `file://` URL, or a URL of any fsspec store (`s3://bucket/drop`, `gs://`, `az://`, `sftp://`, ...);
        `env:NAME` where it holds a credential or differs between machines.
    options: of the fsspec store (`{key: env:S3_KEY, secret: env:S3_SECRET}`); values may be references.
    """

    url: ValueRef
    options: Mapping[str, ValueRef] = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        try:
            has_password = not is_reference(url) and urlsplit(url).password is not None
        except ValueError:
            has_password = True
        if has_password:
            # the URL is never echoed: it holds the secret
            raise ValueError("a URL with a password must be a reference such as env:DROP_URL")
        return url


class FilesStreamSpec(StreamSpec):
    """One stream: the files that match a pattern, all of one format.

    path: below the connector's url, with `*`, `?`, `[...]` and `**`.
    format, compression: by the file's name where they are not given.
    delimiter, quote, escape, header, names, skip_rows, encoding: of CSV. names replaces or stands in for the header;
        skip_rows are lines above the header. An empty field is NULL, a quoted empty one is empty text.
    sheet: of Excel; None takes the first.
    on_change: a file that was loaded and has changed since is read again, ignored, or fails the sync. None reads it
        again, but fails with write: append, which would load its rows twice.
    settle: a file modified so short ago may still be written; it waits for the next sync.
    max_record_bytes: a longer record of CSV or JSON Lines ends the sync with class resource.
    max_expansion: a file that unpacks to more than so many times its size is taken for a bomb.
    """

    path: str = Field(min_length=1)
    format: Format | None = None
    compression: Compression = "auto"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    quote: str = Field(default='"', max_length=1)
    escape: str = Field(default="", max_length=1)
    header: bool = True
    names: Names = ()
    skip_rows: int = Field(default=0, ge=0)
    encoding: str = "utf-8"
    sheet: str | None = None
    on_change: Literal["read", "ignore", "fail"] | None = None
    settle: timedelta = Field(default=timedelta(0), ge=timedelta(0))
    max_record_bytes: int = Field(default=2 << 20, ge=1 << 10, le=1 << 30)
    max_expansion: int = Field(default=250, ge=2)

    @field_validator("path")
    @classmethod
    def _below(cls, path: str) -> str:
        if "://" in path or path.startswith("/") or ".." in path.split("/"):
            raise ValueError("is below connector.url: no scheme, no leading slash, no ..")
        return path

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError(f"no encoding {encoding!r}; use one that Python knows, e.g. utf-8, latin-1") from None
        return encoding

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if not self.header and not self.names:
            raise ValueError("header: false needs names: the columns in file order")
        if len(set(self.names)) != len(self.names):
            raise ValueError("names has a column twice")
        if self.on_change == "read" and self.write == "append":
            raise ValueError("on_change: read with write: append would load a changed file twice; use write: merge")
        if self.partitions is not None and self.cursor is None:
            raise ValueError("partitions select rows by the cursor; add cursor: {field: ...}")
        return self

    @property
    def reads_everything(self) -> bool:
        """The table is to be the whole collection, so every file is read every time."""
        return self.write == "replace" or self.snapshot

    @property
    def reaction(self) -> Literal["read", "ignore", "fail"]:
        return self.on_change or ("fail" if self.write == "append" else "read")


def _open(source: "SourceSpec") -> Connector:
    """The connector with its references resolved; nothing is listed.

    Raises:
        ConfigError: a reference is not set.
    """
    from connectors.files.connector import FilesConnector

    spec = cast("FilesConnectorSpec", source.connector)
    where = f"{source.source}: connector"
    url = resolve(spec.url, f"{where}.url")
    options = {name: resolve(value, f"{where}.options.{name}") for name, value in spec.options.items()}
    secrets = tuple(options[name] for name, value in spec.options.items() if is_reference(value))
    streams = cast("Sequence[FilesStreamSpec]", source.streams)
    return FilesConnector(source.source, url, options, secrets, streams)


KIND = Kind(
    name="files",
    connector=FilesConnectorSpec,
    stream=FilesStreamSpec,
    open=_open,
    storage_kind="csv",
    default_write="append",
)
