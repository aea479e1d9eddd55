"""Records that go to quarantine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reject:
    """A record for quarantine. payload: JSON or the raw line. field: the column it failed on, if one."""

    payload: str
    reason: str
    field: str | None
    position: str
