"""SQLAlchemy's reflected types, and the PostgreSQL columns that hold them exactly."""

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from connectors.copy_columns import PG_TYPES
from connectors.database.pg_types import Mapped
from connectors.specs import ColumnSpec, ColumnType

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

PG_INTEGERS = {16: "smallint", 32: "integer", 64: "bigint"}
# bits of MySQL's integers; an unsigned one needs the next size
MYSQL_BITS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INTEGER": 32, "INT": 32, "BIGINT": 64, "YEAR": 15}

# in this order: an Enum is a String, a Float is a Numeric
_FIXED: tuple[tuple[type[TypeEngine[Any]], Mapped], ...] = (
    (sa.Boolean, Mapped("boolean", "bool")),
    (sa.Float, Mapped("double precision", "double")),
    (sa.Date, Mapped("date", "date")),
    (sa.Time, Mapped("time without time zone", "time")),
    (sa.JSON, Mapped("jsonb", "json")),
    (sa.LargeBinary, Mapped("bytea", "binary")),
    (sa.BINARY, Mapped("bytea", "binary")),
    (sa.VARBINARY, Mapped("bytea", "binary")),
    (mysql.TINYBLOB, Mapped("bytea", "binary")),
    (mysql.MEDIUMBLOB, Mapped("bytea", "binary")),
    (mysql.LONGBLOB, Mapped("bytea", "binary")),
    (sa.Uuid, Mapped("uuid", "text")),
    (sa.Enum, Mapped("text", "text")),
)


def map_type(kind: TypeEngine[Any], dialect: "Dialect", contract: ColumnSpec | None = None) -> Mapped:
    """How a reflected column travels; a type that the stream's contract declares wins.

    SQLite keeps declared lengths, precisions and sizes nowhere: there only the family counts.
    """
    if contract is not None and contract.type is not None:
        return _declared(contract.type, contract)
    fixed = next((mapped for family, mapped in _FIXED if isinstance(kind, family)), None)
    if fixed is not None:
        return fixed
    is_loose = dialect.name == "sqlite"
    is_mysql = dialect.name in ("mysql", "mariadb")
    if isinstance(kind, sa.Integer):
        return _integer(kind, 64 if is_loose or isinstance(kind, sa.BigInteger) else 0)
    if isinstance(kind, sa.Numeric):
        return _decimal(None if is_loose else kind.precision, kind.scale)
    if isinstance(kind, sa.DateTime):
        # a MySQL TIMESTAMP is a moment; the session reads it in UTC
        is_moment = kind.timezone or (is_mysql and isinstance(kind, sa.TIMESTAMP))
        zone = "with" if is_moment else "without"
        return Mapped(f"timestamp {zone} time zone", "timestamp")
    if is_mysql and _name(kind) in ("BIT", "YEAR"):
        return _sized(1 + (int(getattr(kind, "length", None) or 1) if _name(kind) == "BIT" else MYSQL_BITS["YEAR"]))
    return _text(kind, is_loose)


def _declared(house_type: ColumnType, contract: ColumnSpec) -> Mapped:
    if house_type == "decimal" and contract.precision is not None:
        return _decimal(contract.precision, contract.scale)
    return Mapped(PG_TYPES[house_type], house_type)


def _text(kind: TypeEngine[Any], is_loose: bool) -> Mapped:
    """varchar(n) where the source holds to n; never character(n), which would pad what the source does not."""
    is_bounded = isinstance(kind, sa.String) and not isinstance(kind, sa.Text) and _name(kind) != "SET"
    length = kind.length if isinstance(kind, sa.String) else None
    if is_bounded and length and not is_loose:
        return Mapped(f"character varying({length})", "text")
    return Mapped("text", "text")


def _name(kind: TypeEngine[Any]) -> str:
    return str(getattr(kind, "__visit_name__", "")).upper()


def _integer(kind: sa.Integer, bits: int) -> Mapped:
    known = bits or MYSQL_BITS.get(_name(kind), 32)
    return _sized(known + (1 if getattr(kind, "unsigned", False) else 0))


def _sized(bits: int) -> Mapped:
    """The smallest column for a signed number of so many bits; beyond 64 a numeric(20,0)."""
    if bits > 64:
        return Mapped("numeric(20,0)", "decimal")
    size = 16 if bits <= 16 else 32 if bits <= 32 else 64
    return Mapped(PG_INTEGERS[size], "bigint")


def _decimal(precision: int | None, scale: int | None) -> Mapped:
    return Mapped("numeric" if precision is None else f"numeric({precision},{scale or 0})", "decimal")
