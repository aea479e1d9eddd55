"""A small shop with a real HTTP API on loopback, which tests fill, break and watch."""

import json
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "shop-token-4711"

SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: shop
  owner: team:data
  connector:
    kind: rest
    base_url: env:SHOP_URL
    auth: {type: bearer, token: env:SHOP_TOKEN}
    retries: {attempts: 1}
    rate_limit: {max_wait: PT0S}
  streams:
    - name: orders
      path: /orders
      records: data
      total: total
      pagination: {type: cursor, param: page, path: next}
      incremental: {param: since, end_param: until, ordered: true}
      primary_key: [id]
      cursor: {field: at}
      write: merge
      window: {rows: 2, seconds: PT1H}
      columns:
        id: {type: bigint, nullable: false, description: number of the order}
        at: {type: timestamp, nullable: false}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Shop:
    """orders: served in order of `at`, `page_size` on a page. refusals: answers given instead, the next first.

    total: what the shop claims; None is the truth. totals: the same by the day that a window begins on.
    on_page: called with the number of each request, from 1. lost_page: comes without its orders, and with status 200.
    """

    url: str
    orders: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    refusals: list[Answer] = field(default_factory=list[Answer])
    page_size: int = 2
    total: int | None = None
    totals: dict[str, int] = field(default_factory=dict[str, int])
    requests: int = 0
    lost_page: int | None = None
    on_page: Callable[[int], None] = lambda number: None

    def answer(self, target: str, authorization: str) -> Answer:
        self.requests += 1
        self.on_page(self.requests)
        if self.refusals:
            return self.refusals.pop(0)
        if authorization != f"Bearer {TOKEN}":
            return Answer(401, {"error": "who are you"})
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        since, until = query.get("since", ""), query.get("until", "9999")
        wanted = sorted((o for o in self.orders if since < o["at"] < until or o["at"] == since != ""), key=_at)
        first = int(query.get("page", 0))
        last = first + self.page_size
        total = self.totals.get(since[:10], len(wanted) if self.total is None else self.total)
        following = str(last) if last < len(wanted) else None
        sums = {"cents": sum(cents for order in wanted if isinstance(cents := order.get("cents"), int))}
        data = [] if self.lost_page == first // self.page_size + 1 else wanted[first:last]
        return Answer(200, {"data": data, "next": following, "total": total, "sums": sums})


def _at(order: dict[str, Any]) -> str:
    return str(order["at"])


def order(number: int, day: int = 1, **fields: Any) -> dict[str, Any]:
    """An order of January 2024, at one minute past midnight and `number` seconds."""
    return {"id": number, "at": f"2024-01-{day:02}T00:01:{number:02}Z", "cents": number * 100, **fields}


@contextmanager
def open_shop() -> Generator[Shop]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = shop.answer(self.path, self.headers.get("Authorization", ""))
            body = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shop = Shop(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
