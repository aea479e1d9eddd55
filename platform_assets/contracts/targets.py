"""What a contract compiles to, target by target. Pure.

The engine, Sling and the checks read the source file themselves at every sync (`StreamSchema`, `contract_rules`,
`connectors.sling.plan`); what they make of it is shown here as they would, and what dbt needs is written as files.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from connectors.specs import ColumnSpec, StreamSpec

# as dbt's contracts and casts say them
_TYPES: Mapping[str, str] = {
    "double": "double precision",
    "decimal": "numeric",
    "bool": "boolean",
    "timestamp": "timestamptz",
    "json": "jsonb",
    "binary": "bytea",
}
_ORDER = ("text", "bigint", "double", "decimal", "bool", "date", "time", "timestamp", "json", "binary")


@dataclass(frozen=True, slots=True)
class Target:
    """One declared column, everywhere it goes.

    source_name: as the source spells it. raw_name: in the raw table. name: in staging, by the house's naming.
    pg_type: short, as dbt says it; text where the file leaves the type to be observed.
    """

    source_name: str
    raw_name: str
    name: str
    pg_type: str
    is_key: bool
    spec: ColumnSpec

    @property
    def nullable(self) -> bool:
        return self.spec.nullable and not self.is_key

    @property
    def is_blocked(self) -> bool:
        return self.spec.rule == "block"

    @property
    def description(self) -> str:
        """The file's words with the unit, and what the rule makes of the value."""
        said = self.spec.description.rstrip(".")
        unit = f" ({self.spec.unit})" if self.spec.unit and self.spec.unit not in said else ""
        rule = {
            "block": "Blocked by the contract: always NULL",
            "hash": "Keyed hash of the value",
            "truncate": f"First {self.spec.length} characters of the value",
            "mask": "Masked",
        }.get(self.spec.rule, "")
        return "; ".join(part for part in (f"{said}{unit}".strip(), rule) if part) + "."


def targets(stream: StreamSpec) -> tuple[Target, ...]:
    """Every declared column, in the order of the file."""
    from connectors.sync.columns import warehouse_name  # dlt's naming: only when something is compiled

    taken: set[str] = set()
    found: list[Target] = []
    for source_name, spec in stream.columns.items():
        raw_name = warehouse_name(source_name, taken)
        taken.add(raw_name)
        name = staging_name(raw_name.lstrip("_") or raw_name, spec)
        is_key = source_name in stream.primary_key
        found.append(Target(source_name, raw_name, name, dbt_type(spec), is_key, spec))
    return tuple(found)


def dbt_type(spec: ColumnSpec) -> str:
    if spec.type is None or spec.rewrites:
        return "text"
    if spec.type == "decimal" and spec.precision is not None:
        return f"numeric({spec.precision},{spec.scale or 0})"
    return _TYPES.get(spec.type, spec.type)


def staging_name(raw_name: str, spec: ColumnSpec) -> str:
    """By the house's naming: `_at` for moments, `_date` for dates, `is_` for truths, the unit of a number."""
    unit = spec.unit.lower()
    if spec.type == "timestamp" and not raw_name.endswith("_at"):
        return f"{raw_name}_at"
    if spec.type == "date" and not raw_name.endswith("date"):
        return f"{raw_name}_date"
    if spec.type == "bool" and not raw_name.startswith(("is_", "has_")):
        return f"is_{raw_name}"
    if spec.type in ("bigint", "double", "decimal") and unit.isidentifier() and unit not in raw_name:
        return f"{raw_name}_{unit}"
    return raw_name


def in_staging_order(columns: tuple[Target, ...]) -> list[Target]:
    """Keys, then text, numerics, booleans and moments, as the file has them."""
    return sorted(columns, key=lambda one: (not one.is_key, _ORDER.index(one.spec.type or "text")))


def compiled(stream: StreamSpec) -> dict[str, Any]:
    """What each target makes of the contract, for `headwater contract show`."""
    from connectors.sync.columns import declared
    from connectors.sync.package import target_of

    columns = targets(stream)
    known = [declared(one.source_name, one.raw_name, one.spec) for one in columns]
    return {
        "engine": {"drift": stream.drift.model_dump(), "rows": list(_row_rules(stream))},
        "dlt": [
            target_of("", stream, "").hint(column)
            for column in known
            if column is not None and column.place == "column"
        ],
        "sling": {one.source_name: "string" for one in columns if not one.is_blocked and one.spec.type != "binary"},
        "checks": ["schema_drift", *(["quarantine"] if any(_row_rules(stream)) else [])],
        "dbt": {one.raw_name: one.pg_type for one in columns},
        "staging": {one.name: one.pg_type for one in in_staging_order(columns)},
        "mart": {one.name: _constraints(one) for one in in_staging_order(columns) if not one.is_blocked},
    }


def _row_rules(stream: StreamSpec) -> Iterator[str]:
    """What sends a record to quarantine, as the check of that name counts it."""
    for name in stream.primary_key:
        yield f"{name} is a key: never NULL"
    for name, spec in stream.columns.items():
        if not spec.nullable and name not in stream.primary_key:
            yield f"{name} is never NULL"
        if spec.accepted_values:
            yield f"{name} is one of {', '.join(spec.accepted_values)}"


def _constraints(one: Target) -> list[str]:
    return [one.pg_type, *(["not_null"] if not one.nullable else []), *(["key"] if one.is_key else [])]
