"""The source's catalog, and the configured one that a read gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from connectors.contract import DiscoveredColumn, DiscoveredStream
from connectors.errors import ConfigError, SourceError
from connectors.specs import did_you_mean

if TYPE_CHECKING:
    from connectors.kinds.airbyte import AirbyteStreamSpec
    from connectors.specs import ColumnType

Json = Mapping[str, Any]
_WRITES = {"append": "append", "merge": "append_dedup", "scd2": "append_dedup", "replace": "overwrite"}
_PLAIN: "Mapping[str, ColumnType]" = {
    "integer": "bigint",
    # exact whatever the source sends, while a double would refuse what it cannot hold
    "number": "decimal",
    "boolean": "bool",
    "object": "json",
    "array": "json",
}
_FORMATS: "Mapping[str, ColumnType]" = {"date-time": "timestamp", "date": "date", "time": "time"}


class _Schema(msgspec.Struct):
    properties: dict[str, Any] | None = None


class _Stream(msgspec.Struct):
    """What is read of a stream in the catalog."""

    name: str
    namespace: str | None = None
    json_schema: _Schema | None = None
    supported_sync_modes: list[str] | None = None
    default_cursor_field: list[str] | None = None
    source_defined_primary_key: list[list[str]] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """A stream of the catalog as it will be read."""

    namespace: str | None
    name: str
    is_incremental: bool
    configured: Json
    types: "Mapping[str, ColumnType]"


def streams_of(answer: Json, where: str) -> Sequence[Json]:
    """The streams of a catalog as the source gave them.

    Raises:
        SourceError: it breaks the protocol.
    """
    streams = answer.get("streams") or []
    try:
        msgspec.convert(streams, list[_Stream])
    except msgspec.ValidationError as error:
        raise SourceError(
            where, f"its catalog breaks the protocol: {error}", "Report it to the source's author."
        ) from error
    return cast("Sequence[Json]", streams)


def choose(stream: "AirbyteStreamSpec", catalog: Sequence[Json], where: str) -> Chosen:
    """The stream in the source's catalog with its modes and keys.

    Raises:
        ConfigError: it is not there, is there more than once, cannot be read incrementally, or lacks a cursor.
    """
    wanted = stream.stream_name
    found = [item for item in catalog if item.get("name") == wanted]
    if stream.namespace is not None:
        found = [item for item in found if item.get("namespace") == stream.namespace]
    if not found:
        names = [str(item.get("name")) for item in catalog]
        raise ConfigError(where, f"the source offers no stream {wanted!r}", did_you_mean(wanted, names))
    if len(found) > 1:
        spaces = ", ".join(str(item.get("namespace")) for item in found)
        raise ConfigError(where, f"the source offers {wanted!r} in {len(found)} namespaces: {spaces}", "Set namespace.")
    (item,) = found
    can: list[str] = list(item.get("supported_sync_modes") or ("full_refresh",))
    reads_onwards = "incremental" in can and not stream.reads_everything
    mode: str = stream.sync_mode or ("incremental" if reads_onwards else "full_refresh")
    if mode not in can:
        raise ConfigError(where, f"the source reads {wanted!r} {' or '.join(can)} only", "Correct sync_mode or write.")
    configured: dict[str, Any] = {
        "stream": dict(item),
        "sync_mode": mode,
        "destination_sync_mode": _WRITES[stream.write or "append"],
    }
    if mode == "incremental" and (cursor := _cursor(stream, item, where)):
        configured["cursor_field"] = cursor
    if stream.primary_key:
        configured["primary_key"] = [[key] for key in stream.primary_key]
    elif item.get("source_defined_primary_key"):
        configured["primary_key"] = item["source_defined_primary_key"]
    return Chosen(item.get("namespace"), wanted, mode == "incremental", configured, column_types(item))


def _cursor(stream: "AirbyteStreamSpec", item: Json, where: str) -> list[str]:
    default = list(cast("Sequence[str]", item.get("default_cursor_field") or ()))
    if item.get("source_defined_cursor"):
        return default
    if stream.cursor is not None:
        return stream.cursor.field.split(".")
    if not default:
        raise ConfigError(
            where, "the source leaves the choice of the cursor to us, and none is set", "Add cursor: {field: ...}."
        )
    return default


def column_types(item: Json) -> "dict[str, ColumnType]":
    """House types of the columns whose schema says exactly one; the others are observed."""
    properties = cast("Mapping[str, Any]", cast("Json", item.get("json_schema") or {}).get("properties") or {})
    found: dict[str, ColumnType | None] = {name: column_type(schema) for name, schema in properties.items()}
    return {name: kind for name, kind in found.items() if kind}


def column_type(schema: object) -> "ColumnType | None":
    if not isinstance(schema, Mapping):
        return None
    said = cast("Json", schema)
    variants = said.get("oneOf") or said.get("anyOf")
    if variants and "type" not in said:
        real = [
            one
            for one in cast("Sequence[Any]", variants)
            if not (isinstance(one, Mapping) and cast("Json", one).get("type") == "null")
        ]
        return column_type(real[0]) if len(real) == 1 else None
    given = said.get("type")
    kinds = [given] if isinstance(given, str) else [kind for kind in given or () if kind != "null"]
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    if kind != "string":
        return "bigint" if said.get("airbyte_type") == "integer" else _PLAIN.get(str(kind))
    if said.get("airbyte_type") == "big_integer":
        return "decimal"
    if said.get("airbyte_type") == "time_with_timezone" or said.get("contentEncoding"):
        return "text"
    return _FORMATS.get(str(said.get("format")), "text")


def offered(catalog: Sequence[Json]) -> tuple[DiscoveredStream, ...]:
    """The catalog for `headwater discover`."""
    return tuple(
        DiscoveredStream(
            str(item["name"]),
            tuple(DiscoveredColumn(name, kind) for name, kind in column_types(item).items()),
            tuple(".".join(path) for path in item.get("source_defined_primary_key") or ()),
        )
        for item in catalog
    )
