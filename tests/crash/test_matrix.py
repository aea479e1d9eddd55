"""Killed at each step change, inside each step, reading, at any moment: the next sync makes everything right."""

import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from connectors.sync import Progress, SyncRequest, replay
from platform_assets.settings import load_settings
from platform_assets.warehouse import Warehouse, ensure_warehouse
from tests.crash.history import DISPOSITIONS, PAGES, published, rows_of, verify
from tests.crash.victim import (
    NEXT,
    PATIENCE_SECONDS,
    Cue,
    Undisturbed,
    die,
    held,
    killed,
    started,
    survived,
    sync,
    sync_earlier,
    wait_until_gone,
    wait_until_held,
    windows_published,
)
from tests.support import scripted
from tests.support.servers import TestServer, clean_environment, database_pair

Note = Callable[..., None]
ALL = list(DISPOSITIONS)
STEPS = ("extract", "publish", "land", "audit", "finalize")
"""Those that a sync says; it is in `start` until the first of them."""
slow = pytest.mark.slow


@pytest.fixture(scope="session")
def undisturbed(server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Undisturbed]:
    """`undisturbed(disposition, is_first)`, measured once."""

    @cache
    def measure(disposition: str, is_first: bool) -> Undisturbed:
        folder = tmp_path_factory.mktemp("undisturbed")
        with beginning(server, folder, disposition, is_first=is_first) as warehouse:
            done = survived(warehouse.loader_dsn, disposition)
            verify(warehouse, disposition, is_first=is_first)
        assert done is not None
        return done

    return measure


@contextmanager
def beginning(server: TestServer, folder: Path, disposition: str, *, is_first: bool = False) -> Generator[Warehouse]:
    """A warehouse of its own, most often with what an earlier sync brought."""
    with database_pair(server, f"test_{uuid4().hex[:12]}") as pair:
        env = clean_environment() | pair | {"HEADWATER_HOME": str(folder / "home")}
        warehouse = ensure_warehouse(load_settings(env))
        if not is_first:
            sync_earlier(warehouse.loader_dsn, disposition)
        yield warehouse


@contextmanager
def case(matrix: Note, disposition: str, event: str, said: str = "right") -> Generator[None]:
    """One of several in a test, with a row of its own."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{disposition}: {event}")
        matrix(disposition, event, "FAILED")
        raise
    matrix(disposition, event, said)


def kept_or_lost(number: int) -> str:
    """What becomes of the dead one's folder, by turns."""
    return "folder lost" if number % 2 else "folder kept"


def leave(work_folder: Path, becomes: str, *, is_there: bool = True) -> None:
    """is_there: the dead one was in the middle of its work."""
    assert not is_there or list(work_folder.iterdir()), "nothing to keep or to lose"
    if becomes == "folder lost":
        shutil.rmtree(work_folder, ignore_errors=True)


EVERY = slice(None)
AT_STEPS = [
    ("merge", "land", False, slice(-1, None)),
    ("replace", "publish", False, slice(-2, -1)),
    ("merge", "publish", True, slice(1, 2)),
    *(pytest.param(d, step, False, EVERY, marks=slow) for d in ALL for step in STEPS),
    # only its beginning differs: dlt has to make the table
    *(pytest.param(d, step, True, slice(2), marks=slow) for d in ALL for step in STEPS),
]
"""Which of the sync's changes to the step; those of `make test` are a sample of the others."""


@pytest.mark.parametrize(("disposition", "step", "is_first", "which"), AT_STEPS)
def test_killed_at_a_step_change_the_rerun_is_right(
    server: TestServer,
    tmp_path: Path,
    work_folder: Path,
    undisturbed: Callable[[str, bool], Undisturbed],
    matrix: Note,
    disposition: str,
    step: str,
    is_first: bool,
    which: slice,
) -> None:
    numbers = range(1, undisturbed(disposition, is_first).said[step] + 1)[which]
    assert numbers, "the sync never says it"
    for number in numbers:
        # every step change finds it kept in some dispositions, and lost in the others
        folder = kept_or_lost(ALL.index(disposition) + number)
        event = f"{'first sync ' if is_first else ''}killed at {step} {number}, {folder}"
        with (
            beginning(server, tmp_path, disposition, is_first=is_first) as warehouse,
            case(matrix, disposition, event),
        ):
            assert killed(warehouse.loader_dsn, disposition, (step, number)), "fewer steps than undisturbed"
            leave(work_folder, folder, is_there=step != "finalize")
            sync(warehouse.loader_dsn, disposition)
            verify(warehouse, disposition, is_first=is_first)


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("disposition", [pytest.param(d, marks=[] if d == "merge" else slow) for d in ALL])
def test_the_matrix_covers_every_step(
    undisturbed: Callable[[str, bool], Undisturbed], disposition: str, is_first: bool
) -> None:
    assert set(undisturbed(disposition, is_first).said) == set(STEPS)


