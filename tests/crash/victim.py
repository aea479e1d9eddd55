"""A sync in a process of its own that dies, or waits, at its cue.

A cue is `("land", 2)`, the second time that the sync says this step, or `("page", 2)`, before that page is handed over.
"""

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Self

import psycopg

from connectors.contract import Checkpoint, DiscoveredStream, Message, ReadContext, StreamState
from connectors.specs import StreamSpec
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.lifecycle import run
from tests.crash.history import COLUMNS, DISPOSITIONS, EARLIER, LOG, PAGE, PAGES, record
from tests.support.scripted import records, source

PATIENCE_SECONDS = 120
"""For what must happen; a machine may be slow."""
Cue = tuple[str, int]
NEXT = 0
"""In the place of a cue's number: whichever comes next."""
_fork = multiprocessing.get_context("fork")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True)
class Paged:
    """The log in pages of a hundred records, each sealed; resumes from the cursor, inclusively, as a real source does.

    at_page: called before the page is handed over. padding: bytes that make a record larger, and do not compress.
    """

    at_page: dict[int, Callable[[], Any]] = field(default_factory=dict[int, Callable[[], Any]])
    padding: int = 0
    log: range = LOG

    def check(self) -> str:
        return "paged"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return ()

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        first = self.log.start if state.cursor is None or stream.cursor is None else int(state.cursor)
        for page, start in enumerate(range(self.log.start, self.log.stop, PAGE), 1):
            self.at_page.get(page, lambda: None)()
            places = range(first if page == 1 else max(start, first), start + PAGE)
            if places:
                yield records(*(record(at) | self._padding(at) for at in places), position=f"page {page}")
            yield Checkpoint()

    def _padding(self, at: int) -> dict[str, str]:
        return {"padding": random.Random(at).randbytes(self.padding // 2).hex()} if self.padding else {}  # noqa: S311

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def sync(
    dsn: str, disposition: str, reader: Paged | None = None, progress: Progress | None = None, **stream: Any
) -> SyncResult:
    declared = source(**DISPOSITIONS[disposition], columns=COLUMNS, window={"rows": 1}, **stream)
    return run(
        SyncRequest(declared, declared.streams[0], trigger="cli"), dsn, progress or Progress(), reader or Paged()
    )


def sync_earlier(dsn: str, disposition: str, *, padding: int = 0) -> None:
    """What came before the log."""
    sync(dsn, disposition, Paged(log=EARLIER, padding=padding))


def watched(dsn: str, disposition: str, reached: Callable[[Cue], None], **stream: Any) -> Counter[str]:
    """A sync that says every cue that it comes to. How often it said which step."""
    said: Counter[str] = Counter()

    def on_step(step: str) -> None:
        said[step] += 1
        reached((step, said[step]))

    pages = {page: partial(reached, ("page", page)) for page in range(1, PAGES + 1)}
    sync(dsn, disposition, Paged(pages), Progress(on_step=on_step), **stream)
    return said


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A sync that was done: how often it said each step, and how many seconds it took on this machine."""

    said: Counter[str]
    seconds: float


def _run_until(dsn: str, disposition: str, cue: Cue | None, after: float | None, report: Connection) -> None:
    started_at = time.monotonic()

    def reached(cue_now: Cue) -> None:
        if cue is None or cue_now != cue:
            return
        if cue[0] == "page" and disposition != "replace":
            windows_published(dsn, cue[1] - 1)
        die()

    if after is not None:
        threading.Timer(after, die).start()
    said = watched(dsn, disposition, reached)
    report.send(Undisturbed(said, time.monotonic() - started_at))
    os._exit(0)


def survived(dsn: str, disposition: str, cue: Cue | None = None, *, after: float | None = None) -> Undisturbed | None:
    """Run the sync in a child until its cue, or so many seconds. None when it died of that, and was not done before."""
    report, theirs = _fork.Pipe(duplex=False)
    child = started(_run_until, dsn, disposition, cue, after, theirs)
    child.join(PATIENCE_SECONDS)
    assert child.exitcode in (0, -signal.SIGKILL), f"the child ended with {child.exitcode}"
    return report.recv() if child.exitcode == 0 else None


def killed(dsn: str, disposition: str, cue: Cue) -> bool:
    return survived(dsn, disposition, cue) is None


class Held:
    """A sync in a process of its own that waits at each of its cues until it is let go."""

    def __init__(self, child: Any, pipe: Connection) -> None:
        self._child = child
        self._pipe = pipe

    def wait_for(self, cue: Cue) -> None:
        assert self._pipe.poll(PATIENCE_SECONDS), f"never came to {cue}"
        assert self._pipe.recv() == cue

    def go(self) -> None:
        self._pipe.send(None)

    def kill(self) -> None:
        assert self._child.exitcode is None, "ended by itself"
        self._child.kill()
        self._child.join()


def _run_held(dsn: str, disposition: str, cues: tuple[Cue, ...], stream: dict[str, Any], pipe: Connection) -> None:
    ahead = list(cues)

    def reached(cue: Cue) -> None:
        if ahead and ahead[0] in (cue, (cue[0], NEXT)):
            pipe.send(ahead[0])
            pipe.recv()
            # only now the next one: the other thread must not answer for it
            ahead.pop(0)

    watched(dsn, disposition, reached, **stream)


@contextmanager
def held(dsn: str, disposition: str, *cues: Cue, **stream: Any) -> Generator[Held]:
    """cues: one after the other; what comes before its turn is passed."""
    ours, theirs = _fork.Pipe()
    child = started(_run_held, dsn, disposition, cues, stream, theirs)
    try:
        yield Held(child, ours)
    finally:
        child.kill()
        child.join()


def started(target: Callable[..., None], *arguments: Any) -> Any:
    """A child process running `target`."""
    child = _fork.Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def eventually(dsn: str, query: str, parameters: list[Any] | None = None, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the query returns a row."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(query.encode(), parameters).fetchone() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"never became true: {query}")
            time.sleep(0.02)


def windows_published(dsn: str, number: int) -> None:
    """Publishing runs one behind reading: wait until so many windows of the running sync are in."""
    eventually(dsn, "select 1 from ops.syncs where status = 'running' and windows >= %s", [number])


_OURS = "from pg_stat_activity where application_name like 'headwater unit%%' and datname = current_database()"


def wait_until_held(dsn: str, statement: str = "%") -> None:
    """Until a sync waits for a lock with such a statement."""
    eventually(dsn, f"select 1 {_OURS} and wait_event_type = 'Lock' and query ilike %s", [statement])


def wait_until_gone(dsn: str) -> None:
    """The server sees only after the statement under way that there is nobody to answer to any more."""
    eventually(dsn, f"select 1 where %s and not exists (select 1 {_OURS})", [True])


def limit_file_size(size_bytes: int) -> None:
    """A full disk for this process: writes beyond the size fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
