"""What the source file does to a record of a tap without stream maps: rename, flatten, drop. Values stay undecoded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

DELETED_AT = b'"_sdc_deleted_at"'
VERSION = "_sdc_table_version"
SEPARATOR = "_"
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode

Shape = Callable[[bytes], bytes]


class CollisionError(msgspec.DecodeError):
    """Two fields of a record are one column once it is flat."""


@dataclass(frozen=True, slots=True)
class Shaping:
    """rename: source's name to the column's. flatten: how many levels of objects become columns. drop: columns."""

    rename: Mapping[str, str]
    flatten: int
    drop: frozenset[str]

    @property
    def is_needed(self) -> bool:
        return bool(self.rename or self.flatten or self.drop)

    def body(self, body: bytes) -> bytes:
        """The record as it is loaded. Raises msgspec.DecodeError, CollisionError among them."""
        fields = _FIELDS.decode(body)
        if self.flatten:
            fields = _flat(fields, self.flatten)
        named = {self.rename.get(name, name): value for name, value in fields.items()}
        return _encode({name: value for name, value in named.items() if name not in self.drop})

    def properties(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        """The schema's properties as the shaped records have them."""
        flat = _flat_properties(properties, self.flatten)
        named = {self.rename.get(name, name): spec for name, spec in flat.items()}
        return {name: spec for name, spec in named.items() if name not in self.drop}


def _flat(fields: Mapping[str, msgspec.Raw], depth: int) -> dict[str, msgspec.Raw]:
    flat: dict[str, msgspec.Raw] = {}
    for name, value in fields.items():
        text = bytes(value)
        if text.startswith(b"{") and text != b"{}":
            inner = _FIELDS.decode(text)
            inner = _flat(inner, depth - 1) if depth > 1 else inner
            parts = {f"{name}{SEPARATOR}{key}": item for key, item in inner.items()}
        else:
            parts = {name: value}
        if twice := flat.keys() & parts.keys():
            raise CollisionError(f"two fields are column {min(twice)} once the record is flat")
        flat |= parts
    return flat


def _flat_properties(properties: Mapping[str, Any], depth: int) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, spec in properties.items():
        inner = spec.get("properties") if isinstance(spec, Mapping) and depth else None
        if isinstance(inner, Mapping) and inner:
            flat.update((f"{name}{SEPARATOR}{key}", item) for key, item in _flat_properties(inner, depth - 1).items())
        else:
            flat[name] = spec
    return flat


def with_deletion(body: bytes) -> bytes:
    """A record that says when it was deleted at the source also says that it is."""
    if DELETED_AT not in body:
        return body
    deleted_at = _FIELDS.decode(body).get("_sdc_deleted_at")
    return body if deleted_at is None or bytes(deleted_at) == b"null" else with_field(body, b'"_deleted":true')


def with_version(body: bytes, version: int) -> bytes:
    return with_field(body, b'"%s":%d' % (VERSION.encode(), version))


def with_field(body: bytes, field: bytes) -> bytes:
    """A field more in front of a JSON object, whose other bytes stay as they are."""
    rest = body[1:]
    return b"{" + field + (rest if rest.lstrip().startswith(b"}") else b"," + rest)
