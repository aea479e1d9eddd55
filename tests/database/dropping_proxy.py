"""A TCP proxy on loopback that passes so many bytes from the server, then ends the connection."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

CHUNK = 1 << 16


@contextmanager
def dropping_after(address: tuple[str, int], size_bytes: int) -> Generator[int]:
    """The port of the proxy."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(60)

    def serve() -> None:
        client, _ = listener.accept()
        upstream = socket.create_connection(address)
        threading.Thread(target=_forward, args=(client, upstream), daemon=True).start()
        left = size_bytes
        while left > 0 and (data := upstream.recv(min(CHUNK, left))):
            client.sendall(data)
            left -= len(data)
        for side in (client, upstream):
            # the forwarding thread still holds the socket: close() alone would end nothing
            side.shutdown(socket.SHUT_RDWR)
            side.close()

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.join(60)
        listener.close()


def _forward(client: socket.socket, upstream: socket.socket) -> None:
    try:
        while data := client.recv(CHUNK):
            upstream.sendall(data)
    except OSError:
        return
