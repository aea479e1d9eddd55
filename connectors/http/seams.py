"""Where a long ordered read may commit: between two values of the cursor, never between records that share one.

A source whose parameter means "after" gives none of the records at the position again. Were a page's end the place,
those that share its last value with records of the next page would be lost whenever a sync ends there.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec

from connectors.contract import Checkpoint
from connectors.errors import ConfigError
from connectors.http.pages import Part
from connectors.specs import CursorSpec


class Seams:
    """The seams of one read whose records come in the order of `cursor`.

    Raises (pieces):
        ConfigError: they do not. What lies behind a position that is committed would never be read.
    """

    def __init__(self, cursor: CursorSpec, label: str) -> None:
        record = msgspec.defstruct("Record", [("at", object, None)], rename={"at": cursor.field})
        self._decoder = msgspec.json.Decoder(list[record])
        self._cursor = cursor
        self._label = label
        self._last: object = None

    def pieces(self, part: Part, place: str) -> Iterator[tuple[Part, str] | Checkpoint]:
        """The records with their place, and a checkpoint before the last value begins; none where that is not known."""
        at = self._seam(part, place)
        if at is None:
            yield part, place
            return
        head, tail = b"", part.body
        if at:
            head, *last = part.body.rsplit(b"\n", part.rows - at)
            tail = b"\n".join(last)
        if at or part.odd:
            yield replace(part, body=head, rows=at), place
        yield Checkpoint(is_ordered=True)
        yield Part(tail, part.rows - at, ()), f"{place}, from record {at + 1}" if at else place

    def _seam(self, part: Part, place: str) -> int | None:
        """The index of the first record that shares the last one's value, if records with another come before it."""
        try:
            found = self._decoder.decode(b"[" + part.body.replace(b"\n", b",") + b"]") if part.rows else []
        except msgspec.DecodeError:
            # one of the records is for quarantine; the page waits for the seam of a later one
            self._last = None
            return None
        values: list[Any] = [record.at for record in found]  # pyright: ignore[reportAttributeAccessIssue]  made above
        known = [value for value in values if value is not None]
        if not known:
            return None
        before, self._last = self._last, known[-1]
        self._require_order([before, *known] if before is not None else known, place)
        at = len(values)
        while at and values[at - 1] in (known[-1], None):
            at -= 1
        return at if at or before not in (None, known[-1]) else None

    def _require_order(self, values: list[Any], place: str) -> None:
        try:
            if values == sorted(values):
                return
        except TypeError:
            # of several types: the engine refuses them one by one
            pass
        for earlier, later in pairwise(values):
            if not self._is_ordered(_comparable(earlier), _comparable(later)):
                what = (
                    f"not in the order of {self._cursor.field} on {place}: {str(earlier)[:40]}, then {str(later)[:40]}"
                )
                hint = "Remove incremental.ordered; `headwater state rewind` if an earlier sync was cut short."
                raise ConfigError(self._label, what, hint)

    def _is_ordered(self, earlier: object, later: object) -> bool:
        """Values of two types are in no order, so in none that could be broken."""
        match earlier, later:
            case datetime(), datetime():
                return earlier - later <= max(self._cursor.lag, timedelta(0))
            case (int() | float(), int() | float()) | (str(), str()):
                return earlier <= later  # pyright: ignore[reportOperatorIssue]  of one type
            case _:
                return True


def _comparable(value: object) -> object:
    """Texts in order need not be times in order: a text that is a time as that, in UTC where it names no zone."""
    if not isinstance(value, str):
        return value
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return value
    return at if at.tzinfo else at.replace(tzinfo=UTC)
