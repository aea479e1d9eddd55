"""Deliveries to JSON records, without decoding a body."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

# between tokens alone: inside a text JSON allows no raw line end
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One row of the inbox."""

    sequence: int
    delivery_id: str
    event_type: str
    received_at: datetime
    body: bytes


def envelope(delivery: Delivery) -> bytes:
    """The delivery's own columns as members of a JSON object, without its braces."""
    members = {
        "_delivery_id": delivery.delivery_id,
        "_event_type": delivery.event_type,
        "_received_at": delivery.received_at.astimezone(UTC).isoformat(),
    }
    return json.dumps(members)[1:-1].encode()


def as_envelope(delivery: Delivery) -> bytes:
    """One line: the body whole, under `payload`."""
    return b'{%s, "payload": %s}' % (envelope(delivery), one_line(delivery.body))


def as_columns(delivery: Delivery) -> bytes:
    """One line: the body's members and then ours, so that ours win over members of the same name."""
    body = one_line(delivery.body)
    if not (body.startswith(b"{") and body.endswith(b"}")):
        return body  # not an object: the engine puts it into quarantine as it came
    inner = body[1:-1].strip()
    return b"{%s%s%s}" % (inner, b", " if inner else b"", envelope(delivery))


def one_line(body: bytes) -> bytes:
    return body.translate(_LINE_ENDS).strip()
