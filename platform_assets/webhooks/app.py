"""The ASGI app: POST /hooks/<source>, GET /health, GET /metrics. No framework: one delivery costs one small function.

| answer | when |
|---|---|
| 200 | the delivery is durable, also when it came before |
| 400 | malformed, or its timestamp is too far from now |
| 401 | not signed, or not by one of our secrets |
| 404, 405 | no such address, or not POST |
| 408, 413 | the body came too slowly, or is too large |
| 429 | more than the source's rate limit, with Retry-After |
| 503 | the receiver is full or the database away, with Retry-After: deliver again |
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from platform_assets.webhooks.backlog import Backlog
from platform_assets.webhooks.hooks import Hook
from platform_assets.webhooks.inbox import Arrived, Bounds, Inbox, UnavailableError, UnstorableError, kept_headers
from platform_assets.webhooks.metrics import Metrics, Now, prometheus
from platform_assets.webhooks.schemes import RefusedError

log = logging.getLogger(__name__)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
ReadBacklog = Callable[[], Awaitable[Sequence[Backlog] | None]]

BODY_SECONDS = 15.0
LINGER_SECONDS = 10.0
LINGER_BYTES = 64 << 20
"""So much is still read, and thrown away, of a body that was refused before its end. A connection that is closed while
its sender writes is reset, and with it goes an answer that the sender has not read yet."""
RETRY_SECONDS = 2
UNKNOWN = "unknown"

_JSON = (b"content-type", b"application/json")
_STORED = {"type": "http.response.body", "body": b'{"status":"stored"}'}
_STORED_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_JSON, (b"content-length", str(len(_STORED["body"])).encode())],
}


class GoneError(Exception):
    """The sender hung up before its body was complete."""


class FullError(Exception):
    """The receiver holds as much as it may."""


class TooManyError(Exception):
    """More deliveries than the source may send. seconds: until the next one may come."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Incoming:
    """A request's body as it comes. is_over: nothing of it follows."""

    __slots__ = ("_receive", "is_over")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_over = False

    async def chunk(self) -> bytes:
        """Raises GoneError: the sender hung up."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_over = True
            raise GoneError
        self.is_over = not message.get("more_body", False)
        return message.get("body", b"")

    async def thrown_away(self) -> None:
        """Return once the rest has come, within the bounds, or the sender has hung up."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.is_over and left > 0:
                    left -= len(await self.chunk())
        except (GoneError, TimeoutError):
            return


@dataclass(slots=True)
class _Memory:
    """What all deliveries in flight hold together."""

    bounds: Bounds
    in_flight: int = 0
    held_bytes: int = 0


class _Hold:
    """One delivery's share. Announced bytes count before they come, bytes that come in chunks as they come."""

    __slots__ = ("_bytes", "_memory")

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._bytes = 0
        memory.in_flight += 1

    def grow(self, size_bytes: int) -> None:
        """Hold at least so much. Raises FullError: that is more than there is room for."""
        memory = self._memory
        if size_bytes > self._bytes:
            memory.held_bytes += size_bytes - self._bytes
            self._bytes = size_bytes
        if memory.in_flight > memory.bounds.deliveries or memory.held_bytes > memory.bounds.size_bytes:
            raise FullError

    def release(self) -> None:
        self._memory.in_flight -= 1
        self._memory.held_bytes -= self._bytes


