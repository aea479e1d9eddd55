"""Conditional requests: an answer's version goes into the next request, and 304 means that nothing is new."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Self, cast

from connectors.contract import StreamState

if TYPE_CHECKING:
    from connectors.http.source import HttpStreamSpec

NOT_MODIFIED: Final = 304
_KEY: Final = "version"


@dataclass(frozen=True, slots=True)
class Validators:
    """An answer's version as its headers say it, word for word."""

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        return cls(headers.get("etag"), headers.get("last-modified"))

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Of the next request; a source that knows both looks at the first alone."""
        said = (("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified))
        return tuple((name, value) for name, value in said if value is not None)


NO_VALIDATORS: Final = Validators()


def remembered(stream: "HttpStreamSpec", state: StreamState) -> Validators:
    """The version of the last answer; none once the stream is declared otherwise or asked from another position."""
    kept = state.connector.get(_KEY)
    if not stream.conditional or not isinstance(kept, Mapping):
        return NO_VALIDATORS
    said = cast("Mapping[str, Any]", kept)
    if said.get("of") != _question(stream, state):
        return NO_VALIDATORS
    return Validators(said.get("etag"), said.get("last_modified"))


def to_state(stream: "HttpStreamSpec", state: StreamState, validators: Validators) -> dict[str, Any]:
    """The connector's state with this version in it."""
    kept = {"of": _question(stream, state), "etag": validators.etag, "last_modified": validators.last_modified}
    return {**state.connector, _KEY: kept}


def _question(stream: "HttpStreamSpec", state: StreamState) -> str:
    """What was asked; references stand in it by name, so no secret does."""
    text = f"{stream.model_dump_json()} {state.cursor if stream.incremental is not None else ''}"
    return blake2b(text.encode(), digest_size=16).hexdigest()
