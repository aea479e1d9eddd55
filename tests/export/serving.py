"""A shop whose orders are served over HTTP, and its source file."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.testing.stand_in import StandIn, stand_in

ORDERS: list[dict[str, Any]] = [
    {"id": number, "note": f"ordér {number}", "cents": number * 100, "updated_at": f"2024-01-0{number}T00:00:00Z"}
    for number in range(1, 6)
]
SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector: {kind: rest, base_url: env:SHOP_URL, auth: {type: bearer, token: env:SHOP_TOKEN}}
  streams:
    - name: orders
      path: /orders
      records: data
      primary_key: id
      write: merge
      cursor: {field: updated_at}
      incremental: {param: since}
      pagination: {type: cursor, path: next, param: after}
      columns: {updated_at: {type: timestamp, description: When it last changed}}
    - {name: lost, path: /lost, records: data}
"""
TOKEN = "tok_9f8e7d6c5b4a"


def spec(streams: int = 1) -> SourceSpec:
    import yaml

    attributes = yaml.safe_load(SOURCE)["attributes"]
    attributes["streams"] = attributes["streams"][:streams]
    return parse_source(attributes, "tests/shop.yaml")


@contextmanager
def shop(orders: Sequence[Mapping[str, Any]] = ORDERS) -> Generator[StandIn]:
    with stand_in({"orders": list(orders)}) as api:
        yield api


def opened(source: SourceSpec) -> Any:
    return kind(source.connector.kind).open(source)


def messages(written: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(written).splitlines()]
