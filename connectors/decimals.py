"""Python's `Decimal` in records that travel as JSON, where a number with a point alone would become a double."""

from collections.abc import Mapping
from decimal import Decimal
from typing import cast

from connectors.contract import Hints


class DecimalFields:
    """The fields of records that have held a `Decimal`; what is nested is jsonb and keeps its digits there."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}
        self._told = 0

    def see(self, record: object) -> None:
        if isinstance(record, Mapping):
            for name, value in cast("Mapping[object, object]", record).items():
                if type(value) is Decimal and isinstance(name, str):
                    self.names[name] = None

    def hints(self) -> Hints | None:
        """What the engine is to know before the records that were seen since; None when that is nothing new."""
        new = list(self.names)[self._told :]
        self._told = len(self.names)
        return Hints(dict.fromkeys(new, "decimal")) if new else None
