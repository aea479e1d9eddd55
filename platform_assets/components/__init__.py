"""Components of `defs.yaml` files. Each loads on first use: the ingest location never pays for dbt."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_assets.components.dbt_project import DbtProject
    from platform_assets.components.source import Source

_MODULES = {"Source": "source", "DbtProject": "dbt_project"}

__all__ = ["DbtProject", "Source"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__]
