"""What the flights API does wrong, told in its release file while it runs: what real APIs do sooner or later."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from demo.dataset import Flight

LATE_SHARE = 10
"""Of a late day every so many flights come late."""


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """Nothing, as it comes.

    renamed: fields that have another name now. retyped: numbers that are now texts such as `11 units`. dropped: fields
    that are gone. added: fields that are new, with the value that each flight has.
    lost_page: the page of this number, from 1, comes empty with status 200. halved: every other flight is gone, from
    the total too. stalled_at: no flight has a later time_hour than this.
    late: days of which every tenth flight is held back. corrected: days that GET /corrections names.
    """

    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    retyped: Sequence[str] = ()
    dropped: Sequence[str] = ()
    added: Mapping[str, str] = field(default_factory=dict[str, str])
    lost_page: int | None = None
    halved: bool = False
    stalled_at: str | None = None
    late: Sequence[str] = ()
    corrected: Sequence[str] = ()

    @property
    def hides(self) -> bool:
        return self.halved or bool(self.late)

    def shown(self, flights: Sequence[Flight]) -> list[Flight]:
        late = {date.fromisoformat(day) for day in self.late}
        return [
            flight
            for number, flight in enumerate(flights)
            if not (self.halved and number % 2) and not (flight.day in late and number % LATE_SHARE == 0)
        ]

    def body(self, flight: Flight) -> bytes:
        """The flight's JSON; as the source wrote it where nothing of it is to be changed."""
        if not (self.renamed or self.retyped or self.dropped or self.added or self.stalled_at):
            return flight.body
        row: dict[str, Any] = json.loads(flight.body)
        if self.stalled_at and flight.key[0] > datetime.fromisoformat(self.stalled_at).astimezone(UTC):
            row["time_hour"] = self.stalled_at
        changed = {self.renamed.get(name, name): value for name, value in row.items() if name not in self.dropped}
        texts = {name: f"{changed[name]} units" for name in self.retyped if changed.get(name) is not None}
        return json.dumps(changed | texts | dict(self.added)).encode()
