"""Claim: signed deliveries are stored durably at half the rate, or more, at which the same server answers unstored.

Both servers are the receiver of `headwater webhooks serve`: the same HTTP, the same verification of the signature. One
puts every delivery into ops.webhook_inbox by group commit and answers afterwards, the other answers at once. The
sender, on the same cores, keeps its connections busy with deliveries that were signed before the clock starts.

    python -m benchmarks.webhooks [--deliveries 60000] [--connections 64] [--repeats 3]
"""

import argparse
import asyncio
import hashlib
import hmac
import json
import re
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from statistics import median, quantiles
from uuid import uuid4

import psutil
import psycopg

from benchmarks.support import (
    BenchServer,
    Outcome,
    Target,
    bench_server,
    progress,
    report,
    tree_bytes,
    with_ratios,
)
from platform_assets.settings import PROJECT_ROOT
from platform_assets.warehouse.layout import layout_of

CLAIM = "Signed webhooks, durable before the answer: 10,000 a second, and half of what the same server answers unstored"
SECRET = "the-secret-of-this-benchmark"  # noqa: S105  nobody else has it
NOTHING, DURABLE = "stores_nothing", "durable"
BODY_BYTES = 1_000
WARM_UP = 2_000


@dataclass(frozen=True, slots=True)
class Volley:
    """One measured volley. latencies: seconds from a delivery's last byte out to its answer.

    cpu: seconds of the receiver, of PostgreSQL and of the sender, which other work on the machine does not lengthen.
    """

    seconds: float
    latencies: Sequence[float]
    refused: int
    peak_bytes: int
    cpu: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def p99_ms(self) -> float:
        return quantiles(self.latencies, n=100)[98] * 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=60_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("PATH", "DSN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    with bench_server() as server:
        found = {
            path: measured(server, path, options.deliveries, options.connections, options.repeats)
            for path in (NOTHING, DURABLE)
        }
    outcomes = with_ratios([outcome for outcome, _ in found.values()], NOTHING)
    seconds = {outcome.path: outcome.seconds or 0.0 for outcome in outcomes}
    rate, share = round(options.deliveries / seconds[DURABLE]), round(seconds[NOTHING] / seconds[DURABLE], 2)
    targets = [
        Target("deliveries a second", rate, 10_000, is_minimum=True),
        Target("share of the same server storing nothing", share, 0.5, is_minimum=True),
        Target("p99, milliseconds", round(found[DURABLE][1], 1), 30.0),
    ]  # fmt: skip
    report(
        "webhooks", f"{options.deliveries:,} deliveries of 1 kB over {options.connections} connections",
        outcomes, targets, claim=CLAIM, rows=options.deliveries,
    )  # fmt: skip


def serve(path: str, dsn: str) -> None:
    """The receiver's own process, on a free port that it prints."""
    from platform_assets.webhooks.hooks import Hook
    from platform_assets.webhooks.inbox import Arrived, Inbox
    from platform_assets.webhooks.schemes import verifier
    from platform_assets.webhooks.serve import listen
    from platform_assets.webhooks.serve import serve as run

    class Nowhere(Inbox):
        """Answers at once and forgets."""

        async def store(self, delivery: Arrived) -> None:
            return

    source = _source()
    hook = Hook("bench", "/hooks/bench", "github", 1, verifier(source.connector, [SECRET], "bench"), 1 << 20)
    inbox = (Nowhere if path == NOTHING else Inbox)(lambda: dsn)
    with listen("127.0.0.1", 0) as listening:
        print(listening.getsockname()[1], flush=True)
        run([hook], [source], inbox, listening)


def _source():
    from connectors.specs import parse_source

    connector = {"kind": "webhook", "scheme": "github", "secret": "env:BENCH_SECRET"}
    document = {"source": "bench", "owner": "team:bench", "connector": connector, "streams": [{"name": "events"}]}
    return parse_source(document, "benchmarks/webhooks.py")


@contextmanager
def receiver(path: str, dsn: str) -> Generator[tuple[int, int]]:
    """Port and pid of a receiver that answers."""
    words = [sys.executable, "-m", "benchmarks.webhooks", "--serve", path, dsn]
    process = subprocess.Popen(words, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


def measured(server: BenchServer, path: str, deliveries: int, connections: int, repeats: int) -> tuple[Outcome, float]:
    """The median volley of a path, and its median p99 in milliseconds."""
    volleys: list[Volley] = []
    note = ""
    with receiver(path, server.warehouse.loader_dsn) as (port, pid):
        asyncio.run(fire(port, pid, requests(WARM_UP), connections))
        for _ in range(repeats):
            _clean(server)
            waiting = requests(deliveries)
            before = _cpu(pid, server)
            volley = asyncio.run(fire(port, pid, waiting, connections))
            used = [now - then for now, then in zip(_cpu(pid, server), before, strict=True)]
            volley = replace(volley, cpu=(used[0], used[1], used[2]))
            volleys.append(volley)
            stored = _stored(server)
            expected = 0 if path == NOTHING else deliveries
            if volley.refused or stored != expected:
                note = f"{volley.refused} refused, {stored} of {expected} stored"
            progress(
                f"{path}: {deliveries / volley.seconds:,.0f}/s, p99 {volley.p99_ms:.1f} ms, "
                f"{volley.peak_bytes / 1e6:.0f} MB, {_told(volley.cpu, deliveries)} {note}"
            )
    outcome = Outcome(
        path,
        round(median(volley.seconds for volley in volleys), 3),
        None,
        round(median(volley.peak_bytes for volley in volleys) / 1e6, 1),
        tuple(round(volley.seconds, 3) for volley in volleys),
        note,
    )
    p99 = median(volley.p99_ms for volley in volleys)
    cpu = median(volley.cpu[0] for volley in volleys), median(volley.cpu[1] for volley in volleys)
    told = f"p99 {p99:.1f} ms; {_told((*cpu, median(volley.cpu[2] for volley in volleys)), deliveries)}"
    return replace(outcome, note=outcome.note or told), p99


def _cpu(pid: int, server: BenchServer) -> tuple[float, float, float]:
    """Seconds used so far by the receiver, by PostgreSQL with its backends, and by this process."""
    postmaster = int((layout_of(server.home).data_dir / "postmaster.pid").read_text().split()[0])
    return _tree_cpu(pid), _tree_cpu(postmaster), time.process_time()


def _tree_cpu(pid: int) -> float:
    root = psutil.Process(pid)
    total = 0.0
    for member in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = member.cpu_times()
            total += used.user + used.system
    return total


def _told(cpu: tuple[float, float, float], deliveries: int) -> str:
    receiver, database, sender = (seconds * 1_000 / deliveries for seconds in cpu)
    return f"CPU s a 1,000: receiver {receiver:.3f}, PostgreSQL {database:.3f}, sender {sender:.3f}"


def _clean(server: BenchServer) -> None:
    with psycopg.connect(server.url(server.database), autocommit=True) as session:
        session.execute("truncate ops.webhook_inbox")
        session.execute("checkpoint")


def _stored(server: BenchServer) -> int:
    with psycopg.connect(server.url(server.database)) as session:
        row = session.execute("select count(*) from ops.webhook_inbox").fetchone()
    return row[0] if row else 0


def requests(count: int) -> list[bytes]:
    """Whole HTTP requests, signed, each with an id of its own."""
    made: list[bytes] = []
    for number in range(count):
        body = json.dumps({"number": number, "text": "x" * (BODY_BYTES - 40)}).encode()
        signature = hmac.digest(SECRET.encode(), body, hashlib.sha256).hex()
        head = (
            f"POST /hooks/bench HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-github-event: push\r\nx-github-delivery: {uuid4()}\r\n"
            f"x-hub-signature-256: sha256={signature}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class _Sender(asyncio.Protocol):
    """One connection that sends the next request when an answer is there."""

    def __init__(self, waiting: list[bytes], latencies: list[float], refused: list[int]) -> None:
        self._waiting = waiting
        self._latencies = latencies
        self._refused = refused
        self._sent = 0.0
        self._buffer = b""
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._next()

    def _next(self) -> None:
        if not self._waiting:
            self._transport.close()
            return
        self._transport.write(self._waiting.pop())
        self._sent = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = re.search(rb"content-length: (\d+)", head)
        assert length, head
        if len(rest) < int(length[1]):
            return
        self._latencies.append(time.perf_counter() - self._sent)
        self._refused[0] += not head.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_result(None)


async def fire(port: int, pid: int, waiting: list[bytes], connections: int) -> Volley:
    """All requests, over so many connections that each wait for their answer."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    refused = [0]
    count = len(waiting)
    began = time.perf_counter()
    senders = [
        (await loop.create_connection(lambda: _Sender(waiting, latencies, refused), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(sender.finished for sender in senders))
    seconds = time.perf_counter() - began
    return Volley(seconds, latencies, refused[0] + count - len(latencies), tree_bytes(pid))


if __name__ == "__main__":
    main()
