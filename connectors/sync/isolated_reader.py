"""A connector in a thread of its own, for readers that may not come back: the sync can end without them.

All of the source's code runs there, its import included, so that nothing of it is ever used by two threads.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from connectors.contract import Connector, DiscoveredStream, Message, ReadContext, ReadsWarehouse, StreamState
from connectors.errors import Cancelled
from connectors.registry import kind
from connectors.specs import SourceSpec

PATIENCE_SECONDS = 3.0
"""How long a reader that has been asked to stop is waited for."""
_LOOK_SECONDS = 0.2

_Result = TypeVar("_Result")


class LeavableReader:
    """The connector of a source with one stream; it is opened by the read, where it can be left as well.

    What comes from it comes one by one, each asked for, as from any connector. A reader that was left keeps its thread:
    only the end of the process ends that.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._label = f"{source.source}.{source.streams[0].name}"
        self._warehouse: str | None = None
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._is_asked_to_stop: Callable[[], bool] = lambda: False
        self._was_left = False
        self._open = ExitStack()

    def use_warehouse(self, dsn: str) -> None:
        self._warehouse = dsn

    def check(self) -> str:
        return self._there(lambda: self._opened().check())

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return self._there(lambda: self._opened().discover())

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        """Raises Cancelled when the reader does not come back for PATIENCE_SECONDS after `context.cancelled`."""
        self._is_asked_to_stop = context.cancelled.is_set
        messages = self._there(lambda: self._reading(stream, state, context))
        while (message := self._there(lambda: next(messages, None))) is not None:
            yield message

    def __enter__(self) -> Self:
        threading.Thread(target=self._work, name=f"read {self._label}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if not self._was_left:
            self._there(lambda: self._open.__exit__(kind, error, trace))

    def _opened(self) -> Connector:
        connector = kind(self._source.connector.kind).open(self._source)
        if self._warehouse is not None and isinstance(connector, ReadsWarehouse):
            connector.use_warehouse(self._warehouse)
        return self._open.enter_context(connector)

    def _reading(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        messages = iter(self._opened().read(stream, state, context))
        # a read that is not at its end has files and connections of the source open
        self._open.callback(getattr(messages, "close", lambda: None))
        return messages

    def _work(self) -> None:
        while True:
            self._calls.get()()

    def _there(self, call: Callable[[], _Result]) -> _Result:
        """The call's result or error, from the reader's thread."""
        answer: Future[_Result] = Future()

        def work() -> None:
            try:
                answer.set_result(call())
            except BaseException as error:  # noqa: BLE001 (raised where it was asked for)
                answer.set_exception(error)

        self._calls.put(work)
        asked_at: float | None = None
        while not wait([answer], _LOOK_SECONDS).done:
            if not self._is_asked_to_stop():
                continue
            asked_at = asked_at or time.monotonic()
            if time.monotonic() - asked_at > PATIENCE_SECONDS:
                self._was_left = True
                what = f"asked to stop, and its reader did not come back for {PATIENCE_SECONDS:.0f} s"
                raise Cancelled(self._label, what, "What was sealed is published; run it again.")
        return answer.result()
