"""Signature schemes: from headers and body to a verified delivery, or a refusal with its HTTP status.

A signature is compared in constant time, with every active secret. It is judged before the timestamp, and both before
the body is looked into: an unsigned body is never parsed.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from connectors.errors import ConfigError
from connectors.kinds.webhook import HmacSpec, WebhookConnectorSpec

Headers = Mapping[bytes, bytes]
"""Names in lower case, as ASGI has them."""

_ID = re.compile(r"[\x21-\x7e]{1,255}")
_EVENT = re.compile(r"[\x20-\x7e]{1,200}")
_SECONDS = re.compile(rb"\d{1,12}")
NO_EVENT = "event"
"""The event type of a sender that names none."""


class RefusedError(Exception):
    """A delivery that is not taken. status: for the sender; reason: one word for metrics; message: what is wrong."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Verified:
    """What a genuine delivery says of itself."""

    delivery_id: str
    event_type: str


Verifier = Callable[[Headers, bytes, float], Verified]
"""(headers, body, now in Unix seconds) to the verified delivery. Raises RefusedError."""


def verifier(spec: WebhookConnectorSpec, secrets: Sequence[str], where: str) -> Verifier:
    """The scheme's function with its keys.

    Raises:
        ConfigError: a secret of `scheme: standard` is not base64.
    """
    tolerance = spec.tolerance.total_seconds()
    keys = [secret.encode() for secret in secrets]
    match spec.scheme:
        case "standard":
            return _Standard([_standard_key(secret, where) for secret in secrets], tolerance)
        case "github":
            return _GitHub(keys)
        case "stripe":
            return _Stripe(keys, tolerance)
        case "shopify":
            return _Shopify(keys)
        case "hmac":
            assert spec.hmac is not None, "the source file's model has seen to it"
            return _Hmac(keys, spec.hmac, tolerance)


class _Named(msgspec.Struct):
    """What the body itself says, where headers do not; everything else is skipped, but must be JSON."""

    id: object = None
    type: object = None


class _AnyObject(msgspec.Struct):
    """A JSON object of whatever members."""


_NAMED = msgspec.json.Decoder(_Named)
_ANY = msgspec.json.Decoder(_AnyObject)


class _Standard:
    """Standard Webhooks: `webhook-signature: v1,<base64>` over `<id>.<timestamp>.<body>`."""

    def __init__(self, keys: Sequence[bytes], tolerance: float) -> None:
        self._keys = keys
        self._tolerance = tolerance

    def __call__(self, headers: Headers, body: bytes, now: float) -> Verified:
        given = [word[3:] for word in _signature(headers, b"webhook-signature").split() if word.startswith(b"v1,")]
        stamp = _required(headers, b"webhook-timestamp")
        signed = b"%s.%s.%s" % (_required(headers, b"webhook-id"), stamp, body)
        _require_match(given, (base64.b64encode(hmac.digest(key, signed, "sha256")) for key in self._keys))
        _require_time(stamp, now, self._tolerance)
        return _verified(_text(headers[b"webhook-id"]), _parsed_named(body).type)


class _GitHub:
    """`X-Hub-Signature-256: sha256=<hex>` over the body; no timestamp."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def __call__(self, headers: Headers, body: bytes, now: float) -> Verified:
        given = [_signature(headers, b"x-hub-signature-256")]
        _require_match(given, (b"sha256=" + hmac.digest(key, body, "sha256").hex().encode() for key in self._keys))
        found = _verified(_header(headers, b"x-github-delivery"), _header(headers, b"x-github-event"))
        _require_object(body)
        return found


class _Stripe:
    """`Stripe-Signature: t=<seconds>,v1=<hex>` over `<t>.<body>`; id and type are the event's own."""

    def __init__(self, keys: Sequence[bytes], tolerance: float) -> None:
        self._keys = keys
        self._tolerance = tolerance

    def __call__(self, headers: Headers, body: bytes, now: float) -> Verified:
        pairs = [item.strip().partition(b"=") for item in _signature(headers, b"stripe-signature").split(b",")]
        stamp = next((value for name, _, value in pairs if name == b"t"), None)
        if stamp is None:
            raise RefusedError(400, "malformed", "Stripe-Signature has no t=")
        given = [value for name, _, value in pairs if name == b"v1"]
        signed = b"%s.%s" % (stamp, body)
        _require_match(given, (hmac.digest(key, signed, "sha256").hex().encode() for key in self._keys))
        _require_time(stamp, now, self._tolerance)
        event = _parsed_named(body)
        return _verified(event.id, event.type)


