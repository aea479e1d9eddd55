"""The replication protocol over psycopg's own connection: a slot's changes up to a place in the log."""

import selectors
import threading
import time
from collections.abc import Iterator
from struct import Struct
from typing import TYPE_CHECKING, Any, LiteralString, cast

import psycopg
from psycopg import errors, pq, sql

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

DATA = Struct(">cQQq")
"""b"w", where the data begins, where the server's log ends, its clock."""
ALIVE = Struct(">cQqB")
"""b"k", how far everything was sent, the server's clock, whether it wants an answer."""
STATUS = Struct(">cQQQqB")
"""b"r", written, flushed and applied up to, our clock, whether we want an answer."""
EPOCH_SECONDS = 946_684_800
"""Of 2000-01-01, where PostgreSQL's clock begins."""
POLL_SECONDS = 0.1
ASK_SECONDS = 0.5
BUSY_SECONDS = 15.0
_IN_USE = "55006"


def lsn(text: str) -> int:
    """`16/B374D848` as a number."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(number: int) -> str:
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


class Changes:
    """One slot being read.

    reached: everything that was committed before it has been handed out.
    """

    def __init__(self, connection: "psycopg.Connection[Any]", cancelled: threading.Event) -> None:
        self._connection = connection
        self._pgconn: PGconn = connection.pgconn
        self._cancelled = cancelled
        self._confirmed = 0
        self.reached = 0

    def start(self, slot: str, publication: str, position: int) -> None:
        """From `position` on, which is also all that the slot need not keep any more.

        Raises:
            psycopg.Error: the slot is in use for longer than a moment, or cannot be read.
        """
        names = sql.Identifier(publication).as_string(self._connection)
        command = sql.SQL("START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})").format(
            sql.Identifier(slot), sql.SQL(cast("LiteralString", lsn_text(position))), sql.Literal(names)
        )
        deadline = time.monotonic() + BUSY_SECONDS
        # a session that has ended may hold the slot for a moment
        while (error := self._begun(command.as_bytes(self._connection))) is not None:
            if error.sqlstate != _IN_USE or time.monotonic() > deadline or self._cancelled.wait(POLL_SECONDS):
                raise error
        self._confirmed = position
        self._tell(wants_answer=False)

    def messages(self, until: int) -> Iterator[bytes]:
        """Bodies of pgoutput; ends once everything before `until` was sent, or when the read is cancelled."""
        asked_at = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._pgconn.socket, selectors.EVENT_READ)
            while not self._cancelled.is_set():
                size, block = self._pgconn.get_copy_data(1)
                if size > 0:
                    body = bytes(block)
                    if body[:1] == b"w":
                        yield body[DATA.size :]
                    elif self._has_reached(body, until):
                        return
                elif size < 0:
                    raise self._ended()
                elif not selector.select(POLL_SECONDS) and time.monotonic() - asked_at > ASK_SECONDS:
                    asked_at = time.monotonic()
                    self._tell(wants_answer=True)
                else:
                    self._pgconn.consume_input()

    def _has_reached(self, body: bytes, until: int) -> bool:
        _, sent, _, wants_answer = ALIVE.unpack(body)
        self.reached = max(self.reached, sent)
        if wants_answer:
            self._tell(wants_answer=False)
        return sent >= until

    def _begun(self, command: bytes) -> psycopg.Error | None:
        self._pgconn.send_query(command)
        result = self._result()
        if result is not None and result.status == pq.ExecStatus.COPY_BOTH:
            return None
        while self._result() is not None:
            pass
        return _error(result, self._pgconn)

    def _result(self) -> Any:
        with selectors.DefaultSelector() as selector:
            selector.register(self._pgconn.socket, selectors.EVENT_READ)
            while self._pgconn.is_busy():
                selector.select(POLL_SECONDS)
                self._pgconn.consume_input()
        return self._pgconn.get_result()

    def _ended(self) -> psycopg.Error:
        return _error(self._result(), self._pgconn)

    def _tell(self, *, wants_answer: bool) -> None:
        done, now = self._confirmed, round((time.time() - EPOCH_SECONDS) * 1_000_000)
        self._pgconn.put_copy_data(STATUS.pack(b"r", done, done, done, now, wants_answer))
        self._pgconn.flush()


def _error(result: Any, pgconn: "PGconn") -> psycopg.Error:
    if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
        return errors.error_from_result(result)
    return psycopg.OperationalError(pgconn.error_message.decode("utf-8", "replace") or "the server ended the stream")