class Receiver:
    """The app. read_backlog: for /metrics; None when the database does not answer."""

    def __init__(self, hooks: Iterable[Hook], inbox: Inbox, read_backlog: ReadBacklog) -> None:
        self._hooks = {hook.path: hook for hook in hooks}
        self._inbox = inbox
        self._read_backlog = read_backlog
        self._memory = _Memory(inbox.bounds)
        self.metrics = Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        hook = self._hooks.get(path)
        if hook is not None:
            await self._deliver(hook, scope, receive, send)
        elif path == "/health":
            await self._health(send)
        elif path == "/metrics":
            text = prometheus(self.metrics, self._inbox.commits, self._now(), await self._read_backlog())
            await _send(send, 200, text.encode(), ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),))
        else:
            self.metrics.refused(UNKNOWN, "not_found")
            await _say(send, 404, "no source receives here", unread=_Incoming(receive))

    async def _live(self, receive: Receive, send: Send) -> None:
        """The writer lives as long as the app; at the end it writes what still waits."""
        writing: asyncio.Task[None] | None = None
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                writing = asyncio.create_task(self._inbox.run())
                await send({"type": "lifespan.startup.complete"})
            else:
                await self._inbox.stop()
                if writing is not None:
                    await writing
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _deliver(self, hook: Hook, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        incoming = _Incoming(receive)
        if scope["method"] != "POST":
            self.metrics.refused(hook.source, "method")
            await _say(send, 405, "deliveries are POSTed", ((b"allow", b"POST"),), unread=incoming)
            return
        try:
            await self._take(hook, dict(scope["headers"]), incoming)
        except RefusedError as refused:
            self.metrics.refused(hook.source, refused.reason)
            await _say(send, refused.status, refused.message, unread=incoming)
        except TooManyError as many:
            self.metrics.refused(hook.source, "rate_limited")
            await _try_later(send, 429, "more deliveries than the source may send", incoming, many.seconds)
        except FullError:
            self.metrics.refused(hook.source, "overloaded")
            await _try_later(send, 503, "too many deliveries at once", incoming)
        except UnavailableError:
            self.metrics.refused(hook.source, "unavailable")
            await _try_later(send, 503, "the inbox cannot be written now", incoming)
        except UnstorableError:
            self.metrics.refused(hook.source, "malformed")
            await _say(send, 400, "the database cannot hold this delivery")
        except GoneError:
            self.metrics.refused(hook.source, "gone")
        else:
            self.metrics.stored(hook.source, time.perf_counter() - began)
            await send(_STORED_START)
            await send(_STORED)

    async def _take(self, hook: Hook, headers: Mapping[bytes, bytes], incoming: _Incoming) -> None:
        """Return once the delivery is durable. What it holds is free again before a refusal is answered.

        Raises:
            RefusedError, TooManyError, FullError, UnavailableError, UnstorableError, GoneError: it is not.
        """
        hold = _Hold(self._memory)
        try:
            hold.grow(_declared(headers, hook))
            body = await _body(incoming, hook.max_body_bytes, hold)
            verified = hook.verify(headers, body, time.time())
            if hook.bucket is not None and (wait := hook.bucket.take(time.monotonic())):
                raise TooManyError(wait)
            await self._inbox.store(
                Arrived(hook.source, verified.delivery_id, verified.event_type, body, kept_headers(headers))
            )
        finally:
            hold.release()

    async def _health(self, send: Send) -> None:
        now = self._now()
        state = {
            "status": "ok" if now.is_connected else "unavailable",
            "sources": sorted(hook.source for hook in self._hooks.values()),
            "in_flight": now.in_flight,
            "waiting": now.waiting,
            "stored": self._inbox.commits.rows,
        }
        await _send(send, 200 if now.is_connected else 503, msgspec.json.encode(state), (_JSON,))

    def _now(self) -> Now:
        return Now(self._inbox.is_connected, self._memory.in_flight, self._memory.held_bytes, self._inbox.waiting)


def _declared(headers: Mapping[bytes, bytes], hook: Hook) -> int:
    """The body's length as the sender announces it, 0 for a body in chunks.

    Raises:
        RefusedError: it is larger than the source allows, so that not a byte of it need be read.
    """
    given = headers.get(b"content-length")
    if given is None:
        return 0
    if not given.isdigit() or len(given) > 18:
        raise RefusedError(400, "malformed", "content-length is no number")
    if int(given) > hook.max_body_bytes:
        raise RefusedError(413, "too_large", f"the body is larger than {hook.max_body_bytes} bytes")
    return int(given)


async def _body(incoming: _Incoming, max_bytes: int, hold: _Hold) -> bytes:
    """The whole body.

    Raises:
        RefusedError: it grows beyond max_bytes, or takes longer than BODY_SECONDS.
        FullError: there is no room for more of it.
        GoneError: the sender hung up.
    """
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                chunk = await incoming.chunk()
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise RefusedError(413, "too_large", f"the body is larger than {max_bytes} bytes")
                hold.grow(size_bytes)
                if incoming.is_over:
                    return b"".join((*chunks, chunk)) if chunks else chunk
                chunks.append(chunk)
    except TimeoutError:
        raise RefusedError(408, "slow", f"the body was not complete after {BODY_SECONDS:.0f} s") from None


async def _try_later(send: Send, status: int, message: str, unread: _Incoming, seconds: float = RETRY_SECONDS) -> None:
    await _say(send, status, message, ((b"retry-after", str(max(1, math.ceil(seconds))).encode()),), unread=unread)


async def _say(
    send: Send,
    status: int,
    message: str,
    headers: Sequence[tuple[bytes, bytes]] = (),
    *,
    unread: _Incoming | None = None,
) -> None:
    """unread: the request's body; what has not come of it must not be taken for the next request."""
    body = msgspec.json.encode({"error": message})
    if unread is None or unread.is_over:
        await _send(send, status, body, (_JSON, *headers))
        return
    await _send(send, status, body, (_JSON, *headers, (b"connection", b"close")), is_last=False)
    await unread.thrown_away()
    await send({"type": "http.response.body", "body": b""})


async def _send(
    send: Send, status: int, body: bytes, headers: Sequence[tuple[bytes, bytes]], *, is_last: bool = True
) -> None:
    """The whole answer; the connection goes on, or is closed, after its last message."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body, "more_body": not is_last})
