"""An HTTP API on this machine that serves given records page by page, for tests of a connector."""

import json
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class StandIn:
    """A running one. requests: path and query of every request, in order."""

    url: str
    requests: list[str] = field(default_factory=list[str])


@contextmanager
def stand_in(
    streams: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    cursor: str = "updated_at",
    since: str = "since",
    until: str = "until",
    page_size: int = 2,
) -> Generator[StandIn]:
    """Serve GET /<stream>?since=&until=&after= as {"data": [...], "next": <token> or null}.

    Records come in the order of the field `cursor`, whose texts must sort as its values do; since <= cursor < until.
    The names of these two parameters are the caller's. `next` goes into `after`.
    """
    running = StandIn("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            running.requests.append(self.path)
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            found = streams.get(parts.path.strip("/"))
            if found is None:
                self._answer(404, {"error": f"no {parts.path}"})
                return
            least, bound = query.get(since, ""), query.get(until)
            rows = sorted((row for row in found if str(row[cursor]) >= least), key=lambda row: str(row[cursor]))
            rows = [row for row in rows if bound is None or str(row[cursor]) < bound]
            first = int(query.get("after", "0"))
            last = first + page_size
            self._answer(200, {"data": rows[first:last], "next": str(last) if last < len(rows) else None})

        def _answer(self, status: int, value: object) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  http.server's signature
            """Nothing: the requests are kept."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
