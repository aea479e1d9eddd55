"""How much of its data the demo shows: everything, or all days up to one.

The sources read the release at every request, so a day can be let out while they run.
"""

import json
import os
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

from demo.dataset import FIRST_DAY
from demo.misbehaviour import Misbehaviour


@dataclass(frozen=True, slots=True)
class Release:
    """until: the last day shown; None shows everything. misbehaviour: of the API; none unless a test wants it."""

    until: date | None = None
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)

    @classmethod
    def first_days(cls, days: int) -> "Release":
        """The first `days` days (from 1 January 2013); at least one."""
        return cls(FIRST_DAY + timedelta(days=max(days, 1) - 1))

    def shows(self, day: date) -> bool:
        return self.until is None or day <= self.until

    def __str__(self) -> str:
        return "everything" if self.until is None else f"all days up to {self.until.isoformat()}"


def read_release(path: Path) -> Release:
    """The release in the file; everything when there is no file."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Release()
    until = told["until"]
    faults: dict[str, Any] = {
        key: tuple(cast("list[str]", value)) if isinstance(value, list) else value
        for key, value in told.get("misbehaviour", {}).items()
    }
    return Release(date.fromisoformat(until) if until else None, Misbehaviour(**faults))


def write_release(path: Path, release: Release) -> None:
    """Replace the file in one step, so that no reader sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    until = release.until.isoformat() if release.until else None
    told = {"until": until, "misbehaviour": asdict(release.misbehaviour)}
    fresh.write_text(json.dumps(told), encoding="utf-8")
    fresh.replace(path)
