"""Column types that Sling reports, as the text types that its values convert to.

Every column but binary is asked for as text: measured on 1.4.11, text costs no time, while Sling's own typed values
lose NaN, `infinity`, and every digit of an unbounded numeric beyond the sixth.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from connectors.texts import MAX_PRECISION, TextType, compute

if TYPE_CHECKING:
    import pyarrow as pa

POSTGRES = frozenset({"postgres", "postgresql", "redshift", "cockroachdb"})
FILES = frozenset({"file", "s3", "gs", "gcs", "azure", "sftp", "ftp", "http", "https", "local"})
GUESSED_DECIMAL = (24, 6)
"""What Sling makes of a decimal whose precision it does not know; its digits beyond the scale are cut."""

_BOUNDED = re.compile(r"^(?:numeric|decimal|number|dec)\s*\((\d+)\s*(?:,\s*(\d+)\s*)?\)", re.IGNORECASE)
_NATIVE: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), general)
    for pattern, general in (
        (r"^(timestamp|datetime)", "timestamp"),
        (r"^(double|real|float)", "float"),
        (r"blob|^bytea$|binary", "binary"),
    )
)
"""Types that Sling calls text for some databases (SQLite: timestamp, double, blob)."""
_FLOAT = re.compile(r"^(real|float|double)", re.IGNORECASE)
_GENERAL: Mapping[str, TextType] = {
    "smallint": TextType("bigint", pg_type="bigint"),
    "integer": TextType("bigint", pg_type="bigint"),
    "bigint": TextType("bigint", pg_type="bigint"),
    "bool": TextType("bool", pg_type="boolean"),
    "float": TextType("double", pg_type="double precision"),
    "date": TextType("date", pg_type="date"),
    "datetime": TextType("timestamp", pg_type="timestamp with time zone"),
    "timestamp": TextType("timestamp", pg_type="timestamp with time zone"),
    "timestampz": TextType("timestamp", pg_type="timestamp with time zone"),
    "time": TextType("time", pg_type="time without time zone"),
    "binary": TextType("binary", pg_type="bytea"),
    "json": TextType("json", pg_type="jsonb"),
}
_UNBOUNDED = TextType("decimal", pg_type="numeric")
_EXACT = frozenset({"smallint", "integer", "uuid"})


def text_type(native: str, general: str, dialect: str) -> TextType:
    """The type for one discovered column, e.g. (`numeric(12,2)`, `decimal`, `postgres`)."""
    native = native.strip().lower()
    if native.endswith("[]") or native == "money":
        return TextType("text")
    if general == "decimal" or "unsigned" in native:
        if _FLOAT.match(native):
            return _GENERAL["float"]
        match = _BOUNDED.match(native)
        if match is None:
            return _UNBOUNDED if native != "-" else _GENERAL["float"]
        precision, scale = int(match[1]), int(match[2] or 0)
        if precision > MAX_PRECISION:
            return TextType("decimal", pg_type=f"numeric({precision},{scale})")
        return TextType("decimal", precision, scale, pg_type=f"numeric({precision},{scale})")
    if dialect in POSTGRES and native in _EXACT:
        return TextType("text" if native == "uuid" else "bigint", pg_type=native)
    if general not in _GENERAL:
        general = next((name for pattern, name in _NATIVE if pattern.search(native)), general)
    return _GENERAL.get(general, TextType("text"))


def text_types_of(schema: "pa.Schema", dialect: str) -> dict[str, TextType]:
    """The types of a query or file, from the Arrow schema of a short typed read."""
    import pyarrow as pa

    found: dict[str, TextType] = {}
    for field in schema:
        kind = field.type
        if pa.types.is_decimal(kind):
            is_guess = (kind.precision, kind.scale) == GUESSED_DECIMAL
            if is_guess:
                found[field.name] = _GENERAL["float"] if dialect in FILES or dialect == "sqlite" else _UNBOUNDED
            else:
                label = f"numeric({kind.precision},{kind.scale})"
                found[field.name] = TextType("decimal", kind.precision, kind.scale, pg_type=label)
            continue
        tests = {
            "bigint": pa.types.is_integer(kind),
            "float": pa.types.is_floating(kind),
            "bool": pa.types.is_boolean(kind),
            "timestamp": pa.types.is_timestamp(kind),
            "date": pa.types.is_date(kind),
            "binary": pa.types.is_binary(kind),
        }
        general = next((name for name, is_it in tests.items() if is_it), "")
        found[field.name] = _GENERAL.get(general, TextType("text"))
    return found


# a time reaches us as JSON text of a moment: "2024-02-29T00:00:00Z" with its quotes
_MOMENTS: Mapping[str, str] = {
    "timestamp": r'^"(.*)"$',
    "date": r'^"?([0-9]{4}-[0-9]{2}-[0-9]{2})T00:00:00Z"?$',
    "time": r'^"?0000-01-01T([0-9:.]+)Z"?$',
}


def plain_text(column: Any, wanted: TextType) -> Any:
    """The text of a date or time without Sling's wrapping; what is not wrapped stays as it is."""
    pattern = _MOMENTS.get(wanted.name)
    if pattern is None:
        return column
    return compute().replace_substring_regex(column, pattern, r"\1")
