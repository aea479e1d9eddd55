"""What was answered 200 is in the inbox, whatever dies; a flood is refused and not remembered."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest

from platform_assets.warehouse import Warehouse
from platform_assets.warehouse.layout import layout_of
from tests.support.servers import TestServer, clean_environment, database_pair, running_server
from tests.webhooks.receiving import Inbox, ReceiverProcess, event, github, until

SENDERS = 24


@pytest.fixture(scope="module")
def own_server() -> Generator[TestServer]:
    """A server of this module's own: it is restarted."""
    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def hook_env(own_server: TestServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[dict[str, str]]:
    home = tmp_path_factory.mktemp("home")
    with database_pair(own_server, f"test_{uuid4().hex[:12]}") as pair:
        yield clean_environment() | pair | {"HEADWATER_HOME": os.fspath(home)}


class Senders:
    """Many senders at once, in a thread; each delivery has an id of its own.

    acknowledged: ids that were answered 200. statuses: how often each status came, 0 for a broken connection.
    """

    def __init__(self, *urls: str) -> None:
        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self.acknowledged: set[str] = set()
        self.statuses: dict[int, int] = {}

    def __enter__(self) -> "Senders":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(240)

    def until_acknowledged(self, more: int) -> None:
        goal = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= goal)

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(SENDERS):
                group.create_task(self._one(self._urls[number % len(self._urls)]))

    async def _one(self, url: str) -> None:
        body = event()
        async with httpx.AsyncClient(base_url=url, timeout=120) as client:
            while not self._stop.is_set():
                delivery = str(uuid4())
                try:
                    answer = await client.post("/hooks/git", content=body, headers=github(body, delivery=delivery))
                    status = answer.status_code
                except httpx.TransportError:
                    status = 0
                    # the receiver is gone: the test decides how long
                    await asyncio.sleep(0.05)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if status == 200:
                    self.acknowledged.add(delivery)


def test_no_acknowledged_delivery_is_lost_when_the_receiver_is_killed(
    hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse, inbox: Inbox
) -> None:
    with ReceiverProcess(hook_project, hook_env) as running, Senders(running.url) as senders:
        senders.until_acknowledged(300)
        with psycopg.connect(hook_warehouse.admin_dsn) as blocker:
            # deliveries are in flight for certain when the receiver dies
            blocker.execute("lock table ops.webhook_inbox in share row exclusive mode")
            _until_waiting(hook_warehouse)
            running.kill()
        until(lambda: senders.statuses.get(0, 0) > 0)
    assert len(senders.acknowledged) >= 300
    assert senders.acknowledged - inbox.ids() == set()


def test_no_acknowledged_delivery_is_lost_when_postgres_restarts_and_the_receiver_goes_on(
    own_server: TestServer, hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse, inbox: Inbox
) -> None:
    with psycopg.connect(hook_warehouse.admin_dsn, autocommit=True) as admin:
        # bootstrapping was not flushed on the tests' server; only what the receiver does is on trial
        admin.execute("checkpoint")
    with ReceiverProcess(hook_project, hook_env) as running, Senders(running.url) as senders:
        senders.until_acknowledged(300)
        # the blocker's session goes down with the server
        with suppress(psycopg.OperationalError), psycopg.connect(hook_warehouse.admin_dsn) as blocker:
            blocker.execute("lock table ops.webhook_inbox in share row exclusive mode")
            _until_waiting(hook_warehouse)
            _restart(own_server)
        senders.until_acknowledged(300)
        pid = running.pid
        assert psutil.pid_exists(pid)
    assert senders.statuses.get(0, 0) == 0, "the receiver itself stays"
    assert senders.statuses.get(503, 0) > 0, "deliveries in flight are refused"
    assert set(senders.statuses) == {200, 503}
    assert senders.acknowledged - inbox.ids() == set()


def _until_waiting(warehouse: Warehouse) -> None:
    """Until a receiver's transaction waits for the lock."""
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin:
        query = (
            "select 1 from pg_locks where not granted and database = (select oid from pg_database where datname = %s)"
        )
        until(lambda: admin.execute(query, [warehouse.database]).fetchone() is not None)


