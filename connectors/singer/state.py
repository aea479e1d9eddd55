"""Singer state to positions of streams and back.

A tap's state is one object. As a rule it has `bookmarks`, one for each stream: each stream keeps its own, so that it
is committed, rewound and reset alone. What else there is, is kept once for the source. A state without bookmarks is
one position for all streams.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

Json = Mapping[str, Any]
# which stream was being read says nothing about positions, and a run of a subset must not start there
_IGNORED = ("currently_syncing", "current_stream")
_NOT_RESUMABLE = ("progress_markers", "starting_replication_value", "replication_key_signpost")
"""Of meltano's SDK: what an unsorted stream has seen so far, from which no rerun starts."""


def split(state: Json) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The bookmarks by the tap's stream ids, None in a state that has none, and what is left."""
    rest = {key: value for key, value in state.items() if key not in (*_IGNORED, "bookmarks")}
    bookmarks = state.get("bookmarks")
    if isinstance(bookmarks, Mapping):
        return dict(cast("Json", bookmarks)), rest
    return (None, rest) if rest else ({}, {})


def join(positions: Iterable[Json], rest: Json) -> dict[str, Any]:
    """The state to hand to the tap. positions: `position` of every stream. rest: as `split` gave it."""
    bookmarks = dict(cast("Json", rest.get("bookmarks") or {}))
    bookmarks.update({item["stream"]: item["bookmark"] for item in positions if "bookmark" in item})
    state = {key: value for key, value in rest.items() if key != "bookmarks"}
    return state | ({"bookmarks": bookmarks} if bookmarks else {})


def position(stream: str, bookmark: Any) -> dict[str, Any]:
    """A stream's connector state. stream: as the tap's bookmarks name it."""
    return {"stream": stream, "bookmark": bookmark}


def resumable(bookmark: Any) -> Any:
    """The part of a bookmark that a rerun starts from: while it stays the same, records would come again."""
    if isinstance(bookmark, Mapping):
        items = cast("Json", bookmark).items()
        return {key: resumable(value) for key, value in items if key not in _NOT_RESUMABLE}
    if isinstance(bookmark, list):
        return [resumable(item) for item in cast("list[Any]", bookmark)]
    return bookmark
