"""A sync in a process of its own that dies on cue, and the undisturbed picture to compare with."""

import multiprocessing
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg

from connectors.contract import Checkpoint, DiscoveredStream, Message, ReadContext, StreamState
from connectors.specs import SourceSpec, StreamSpec
from connectors.sync import Progress, SyncRequest, SyncResult
from connectors.sync.lifecycle import run
from tests.support.scripted import records, source

ROWS, PAGE = 300, 100
PATIENCE_SECONDS = 120
"""For what must happen; a machine may be slow."""
DISPOSITIONS: dict[str, dict[str, Any]] = {
    "append": {"write": "append", "cursor": {"field": "n"}},
    "merge": {"write": "merge", "primary_key": "n", "cursor": {"field": "n"}},
    "delete-insert": {"write": "merge", "merge": "delete-insert", "primary_key": "n", "cursor": {"field": "n"}},
    "replace": {"write": "replace"},
    "scd2": {"write": "scd2", "primary_key": "n", "cursor": {"field": "n"}},
}
_fork = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Cue:
    """When the process dies.

    step: at the so-many-th change of step. after: seconds from the start.
    page: before the page is handed over, with the pages before it published.
    """

    step: int | None = None
    page: int | None = None
    after: float | None = None

    def __str__(self) -> str:
        if self.step is not None:
            return f"step change {self.step}"
        return f"page {self.page}" if self.page is not None else f"{self.after:.2f} s"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(slots=True)
class Paged:
    """300 records in three pages, each sealed; resumes from the cursor, inclusively, as a real source does.

    padding: bytes that make a record larger, and do not compress.
    """

    at_page: dict[int, Callable[[], None]] = field(default_factory=dict[int, Callable[[], None]])
    padding: int = 0

    def check(self) -> str:
        return "paged"

    def discover(self) -> tuple[DiscoveredStream, ...]:
        return ()

    def read(self, stream: StreamSpec, state: StreamState, context: ReadContext) -> Iterator[Message]:
        first = int(state.cursor or 0) if stream.cursor else 0
        for page, start in enumerate(range(0, ROWS, PAGE), 1):
            self.at_page.get(page, lambda: None)()
            numbers = range(max(start, first), start + PAGE)
            rows = [{"n": n, "v": f"value {n}"} | self._padding(n) for n in numbers]
            if rows:
                yield records(*rows, position=f"page {page}")
            yield Checkpoint()

    def _padding(self, n: int) -> dict[str, str]:
        return {"padding": random.Random(n).randbytes(self.padding // 2).hex()} if self.padding else {}  # noqa: S311

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


def spec(disposition: str) -> SourceSpec:
    return source(**DISPOSITIONS[disposition], window={"rows": 1})


def sync(dsn: str, disposition: str, reader: Paged | None = None, progress: Progress | None = None) -> SyncResult:
    declared = spec(disposition)
    return run(
        SyncRequest(declared, declared.streams[0], trigger="cli"), dsn, progress or Progress(), reader or Paged()
    )


def _run_until(dsn: str, disposition: str, cue: Cue) -> None:
    steps = 0

    def on_step(_: str) -> None:
        nonlocal steps
        steps += 1
        if steps == cue.step:
            die()

    if cue.after is not None:
        threading.Timer(cue.after, die).start()

    def die_behind_the_windows() -> None:
        if disposition != "replace":
            windows_published(dsn, (cue.page or 1) - 1)
        die()

    reader = Paged({cue.page: die_behind_the_windows} if cue.page is not None else {})
    sync(dsn, disposition, reader, Progress(on_step=on_step))
    os._exit(0)


def killed(dsn: str, disposition: str, cue: Cue) -> bool:
    """Run the sync in a child until the cue; True when it died of it, False when it was done before."""
    child = _fork.Process(target=_run_until, args=(dsn, disposition, cue), daemon=True)
    child.start()
    child.join(PATIENCE_SECONDS)
    if child.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError(f"the child ended with {child.exitcode}")
    return child.exitcode == -signal.SIGKILL


def started(target: Callable[..., None], *arguments: Any) -> Any:
    """A child process running `target`."""
    child = _fork.Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def step_changes(dsn: str, disposition: str) -> int:
    """How many step changes an undisturbed sync has."""
    seen: list[str] = []
    sync(dsn, disposition, progress=Progress(on_step=seen.append))
    return len(seen)


def eventually(dsn: str, query: str, parameters: list[Any] | None = None, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until the query returns a row."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(query, parameters).fetchone() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"never became true: {query}")
            time.sleep(0.02)


def windows_published(dsn: str, number: int) -> None:
    """Publishing runs one behind reading: wait until so many windows of the running sync are in."""
    eventually(dsn, "select 1 from ops.syncs where status = 'running' and windows >= %s", [number])


def limit_file_size(size_bytes: int) -> None:
    """A full disk for this process: writes beyond the size fail."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))


def verify(dsn: str, disposition: str, admin_dsn: str) -> None:
    """After a rerun everything equals an undisturbed run: rows, state, ledger; nothing is left over."""
    with psycopg.connect(admin_dsn, autocommit=True) as connection:

        def one(query: str) -> tuple[Any, ...]:
            row = connection.execute(query).fetchone()
            assert row is not None
            return row

        current = " where _valid_to is null" if disposition == "scd2" else ""
        assert one(f"select count(*), count(distinct n), sum(n), min(v) from raw_unit.things{current}") == (
            ROWS, ROWS, sum(range(ROWS)), "value 0",
        )  # fmt: skip
        assert one(f"select count(*) from raw_unit.things{current or ' where true'} and v <> 'value ' || n") == (0,)
        assert one("select count(*) from raw_unit.things") == (ROWS,), "versions or doubles too many"
        assert one(
            "select count(*) from raw_unit.things where _dlt_load_id not in (select load_id from raw_unit._dlt_loads)"
        ) == (0,), "orphan rows"
        assert one("select count(*) from ops.syncs where status = 'running'") == (0,), "an unsettled sync"
        assert one(
            "select count(*) from ops.syncs "
            "where rows_extracted <> rows_loaded + rows_deduplicated + rows_filtered + rows_quarantined"
        ) == (0,)
        if disposition != "replace":
            assert one("select sum(rows_loaded) from ops.syncs") == (ROWS,), "loaded rows of the ledger"
        so_far = "rows_loaded" if disposition == "replace" else "sum(rows_loaded) over (order by started_at)"
        assert one(
            f"select count(*) from (select status, {so_far} as loaded from ops.syncs) as settled "
            f"where status like 'succeeded%' and loaded <> {ROWS}"
        ) == (0,), "a sync that counts as succeeded and left rows out"
        assert one(
            "select count(*) from ops.syncs where status = 'failed' and (failure_class is null or message is null)"
        ) == (0,), "a failed sync that does not say why"
        assert one("select count(*) from pg_tables where tablename like '\\_next\\_%'") == (0,), "a left-over table"
        if DISPOSITIONS[disposition].get("cursor"):
            assert one("select state #>> '{cursor,value}' from ops.stream_state order by version desc limit 1") == (
                str(ROWS - 1),
            )
