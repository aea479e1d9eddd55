"""What a first sync says of a stream's columns: types for certain; nullability, key, values, personal data as guesses.

Reads the raw table (at most 100,000 rows) and the newest schema version; asks nobody else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from connectors.contract import DiscoveredStream
from connectors.errors import ConfigError
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync import registry
from connectors.sync.columns import Column

SAMPLE_ROWS = 100_000
ENOUGH_ROWS = 100
"""Below so many rows nothing is guessed from what they have in common."""
MAX_VALUES = 12
"""Distinct values of a text that may be a closed list; each must stand for ten rows on average."""
_NUMERIC = re.compile(r"^numeric\((\d+),\s*(\d+)\)$")
_SENSITIVE = re.compile(
    r"(^|_)(ssn|social_security|passport|iban|card_number|credit_card|tax_id|birth\w*|dob|gender|religion|salary"
    r"|password|secret|token|diagnosis)($|_)"
)
_PERSONAL = re.compile(
    r"(^|_)(e?mail|phone|mobile|fax|(first|last|full|sur|user|display|nick)_?name|login|address|street|zip|postcode"
    r"|postal_code|ip|ip_address|latitude|longitude|lat|lng|lon)($|_)"
)
_PERSONAL_VALUES = (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", r"^\+?[0-9][0-9 ()/-]{7,}[0-9]$")


@dataclass(frozen=True, slots=True)
class Inferred:
    """facts: keys of the column's contract. guesses: those of them that the rows suggest and nobody has said."""

    name: str
    facts: Mapping[str, Any]
    guesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    """columns: those that the source file does not declare yet. key: a likely one where the file names none."""

    columns: tuple[Inferred, ...]
    key: tuple[str, ...]
    rows: int
    is_key_known: bool


@dataclass(frozen=True, slots=True)
class _Statistics:
    """Of one column over the sample. values: the distinct ones where they are few, else empty."""

    rows: int
    present: int
    distinct: int
    values: tuple[str, ...]
    personal: int


def infer(
    connection: "psycopg.Connection[Any]", source: SourceSpec, stream: StreamSpec, offered: DiscoveredStream | None
) -> Contract:
    """The contract that the raw table suggests. offered: what discovery says of the stream, where it could be asked.

    Raises:
        ConfigError: the stream was never synced.
    """
    label = f"{source.source}.{stream.name}"
    version = registry.newest(connection, source.source, stream.name)
    if version is None:
        raise ConfigError(label, "has no schema version yet", f"Run `headwater sync {label}` first.")
    table = Identifier(source.schema_name, stream.name)
    columns = [c for c in version.columns if c.place == "column" and c.variant_of is None]
    found = {column.source_name: _statistics(connection, table, column) for column in columns}
    # only a database promises that there is no NULL; elsewhere discovery has seen no more than one page
    is_promise = source.connector.kind == "database"
    promised = {column.name: column for column in offered.columns} if offered and is_promise else {}
    key, is_known = _key(stream, offered, columns, found)
    said = {name for name, one in promised.items() if not one.is_nullable} | (set(key) if is_known else set())
    inferred = tuple(
        _inferred(
            column, found[column.source_name], is_never_null=column.source_name in said,
            is_key=column.source_name in key,
        )
        for column in columns
        if column.source_name not in stream.columns
    )  # fmt: skip
    rows = max((one.rows for one in found.values()), default=0)
    return Contract(inferred, () if stream.primary_key else key, rows, is_known)


def _inferred(column: Column, seen: _Statistics, *, is_never_null: bool, is_key: bool) -> Inferred:
    """is_never_null: somebody has said so; a key that the rows suggest is one more guess."""
    facts: dict[str, Any] = {"type": column.type}
    guesses: list[str] = []
    if match := _NUMERIC.match(column.pg_type):
        facts |= {"precision": int(match[1]), "scale": int(match[2])}
    if is_never_null:
        facts["nullable"] = False
    elif seen.rows >= ENOUGH_ROWS and seen.present == seen.rows:
        facts["nullable"] = False
        guesses.append(f"no NULL in {seen.rows:,} rows")
    if seen.values and not is_key:
        facts["accepted_values"] = list(seen.values)
        guesses.append(f"{seen.distinct} values in {seen.rows:,} rows")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.source_name).lower()
    if _SENSITIVE.search(name):
        facts["pii"] = "sensitive"
        guesses.append("sensitive by its name")
    elif _PERSONAL.search(name):
        facts["pii"] = "personal"
        guesses.append("personal by its name")
    elif seen.present and seen.personal >= 0.8 * seen.present:
        facts["pii"] = "personal"
        guesses.append("personal by its values")
    return Inferred(column.source_name, facts, tuple(guesses))


def _key(
    stream: StreamSpec,
    offered: DiscoveredStream | None,
    columns: Sequence[Column],
    found: Mapping[str, _Statistics],
) -> tuple[tuple[str, ...], bool]:
    """The key, and whether file or source have said it; else the unique column of enough rows that is named like one:
    by a wrong key `merge` and `replace` would take rows for one."""
    if stream.primary_key:
        return stream.primary_key, True
    if offered is not None and offered.primary_key:
        return offered.primary_key, True
    unique = [
        column.source_name
        for column in columns
        if (seen := found[column.source_name]).rows >= ENOUGH_ROWS and seen.present == seen.rows == seen.distinct
    ]
    named = [name for name in unique if re.search(r"(^|_)(id|key|uuid|code|number)$", name.lower())]
    singular = stream.name.removesuffix("s").lower()
    named.sort(key=lambda name: name.lower() not in ("id", f"{singular}_id"))
    return tuple(named[:1]), False


def _statistics(connection: "psycopg.Connection[Any]", table: Identifier, column: Column) -> _Statistics:
    name = Identifier(column.name)
    is_text = column.type == "text"
    few: Composed | SQL = SQL("null")
    if is_text:
        few = SQL(
            "(select array_agg(value) from (select distinct {}::text as value from sample order by 1 limit {}) x)"
        )
        few = few.format(name, MAX_VALUES + 1)
    comparable = SQL("{}::text") if column.type == "json" else SQL("{}")
    row = connection.execute(
        SQL(
            "with sample as (select {name} from {table} where _deleted is not true limit {limit})"
            " select count(*), count({name}), count(distinct {value}), {few},"
            " count(*) filter (where {name}::text ~ any (%s)) from sample"
        ).format(name=name, table=table, limit=SAMPLE_ROWS, value=comparable.format(name), few=few),
        [list(_PERSONAL_VALUES) if is_text else []],
    ).fetchone()
    assert row is not None
    rows, present, distinct, values, personal = row
    is_list = is_text and rows >= ENOUGH_ROWS and 1 < distinct <= MAX_VALUES and rows >= 10 * distinct
    kept = tuple(sorted(value for value in values or () if value is not None)) if is_list else ()
    return _Statistics(rows, present, distinct, kept, personal)
