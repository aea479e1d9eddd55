"""Checks that judge before anything is published: one module a type, found by being here."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import cast

from connectors.sync.checks.contract import AuditCheck

_NOT_TYPES = ("contract", "asking", "options")
JUDGED_AFTER_THE_SYNC = frozenset({"error_rate", "freshness_data", "quarantine", "schema_drift", "slow_run"})
"""The modules of `platform_assets.checks.types`: the engine passes over them, and refuses what nobody knows. They are
named here, for a sync in a process of its own imports nothing of the platform."""


@cache
def audit_checks() -> Mapping[str, AuditCheck]:
    """Every check type of this package, by the name of its CHECK."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NOT_TYPES)
    found = [cast("AuditCheck", import_module(f"{__name__}.{name}").CHECK) for name in names]
    return {check.name: check for check in found}
