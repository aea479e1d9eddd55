"""What goes from the read to a publication."""

from dataclasses import dataclass, field
from typing import Any

from connectors.contract import Replaces
from connectors.sync.package import Part
from connectors.sync.rejects import Reject
from connectors.sync.schema import StreamSchema


@dataclass(slots=True)
class Batch:
    """Sealed parts and rejects, the position they reach, and the schema as it was when they were sealed.

    emptied_after: the source was emptied after so many of the parts; None when it was not.
    by_snapshot, may_be_none: it did not say so, see `Emptied`.
    """

    schema: StreamSchema
    parts: list[Part] = field(default_factory=list[Part])
    rejects: list[Reject] = field(default_factory=list[Reject])
    extracted: int = 0
    connector_state: dict[str, Any] | None = None
    advances_cursor: bool = True
    is_last: bool = False
    replaces: Replaces | None = None
    emptied_after: int | None = None
    by_snapshot: bool = False
    may_be_none: bool = False
