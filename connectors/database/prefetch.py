"""One message read ahead: the source sends the next part while the engine loads the one before."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.contract import Message

AHEAD = 1
POLL_SECONDS = 0.1


class StoppedError(Exception):
    """The consumer went away; the producer ends quietly."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None = None


@dataclass(slots=True)
class Prefetch:
    """Runs `produce(emit)` in a thread of its own and hands its messages over in order.

    emit(message) blocks while `AHEAD` messages wait, and raises StoppedError once nobody wants more.
    An error in `produce` is raised to the consumer, after the messages before it.
    interrupt: called from the consumer's thread when it goes away early, to wake a producer that waits for its source.
    """

    produce: Callable[[Callable[[Message], None]], None]
    interrupt: Callable[[], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    _queue: "queue.Queue[Message | _End]" = field(default_factory=lambda: queue.Queue(AHEAD))

    def __iter__(self) -> Iterator[Message]:
        thread = threading.Thread(target=self._run, name="database-reader", daemon=True)
        thread.start()
        try:
            while not isinstance(message := self._queue.get(), _End):
                yield message
            if message.error is not None:
                raise message.error
        finally:
            self.stopped.set()
            if thread.is_alive():
                self.interrupt()
            thread.join()

    def _run(self) -> None:
        try:
            self.produce(self._put)
        except StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 handed to the consumer, which raises it
            self._hand_over(_End(error))
        else:
            self._hand_over(_End())

    def _put(self, message: Message) -> None:
        if not self._hand_over(message):
            raise StoppedError

    def _hand_over(self, message: Message | _End) -> bool:
        while not self.stopped.is_set():
            try:
                self._queue.put(message, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


@contextmanager
def interrupting(cancelled: threading.Event, interrupt: Callable[[], None]) -> Generator[None]:
    """While inside, `cancelled` interrupts the source also when it sends nothing."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(POLL_SECONDS):
            if cancelled.is_set():
                interrupt()
                return

    watcher = threading.Thread(target=watch, name="database-cancel", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()
