"""Checks that judge before anything is published: one module a type, found by being here."""

import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from typing import cast

from connectors.sync.checks.contract import AuditCheck

_NOT_TYPES = ("contract", "asking", "options")
_after_the_sync: set[str] = set()


@cache
def audit_checks() -> Mapping[str, AuditCheck]:
    """Every check type of this package, by the name of its CHECK."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name not in _NOT_TYPES)
    found = [cast("AuditCheck", import_module(f"{__name__}.{name}").CHECK) for name in names]
    return {check.name: check for check in found}


def judge_elsewhere(names: Iterable[str]) -> None:
    """Make check types known that judge a finished sync: the engine passes over them, and refuses all others."""
    _after_the_sync.update(names)


def is_judged_elsewhere(name: str) -> bool:
    return name in _after_the_sync
