"""dlt_source: any dlt source or resource, from dlt itself, a verified source, or one's own. See docs/dlt_source.md.

    connector: {kind: dlt_source, source: "shop_source:shop", secrets: {api_key: env:SHOP_KEY}}
    streams:
      - {name: orders, primary_key: id, write: merge}
      - {name: order_events, resource: events}

dlt reads; types, keys, state, audit and loading are the platform's, as for every kind.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

from pydantic import Field, model_validator

from connectors.contract import Kind
from connectors.secrets import SecretRef
from connectors.specs import ConnectorSpec, SourceSpec, StreamSpec

if TYPE_CHECKING:
    from connectors.contract import Connector

Callable = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
"""`module:function`, the function being a dlt source or resource."""


class DltConnectorSpec(ConnectorSpec):
    """Which function makes the source, and with what.

    arguments: of the function, as YAML; a text `env:NAME` anywhere in them is that variable.
    secrets: further arguments, references only, masked everywhere.
    Arguments that neither names come from dlt's own configuration.
    """

    source: Callable
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    secrets: Mapping[str, SecretRef] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _told_once(self) -> Self:
        if twice := sorted(self.arguments.keys() & self.secrets.keys()):
            raise ValueError(f"{', '.join(twice)} is among arguments and secrets")
        return self


class DltStreamSpec(StreamSpec):
    """resource: its name in the dlt source; the stream's own name when left out."""

    resource: str = ""

    @property
    def resource_name(self) -> str:
        return self.resource or self.name

    @property
    def offered_as(self) -> str:
        return self.resource_name


def _open(source: SourceSpec) -> "Connector":
    from connectors.dlt_source import DltConnector

    return DltConnector(source, cast("DltConnectorSpec", source.connector))


KIND = Kind(
    name="dlt_source",
    connector=DltConnectorSpec,
    stream=DltStreamSpec,
    open=_open,
    storage_kind="dlt",
    may_block=True,
)
