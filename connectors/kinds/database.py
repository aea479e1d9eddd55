"""Kind `database`: PostgreSQL by COPY, every other SQLAlchemy database by Arrow batches.

    connector: {kind: database, url: env:SHOP_DB_URL, schema: public}
    streams:
      - {name: orders, primary_key: id, cursor: {field: updated_at, lag: PT5M}, write: merge}
      - {name: lineitem, keyset: {rows: 1000000}, write: replace}

The libraries load when a source is opened, not with the definitions.
"""

from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Self, cast
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from connectors.contract import Connector, Kind
from connectors.errors import ConfigError
from connectors.secrets import SecretRef, ValueRef, is_reference, resolve
from connectors.specs import ConnectorSpec, Names, Spec, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.specs import SourceSpec

POSTGRES_SCHEMES = ("postgres", "postgresql")
MAX_SLOT_NAME = 63
Identifier = Annotated[str, Field(min_length=1, max_length=255)]


class DatabaseConnectorSpec(ConnectorSpec):
    """How to reach a database.

    url: `env:NAME` of a URL, or a literal one that holds no password, e.g. `sqlite:////data/shop.db`.
        postgresql:// is read by COPY, every other SQLAlchemy URL (mysql+pymysql://, sqlite://) by Arrow.
    password: overrides the URL's.
    schema: where tables are looked for; None is the database's default (`public`).
    connect_timeout: for one attempt to connect.
    statement_timeout: for one statement at the source, the COPY of a whole table included; None leaves the
        database's own setting.
    lock_timeout: waiting for a lock at the source (a table that is being altered).
    part_mb: a COPY is cut at a row's end into files of about this size.
    consistent: the streams of one run read one moment of the database (PostgreSQL).
    """

    url: ValueRef
    password: SecretRef | None = None
    default_schema: Identifier | None = Field(default=None, alias="schema")
    connect_timeout: timedelta = timedelta(seconds=10)
    statement_timeout: timedelta | None = None
    lock_timeout: timedelta | None = timedelta(seconds=30)
    part_mb: int = Field(default=32, ge=1, le=4096)
    consistent: bool = False

    @property
    def reads_together(self) -> bool:
        return self.consistent

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        if is_reference(url):
            return url
        try:
            parts = urlsplit(url)
            has_password = parts.password is not None or "password=" in parts.query
        except ValueError as error:  # its text would echo the URL
            raise ValueError("not a URL; use env:NAME, or one such as sqlite:////data/shop.db") from error
        if has_password:
            # the URL is never echoed: it holds the secret
            raise ValueError("a URL with a password must be a reference such as env:SHOP_DB_URL")
        if "://" not in url:
            raise ValueError("not a URL; use env:NAME, or one such as sqlite:////data/shop.db")
        return url


class KeysetSpec(Spec):
    """A large table is read in windows of its key; each is sealed, so a failed read goes on after the last one.

    by: columns of a unique key, all NOT NULL; empty takes the primary key.
    rows: of one window.
    """

    by: Names = ()
    rows: int = Field(default=1_000_000, ge=1)


class ReplicationSpec(Spec):
    """The table's changes out of PostgreSQL's log, joined to a first read of all its rows.

    publication: at the source, with this table in it. slot: its name at the source; None makes one of the names of
    source and stream. One slot has one reader: two installations need two names.
    """

    publication: Identifier
    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,63}$")] | None = None


