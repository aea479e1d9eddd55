"""Group commit into ops.webhook_inbox: what waits when a commit ends goes into the next one, together.

One task writes. A delivery is answered when the transaction that holds it is on disk, and never before; when the
database is away, every delivery in flight is refused, and so is each new one until it is back.

A body is stored without what is blocked when it is stored: the insert itself looks whether the rules are still those
that the receiver has read. When they are not it stores nothing; they are read, and it is tried again.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import errors

from connectors.errors import HeadwaterError
from connectors.webhook.order import ANNOUNCE
from platform_assets.webhooks.blocked import READ, VERSION, Blocks

log = logging.getLogger(__name__)
T = TypeVar("T")

INSERT = f"""
    with announced as materialized ({ANNOUNCE})
    insert into ops.webhook_inbox (delivery_id, source, event_type, body, headers)
    select delivery_id, source, event_type, body, headers::jsonb
    from announced, unnest(%b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[])
        as arrived (delivery_id, source, event_type, body, headers)
    where ({VERSION}) = %t
    on conflict (source, delivery_id) do nothing
"""
"""One statement is one transaction and one round trip. A row is numbered where it is inserted, above the join that
needs the announcement, and so after it. The last two parameters: `Blocks.names` and `Blocks.version`."""
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
QUIET_TURNS = 3
"""Of the event loop: from a readable socket to a delivery that waits it takes two."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the receiver holds at most, so that a flood is refused and not remembered.

    deliveries, bytes: of bodies that are being read or wait for their commit. batch: of one commit.
    commit_seconds: a commit that takes longer counts as failed, and its connection is given up.
    """

    deliveries: int = 10_000
    size_bytes: int = 128 << 20
    batch: int = 2_000
    batch_bytes: int = 16 << 20
    commit_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One verified delivery. headers: those that are kept, as JSON."""

    source: str
    delivery_id: str
    event_type: str
    body: bytes = field(repr=False)
    headers: str


class UnavailableError(Exception):
    """The database is away, or the commit's end is unknown: the sender must deliver again."""


class UnstorableError(Exception):
    """The database will never take this delivery."""


@dataclass(slots=True)
class Commits:
    """What the writer has done so far."""

    commits: int = 0
    rows: int = 0
    duplicates: int = 0
    failures: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Waiting:
    delivery: Arrived
    done: "asyncio.Future[None]"


