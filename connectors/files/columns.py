"""Types of columns that no file declares: inferred once, then the same for every file.

The contract decides first, then what earlier files showed (kept in the stream's state), then the first batch that has
a value. A column that was only NULL so far stays undecided.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from connectors.specs import ColumnType
from connectors.texts import TextType, arrow_field, arrow_type, convert, infer

if TYPE_CHECKING:
    import pyarrow as pa

MAX_STATE_BYTES = 12_000
"""Beyond it the rest is inferred anew in every sync."""


class ColumnTypes:
    """The types of one stream's text columns."""

    def __init__(self, declared: Mapping[str, TextType], observed: Mapping[str, TextType]) -> None:
        self._declared = declared
        self._observed = dict(observed)

    @classmethod
    def from_json(cls, declared: Mapping[str, TextType], raw: Mapping[str, Any]) -> Self:
        observed = {str(name): TextType(cast("ColumnType", kind)) for kind, names in raw.items() for name in names}
        return cls(declared, observed)

    def to_json(self) -> dict[str, list[str]]:
        """type -> names, so far as they fit."""
        found: dict[str, list[str]] = {}
        size = 0
        for name, wanted in self._observed.items():
            size += len(json.dumps(name)) + 2
            if size > MAX_STATE_BYTES:
                break
            found.setdefault(wanted.name, []).append(name)
        return found

    def schema(self, names: Sequence[str]) -> "pa.Schema | None":
        """The columns' types; None while one of them is undecided, or is one that Arrow holds as text only."""
        import pyarrow as pa

        fields: list[pa.Field] = []
        for name in names:
            wanted = self._declared.get(name) or self._observed.get(name)
            if wanted is None or (wanted.name != "text" and arrow_type(wanted) == pa.string()):
                return None
            fields.append(pa.field(name, arrow_type(wanted)))
        return pa.schema(fields)

    def typed(self, table: "pa.Table") -> "pa.Table":
        """The text columns in their types; a column with a value that does not convert stays text for the engine.

        An undecided column that is all NULL has Arrow's null type.
        """
        import pyarrow as pa

        arrays: list[Any] = []
        fields: list[pa.Field] = []
        for field in table.schema:
            column: Any = table.column(field.name)
            wanted = self._declared.get(field.name) or self._observed.get(field.name)
            if wanted is None and (wanted := infer(column)) is not None:
                self._observed[field.name] = wanted
            column = pa.nulls(len(column)) if wanted is None else convert(column, wanted)
            arrays.append(column)
            fields.append(
                pa.field(field.name, column.type) if wanted is None else arrow_field(field.name, column, wanted)
            )
        return pa.table(arrays, schema=pa.schema(fields))