class _Shopify:
    """`X-Shopify-Hmac-Sha256: <base64>` over the body; its time header is not signed and so proves nothing."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def __call__(self, headers: Headers, body: bytes, now: float) -> Verified:
        given = [_signature(headers, b"x-shopify-hmac-sha256")]
        _require_match(given, (base64.b64encode(hmac.digest(key, body, "sha256")) for key in self._keys))
        found = _verified(_header(headers, b"x-shopify-webhook-id"), _header(headers, b"x-shopify-topic"))
        _require_object(body)
        return found


class _Hmac:
    """The generic scheme, as HmacSpec describes it."""

    def __init__(self, keys: Sequence[bytes], spec: HmacSpec, tolerance: float) -> None:
        self._keys = keys
        self._spec = spec
        self._tolerance = tolerance
        self._header = spec.header.lower().encode()
        self._prefix = spec.prefix.encode()
        self._separator = spec.separator.encode()
        self._timestamp = spec.timestamp_header.lower().encode() if spec.timestamp_header else None
        self._id = spec.id_header.lower().encode() if spec.id_header else None
        self._event = spec.event_header.lower().encode() if spec.event_header else None

    def __call__(self, headers: Headers, body: bytes, now: float) -> Verified:
        given = _signature(headers, self._header)
        parts = {
            "id": _required(headers, self._id) if self._id else b"",
            "timestamp": _required(headers, self._timestamp) if self._timestamp else b"",
            "body": body,
        }
        signed = self._separator.join(parts[name] for name in self._spec.signed)
        _require_match([given], (self._prefix + self._encoded(key, signed) for key in self._keys))
        if self._timestamp:
            _require_time(parts["timestamp"], now, self._tolerance)
        delivery_id = _text(parts["id"]) if self._id else hashlib.sha256(signed).hexdigest()
        found = _verified(delivery_id, _header(headers, self._event) if self._event else NO_EVENT)
        _require_object(body)
        return found

    def _encoded(self, key: bytes, signed: bytes) -> bytes:
        digest = hmac.digest(key, signed, self._spec.algorithm)
        return digest.hex().encode() if self._spec.encoding == "hex" else base64.b64encode(digest)


def _standard_key(secret: str, where: str) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        # the value is never echoed, nor is the error that would hold it
        raise ConfigError(
            where,
            "a secret of scheme standard is not base64 after its prefix whsec_",
            "Copy it from the sender again, or use scheme: hmac for a secret of another form.",
        ) from None


def _signature(headers: Headers, name: bytes) -> bytes:
    found = headers.get(name)
    if not found:
        raise RefusedError(401, "unauthorized", f"no {name.decode()} header: the delivery is not signed")
    return found


def _require_match(given: Sequence[bytes], expected: Iterable[bytes]) -> None:
    """Raises RefusedError unless one signature of the delivery is one of ours."""
    for ours in expected:
        for theirs in given:
            if hmac.compare_digest(theirs, ours):
                return
    raise RefusedError(401, "unauthorized", "the signature does not match")


def _require_time(stamp: bytes, now: float, tolerance: float) -> None:
    if not _SECONDS.fullmatch(stamp):
        raise RefusedError(400, "malformed", "the timestamp is not a number of Unix seconds")
    age = now - int(stamp)
    if abs(age) > tolerance:
        what = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s in the future"
        raise RefusedError(400, "untimely", f"the delivery is {what}, more than {tolerance:.0f} s away from now")


def _required(headers: Headers, name: bytes) -> bytes:
    found = headers.get(name)
    if not found:
        raise RefusedError(400, "malformed", f"no {name.decode()} header")
    return found


def _header(headers: Headers, name: bytes) -> str:
    return _text(_required(headers, name))


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _parsed_named(body: bytes) -> _Named:
    try:
        return _NAMED.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, "malformed", f"the body is not a JSON object: {error}"[:300]) from error


def _require_object(body: bytes) -> None:
    try:
        _ANY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, "malformed", f"the body is not a JSON object: {error}"[:300]) from error


def _verified(delivery_id: object, event_type: object) -> Verified:
    """Raises RefusedError for an id or event type that is missing, too long, or more than printable ASCII."""
    if not isinstance(delivery_id, str) or not _ID.fullmatch(delivery_id):
        raise RefusedError(400, "malformed", "the delivery's id is missing, or is not 1 to 255 printable characters")
    if not isinstance(event_type, str) or not _EVENT.fullmatch(event_type):
        raise RefusedError(400, "malformed", "the event's type is missing, or is not 1 to 200 printable characters")
    return Verified(delivery_id, event_type)
