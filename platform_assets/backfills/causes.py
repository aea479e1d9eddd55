"""One backfill may have several causes, each of some of its windows: how `ops.backfills.cause` keeps them."""

import json
from collections.abc import Collection, Mapping


def pack(causes: Mapping[str, Collection[str]]) -> str:
    """Partitions by cause: a cause of all windows stands as it is, several as JSON; without any, nothing."""
    named = {cause: list(partitions) for cause, partitions in causes.items() if cause}
    only = next(iter(named), "")
    return json.dumps(named) if len(causes) > 1 or only.startswith("{") else only


def is_cause(cause: str, kept: str, partition: str) -> bool:
    """Whether a backfill that keeps `kept` took this window for that cause."""
    if not kept.startswith("{"):
        return kept == cause
    return partition in json.loads(kept).get(cause, ())