def _restart(server: TestServer) -> None:
    """As a crash does it: no checkpoint, recovery from the log."""
    layout = layout_of(server.settings.home)
    how = ["-m", "immediate", "-w", "-t", "240", "restart"]
    command = [str(layout.bin_dir / "pg_ctl"), "-D", str(layout.data_dir), *how]
    owner = layout.owner.uid if layout.owner.is_other else None
    subprocess.run(command, check=True, user=owner, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def test_an_orderly_stop_answers_what_is_in_flight(
    hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse, inbox: Inbox
) -> None:
    with ReceiverProcess(hook_project, hook_env) as running, Senders(running.url) as senders:
        senders.until_acknowledged(100)
        assert running.end() == 0
    assert senders.acknowledged - inbox.ids() == set()


@pytest.mark.slow
def test_two_receivers_share_one_inbox_and_store_a_delivery_once(
    hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse, inbox: Inbox
) -> None:
    body = event()
    with ReceiverProcess(hook_project, hook_env) as one, ReceiverProcess(hook_project, hook_env) as two:
        with Senders(one.url, two.url) as senders:
            senders.until_acknowledged(300)
        for running in (one, two, one):
            headers = github(body, delivery="to-both")
            assert httpx.post(f"{running.url}/hooks/git", content=body, headers=headers).status_code == 200
    assert senders.acknowledged - inbox.ids() == set()
    assert [row[0] for row in inbox.rows("git")].count("to-both") == 1


@asynccontextmanager
async def _locked_inbox(warehouse: Warehouse) -> AsyncGenerator[Callable[[], None]]:
    """Nothing can be committed to the inbox while inside, or until the function that it gives is called."""
    with psycopg.connect(warehouse.admin_dsn) as blocker:
        blocker.execute("lock table ops.webhook_inbox in share row exclusive mode")
        yield blocker.rollback


def test_a_flood_is_refused_at_the_bound_and_what_was_taken_is_stored(
    hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse, inbox: Inbox
) -> None:
    """The database hangs: deliveries wait up to the bound, the others are told to come again."""

    async def flood(url: str, release_at: int) -> list[int]:
        body = event(text="x" * 1_000)
        statuses: list[int] = []
        async with (
            _locked_inbox(hook_warehouse) as release,
            httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)) as client,
            asyncio.TaskGroup() as group,
        ):

            async def send(number: int) -> None:
                answer = await client.post("/hooks/git", content=body, headers=github(body, delivery=f"flood-{number}"))
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) > 0
                if len(statuses) == release_at:
                    assert 200 not in statuses, "answered before it was stored"
                    release()

            for number in range(80):
                group.create_task(send(number))
        return statuses

    with ReceiverProcess(hook_project, hook_env, ["--max-waiting", "20"]) as running:
        statuses = asyncio.run(flood(running.url, release_at=60))
        health = httpx.get(f"{running.url}/health").json()
    assert sorted({*statuses}) == [200, 503]
    assert statuses.count(200) == 20
    assert health["in_flight"] == 0
    assert len({row for row in inbox.ids() if row.startswith("flood-")}) == 20


@pytest.mark.slow
def test_memory_stays_flat_under_a_flood(
    hook_project: Path, hook_env: dict[str, str], hook_warehouse: Warehouse
) -> None:
    async def flood(url: str, deliveries: int) -> None:
        body = event(text="x" * 15_000)
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def send(count: int) -> None:
                for _ in range(count):
                    await client.post("/hooks/git", content=body, headers=github(body, secret="forged"))
                    await client.post("/hooks/git", content=body, headers=github(body))

            async with asyncio.TaskGroup() as group:
                for _ in range(40):
                    group.create_task(send(deliveries // 40))

    with ReceiverProcess(hook_project, hook_env) as running:
        process = psutil.Process(running.pid)
        asyncio.run(flood(running.url, 400))
        before = process.memory_info().rss
        asyncio.run(flood(running.url, 1_600))
        grown = process.memory_info().rss - before
    assert grown < 16 << 20, f"{grown >> 20} MB more after four times as many deliveries"


@pytest.mark.parametrize("words", [("nobody",), ("--port", "99999")])
def test_a_wrong_command_line_names_what_is_wrong(
    hook_project: Path, hook_env: dict[str, str], words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", "webhooks", "serve", *words],
        cwd=hook_project, env=hook_env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (2, 3)
    assert len(done.stderr.strip().splitlines()) <= 6


def test_a_secret_that_is_not_set_is_a_config_error(hook_project: Path, hook_env: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platform_assets.cli", "webhooks", "serve", "git", "--port", "0"],
        cwd=hook_project, env=hook_env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "HOOK_SECRET is not set" in done.stderr
