"""A foreign program: lines through a pipe, a log without secrets, and an end that takes its whole group along."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from connectors.errors import Cancelled, TransientError
from connectors.process.child import Child, Command, Limits, Oversized, Workplace
from connectors.process.failures import failure, reason_of
from connectors.process.feed import CHUNK_BYTES, Segment

Start = Callable[..., Child]


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return Workplace("shop", tmp_path, ["hush-hush"])


def script(place: Workplace, text: str, limits: Limits = Limits()) -> Child:  # noqa: B008 (a constant)
    return Child(place, Command([sys.executable, "-S", "-c", text], "reading"), limits)


def test_lines_come_whole_whatever_the_pieces_and_a_long_one_is_cut(place: Workplace) -> None:
    said = (
        "import sys; w = sys.stdout.write; w('a\\n\\nb' + 'c' * 3_000_000 + '\\n'); w('x' * 100_000 + '\\n'); w('end')"
    )
    with script(place, said) as child:
        lines = list(child.lines(1_000_000))
        assert child.finish().code == 0

    assert lines[:2] == [b"a", b""]
    assert isinstance(lines[2], Oversized)
    assert lines[2].size_bytes == 3_000_001
    assert lines[2].head.startswith(b"bccc")
    assert lines[3:] == [b"x" * 100_000, b"end"]
    assert child.received_bytes == 3_100_009


def test_the_log_has_no_secret_and_the_reason_is_what_was_raised(place: Workplace, tmp_path: Path) -> None:
    seen: list[str] = []
    where = Workplace("shop", tmp_path, ["hush-hush"], seen.append)
    with script(where, "raise PermissionError('403 Forbidden for hush-hush')") as child:
        assert list(child.lines(100)) == []
        ending = child.finish()

    assert ending.code == 1
    assert reason_of(ending.lines) == "PermissionError: 403 Forbidden for ••••"
    assert "hush-hush" not in "".join(seen)
    error = failure("shop", ending)
    assert error is not None
    assert error.failure_class == "auth"


@pytest.mark.parametrize("why", ["cancelled", "left"])
def test_no_process_of_the_group_survives(place: Workplace, why: str) -> None:
    forks = "import subprocess as s, time; print(s.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    with script(place, forks) as child:
        lines = child.lines(1_000)
        grandchild = int(next(lines))  # type: ignore[arg-type]  # it is no long line
        assert psutil.pid_exists(grandchild)
        if why == "cancelled":
            threading.Timer(0.05, place.cancelled.set).start()
            with pytest.raises(Cancelled):
                next(lines)

    deadline = time.monotonic() + 60
    while psutil.pid_exists(grandchild) and psutil.Process(grandchild).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "a process of the group is still there"
        time.sleep(0.02)


def test_a_reader_that_does_not_read_holds_the_program_back(place: Workplace) -> None:
    endless = "import sys\nfor n in range(10**9): sys.stdout.write('x' * 999 + '\\n')"
    with script(place, endless) as child:
        next(child.lines(2_000))
        process = psutil.Process(child.pid)
        deadline = time.monotonic() + 60
        while not all(one.status() == psutil.STATUS_SLEEPING for one in process.children(recursive=True)):
            assert time.monotonic() < deadline, "the program goes on although nobody reads"
            time.sleep(0.02)
        assert child.received_bytes <= 2 << 20


def test_a_program_that_is_stopped_may_tidy_up_first(place: Workplace, tmp_path: Path) -> None:
    tidies = (
        "import pathlib, signal, sys, time\n"
        f"def tidy(*_):\n    pathlib.Path({str(tmp_path / 'tidied')!r}).touch()\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, tidy)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)"
    )
    with script(place, tidies) as child:
        next(child.lines(100))

    assert (tmp_path / "tidied").exists()


@pytest.mark.parametrize(
    ("code", "how", "runs"),
    [
        ("pass", "by itself", False),
        ("raise SystemExit(3)", "by itself", True),
        ("import time; time.sleep(600)", "stopped", True),
    ],
)
def test_what_is_outside_of_the_group_is_ended_too_unless_all_went_well(
    place: Workplace, tmp_path: Path, code: str, how: str, runs: bool
) -> None:
    ran = tmp_path / "ended"
    command = Command([sys.executable, "-S", "-c", code], "reading", {"NAME": str(ran)}, ["/bin/sh", "-c", '> "$NAME"'])
    with Child(place, command, Limits()) as child:
        if how == "by itself":
            list(child.lines(10))
            child.finish()

    assert ran.exists() is runs


def test_a_killed_loader_takes_what_is_outside_of_the_group_along(tmp_path: Path) -> None:
    ran = tmp_path / "ended"
    command = Command(["/bin/sleep", "600"], "reading", {"NAME": str(ran)}, ["/bin/sh", "-c", '> "$NAME"'])

    def load() -> None:
        Child(Workplace("shop", tmp_path), command, Limits())
        os.kill(os.getpid(), signal.SIGKILL)

    loader = multiprocessing.get_context("fork").Process(target=load)
    loader.start()
    loader.join()

    deadline = time.monotonic() + 60
    while not ran.exists():
        assert time.monotonic() < deadline, "it was not ended"
        time.sleep(0.02)


def test_a_program_that_says_nothing_for_too_long_is_given_up(place: Workplace) -> None:
    words = "import time; time.sleep(600)"
    with script(place, words, Limits(stall=timedelta(seconds=0.2))) as child:
        with pytest.raises(TransientError, match="nothing came for 0 s while reading"):
            next(child.lines(100))
        assert psutil.pid_exists(child.pid)
    assert not psutil.pid_exists(child.pid)


def test_a_killed_program_is_told_from_one_that_failed(place: Workplace) -> None:
    with script(place, "import os; os.kill(os.getpid(), 9)") as child:
        assert list(child.lines(10)) == []
        ending = child.finish()

    assert ending.code == -9
    assert isinstance(failure("shop", ending), TransientError)


def test_a_segment_of_protected_records_never_reaches_the_disk(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    lines = [b"x" * 1_000 for _ in range(3_000)]
    with pytest.raises(FileNotFoundError):
        list(map(Segment(nowhere).add, lines))

    kept = Segment(nowhere, in_memory=True)
    list(map(kept.add, lines))
    kept.seal()
    assert b"".join(kept.chunks()).splitlines() == lines
    kept.close()


def test_a_segment_gives_back_what_is_sealed_in_pieces_of_whole_lines(tmp_path: Path) -> None:
    segment = Segment(tmp_path)
    lines = [b'{"n": %d, "v": "%s"}' % (n, b"x" * (n % 700)) for n in range(6_000)]
    for line in lines[:5_000]:
        segment.add(line)
    assert segment.seal() == 5_000
    for line in lines[5_000:]:
        segment.add(line)

    pieces = list(segment.chunks())

    assert b"".join(pieces).splitlines() == lines[:5_000]
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert max(map(len, pieces)) < CHUNK_BYTES + 1_000
    assert segment.seal() == 1_000
    assert b"".join(segment.chunks()).splitlines() == lines
    segment.close()
