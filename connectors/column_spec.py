"""One column's contract, and what happens when the data differs from it: the innermost part of a source file."""

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from connectors.secrets import SecretRef

ColumnType = Literal["text", "bigint", "double", "decimal", "bool", "timestamp", "date", "time", "json", "binary"]
Rule = Literal["keep", "block", "hash", "truncate", "mask"]
_OTHER_NAMES: Mapping[str, ColumnType] = {
    "string": "text", "varchar": "text", "uuid": "text", "enum": "text", "int": "bigint", "integer": "bigint",
    "smallint": "bigint", "float": "double", "real": "double", "double precision": "double", "number": "decimal",
    "numeric": "decimal", "boolean": "bool", "datetime": "timestamp", "timestamptz": "timestamp", "jsonb": "json",
    "object": "json", "array": "json", "bytea": "binary", "bytes": "binary",
}  # fmt: skip
"""What other systems call our types."""


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DriftSpec(Spec):
    """What happens when the observed schema differs from the declared one."""

    new: Literal["evolve", "freeze", "ignore", "quarantine"] = "evolve"
    missing: Literal["ignore", "warn", "freeze"] = "warn"
    retyped: Literal["evolve", "quarantine", "freeze"] = "quarantine"
    renamed: Literal["ignore", "warn", "freeze"] = "warn"
    key: Literal["evolve", "freeze"] = "freeze"
    nullability: Literal["evolve", "quarantine", "freeze"] = "quarantine"
    enum: Literal["evolve", "quarantine", "freeze"] = "quarantine"


class ColumnSpec(Spec):
    """One column's contract; every field is optional, and what is left out is observed and remembered.

    rule: what happens to every value before anything is written. key belongs to `hash`, length to `truncate`,
        keep_last or keep_pattern to `mask`.
    """

    type: ColumnType | None = None
    nullable: bool = True
    precision: int | None = Field(default=None, ge=1, le=1000)
    scale: int | None = Field(default=None, ge=0, le=1000)
    description: str = ""
    unit: str = ""
    pii: Literal["none", "personal", "sensitive"] = "none"
    accepted_values: tuple[str, ...] = ()
    rule: Rule = "keep"
    key: SecretRef | None = None
    length: int | None = Field(default=None, ge=1)
    keep_last: int | None = Field(default=None, ge=0)
    keep_pattern: str | None = None

    @property
    def rewrites(self) -> bool:
        """The rule stores another value than the source's, and stores it as text."""
        return self.rule in ("hash", "truncate", "mask")

    @field_validator("type", mode="before")
    @classmethod
    def _in_the_warehouse(cls, value: object) -> object:
        known = get_args(ColumnType)
        if isinstance(value, str) and value not in known:
            ours = _OTHER_NAMES.get(value.lower())
            hint = f"Did you mean {ours!r}?" if ours else did_you_mean(value.lower(), known)
            raise ValueError(f"the warehouse has no type {value!r}. {hint}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.precision is not None and self.type not in ("decimal", "text"):
            raise ValueError("precision belongs to type: decimal (digits) and type: text (greatest length)")
        if self.scale is not None and (self.type != "decimal" or self.precision is None or self.scale > self.precision):
            raise ValueError("scale needs type: decimal and a precision that is not smaller")
        if self.accepted_values and self.rule != "keep":
            raise ValueError(f"accepted_values contradicts rule: {self.rule}, which leaves none of the values as it is")
        for value in self.accepted_values:
            if (why := _unfit(value, self.type)) is not None:
                raise ValueError(f"accepted_values: {value!r} {why}")
        self._check_rule()
        return self

    def _check_rule(self) -> None:
        for name, owner in (("key", "hash"), ("length", "truncate"), ("keep_last", "mask"), ("keep_pattern", "mask")):
            if getattr(self, name) is not None and self.rule != owner:
                raise ValueError(f"{name} belongs to rule: {owner}")
        if self.rule == "hash" and self.key is None:
            raise ValueError("rule: hash needs a key, e.g. key: env:HASH_KEY")
        if self.rule == "truncate" and self.length is None:
            raise ValueError("rule: truncate needs a length, in characters")
        if self.rule == "mask" and self.keep_last is not None and self.keep_pattern is not None:
            raise ValueError("keep_last and keep_pattern are two ways to mask; keep one of them")
        if self.keep_pattern is not None:
            try:
                re.compile(self.keep_pattern)
            except re.error as error:
                raise ValueError(f"keep_pattern is no regular expression: {error}") from error
        if self.rewrites and self.type not in (None, "text"):
            raise ValueError(f"rule: {self.rule} stores text; leave type out")
        if self.rule == "block" and not self.nullable:
            raise ValueError("rule: block contradicts nullable: false: no record would have a value")


def _unfit(value: str, kind: ColumnType | None) -> str | None:
    """Why the text is no value of the type; None when it is one."""
    if kind in (None, "text"):
        return None
    readers: Mapping[str, Any] = {"bigint": int, "double": float, "decimal": Decimal, "date": date.fromisoformat}
    if kind == "bool":
        return None if value in ("true", "false") else "is not of type bool: true or false"
    if kind not in readers:
        return f"cannot be compared: accepted_values do not work with type: {kind}"
    try:
        readers[kind](value)
    except (ValueError, InvalidOperation):
        return f"is not of type {kind}"
    return None


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
