"""Checks on streams: one module a type in `types`, applied by `checks_of`. No Dagster here."""

from platform_assets.checks.contract import (
    CheckType,
    History,
    Observation,
    PastSync,
    SchemaVersion,
    StreamCheck,
)
from platform_assets.checks.registry import check_types, checks_of, refuse_wrong_checks

__all__ = [
    "CheckType",
    "History",
    "Observation",
    "PastSync",
    "SchemaVersion",
    "StreamCheck",
    "check_types",
    "checks_of",
    "refuse_wrong_checks",
]
