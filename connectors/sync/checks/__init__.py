"""Checks that judge before anything is published: one module a type, found by being here."""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import cast

from connectors.sync.checks.contract import AuditCheck

_NOT_TYPES = ("contract", "asking")


@cache
def audit_checks() -> Mapping[str, AuditCheck]:
    """Every check type of this package, by the name of its CHECK."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NOT_TYPES)
    found = [cast("AuditCheck", import_module(f"{__name__}.{name}").CHECK) for name in names]
    return {check.name: check for check in found}
