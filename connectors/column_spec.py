"""One column's contract, and what happens when the data differs from it: the innermost part of a source file."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Literal, Self, get_args

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
HASH_LENGTH = 64
"""Hexadecimal digits of an HMAC-SHA256."""


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
        if self.unit and self.type not in (None, "bigint", "double", "decimal"):
            raise ValueError(f"unit belongs to numbers, and type is {self.type}; say it in the description")
        if not self.accepted_values and "accepted_values" in self.model_fields_set:
            raise ValueError("accepted_values: [] lets no value in; name some, or take it out")
        if self.accepted_values and self.rule != "keep":
            raise ValueError(f"accepted_values contradicts rule: {self.rule}, which leaves none of the values as it is")
        for value in self.accepted_values:
            if (why := _unfit(value, self)) is not None:
                raise ValueError(f"accepted_values: {value!r} {why}")
        self._check_rule()
        self._check_length()
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

    def _check_length(self) -> None:
        stored = {"hash": HASH_LENGTH, "truncate": self.length}.get(self.rule)
        if stored is not None and self.precision is not None and stored > self.precision:
            up_to = "" if self.rule == "hash" else "up to "
            raise ValueError(
                f"rule: {self.rule} stores {up_to}{stored} characters; precision: {self.precision} is fewer"
            )


def _unfit(value: str, column: ColumnSpec) -> str | None:
    """Why no row can have the value; None when one can. Values are compared as PostgreSQL writes them."""
    kind, precision = column.type, column.precision
    if kind is None or kind == "text":
        is_long = precision is not None and len(value) > precision
        return f"is longer than precision: {precision}" if is_long else None
    if kind not in _WRITERS:
        return f"cannot be compared: accepted_values do not work with type: {kind}"
    try:
        written = _WRITERS[kind](value, column)
    except OverflowError:
        return f"does not fit {kind if precision is None else f'precision: {precision}, scale: {column.scale or 0}'}"
    except (ValueError, InvalidOperation):
        return f"is not of type {kind}{': true or false' if kind == 'bool' else ''}"
    return None if written == value else f"is stored as {written!r}; write it so"


def _bool(value: str, _column: ColumnSpec) -> str:
    if value not in ("true", "false"):
        raise ValueError(value)
    return value


def _bigint(value: str, _column: ColumnSpec) -> str:
    if not -(2**63) <= int(value) < 2**63:
        raise OverflowError(value)
    return str(int(value))


def _double(value: str, _column: ColumnSpec) -> str:
    """Very large and small ones may be written in several ways; they are taken as they stand."""
    number = float(value)
    written = repr(number).removesuffix(".0")
    return value if "e" in written or not isfinite(number) or abs(number) >= 1e15 else written


def _decimal(value: str, column: ColumnSpec) -> str:
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(value)
    if column.precision is None:
        # digits are kept as they came
        return value
    scale = column.scale or 0
    written = f"{number:.{scale}f}"
    if Decimal(written) != number or abs(number) >= 10 ** (column.precision - scale):
        raise OverflowError(value)
    return written


def _date(value: str, _column: ColumnSpec) -> str:
    return date.fromisoformat(value).isoformat()


_WRITERS: Mapping[ColumnType, Callable[[str, ColumnSpec], str]] = {
    "bool": _bool, "bigint": _bigint, "double": _double, "decimal": _decimal, "date": _date,
}  # fmt: skip
"""The value as PostgreSQL writes it. Raises ValueError: it is none of the type; OverflowError: it is too long."""


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A hint: the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(sorted(known))}."
