"""One writer per stream: an advisory lock, a fencing epoch, a heartbeat, and what ends a sync from outside.

The lock keeps a second sync away. The epoch makes sure that a process which lost its lock (a cut connection, a long
pause) can never publish: every publication re-reads it `for share` in its own transaction.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
from psycopg.rows import TupleRow

from connectors.errors import Cancelled, HeadwaterError, LoaderError, ResourceError, TransientError
from connectors.sync import ledger
from connectors.sync.result import SyncRequest
from connectors.sync.settle import settle_stream

_HEARTBEAT_SECONDS = 2.0
_LOCK_ATTEMPTS, _LOCK_PAUSE_SECONDS = 6, 0.2
_KEEPALIVE: Any = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
# the server's side of the same: what a machine that vanished has locked is free after 30 s, not after hours. The last
# one is for an answer under way, which keepalives do not watch. Without effect on a Unix socket
_SESSION = """
set time zone 'UTC';
set tcp_keepalives_idle = '10s'; set tcp_keepalives_interval = '5s'; set tcp_keepalives_count = 3;
set tcp_user_timeout = '30s'
"""


def connect(dsn: str, label: str, *, autocommit: bool) -> psycopg.Connection[TupleRow]:
    """A connection in UTC with TCP keepalive on both sides.

    Raises:
        LoaderError: the warehouse cannot be reached or refuses the role.
    """
    try:
        connection = psycopg.connect(
            dsn, autocommit=autocommit, application_name=f"headwater {label}"[:63], connect_timeout=15, **_KEEPALIVE
        )
        connection.execute(_SESSION)
        if not autocommit:
            connection.commit()
    except psycopg.OperationalError as error:
        raise LoaderError(
            label, f"the warehouse does not answer: {str(error).strip().splitlines()[-1]}", "Run `headwater doctor`."
        ) from error
    return connection


@dataclass(slots=True)
class Stop:
    """Why a sync must end before its source does; set once, read at every record boundary.

    event: this sync's own, whatever ended it. cancelled: the caller's, which other syncs may share, so it is only read.
    """

    cancelled: threading.Event = field(default_factory=threading.Event)
    event: threading.Event = field(default_factory=threading.Event)
    reason: HeadwaterError | None = None

    def set(self, reason: HeadwaterError) -> None:
        if self.reason is None:
            self.reason = reason
        self.event.set()

    def is_asked(self) -> bool:
        """Whether the sync must end; a cancellation is handed on to those who wait for `event`."""
        if self.cancelled.is_set():
            self.event.set()
        return self.event.is_set()

    def check(self, label: str) -> None:
        """Raise the reason, if there is one."""
        if self.is_asked():
            raise self.reason or Cancelled(label, "asked to stop", "What was sealed is published; run it again.")


class Lease:
    """Held for a whole sync; leaving it frees the lock.

    Raises on entering:
        TransientError: another sync of the stream holds the lock.
    """

    def __init__(self, request: SyncRequest, dsn: str, cancelled: threading.Event) -> None:
        self._request = request
        self._dsn = dsn
        self._done = threading.Event()
        self.sync_id = str(uuid.uuid4())
        self.epoch = 0
        self.stop = Stop(cancelled)
        self.peak_memory_bytes = 0
        self.step: Callable[[], str] = lambda: "start"
        self.cost: Callable[[], ledger.Cost] = ledger.Cost

    def __enter__(self) -> Self:
        request, label = self._request, self._request.label
        self._connection = connect(self._dsn, label, autocommit=True)
        try:
            self._take()
        except BaseException:
            self._connection.close()
            raise
        limits = request.stream.limits
        # a sync may be over before the watchdog has looked
        self.peak_memory_bytes = psutil.Process().memory_info().rss
        self._thread = threading.Thread(
            target=self._watch, args=(limits.memory_mb, limits.time), name=f"watchdog {label}", daemon=True
        )
        self._thread.start()
        return self

    def _take(self) -> None:
        source, stream, label = self._request.source.source, self._request.stream.name, self._request.label
        if not self._locked(label):
            running = self._connection.execute(
                "select sync_id, started_at from ops.syncs where source = %s and stream = %s and status = 'running'",
                [source, stream],
            ).fetchone()
            since = f" (sync {running[0]}, since {running[1]:%H:%M:%S} UTC)" if running else ""
            raise TransientError(
                label, f"another sync of this stream is running{since}", "Wait until it has ended, or cancel it."
            )
        settle_stream(self._connection, source, stream)
        row = self._connection.execute(
            """
            insert into ops.leases as l (source, stream, epoch, sync_id) values (%s, %s, 1, %s)
            on conflict (source, stream) do update
            set epoch = l.epoch + 1, sync_id = excluded.sync_id, taken_at = now()
            returning epoch
            """,
            [source, stream, self.sync_id],
        ).fetchone()
        assert row is not None
        self.epoch = row[0]

    def _locked(self, label: str) -> bool:
        """Take the stream's lock; the server may need a moment to notice that a killed holder is gone."""
        for attempt in range(_LOCK_ATTEMPTS):
            if attempt:
                time.sleep(_LOCK_PAUSE_SECONDS)
            row = self._connection.execute("select pg_try_advisory_lock(hashtextextended(%s, 7))", [label]).fetchone()
            if row and row[0]:
                return True
        return False

    def _watch(self, memory_mb: int | None, time_limit: timedelta | None) -> None:
        label, process, started = self._request.label, psutil.Process(), time.monotonic()
        beaten = 0.0
        while not self._done.wait(0.2):
            self.stop.is_asked()
            self.peak_memory_bytes = max(self.peak_memory_bytes, memory := process.memory_info().rss)
            if memory_mb is not None and memory > memory_mb * 2**20:
                self.stop.set(
                    ResourceError(
                        label,
                        f"{memory / 2**20:.0f} MB of memory in use, limits.memory_mb is {memory_mb}",
                        "Raise the limit, lower window.rows, or read fewer columns.",
                    )
                )
            elapsed = time.monotonic() - started
            if time_limit is not None and elapsed > time_limit.total_seconds():
                self.stop.set(
                    ResourceError(
                        label,
                        f"still running after {elapsed:.0f} s, limits.time is {time_limit.total_seconds():.0f} s",
                        "What was sealed is published; run it again, or raise the limit.",
                    )
                )
            if elapsed - beaten >= _HEARTBEAT_SECONDS:
                beaten = elapsed
                try:
                    ledger.beat(self._connection, self.sync_id, self.step(), self.cost())
                except psycopg.Error as error:
                    self.stop.set(
                        LoaderError(
                            label,
                            f"lost the connection that holds the stream's lock: {str(error).strip()}",
                            "What was sealed is published; run it again.",
                        )
                    )
                    return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        with contextlib.suppress(psycopg.Error):
            # closing frees the lock too, but only once the server has noticed
            self._connection.execute("select pg_advisory_unlock_all()")
        self._connection.close()
