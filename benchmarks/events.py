"""Nested JSON events, and a local HTTP server that pages through them: `python -m benchmarks.events <pages> <rows>`.

The server is a process of its own; its pages are bytes made before the first request, so that it costs little beside
those who read.
"""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from platform_assets.settings import PROJECT_ROOT

TABLE = """
create table {} (
    id bigint, kind text, created_at timestamptz, amount double precision, is_test boolean,
    customer jsonb, items jsonb, payments jsonb
)
"""
# what must have arrived, whoever brought it
DIGEST = """
select count(*), sum(id), min(created_at), max(created_at), sum(amount)::numeric(20,2),
    sum(jsonb_array_length(items)), sum(length(customer ->> 'name')), sum((payments -> 0 ->> 'cents')::bigint)
from {}
"""
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
_KINDS = ("order.created", "order.paid", "order.shipped", "order.returned")


def event(number: int) -> dict[str, Any]:
    """One record of about 500 bytes: an object and two child collections in it."""
    return {
        "id": number,
        "kind": _KINDS[number % 4],
        "created_at": (_BEGIN + timedelta(seconds=number)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "amount": number * 31 % 100_000 / 100,
        "is_test": number % 50 == 0,
        "customer": {
            "id": number * 7919 % 10_007,
            "name": f"Customer {number * 7919 % 10_007}",
            "email": f"customer{number}@example.com",
            "address": {"street": f"{number % 300} Main Street", "city": "Springfield", "zip": f"{number % 99_999:05}"},
        },
        "items": [
            {"sku": f"SKU-{(number + step) % 5_000:05}", "quantity": step + 1, "cents": (number + step) % 9_999}
            for step in range(number % 4 + 1)
        ],
        "payments": [{"method": "card", "cents": number % 9_999, "at": f"2024-01-01T00:00:{number % 60:02}Z"}],
    }


def page_body(page: int, rows: int) -> bytes:
    """Page from 1: `{"data": [...]}`."""
    records = [event(number) for number in range((page - 1) * rows, page * rows)]
    return json.dumps({"data": records}, separators=(",", ":")).encode()


def serve(pages: int, rows: int, *, is_same: bool) -> None:
    """Answers /events?page=1.. with `rows` records a page and none behind the last; ends with its standard input.

    is_same: the first page again and again with other addresses in it, which takes no memory for millions of rows.
    """
    bodies = [page_body(page, rows) for page in range(1, 2 if is_same else pages + 1)]
    empty = b'{"data": []}'

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            page = int(parse_qs(urlsplit(self.path).query).get("page", ["1"])[0])
            if page > pages:
                body = empty
            elif is_same:
                body = bodies[0].replace(b"@example.com", b"@%08d.com" % page)
            else:
                body = bodies[page - 1]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name for it
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


@contextmanager
def event_server(pages: int, rows: int, *, is_same: bool = False) -> Generator[str]:
    """Its base URL while inside."""
    command = [sys.executable, "-m", "benchmarks.events", str(pages), str(rows), *(["same"] if is_same else [])]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=dict(os.environ), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the event server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def main(arguments: Sequence[str]) -> None:
    serve(int(arguments[0]), int(arguments[1]), is_same="same" in arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