@dataclass(slots=True)
class Inbox:
    """The writer and its queue; used from one event loop.

    locate: the libpq URL of the loader role, asked at every connection (a restarted server may have moved); may block.
    blocks: what is dropped from bodies.
    """

    locate: Callable[[], str]
    bounds: Bounds = field(default_factory=Bounds)
    blocks: Blocks = field(default_factory=Blocks)
    commits: Commits = field(default_factory=Commits)
    is_connected: bool = False
    _queue: deque[_Waiting] = field(default_factory=deque[_Waiting])
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _stopping: bool = False
    _hanging: "set[asyncio.Task[Any]]" = field(default_factory=set["asyncio.Task[Any]"])

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def store(self, delivery: Arrived) -> None:
        """Return once the delivery is durable, be it since now or since it came for the first time.

        Raises:
            UnavailableError: it may or may not be stored; delivering it again is safe.
            UnstorableError: the database refuses its values.
        """
        if not self.is_connected or self._stopping:
            raise UnavailableError
        done = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(delivery, done))
        self._wake.set()
        await done

    async def run(self) -> None:
        """Write until `stop`, connecting again whenever the database comes back."""
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping:
            try:
                await self._write()
            except (psycopg.Error, OSError, TimeoutError, HeadwaterError) as error:
                lines = str(error).strip().splitlines()
                log.warning("inbox not written, connecting again pause=%.1f: %s", pause, lines[0] if lines else error)
                if self.is_connected:
                    pause = FIRST_PAUSE_SECONDS
            finally:
                self.is_connected = False
                self._refuse(list(self._queue))
                self._queue.clear()
            if not self._stopping:
                await self._paused(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    async def stop(self) -> None:
        """Take nothing more; what waits is written first."""
        self._stopping = True
        self._wake.set()

    async def _paused(self, seconds: float) -> None:
        self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _write(self) -> None:
        dsn = await asyncio.to_thread(self.locate)
        connection = await psycopg.AsyncConnection.connect(
            dsn,
            autocommit=True,
            connect_timeout=5,
            application_name="headwater webhooks",
            keepalives_idle=10,
            keepalives_interval=5,
        )
        try:
            # a warehouse may be set to forget commits in a crash; what is acknowledged here must not be
            await connection.execute("set synchronous_commit = on")
            await connection.execute(f"set statement_timeout = {int(self.bounds.commit_seconds * 1000)}".encode())
            await self._has_new_rules(connection)
            self.is_connected = True
            log.info("inbox connected")
            while not self._stopping or self._queue:
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                await self._gathered()
                await self._commit(connection, self._take())
        finally:
            if not self._hanging:
                await connection.close()

    async def _gathered(self) -> None:
        """Until the event loop brings nothing more: under load, fewer commits that hold more each."""
        quiet = 0
        while quiet < QUIET_TURNS and not self._stopping and (waiting := len(self._queue)) < self.bounds.batch:
            await asyncio.sleep(0)
            quiet = quiet + 1 if len(self._queue) == waiting else 0

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size_bytes = 0
        while self._queue and len(batch) < self.bounds.batch and size_bytes < self.bounds.batch_bytes:
            batch.append(self._queue.popleft())
            size_bytes += len(batch[-1].delivery.body)
        return batch

    async def _commit(self, connection: "psycopg.AsyncConnection[Any]", batch: list[_Waiting]) -> None:
        """Answer the whole batch; when values are refused, delivery by delivery, so that one does not stop others."""
        began = time.perf_counter()
        try:
            new = await self._store(connection, [waiting.delivery for waiting in batch])
        except errors.DataError as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._commit(connection, [waiting])
                return
            log.warning("delivery refused by the database source=%s: %s", batch[0].delivery.source, error)
            _answer(batch, UnstorableError())
            return
        except BaseException:
            self.commits.failures += 1
            self._refuse(batch)
            raise
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_result(None)
        commits = self.commits
        commits.commits += 1
        commits.rows += new
        commits.duplicates += len(batch) - new
        commits.seconds += time.perf_counter() - began

    async def _store(self, connection: "psycopg.AsyncConnection[Any]", rows: Sequence[Arrived]) -> int:
        """How many of the deliveries are new. None is: they came before, or the rules are others by now."""
        while True:
            new = await self._in_time(connection, _insert(connection, self._kept(rows), self.blocks))
            if new or not await self._in_time(connection, self._has_new_rules(connection)):
                return new

    def _kept(self, rows: Sequence[Arrived]) -> Sequence[Arrived]:
        """The deliveries without what is blocked now."""
        blocks = self.blocks
        return (
            [replace(row, body=blocks.kept(row.source, row.event_type, row.body)) for row in rows] if blocks else rows
        )

    async def _has_new_rules(self, connection: "psycopg.AsyncConnection[Any]") -> bool:
        """Read what operators block; whether it is something else than before."""
        cursor = await connection.execute(READ.encode(), [self.blocks.names])
        return self.blocks.take(await cursor.fetchall())

    async def _in_time(self, connection: "psycopg.AsyncConnection[Any]", work: Coroutine[Any, Any, T]) -> T:
        """What the database answers, or TimeoutError. A server that hangs cannot even be asked to cancel: its
        connection is left to itself, and closed once it says something."""
        working = asyncio.create_task(work)
        done, _ = await asyncio.wait({working}, timeout=self.bounds.commit_seconds + 1)
        if not done:
            self._hanging.add(working)
            working.add_done_callback(lambda task: self._let_go(task, connection))
            raise TimeoutError(f"a commit took longer than {self.bounds.commit_seconds:.0f} s")
        return working.result()

    def _let_go(self, task: "asyncio.Task[Any]", connection: "psycopg.AsyncConnection[Any]") -> None:
        self._hanging.discard(task)
        if not task.cancelled():
            task.exception()
        connection.pgconn.finish()

    def _refuse(self, batch: Sequence[_Waiting]) -> None:
        _answer(batch, UnavailableError())


def _answer(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)


async def _insert(connection: "psycopg.AsyncConnection[Any]", rows: Sequence[Arrived], blocks: Blocks) -> int:
    """One durable transaction, the statement itself; how many of the deliveries are new, 0 also by other rules.

    Raises:
        psycopg.Error: nothing of it is known to be stored.
    """
    columns = (
        [row.delivery_id for row in rows],
        [row.source for row in rows],
        [row.event_type for row in rows],
        [row.body for row in rows],
        [row.headers for row in rows],
        blocks.names,
        blocks.version,
    )
    cursor = await connection.execute(INSERT.encode(), columns, prepare=True)
    return cursor.rowcount


def kept_headers(headers: Mapping[bytes, bytes]) -> str:
    """The headers worth keeping, as JSON: no credential and no signature."""
    return _as_json(tuple((name, headers[name]) for name in _KEPT if name in headers))


@lru_cache(maxsize=256)
def _as_json(kept: tuple[tuple[bytes, bytes], ...]) -> str:
    """A sender's headers hardly differ from one delivery to the next."""
    readable = {name.decode(): value.decode() for name, value in kept if value.isascii() and b"\x00" not in value}
    return msgspec.json.encode(readable).decode()


_KEPT = (
    b"content-type",
    b"user-agent",
    b"x-github-hook-id",
    b"x-shopify-shop-domain",
    b"x-shopify-api-version",
    b"x-shopify-triggered-at",
    b"webhook-timestamp",
)