class DatabaseStreamSpec(StreamSpec):
    """One table or view.

    table: its name as the database spells it; None takes the stream's name.
    schema: overrides the connector's.
    select: the columns to read, in this order; empty takes all. exclude: all but these.
        Columns with `rule: block` are never asked for.
    where: an SQL condition in the source's own words, ANDed with the position.
    order: read in cursor order, so that every part is a checkpoint; None does so where an index leads with the
        cursor. False reads as the table lies: one checkpoint, at the end.
    """

    table: Identifier | None = None
    table_schema: Identifier | None = Field(default=None, alias="schema")
    select: Names = ()
    exclude: Names = ()
    where: str | None = None
    keyset: KeysetSpec | None = None
    order: bool | None = None
    replication: ReplicationSpec | None = None

    @property
    def table_name(self) -> str:
        return self.table or self.name

    @property
    def offered_as(self) -> str:
        return self.table_name

    @property
    def blocked(self) -> frozenset[str]:
        return frozenset(name for name, column in self.columns.items() if column.rule == "block")

    @model_validator(mode="after")
    def _position_is_open(self) -> Self:
        by = (self.keyset.by or self.primary_key) if self.keyset is not None else ()
        if protected := [name for name in by if name in self.columns and self.columns[name].rule != "keep"]:
            raise ValueError(f"keyset keeps the last {protected[0]} as the position, in clear, and columns protects it")
        return self

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.select and self.exclude:
            raise ValueError("select and exclude contradict each other; keep one of them")
        if twice := sorted({name for name in self.select if self.select.count(name) > 1}):
            raise ValueError(f"select names a column twice: {', '.join(twice)}")
        needed = [*self.primary_key, *([self.cursor.field] if self.cursor else [])]
        for name in needed:
            if (self.select and name not in self.select) or name in self.exclude or name in self.blocked:
                raise ValueError(f"column {name!r} is a key or the cursor, so it must be read")
        if self.where is not None and (not self.where.strip() or ";" in self.where):
            raise ValueError("where is one SQL condition, neither empty nor with a semicolon")
        if self.partitions is not None and self.cursor is None:
            raise ValueError("partitions bound the read by the cursor; add cursor: {field: ...}")
        if self.keyset is not None and self.write == "append":
            raise ValueError("keyset reads the whole table, which append would add again; use write: merge or replace")
        if self.order and self.write == "append" and not self.primary_key:
            raise ValueError("order: true with write: append needs a primary_key: rows read twice look like equal ones")
        if self.keyset is not None and self.order:
            raise ValueError("keyset and order are two ways to resume one read; keep one of them")
        return self

    @model_validator(mode="after")
    def _replicable(self) -> Self:
        if self.replication is None:
            return self
        if self.write not in ("merge", "scd2"):
            raise ValueError("replication brings changes of rows by key; use write: merge or scd2")
        contradicting = [
            name
            for name in ("cursor", "partitions", "keyset", "where", "order", "snapshot")
            if getattr(self, name) not in (None, False)
        ]
        if contradicting:
            raise ValueError(f"replication reads the whole table and its log; leave out {', '.join(contradicting)}")
        if protected := [key for key in self.primary_key if key in self.columns and self.columns[key].rule != "keep"]:
            raise ValueError(f"replication finds rows by {protected[0]}, and columns protects it")
        return self


def slot_name(source: str, stream: DatabaseStreamSpec) -> str:
    """Of the stream's replication slot; a name that would be too long ends in a digest."""
    assert stream.replication is not None
    if stream.replication.slot is not None:
        return stream.replication.slot
    name = f"headwater_{source}_{stream.name}"
    if len(name) <= MAX_SLOT_NAME:
        return name
    return f"{name[: MAX_SLOT_NAME - 9]}_{sha256(name.encode()).hexdigest()[:8]}"


def _open(source: "SourceSpec") -> Connector:
    """The connector of the URL's database; loads its library, touches no network.

    Raises:
        ConfigError: a reference is not set, or no driver for the URL is installed.
    """
    spec = cast("DatabaseConnectorSpec", source.connector)
    streams = cast("tuple[DatabaseStreamSpec, ...]", source.streams)
    url = resolve(spec.url, f"{source.source}: connector.url")
    password = resolve(spec.password, f"{source.source}: connector.password") if spec.password else None
    if spec.consistent:
        _check_consistent(source.source, streams)
    if is_postgres(url):
        from connectors.database.postgres import PostgresConnector  # loads libpq: only when a source is opened

        slots = _slots(source.source, streams)
        return PostgresConnector(source.source, spec, url, password, slots)
    own = [stream.name for stream in streams if stream.replication]
    if own or spec.consistent:
        what = f"{f'replication of {own[0]}' if own else 'consistent'} is PostgreSQL's, and connector.url is another's"
        raise ConfigError(source.source, what, "Take it out of the source file.")
    from connectors.database.alchemy import AlchemyConnector  # loads SQLAlchemy: only when a source is opened

    return AlchemyConnector(source.source, spec, url, password)


def _slots(source: str, streams: "Sequence[DatabaseStreamSpec]") -> "dict[str, str]":
    """The slot of each replicated stream. Raises ConfigError when two streams would read one."""
    found = {stream.name: slot_name(source, stream) for stream in streams if stream.replication}
    if shared := [name for name, slot in found.items() if list(found.values()).count(slot) > 1]:
        what = f"slot {found[shared[0]]} has two readers: {', '.join(shared)}"
        raise ConfigError(source, what, "Give each stream a slot of its own, or leave replication.slot out.")
    return found


def _check_consistent(source: str, streams: "Sequence[DatabaseStreamSpec]") -> None:
    """Raises ConfigError for a stream that is not read at one moment."""
    for stream in streams:
        for name in ("replication", "partitions", "keyset"):
            if getattr(stream, name) is not None:
                raise ConfigError(
                    f"{source}.{stream.name}",
                    f"{name} reads at other moments than the streams of connector.consistent",
                    "Put the stream into a source file of its own.",
                )


def is_postgres(url: str) -> bool:
    """postgresql://, postgres://, and both with a driver: postgresql+psycopg://."""
    return url.split("://", 1)[0].split("+", 1)[0].lower() in POSTGRES_SCHEMES


KIND = Kind(
    name="database",
    connector=DatabaseConnectorSpec,
    stream=DatabaseStreamSpec,
    open=_open,
    storage_kind="postgres",
    default_write="replace",
)
