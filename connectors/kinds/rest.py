"""rest: an HTTP API that pages through JSON records, declared in the source file. See docs/rest.md."""

import sys
from typing import TYPE_CHECKING, Any

from connectors.contract import Kind
from connectors.http.source import HttpConnectorSpec, HttpStreamSpec
from connectors.specs import SourceSpec

if TYPE_CHECKING:
    from connectors.contract import Connector


class RestConnectorSpec(HttpConnectorSpec):
    """See HttpConnectorSpec."""


class RestStreamSpec(HttpStreamSpec):
    """See HttpStreamSpec."""


def _open(source: SourceSpec) -> "Connector":
    # httpx brings its command line along where click is there, and with it rich and pygments: a quarter of the import.
    # None stands for a module that cannot be imported, which httpx is prepared for
    modules: dict[str, Any] = sys.modules
    modules.setdefault("httpx._main", None)
    from connectors.http.reader import open_rest  # httpx loads with the first sync, not with definitions

    return open_rest(source)


KIND = Kind(name="rest", connector=RestConnectorSpec, stream=RestStreamSpec, open=_open, storage_kind="api")
