"""One run of a foreign program: its own process group, its own environment, lines through a pipe that holds it back."""

import os
import re
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import psutil

from connectors.errors import Cancelled, HeadwaterError, ResourceError, SourceError, TransientError
from connectors.secrets import mask

TICK_SECONDS = 0.1
TERM_SECONDS = 10.0
LOG_SECONDS = 30.0
ENDING_SECONDS = 60.0
KEPT_LINES = 200
_KEPT_LINE = 2_000
_HEAD_BYTES = 64 << 10
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031
_SIGNALLED = 128
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEASH = """exec 3<&0
trap : TERM
"$@" 3<&- </dev/null &
child=$!
{{ trap '' TERM; read -r _ <&3; {ending}kill -KILL 0; }} >/dev/null 2>&1 &
leash=$!
while wait $child; code=$?; [ $code -gt 128 ] && kill -0 $child; do :; done 2>/dev/null
kill -KILL $leash
wait $leash 2>/dev/null
exit $code
"""
"""Runs the arguments until they end, or until our end of stdin closes, which a kill -9 of ours does too: then the whole
group dies. A request to end reaches the program, and this shell waits for what it does about it."""
INHERITED = ("SSL_CERT_FILE", "SSL_CERT_DIR", "LANG")
"""All that a child gets from our environment: where certificates are, and the language."""


@dataclass(frozen=True, slots=True)
class Limits:
    """stall: without a line for so long it is given up. time: of the whole run. memory_mb: of its process group.

    log_lines: of stderr, that are handed to the log.
    """

    stall: timedelta = timedelta(minutes=15)
    time: timedelta | None = None
    memory_mb: int | None = None
    log_lines: int = 2_000


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where and for whom children run.

    where: for messages, e.g. `shop`. folder: private, gone afterwards; their HOME and working folder.
    secrets: masked in every line and message. cancelled: ends whoever is running.
    """

    where: str
    folder: Path
    secrets: Sequence[str] = ()
    log: Callable[[str], None] = lambda line: None
    cancelled: threading.Event = field(default_factory=threading.Event)

    def file(self, name: str, text: str) -> Path:
        """A new file that only its owner reads, also while it is being written."""
        path = self.folder / name
        write_private(path, text)
        return path


def write_private(path: Path, text: str) -> None:
    """A new file that only its owner reads, also while it is being written."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


@dataclass(frozen=True, slots=True)
class Command:
    """environment: added to the little that every child gets. doing: for messages, e.g. `reading 3 streams`.

    ending: a command that ends what is not in the process group: a container. Not run after an end with code 0.
    """

    arguments: Sequence[str]
    doing: str
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    ending: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Oversized:
    """A line longer than allowed; only its head was kept."""

    head: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Ending:
    """code: as of subprocess; negative is the signal's number. lines: the last ones of stderr, masked."""

    doing: str
    code: int
    lines: Sequence[str]


