"""A real HTTP server on loopback that answers exactly what a test says, also what no server should."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class Exchange:
    """One request and the means to answer it, well or badly. number counts the server's requests from 1."""

    number: int
    handler: BaseHTTPRequestHandler
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    gone: threading.Event

    @property
    def port(self) -> int:
        return int(self.headers["host"].rpartition(":")[2])

    def json(self, value: object, status: int = 200, /, **headers: str) -> None:
        self.send(json.dumps(value).encode(), status, content_type="application/json", **headers)

    def send(self, body: bytes, status: int = 200, /, **headers: str) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.send_header("Content-Length", str(len(body)))
        self.handler.end_headers()
        self.handler.wfile.write(body)

    def raw(self, data: bytes) -> None:
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def hang_up(self) -> None:
        self.handler.close_connection = True

    def reset(self) -> None:
        """RST instead of an answer."""
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.handler.connection.close()
        self.handler.close_connection = True

    def drip(self, data: bytes, seconds: float) -> None:
        """A byte now and then until the client is gone or the server is told to end."""
        for byte in data:
            try:
                self.raw(bytes([byte]))
            except OSError:
                break
            if self.gone.wait(seconds):
                break
        self.hang_up()

    def wait(self) -> None:
        """Says nothing for ever."""
        self.gone.wait(60)
        self.hang_up()


Answer = Callable[[Exchange], None]


@dataclass(slots=True)
class Served:
    """A running server. seen: `METHOD /path?query` of every request, in order."""

    url: str
    seen: list[str] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 0


@contextmanager
def serving(answer: Answer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Generator[Served]:
    served = Served("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                served.seen.append(f"{self.command} {self.path}")
                served.headers.append(headers)
                served.bodies.append(body)
                number = len(served.seen)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            exchange = Exchange(number, self, self.command, parts.path, query, headers, body, served.gone)
            try:
                answer(exchange)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_GET = _answer  # noqa: N815 - the name that http.server calls
        do_POST = _answer  # noqa: N815 - the name that http.server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's signature
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that went away is what many of these tests are about."""

    server = Server((host, 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    served.url = f"{'https' if tls else 'http'}://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.gone.set()
        server.shutdown()
        server.server_close()
        thread.join()


def records(first: int, count: int) -> list[dict[str, object]]:
    return [{"id": number, "at": f"2024-01-01T00:00:{number % 60:02d}Z"} for number in range(first, first + count)]
