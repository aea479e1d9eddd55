"""Why a backfill may be due: one module a reason, each a look at what the platform knows of one stream."""

from collections.abc import Sequence
from importlib import import_module

from platform_assets.backfills.reasons.contract import Reason

NAMES = ("missing", "late", "failed_checks", "new_columns", "contract", "new_files", "webhook_gaps")
_MODULES = {"contract": "changed_contract"}


def reasons(names: Sequence[str] = NAMES) -> list[Reason]:
    """The reasons of these names, in the order of NAMES."""
    return [import_module(f"{__package__}.{_MODULES.get(name, name)}").REASON for name in NAMES if name in names]
