"""The tap's catalog: what it offers, and what a run selects in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import msgspec

from connectors.contract import DiscoveredColumn, DiscoveredStream
from connectors.errors import ConfigError, SourceError
from connectors.singer.types import column_type, fault
from connectors.specs import did_you_mean

if TYPE_CHECKING:
    from connectors.specs import ColumnType

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run reads of one stream. tap_stream: its id in the catalog.

    select, exclude: patterns of properties. blocked: never read, unless the tap cannot leave them out.
    method, key: replication; None leaves the tap's own. metadata, columns: overrides, for the stream and by property.
    """

    label: str
    tap_stream: str
    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    blocked: frozenset[str] = frozenset()
    method: str | None = None
    key: str | None = None
    metadata: Json = field(default_factory=dict[str, Any])
    columns: Mapping[str, Json] = field(default_factory=dict[str, Any])


class _About(msgspec.Struct):
    breadcrumb: list[str] = msgspec.field(default_factory=list[str])
    metadata: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class _Schema(msgspec.Struct):
    properties: dict[str, Any] | None = None


class _Entry(msgspec.Struct):
    """What is read of a stream."""

    metadata: list[_About] = msgspec.field(default_factory=list[_About])
    schema: _Schema | None = None


class Catalog:
    """A discovered catalog; `select` changes a copy."""

    def __init__(self, raw: Json) -> None:
        self._entries: list[dict[str, Any]] = list(raw["streams"])
        self._rest = {key: value for key, value in raw.items() if key != "streams"}

    @classmethod
    def parse(cls, text: bytes | str, where: str, what: str) -> "Catalog":
        """Raises SourceError: this is no catalog. what: e.g. `discovery`."""
        try:
            raw: Any = json.loads(text)
        except ValueError as error:
            raise SourceError(where, f"{what} gave no JSON: {error}", "Run the tap with --discover by hand.") from error
        streams = cast("Json", raw).get("streams") if isinstance(raw, Mapping) else None
        if not isinstance(streams, list) or not all(
            isinstance(entry, Mapping) and cast("Json", entry).get("tap_stream_id", cast("Json", entry).get("stream"))
            for entry in cast("list[Any]", streams)
        ):
            raise SourceError(where, f"{what} gave JSON that is no catalog of streams", "Is this a Singer tap?")
        try:
            msgspec.convert(streams, list[_Entry])
        except msgspec.ValidationError as error:
            said = f"{what} gave a catalog that breaks the protocol: {error}"
            raise SourceError(where, said, "Report it to the tap's author.") from error
        return cls(cast("Json", raw))

    def streams(self) -> Iterator[DiscoveredStream]:
        for entry in self._entries:
            properties = _properties(entry)
            keys = _root(entry).get("table-key-properties") or entry.get("key_properties") or ()
            yield DiscoveredStream(
                name=tap_stream_id(entry),
                columns=tuple(
                    DiscoveredColumn(name, _type(name, spec) or "text", name not in keys)
                    for name, spec in properties.items()
                ),
                primary_key=tuple(keys),
            )

    def aliases(self, tap_stream: str) -> Iterator[str]:
        """Every name that messages or bookmarks may call the stream by, the likeliest first."""
        entry = self._find(tap_stream)
        if entry is not None:
            yield tap_stream
            yield from (str(entry[key]) for key in ("stream_alias", "stream") if entry.get(key))
            if schema := _root(entry).get("schema-name"):
                yield f"{schema}-{entry.get('stream') or entry.get('table_name')}"

    def _find(self, tap_stream: str) -> dict[str, Any] | None:
        return next((entry for entry in self._entries if tap_stream_id(entry) == tap_stream), None)

    def select(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The catalog of a run: the chosen streams and properties are selected, everything else is not.

        Raises:
            ConfigError: a stream, a property or a replication setting that the tap does not know.
        """
        chosen = {choice.tap_stream: choice for choice in choices}
        known = [tap_stream_id(entry) for entry in self._entries]
        for choice in choices:
            if choice.tap_stream not in known:
                hint = did_you_mean(choice.tap_stream, known) if known else "It offers none at all."
                raise ConfigError(choice.label, f"the tap has no stream {choice.tap_stream!r}", hint)
        entries = json.loads(json.dumps(self._entries))
        for entry in entries:
            _select(entry, chosen.get(tap_stream_id(entry)))
        return {**self._rest, "streams": entries}


def _type(name: str, spec: Any) -> "ColumnType | None":
    """None for a schema that is none: it stops nobody who does not read the column."""
    if not isinstance(spec, Mapping) or fault({"properties": {name: spec}}):
        return None
    return column_type(cast("Json", spec))


def tap_stream_id(entry: Json) -> str:
    return str(entry.get("tap_stream_id") or entry["stream"])


def _properties(entry: Json) -> Json:
    return cast("Json", cast("Json", entry.get("schema") or {}).get("properties") or {})


def _metadata(entry: Json, breadcrumb: Sequence[str]) -> dict[str, Any]:
    """The metadata of a breadcrumb, made when there is none."""
    every = cast("dict[str, list[Any]]", entry).setdefault("metadata", [])
    for item in every:
        if list(item.get("breadcrumb", ())) == list(breadcrumb):
            return cast("dict[str, Any]", item.setdefault("metadata", {}))
    made: dict[str, Any] = {}
    every.append({"breadcrumb": list(breadcrumb), "metadata": made})
    return made


def _root(entry: Json) -> dict[str, Any]:
    return _metadata(entry, ())


def _select(entry: dict[str, Any], choice: Choice | None) -> None:
    root = _root(entry)
    root["selected"] = choice is not None
    # taps from before metadata look here
    entry["selected"] = choice is not None
    if choice is None:
        return
    properties = _properties(entry)
    for name in (*(column for column in choice.columns), *([choice.key] if choice.key else [])):
        if name not in properties:
            raise ConfigError(
                choice.label, f"the tap's stream has no column {name!r}", did_you_mean(name, [*properties])
            )
    for pattern in (*choice.select, *choice.exclude):
        if not any(fnmatchcase(name, pattern) for name in properties):
            raise ConfigError(choice.label, f"no column matches {pattern!r}", did_you_mean(pattern, [*properties]))
    for name in properties:
        about = _metadata(entry, ("properties", name))
        about.update(choice.columns.get(name, {}))
        if about.get("inclusion") != "unsupported":
            about["selected"] = about.get("inclusion") == "automatic" or name == choice.key or _wants(choice, name)
    _replicate(entry, root, choice)
    root.update(choice.metadata)


def _wants(choice: Choice, name: str) -> bool:
    if name in choice.blocked or any(fnmatchcase(name, pattern) for pattern in choice.exclude):
        return False
    return not choice.select or any(fnmatchcase(name, pattern) for pattern in choice.select)


def _replicate(entry: dict[str, Any], root: dict[str, Any], choice: Choice) -> None:
    forced = root.get("forced-replication-method")
    forced = cast("Json", forced).get("replication-method") if isinstance(forced, Mapping) else forced
    if choice.method is not None:
        if forced and str(forced).upper() != choice.method:
            hint = "Leave replication_method out: the tap decides it."
            raise ConfigError(choice.label, f"the tap reads this stream {forced} only, not {choice.method}", hint)
        root["replication-method"] = entry["replication_method"] = choice.method
    if choice.key is not None:
        valid = cast("Sequence[str]", root.get("valid-replication-keys") or ())
        if valid and choice.key not in valid:
            what = f"the tap cannot follow column {choice.key!r}"
            raise ConfigError(choice.label, what, f"It can follow: {', '.join(valid)}.")
        root["replication-key"] = entry["replication_key"] = choice.key
