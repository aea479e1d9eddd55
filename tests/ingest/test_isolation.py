"""One stream misbehaves in every way: its siblings in the same run never notice, nor does its own next sync."""

import itertools
from collections.abc import Callable, Generator
from dataclasses import dataclass

import dagster as dg
import pytest

from platform_assets.warehouse import Warehouse
from tests.http.serving import Exchange, serving
from tests.ingest.conftest import Write, load
from tests.support.sql import run as sql

SOURCE = """\
type: platform_assets.components.Source
attributes:
  source: mall
  owner: team:data
  connector:
    kind: rest
    base_url: env:MALL_URL
    retries: {{attempts: 3, initial: PT0.1S}}
    rate_limit: {{max_wait: PT1S}}
  defaults: {{write: merge, retries: 0}}
  streams:
    - {{name: apples, path: /apples, primary_key: [id]}}
    - {{name: misfit, path: /misfit, primary_key: [id], columns: {{id: {{type: bigint}}}}, {policy}}}
    - {{name: zebras, path: /zebras, primary_key: [id]}}
"""
GOOD = [{"id": number, "name": f"number {number}"} for number in range(3)]


@dataclass(frozen=True, slots=True)
class Misfit:
    """answer: to every request of the bad stream. policy: what its stanza says. said: what the failure must say."""

    name: str
    answer: Callable[[Exchange], None]
    failure_class: str
    said: str
    policy: str = "window: {rows: 1}"


_page = itertools.count()


def refused(exchange: Exchange) -> None:
    exchange.json({"error": "expired"}, 401)


def storm(exchange: Exchange) -> None:
    exchange.json({"error": "slow down"}, 429)


def storm_of_an_hour(exchange: Exchange) -> None:
    exchange.json({"error": "slow down"}, 429, retry_after="3600")


def poison(exchange: Exchange) -> None:
    exchange.json([{"id": f"x{number}"} for number in range(5)])


def hog(exchange: Exchange) -> None:
    exchange.json([{"id": number, "text": "x" * 1_000} for number in range(80_000)])


def endless(exchange: Exchange) -> None:
    number = next(_page)
    exchange.json({"data": [{"id": number}], "next": str(number + 1)})


def drip(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    exchange.drip(b" " * 1_000, 0.05)


MISFITS = [
    Misfit("refused credential", refused, "auth", "HTTP 401"),
    Misfit("429 for ever", storm, "rate_limited", "HTTP 429"),
    Misfit("429 for an hour", storm_of_an_hour, "rate_limited", "HTTP 429"),
    Misfit("poison rows", poison, "contract", "max_quarantined.rows is 3", "max_quarantined: {rows: 3}"),
    Misfit("memory", hog, "resource", "limits.memory_mb is 256", "limits: {memory_mb: 256}"),
    Misfit(
        "endless pages", endless, "resource", "limits.time is 2 s",
        "records: data, pagination: {type: cursor, param: after, path: next}, limits: {time: PT2S}",
    ),
    Misfit("endless answer", drip, "resource", "limits.time is 2 s", "limits: {time: PT2S}"),
]  # fmt: skip


@dataclass(slots=True)
class Mall:
    """The running API; `answer` may be changed while it runs."""

    answer: Callable[[Exchange], None]


@pytest.fixture
def mall(warehouse: Warehouse, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Generator[Mall]:
    found = Mall(lambda exchange: exchange.json(GOOD))
    with serving(lambda exchange: found.answer(exchange)) as served:
        for name, value in {**env, "MALL_URL": served.url}.items():
            monkeypatch.setenv(name, value)
        yield found


SLOW = {"429 for ever", "endless pages"}


@pytest.mark.parametrize(
    "misfit",
    [pytest.param(one, marks=[pytest.mark.slow] if one.name in SLOW else []) for one in MISFITS],
    ids=lambda misfit: misfit.name,
)
def test_a_misfit_ends_alone_with_its_own_class_and_recovers(
    mall: Mall, warehouse: Warehouse, write_source: Write, misfit: Misfit
) -> None:
    def answer(exchange: Exchange) -> None:
        (misfit.answer if exchange.path == "/misfit" else healthy)(exchange)

    def healthy(exchange: Exchange) -> None:
        is_paged = exchange.path == "/misfit" and "data" in misfit.policy
        exchange.json({"data": GOOD, "next": None} if is_paged else GOOD)

    mall.answer = answer
    job = load(write_source(SOURCE.format(policy=misfit.policy))).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        first = job.execute_in_process(instance=instance, raise_on_error=False)
        mall.answer = healthy
        second = job.execute_in_process(instance=instance, raise_on_error=False)

        materialized = [
            [event.asset_key.path[-1] for event in result.all_events if event.is_step_materialization]
            for result in (first, second)
        ]

    assert [sorted(names) for names in materialized] == [["apples", "zebras"], ["apples", "misfit", "zebras"]]
    (failure,) = [event for event in first.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert failure.step_key == "mall__misfit"
    ledger = "select status, failure_class, message from ops.syncs where stream = 'misfit' order by started_at"
    bad, good = sql(warehouse.admin_dsn, ledger)
    assert bad[:2] == ("failed", misfit.failure_class)
    assert misfit.said in bad[2]
    assert good[:2] == ("succeeded", None)
    siblings = "select stream, count(*), sum(rows_loaded) from ops.syncs where stream <> 'misfit' group by 1 order by 1"
    assert sql(warehouse.admin_dsn, siblings) == [("apples", 2, 3), ("zebras", 2, 3)]
    assert sql(warehouse.admin_dsn, "select count(*) from raw_mall.misfit where name is not null") == [(3,)]
    assert sql(warehouse.admin_dsn, "select tablename from pg_tables where tablename like '\\_next%'") == []
