"""The position as an SQL condition in the source's own dialect."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from connectors.errors import ConfigError
from connectors.texts import TextType

PLACEHOLDER = "{incremental_where_cond}"
_BACKTICK = frozenset({"mysql", "mariadb", "starrocks", "bigquery", "databricks", "clickhouse"})
_BRACKET = frozenset({"sqlserver", "mssql", "azuresql", "azuredwh", "fabric"})
_ISO = frozenset({"postgres", "postgresql", "redshift", "cockroachdb", "snowflake", "duckdb", "motherduck"})
_COLLATE_C = frozenset({"postgres", "postgresql", "cockroachdb"})
_BYTES = frozenset({"mysql", "mariadb"})
_KEYWORD = frozenset({"oracle", "trino", "athena", "bigquery", "databricks"})
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Half-open [low, high) on a cursor; None is open. The position itself is asked for again: the engine drops it."""

    field: str
    low: str | None
    high: str | None


def identifier(name: str, dialect: str) -> str:
    """The name quoted for the dialect, whatever it contains.

    Raises:
        ConfigError: a NUL in the name.
    """
    if "\x00" in name:
        raise ConfigError("cursor.field", "holds a NUL character", "Correct the name.")
    if dialect in _BACKTICK:
        return "`" + name.replace("`", "``") + "`"
    if dialect in _BRACKET:
        return "[" + name.replace("]", "]]") + "]"
    return '"' + name.replace('"', '""') + '"'


def literal(value: str, wanted: TextType | None, dialect: str) -> str:
    """The value as an SQL literal; a number only where the column is one, everything else quoted."""
    if wanted is not None and wanted.name in ("bigint", "double", "decimal") and _NUMBER.fullmatch(value):
        return value
    kind = wanted.name if wanted is not None else None
    if kind == "date":
        return _quoted(value[:10], dialect)
    if kind == "timestamp" or (kind is None and _MOMENT.match(value)):
        return _moment(value, dialect)
    return _quoted(value, dialect)


def condition(bounds: Bounds, wanted: TextType | None, dialect: str) -> str:
    """`"updated_at" >= '...' and "updated_at" < '...'`; `1=1` without bounds."""
    column = place(bounds.field, wanted, dialect)
    parts = [
        f"{column} {sign} {literal(value, wanted, dialect)}"
        for sign, value in ((">=", bounds.low), ("<", bounds.high))
        if value is not None
    ]
    return " and ".join(parts) or "1=1"


def place(name: str, wanted: TextType | None, dialect: str) -> str:
    """The column as its values compare: a text by code points, as the engine does, whatever its collation."""
    column = identifier(name, dialect)
    if wanted is None:
        return column
    if dialect == "sqlite" and wanted.name == "timestamp":
        # SQLite keeps times as text of several forms: compare what they mean, to the millisecond
        return f"strftime('%Y-%m-%d %H:%M:%f', {column})"
    if wanted.name != "text" or wanted.pg_type == "uuid":
        return column
    if dialect in _COLLATE_C:
        return f'({column})::text collate "C"'
    if dialect in _BYTES:
        return f"cast(cast({column} as char character set utf8mb4) as binary)"
    return f"{column} collate binary" if dialect == "sqlite" else column


def _moment(value: str, dialect: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return _quoted(value, dialect)
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if dialect in _ISO:
        return _quoted(moment.isoformat().replace("+00:00", "Z"), dialect)
    if dialect == "sqlite":
        return _quoted(f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}", dialect)
    text = _quoted(f"{moment:%Y-%m-%d %H:%M:%S.%f}", dialect)
    return f"timestamp {text}" if dialect in _KEYWORD else text


def _quoted(text: str, dialect: str) -> str:
    if dialect in _BACKTICK:
        text = text.replace("\\", "\\\\")
    return "'" + text.replace("'", "''") + "'"