@pytest.mark.parametrize(
    ("disposition", "page"),
    [
        ("merge", 3),
        *(pytest.param(d, page, marks=slow) for d in ALL for page in range(1, PAGES + 1) if (d, page) != ("merge", 3)),
    ],
)
def test_killed_while_reading_the_sealed_pages_stay(
    warehouse: Warehouse, work_folder: Path, matrix: Note, disposition: str, page: int
) -> None:
    folder = kept_or_lost(ALL.index(disposition) + page)
    matrix(disposition, f"killed before page {page}, {folder}")
    sync_earlier(warehouse.loader_dsn, disposition)
    assert killed(warehouse.loader_dsn, disposition, ("page", page))
    leave(work_folder, folder)
    with psycopg.connect(warehouse.admin_dsn) as connection:
        assert rows_of(connection, disposition) == published(disposition, page - 1)
    sync(warehouse.loader_dsn, disposition)
    verify(warehouse, disposition)


@dataclass(frozen=True, slots=True)
class Inside:
    """How a sync is held inside a step.

    begin: where it waits until the lock is taken; None when it may be taken before. pages: published by then.
    lock: what the step needs. waiting: its statement in pg_stat_activity. says: the step, where that does not tell.
    """

    begin: Cue | None
    pages: int
    lock: str
    waiting: str
    says: Cue | None = None


RAW_LOCK = "lock table raw_unit.things in share mode"
DLT_LOCK = "select pg_advisory_lock(hashtextextended('raw_unit', 8))"
PARENTS_LOCK = "lock table raw_unit.parents in access exclusive mode"
INSIDE: dict[str, Callable[[str], Inside]] = {
    "start": lambda _: Inside(None, 0, "lock table ops.leases in share mode", "%insert into ops.leases%"),
    "extract": lambda _: Inside(("page", 2), 1, "", ""),
    "land": lambda _: Inside(("page", 3), 2, DLT_LOCK, "%pg_advisory_lock%", ("land", NEXT)),
    "audit": lambda _: Inside(None, PAGES, PARENTS_LOCK, "%orphans%"),
    "publish": lambda name: Inside(
        ("page", 2), 1, RAW_LOCK, "%ops.swap_table%" if name == "replace" else '%"raw_unit"."things"%'
    ),
    "finalize": lambda _: Inside(
        ("finalize", NEXT), PAGES, "lock table ops.syncs in share mode", "%update ops.syncs%finished_at%"
    ),
}
SAMPLE = (("append", "publish"), ("merge", "land"), ("replace", "audit"))
INSIDE_CASES = [pytest.param(d, step, marks=[] if (d, step) in SAMPLE else slow) for d in ALL for step in INSIDE]


@pytest.mark.parametrize(("disposition", "step"), INSIDE_CASES)
def test_killed_inside_a_step_nothing_of_it_is_visible(
    warehouse: Warehouse, work_folder: Path, matrix: Note, disposition: str, step: str
) -> None:
    inside, dsn = INSIDE[step](disposition), warehouse.loader_dsn
    folder = kept_or_lost(ALL.index(disposition) + list(INSIDE).index(step))
    matrix(disposition, f"killed inside {step}, {folder}")
    sync_earlier(dsn, disposition)
    checks = _parents(warehouse) if step == "audit" else []
    cues = [cue for cue in (inside.begin, inside.says) if cue is not None]
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        if inside.begin is None:
            blocker.execute(inside.lock.encode())
        with held(dsn, disposition, *cues, checks=checks) as child:
            if inside.begin is not None:
                child.wait_for(inside.begin)
                if disposition != "replace" and inside.begin[0] == "page":
                    windows_published(dsn, inside.pages)
            if inside.begin is not None and inside.lock:
                blocker.execute(inside.lock.encode())
                child.go()
            if inside.says is not None:
                child.wait_for(inside.says)
                child.go()
            if inside.lock:
                wait_until_held(warehouse.admin_dsn, inside.waiting)
            child.kill()
        is_visible = disposition != "replace" or step == "finalize"
        assert rows_of(blocker, disposition) == published(disposition, inside.pages if is_visible else 0)
    leave(work_folder, folder, is_there=step not in ("start", "finalize"))
    wait_until_gone(warehouse.admin_dsn)
    sync(dsn, disposition)
    verify(warehouse, disposition)


