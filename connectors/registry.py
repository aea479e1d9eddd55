"""Every kind of connector: one module and one line each."""

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from connectors.contract import Kind

KINDS: dict[str, str] = {
    "rest": "connectors.kinds.rest",
    "database": "connectors.kinds.database",
    "files": "connectors.kinds.files",
    "sling": "connectors.kinds.sling",
    "webhook": "connectors.kinds.webhook",
    "python": "connectors.kinds.python",
    "dlt_source": "connectors.kinds.dlt_source",
    "airbyte": "connectors.kinds.airbyte",
    "singer": "connectors.kinds.singer",
}


def kind(name: str) -> "Kind":
    """The kind's module entry; importing it must stay light (no network or database library).

    Raises:
        KeyError: no such kind.
    """
    return cast("Kind", import_module(KINDS[name]).KIND)
