"""Kind `webhook`: signed deliveries that a receiver has put into the inbox, `ops.webhook_inbox`.

    connector: {kind: webhook, scheme: github, secret: env:GITHUB_WEBHOOK_SECRET}
    streams:
      - {name: pushes, events: push}
      - {name: everything, shape: envelope}

`headwater webhooks serve` receives at /hooks/<source>; this kind reads what it stored. The driver loads with a read.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, Field, field_validator, model_validator

from connectors.contract import Connector, Kind
from connectors.secrets import SecretRef
from connectors.specs import ConnectorSpec, Names, Spec, StreamSpec

if TYPE_CHECKING:
    from connectors.specs import SourceSpec

SchemeName = Literal["standard", "github", "stripe", "shopify", "hmac"]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]

ENVELOPE: Mapping[str, Mapping[str, Any]] = {
    "_delivery_id": {"type": "text", "nullable": False, "description": "The sender's id of the delivery"},
    "_event_type": {"type": "text", "nullable": False, "description": "The sender's name of the event"},
    "_received_at": {"type": "timestamp", "nullable": False, "description": "When the delivery was stored, UTC"},
}
"""Columns that every stream of this kind has beside those of the body."""

PAYLOAD: Mapping[str, Mapping[str, Any]] = {
    "payload": {"type": "json", "nullable": False, "description": "The body of the delivery"},
}


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class HmacSpec(Spec):
    """How a sender signs that follows none of the named schemes.

    header: carries the signature. prefix: stands before it there, e.g. `sha256=`.
    signed: what is signed, in order, joined by `separator`.
    timestamp_header: Unix seconds; needed when `signed` has the timestamp, and only then is the time window checked.
    id_header, event_header: without the first a delivery's id is the digest of what was signed; without the second
        all events have the type `event`.
    """

    header: Header
    algorithm: Literal["sha1", "sha256", "sha384", "sha512"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: str = ""
    signed: tuple[Literal["id", "timestamp", "body"], ...] = ("body",)
    separator: str = "."
    timestamp_header: Header | None = None
    id_header: Header | None = None
    event_header: Header | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if "body" not in self.signed:
            raise ValueError("signed must contain body: an unsigned body can be forged")
        if "timestamp" in self.signed and self.timestamp_header is None:
            raise ValueError("signed contains timestamp; add timestamp_header")
        if "id" in self.signed and self.id_header is None:
            raise ValueError("signed contains id; add id_header")
        if self.timestamp_header is not None and "timestamp" not in self.signed:
            raise ValueError("timestamp_header without timestamp in signed proves nothing; add it to signed")
        return self


class DeliveryRateSpec(Spec):
    """At most so many genuine deliveries in a period, for each receiver process; more are answered 429."""

    requests: int = Field(ge=1)
    per: timedelta = Field(default=timedelta(seconds=1), gt=timedelta(0))


class WebhookConnectorSpec(ConnectorSpec):
    """How the sender signs, and what the receiver takes.

    secret: one or several; any of them is accepted, so that a secret can be rotated without a gap.
    hmac: needed by `scheme: hmac` alone.
    tolerance: how far a signed timestamp may be from now, either way.
    max_body_bytes: a larger delivery is refused while it is read.
    """

    scheme: SchemeName
    secret: Annotated[
        tuple[SecretRef, ...],
        BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...]),
        Field(min_length=1),
    ]
    hmac: HmacSpec | None = None
    tolerance: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0))
    max_body_bytes: int = Field(default=1 << 20, ge=1 << 10, le=64 << 20)
    rate_limit: DeliveryRateSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.scheme == "hmac") != (self.hmac is not None):
            raise ValueError("hmac: {header: ...} belongs to scheme: hmac, and that scheme needs it")
        return self


class WebhookStreamSpec(StreamSpec):
    """One stream: the deliveries of some event types.

    events: names of event types; `*` stands for any text (`invoice.*`), alone for every event.
    shape: `columns` gives each field of the body a column, `envelope` keeps the body whole in one column, `payload`.
    """

    events: Names = ("*",)
    shape: Literal["columns", "envelope"] = "columns"

    @model_validator(mode="before")
    @classmethod
    def _with_envelope(cls, data: Any) -> Any:
        """The columns that the kind itself adds are declared; a file may say more about them."""
        if not isinstance(data, Mapping):
            return data
        given = cast("Mapping[str, Any]", data)
        declared = given.get("columns")
        if declared is not None and not isinstance(declared, Mapping):
            return data
        own = {**ENVELOPE, **(PAYLOAD if given.get("shape") == "envelope" else {})}
        columns = dict(cast("Mapping[str, Any]", declared or {}))
        for name, column in own.items():
            said = columns.get(name)
            if said is None:
                columns[name] = column
            elif isinstance(said, Mapping):
                columns[name] = {**column, **cast("Mapping[str, Any]", said)}
        return {"primary_key": "_delivery_id", **given, "columns": columns}

    @field_validator("events")
    @classmethod
    def _some(cls, events: tuple[str, ...]) -> tuple[str, ...]:
        if not events or not all(events):
            raise ValueError("names no event; use * for every event")
        return events


def _open(source: "SourceSpec") -> Connector:
    """The reader of the source's part of the inbox; no secret is needed for it."""
    from connectors.webhook.connector import WebhookConnector

    return WebhookConnector(source)


KIND = Kind(
    name="webhook",
    connector=WebhookConnectorSpec,
    stream=WebhookStreamSpec,
    open=_open,
    storage_kind="api",
    default_write="append",
)
