"""The webhook sender: GitHub's own example deliveries, signed as GitHub signs, one after the other.

A delivery has the same id whenever it is sent, as one that GitHub repeats; a receiver stores it once.
"""

import gzip
import hashlib
import hmac
import http.client
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from demo.dataset import DELIVERIES

TIMEOUT_SECONDS = 30.0


class DeliveryError(Exception):
    """A delivery was not taken; the message says which and what the receiver answered."""


@dataclass(frozen=True, slots=True)
class Delivery:
    delivery_id: str
    event: str
    body: bytes


def read_deliveries() -> Iterator[Delivery]:
    """All 94 deliveries in their order."""
    with gzip.open(DELIVERIES) as lines:
        for line in lines:
            found = json.loads(line)
            name = uuid.uuid5(uuid.NAMESPACE_URL, f"https://github.com/deliveries/{found['event']}/{found['n']}")
            yield Delivery(str(name), found["event"], json.dumps(found["payload"]).encode())


def send_deliveries(url: str, secret: str) -> int:
    """POST every delivery to the receiver's address; how many it took.

    Raises:
        DeliveryError: an answer other than 2xx.
        OSError: the receiver does not answer.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_SECONDS)
    sent = 0
    try:
        for delivery in read_deliveries():
            signature = hmac.digest(secret.encode(), delivery.body, hashlib.sha256).hex()
            headers = {
                "content-type": "application/json",
                "user-agent": "GitHub-Hookshot/demo",
                "x-github-event": delivery.event,
                "x-github-delivery": delivery.delivery_id,
                "x-hub-signature-256": f"sha256={signature}",
            }
            connection.request("POST", parts.path, delivery.body, headers)
            answer = connection.getresponse()
            said = answer.read().decode("utf-8", "replace")
            if not 200 <= answer.status < 300:
                raise DeliveryError(f"delivery {delivery.delivery_id}: HTTP {answer.status} from {url}: {said[:200]}")
            sent += 1
    finally:
        connection.close()
    return sent