class Child:
    """A running process, started at once; as a context manager it leaves nothing of its group behind."""

    def __init__(self, place: Workplace, command: Command, limits: Limits) -> None:
        self.place = place
        self.command = command
        self.limits = limits
        self.received_bytes = 0
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._reason: HeadwaterError | None = None
        self._ended = threading.Event()
        self._needs_ending = bool(command.ending)
        self._environment = self._own_environment() | dict(command.environment)
        self._process = self._started()
        # all are pipes
        self._leash = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        self._stderr = cast("IO[bytes]", self._process.stderr)
        with suppress(ImportError, OSError):  # macOS has no such call
            import fcntl

            fcntl.fcntl(self._stdout.fileno(), _SET_PIPE_SIZE, _PIPE_BYTES)
        self._threads = [
            threading.Thread(target=work, name=f"{place.where} {work.__name__}", daemon=True)
            for work in (self._read_log, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def _own_environment(self) -> dict[str, str]:
        folder = str(self.place.folder)
        base = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return base | {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "TZ": "UTC", "PYTHONUNBUFFERED": ""}

    def _started(self) -> "subprocess.Popen[bytes]":
        ending = f"{shlex.join(self.command.ending)}; " if self.command.ending else ""
        return subprocess.Popen(  # noqa: S603 the source file names the program
            ["/bin/sh", "-c", _LEASH.format(ending=ending), self.place.where, *self.command.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            cwd=self.place.folder,
            start_new_session=True,
            umask=0o077,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of the process group."""
        return self._process.pid

    def lines(self, longest: int) -> Iterator[bytes | Oversized]:
        """Lines of stdout without their end, as they come; one longer than `longest` bytes is not kept.

        Raises:
            Cancelled; TransientError after a stall; ResourceError beyond a limit.
        """
        tail: list[bytes] = []
        size = 0
        for data in self.reads():
            first, newline, rest = data.partition(b"\n")
            size += len(first)
            if size <= longest:
                tail.append(first)
            else:
                tail = [b"".join([*tail, first])[:_HEAD_BYTES]]
            if not newline:
                continue
            yield b"".join(tail) if size <= longest else Oversized(b"".join(tail), size)
            *whole, last = rest.split(b"\n")
            yield from whole
            tail, size = [last], len(last)
        if size:
            yield b"".join(tail) if size <= longest else Oversized(b"".join(tail), size)

    def output(self, longest: int) -> bytes:
        """All of stdout of a short command.

        Raises:
            as `lines`; SourceError when it is longer.
        """
        data = bytearray()
        for read in self.reads():
            data += read
            if len(data) > longest:
                raise SourceError(
                    self.place.where, f"more than {longest:,} bytes while {self.command.doing}", "Look at its output."
                )
        return bytes(data)

    def finish(self) -> Ending:
        """Waits for the end of a process whose output has ended. Raises what it was stopped for."""
        deadline = time.monotonic() + self.limits.stall.total_seconds()
        while True:
            try:
                code = self._process.wait(TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                self.check()
                if time.monotonic() > deadline:
                    raise self._stalled() from None
        # not for ever: a process that was left behind may hold stderr open
        self._threads[0].join(LOG_SECONDS)
        self.check()
        self._needs_ending = self._needs_ending and code != 0
        # the shell's word for a signal
        return Ending(self.command.doing, _SIGNALLED - code if code > _SIGNALLED else code, list(self._lines))

    def check(self) -> None:
        """Raises why the process must end: cancelled, or beyond a limit."""
        if self._reason is not None:
            raise self._reason
        if self.place.cancelled.is_set():
            raise Cancelled(
                self.place.where, f"stopped while {self.command.doing}", "What was sealed before stays; sync again."
            )

    def stop(self) -> None:
        """Ends the whole process group: politely, then by force. Twice is fine."""
        # twice: what a shell is just about to start does not hear it
        for patience in (1.0, TERM_SECONDS):
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
        if self._needs_ending:
            self._run_ending()
        # what is left in the group goes too, also behind a leader that ended by itself
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._ended.set()
        self._leash.close()
        for thread in self._threads:
            thread.join()
        self._stdout.close()
        self._stderr.close()

    def _run_ending(self) -> None:
        self._needs_ending, quiet = False, subprocess.DEVNULL
        with suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(  # noqa: S603 as the command itself
                self.command.ending, env=self._environment, stdin=quiet, stdout=quiet, stderr=quiet, check=False,
                timeout=ENDING_SECONDS,
            )  # fmt: skip

    def reads(self) -> Iterator[bytes]:
        """stdout as it comes. Raises as `lines`."""
        descriptor = self._stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while True:
                deadline = time.monotonic() + self.limits.stall.total_seconds()
                self.check()
                while not selector.select(TICK_SECONDS):
                    self.check()
                    if time.monotonic() > deadline:
                        raise self._stalled()
                data = os.read(descriptor, _PIPE_BYTES)
                if not data:
                    return
                self.received_bytes += len(data)
                yield data

    def _stalled(self) -> TransientError:
        return TransientError(
            self.place.where,
            f"nothing came for {self.limits.stall.total_seconds():.0f} s while {self.command.doing}"
            f"{self._last_words()}",
            "Look for a lock or a slow query at the source; raise connector.stall_timeout for one that starts slowly.",
        )

    def _last_words(self) -> str:
        return f"; its last words: {self._lines[-1][:300]}" if self._lines else ""

    def _watch(self) -> None:
        started, limits = time.monotonic(), self.limits
        while not self._ended.wait(0.25):
            elapsed = time.monotonic() - started
            if limits.time is not None and elapsed > limits.time.total_seconds():
                self._end_for(
                    f"still running after {elapsed:.0f} s, connector.time_limit is {limits.time.total_seconds():.0f} s",
                    "What was sealed is published; sync again, or raise the limit.",
                )
            if limits.memory_mb is not None and (used := _memory(self.pid)) > limits.memory_mb << 20:
                self._end_for(
                    f"the process uses {used / 2**20:.0f} MB, connector.memory_mb is {limits.memory_mb}",
                    "Raise the limit, or select fewer streams and columns.",
                )

    def _end_for(self, what: str, hint: str) -> None:
        self._reason = self._reason or ResourceError(self.place.where, what, hint)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._ended.set()

    def _read_log(self) -> None:
        shown = 0
        # readline with a limit: a line without end must not fill the memory
        for raw in iter(lambda: self._stderr.readline(_KEPT_LINE), b""):
            line = mask(_COLOUR.sub("", raw.decode("utf-8", "replace")).rstrip(), self.place.secrets)
            if not line.strip():
                continue
            self._lines.append(line)
            shown += 1
            if shown <= self.limits.log_lines:
                self.place.log(line)
            elif shown == self.limits.log_lines + 1:
                self.place.log(f"more than {self.limits.log_lines:,} lines on stderr: the rest is not shown")


def _memory(group: int) -> int:
    """Resident bytes of a process and its descendants."""
    total = 0
    with suppress(psutil.Error):
        leader = psutil.Process(group)
        for process in (leader, *leader.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total