def _parents(warehouse: Warehouse) -> list[dict[str, Any]]:
    """A check that reads another table, where an audit can be held."""
    with psycopg.connect(warehouse.admin_dsn) as admin:
        admin.execute("create table raw_unit.parents (n bigint, _deleted boolean)")
        admin.execute("grant select on raw_unit.parents to headwater_loader")
    return [{"type": "reference", "column": "n", "to": "parents.n", "severity": "warn"}]


TIMED = [("append", 3), *(pytest.param(d, 12, marks=slow) for d in ALL)]


@pytest.mark.parametrize(("disposition", "times"), TIMED)
def test_killed_at_any_moment_the_rerun_is_right(
    server: TestServer,
    tmp_path: Path,
    work_folder: Path,
    undisturbed: Callable[[str, bool], Undisturbed],
    matrix: Note,
    disposition: str,
    times: int,
) -> None:
    """At equal fractions of an undisturbed sync's time, the late ones first: they tell when it takes less now."""
    seconds, kills = undisturbed(disposition, False).seconds, 0
    for number in range(times, 0, -1):
        fraction = number / (times + 1)
        folder = kept_or_lost(ALL.index(disposition) + number)
        event = f"killed after {fraction:.0%} of its time, {folder}"
        with beginning(server, tmp_path, disposition) as warehouse:
            done = survived(warehouse.loader_dsn, disposition, after=fraction * seconds)
            said = "right" if done is None else "was done before"
            with case(matrix, disposition, event, said):
                leave(work_folder, folder, is_there=False)
                sync(warehouse.loader_dsn, disposition)
                verify(warehouse, disposition)
        kills += done is None
        seconds = seconds if done is None else min(seconds, done.seconds)
    assert kills > times / 2, "most of them were done before"


REPLAYED: dict[str, Any] = {"write": "append", "columns": {"n": {"type": "bigint"}}, "max_quarantined": {"share": 1}}


@pytest.mark.parametrize("which", [slice(-1, None), pytest.param(EVERY, marks=slow)])
def test_a_replay_killed_at_a_step_change_loads_its_records_once(
    server: TestServer, tmp_path: Path, work_folder: Path, matrix: Note, which: slice
) -> None:
    with _refused(server, tmp_path) as warehouse:
        said = _replay(warehouse.loader_dsn, lambda _: None)
        assert set(said) == set(STEPS)
    for number, cue in enumerate([(step, n) for step, times in said.items() for n in range(1, times + 1)][which]):
        folder = kept_or_lost(number)
        event = f"killed at {cue[0]} {cue[1]}, {folder}"
        with _refused(server, tmp_path) as warehouse, case(matrix, "replay", event):
            child = started(_replay_until, warehouse.loader_dsn, cue)
            child.join(PATIENCE_SECONDS)
            assert child.exitcode == -signal.SIGKILL
            leave(work_folder, folder, is_there=cue[0] != "finalize")
            _replay(warehouse.loader_dsn, lambda _: None)
            # where nothing is left to replay, the next sync sees to what the dead one left
            scripted.sync(warehouse.loader_dsn, [], **REPLAYED)
            with psycopg.connect(warehouse.admin_dsn) as admin:
                assert admin.execute("select n from raw_unit.things order by n").fetchall() == [(1,), (2,)]
                assert admin.execute("select status from ops.quarantine").fetchall() == [("replayed",)]
                assert admin.execute("select 1 from ops.syncs where status = 'running'").fetchall() == []
            assert list(work_folder.iterdir()) == [], "a left-over folder"


@contextmanager
def _refused(server: TestServer, folder: Path) -> Generator[Warehouse]:
    """A warehouse with one record in quarantine, as if the contract had been mended."""
    with beginning(server, folder, "append", is_first=True) as warehouse:
        scripted.sync(warehouse.loader_dsn, [scripted.records({"n": 1}, {"n": "x"})], **REPLAYED)
        with psycopg.connect(warehouse.admin_dsn) as admin:
            admin.execute("update ops.quarantine set payload = '{\"n\": 2}'")
        yield warehouse


def _replay(dsn: str, reached: Callable[[Cue], None]) -> Counter[str]:
    """What it said."""
    said: Counter[str] = Counter()

    def on_step(step: str) -> None:
        said[step] += 1
        reached((step, said[step]))

    declared = scripted.source(**REPLAYED)
    replay.replay(SyncRequest(declared, declared.streams[0], "replay"), dsn, progress=Progress(on_step=on_step))
    return said


def _replay_until(dsn: str, cue: Cue) -> None:
    _replay(dsn, lambda reached: die() if reached == cue else None)
