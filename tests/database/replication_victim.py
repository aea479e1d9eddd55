"""A replicated read in a process of its own that dies on cue, and what happens at its source meanwhile."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from connectors.contract import Message, ReadContext, StreamState
from connectors.kinds.database import KIND
from connectors.sync import Progress
from platform_assets.warehouse import Warehouse
from tests.crash.victim import die
from tests.database.reading import source_spec
from tests.database.replicating import Source, Stream, run

fork = multiprocessing.get_context("fork")
WAIT_SECONDS = 240


def filled(source: Source) -> None:
    """400 rows in two parts."""
    source.execute("set synchronous_commit = on")
    source.execute("create table orders (id bigint primary key, amount numeric(12,2), note text)")
    source.execute("create publication shop for table orders")
    source.execute("insert into orders select g, g + 0.25, repeat(md5(g::text), 128) from generate_series(1, 400) g")


def changed(source: Source) -> None:
    """Transactions of which two are sealed by themselves; one has deletions, a key that changes and a large value
    that is left alone."""
    source.execute("insert into orders select g, 1 from generate_series(1001, 6000) g")
    with source.transaction():
        source.execute("update orders set amount = 2 where id > 1000")
        source.execute("delete from orders where id <= 50")
    with source.transaction():
        source.execute("update orders set id = 9101 where id = 101")
        source.execute("update orders set amount = -1 where id between 51 and 100")


def changed_again(source: Source) -> None:
    source.execute("insert into orders values (7001, 0, ''), (1, 1, 'back') on conflict (id) do update set amount = 9")
    source.execute("delete from orders where id in (60, 1500)")
    source.execute("update orders set note = 'new' where id in (61, 1501)")


def widened(source: Source) -> None:
    """Older rows get values that are not in the log."""
    changed(source)
    source.execute("alter table orders add column state text not null default 'open'")


@dataclass(frozen=True, slots=True)
class Cue:
    """When the process dies: at a change of step, at a line of the log, or before a message of the read."""

    step: int | None = None
    line: str | None = None
    message: int | None = None

    def __str__(self) -> str:
        return next(f"{n} {v}" for n in ("step", "line", "message") if (v := getattr(self, n)) is not None)


class Meanwhile:
    """The connector itself; before its n-th message something happens."""

    def __init__(self, inner: Any, at: int, event: Callable[[], None]) -> None:
        self._inner, self._at, self._event = inner, at, event

    def read(self, stream: Any, state: StreamState, context: ReadContext) -> Iterator[Message]:
        for number, message in enumerate(self._inner.read(stream, state, context), 1):
            if number == self._at:
                self._event()
            yield message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *problem: Any) -> None:
        self._inner.__exit__(*problem)


def reading(stream: Stream, at: int, event: Callable[[], None]) -> Meanwhile:
    return Meanwhile(KIND.open(source_spec(stream, part_mb=1)), at, event)


def _run_until(warehouse: Warehouse, stream: Stream, cue: Cue) -> None:
    steps = 0

    def on_step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == cue.step:
            die()

    def on_log(line: str) -> None:
        if cue.line is not None and cue.line in line:
            die()

    progress = Progress(on_step=on_step, on_log=on_log)
    if cue.message is not None:
        run(warehouse, stream, reading(stream, cue.message, die), progress)
    else:
        run(warehouse, stream, progress=progress, part_mb=1)
    os._exit(0)


def killed(warehouse: Warehouse, stream: Stream, cue: Cue) -> bool:
    """Run a sync in a child until the cue; True when it died of it, False when it was done before."""
    child = fork.Process(target=_run_until, args=(warehouse, stream, cue), daemon=True)
    child.start()
    child.join(WAIT_SECONDS)
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode == -signal.SIGKILL


STATES: dict[str, tuple[Callable[[Source], None] | None, tuple[Cue, ...]]] = {
    "joining": (
        None,
        (
            *(Cue(line=line) for line in ("begins at", "part 1", "part 2")),
            *(Cue(message=number) for number in range(1, 5)),
            *(Cue(step=number) for number in range(1, 8)),
        ),
    ),
    "following": (
        changed,
        (
            *(Cue(line=line) for line in ("reading from",)),
            *(Cue(message=number) for number in range(1, 7)),
            *(Cue(step=number) for number in range(1, 17)),
        ),
    ),
    "reading again": (
        widened,
        (*(Cue(line=line) for line in ("again", "part 2")), *(Cue(message=number) for number in (6, 8, 9, 10))),
    ),
}
