"""The receiver's process: one event loop, one writer, until SIGTERM or Ctrl-C."""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import Callable, Sequence

import psycopg
import uvicorn

from connectors.errors import ResourceError
from connectors.specs import SourceSpec
from platform_assets.settings import Settings
from platform_assets.warehouse import ensure_warehouse
from platform_assets.webhooks.app import ReadBacklog, Receiver
from platform_assets.webhooks.backlog import Backlog, read_backlog
from platform_assets.webhooks.blocked import Blocks
from platform_assets.webhooks.hooks import Hook
from platform_assets.webhooks.inbox import Inbox

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORT = 8732
STOP_SECONDS = 20
BACKLOG_SECONDS = 5.0
"""So long an answer of /metrics reuses the last count of the backlog."""
MAX_CONNECTIONS = 20_000
LISTEN_BACKLOG = 2_048
GARBAGE_THRESHOLD = 20_000
"""New objects between two looks for cycles."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        ResourceError: the port is taken, or the address is not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise ResourceError(
            f"{host}:{port}", f"cannot be listened on: {error.strerror or error}", "Give another --port or --host."
        ) from error


def locator(settings: Settings) -> Callable[[], str]:
    """Where the inbox is, asked anew at every connection: the loader role's URL."""
    return lambda: ensure_warehouse(settings).loader_dsn


def serve(hooks: Sequence[Hook], sources: Sequence[SourceSpec], inbox: Inbox, listening: socket.socket) -> None:
    """Receive until the process is asked to stop; deliveries in flight are answered first."""
    inbox.blocks = Blocks(sources)
    config = uvicorn.Config(
        Receiver(hooks, inbox, _cached_backlog(sources, inbox.locate)),  # pyright: ignore[reportArgumentType]  plain ASGI
        access_log=False,
        log_config=None,
        lifespan="on",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    config.load()
    # what is loaded by now stays, and a delivery leaves no cycles behind: looking for them often costs a tenth
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


def _cached_backlog(sources: Sequence[SourceSpec], locate: Callable[[], str]) -> ReadBacklog:
    at, counted = 0.0, None

    def count() -> Sequence[Backlog] | None:
        try:
            with psycopg.connect(locate(), autocommit=True, connect_timeout=5) as session:
                session.execute("set statement_timeout = '5s'")
                return tuple(read_backlog(session, sources))
        except psycopg.Error as error:
            log.warning("backlog not counted: %s", str(error).strip()[:200])
            return None

    async def read() -> Sequence[Backlog] | None:
        nonlocal at, counted
        if not at or time.monotonic() - at > BACKLOG_SECONDS:
            at, counted = time.monotonic(), await asyncio.to_thread(count)
        return counted

    return read
