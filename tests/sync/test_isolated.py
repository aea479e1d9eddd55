"""A stream with limits.memory_mb runs in a process of its own: everything crosses, and its death is only its own."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any, get_args

import psutil
import psycopg
import pytest

from connectors import errors
from connectors.errors import (
    Cancelled,
    ConfigError,
    ContractError,
    FailureClass,
    HeadwaterError,
    RateLimited,
    ResourceError,
    TransientError,
)
from connectors.specs import SourceSpec, parse_source
from connectors.sync import Progress, SyncRequest, isolated, isolated_messages, sync
from connectors.sync.checks import JUDGED_AFTER_THE_SYNC
from platform_assets.settings import PROJECT_ROOT
from platform_assets.sources import load_sources
from platform_assets.warehouse import Warehouse
from tests.http.serving import Exchange, serving

Serve = Callable[..., SourceSpec]


@pytest.fixture
def serve() -> Generator[Serve]:
    """serve(answer, **stream): a source `unit` with one stream `things` whose every page is answered so."""
    from contextlib import ExitStack

    with ExitStack() as servers:

        def start(answer: Callable[[Exchange], None], **stream: Any) -> SourceSpec:
            served = servers.enter_context(serving(answer))
            attributes = {
                "source": "unit",
                "owner": "team:test",
                "connector": {
                    "kind": "rest",
                    "base_url": served.url,
                    "retries": {"attempts": 1},
                    "rate_limit": {"max_wait": "PT0S"},
                },
                "streams": [
                    {"name": "things", "path": "/", "write": "append", "limits": {"memory_mb": 1_000}, **stream}
                ],
            }
            return parse_source(attributes, "tests/unit.yaml")

        yield start


def request(spec: SourceSpec) -> SyncRequest:
    return SyncRequest(spec, spec.streams[0], trigger="cli", run_id="run-1")


def ledger(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute("select sync_id::text, status, failure_class, message from ops.syncs").fetchall()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "connectors.sync.isolated_child" in child.cmdline()]


def test_result_progress_and_trigger_cross_the_process(warehouse: Warehouse, serve: Serve) -> None:
    steps: list[str] = []
    rows: list[int] = []
    spec = serve(lambda exchange: exchange.json([{"id": 1, "price": 1.25}, {"id": 2}]))

    result = sync(request(spec), warehouse.loader_dsn, Progress(on_step=steps.append, on_rows=rows.append))

    assert (result.status, result.rows.loaded, result.requests) == ("succeeded", 2, 1)
    assert [column.name for column in result.columns][:2] == ["id", "price"]
    assert {"extract", "land", "audit", "publish", "finalize"} <= set(steps)
    assert rows[-1] == 2
    with psycopg.connect(warehouse.admin_dsn) as session:
        found = session.execute(
            "select sync_id::text, trigger, run_id, started_at, finished_at from ops.syncs"
        ).fetchone()
    assert found == (result.sync_id, "cli", "run-1", result.started_at, result.finished_at)
    assert children() == []


def test_a_failed_audit_keeps_its_verdicts_and_its_row(warehouse: Warehouse, serve: Serve) -> None:
    check = {"type": "row_rule", "column": "n", "min": 0}
    spec = serve(lambda exchange: exchange.json([{"n": -1}]), checks=[check])

    with pytest.raises(ContractError, match="1 rows with n outside min 0") as caught:
        sync(request(spec), warehouse.loader_dsn)

    assert [(v.name, v.passed, v.measured) for v in caught.value.verdicts] == [("row_rule", False, {"rows": 1})]  # type: ignore[attr-defined] AuditFailedError
    assert ledger(warehouse)[0][:3] == (caught.value.sync_id, "failed", "contract")


def test_checks_that_judge_a_finished_sync_are_known_in_the_process_too(warehouse: Warehouse, serve: Serve) -> None:
    checks = [{"type": name} for name in sorted(JUDGED_AFTER_THE_SYNC)]
    spec = serve(lambda exchange: exchange.json([{"n": 1}]), checks=checks)

    assert sync(request(spec), warehouse.loader_dsn).rows.loaded == 1


def test_a_rate_limit_says_for_how_long(warehouse: Warehouse, serve: Serve) -> None:
    spec = serve(lambda exchange: exchange.json({}, 429, retry_after="77"))
    with pytest.raises(RateLimited) as caught:
        sync(request(spec), warehouse.loader_dsn)
    assert caught.value.retry_after == 77


def hanging(reached: threading.Event) -> Callable[[Exchange], None]:
    def answer(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.json({"data": [{"id": 1}], "next": "2"})
        else:
            reached.set()
            exchange.wait()

    return answer


PAGED = {"records": "data", "pagination": {"type": "cursor", "param": "after", "path": "next"}}


def failing(spec: SourceSpec, dsn: str, progress: Progress) -> tuple[threading.Thread, list[HeadwaterError]]:
    errors: list[HeadwaterError] = []

    def work() -> None:
        try:
            sync(request(spec), dsn, progress)
        except HeadwaterError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


def test_a_killed_process_is_a_passing_failure_settled_at_once(warehouse: Warehouse, serve: Serve) -> None:
    reached = threading.Event()
    thread, errors = failing(serve(hanging(reached), **PAGED), warehouse.loader_dsn, Progress())
    assert reached.wait(60)
    (child,) = children()
    child.kill()
    thread.join(60)

    (error,) = errors
    assert isinstance(error, TransientError)
    assert "its process was killed by SIGKILL" in str(error)
    assert ledger(warehouse) == [(error.sync_id, "failed", "transient", str(error))]


def test_a_cancellation_reaches_the_process(warehouse: Warehouse, serve: Serve) -> None:
    reached, progress = threading.Event(), Progress()
    thread, errors = failing(serve(hanging(reached), **PAGED), warehouse.loader_dsn, progress)
    assert reached.wait(60)
    progress.cancelled.set()
    thread.join(60)

    assert [type(error) for error in errors] == [Cancelled]
    assert ledger(warehouse)[0][1:3] == ("cancelled", "cancelled")


@pytest.mark.slow
def test_a_process_whose_parent_was_killed_ends_by_itself(warehouse: Warehouse, serve: Serve) -> None:
    reached = threading.Event()
    spec = serve(hanging(reached), **PAGED)
    parent = multiprocessing.get_context("fork").Process(target=sync, args=(request(spec), warehouse.loader_dsn))
    parent.start()
    assert reached.wait(60)
    assert parent.pid is not None
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.join()

    psutil.wait_procs([child], timeout=60)

    assert not child.is_running()
    assert ledger(warehouse)[0][1:3] == ("cancelled", "cancelled")


def test_memory_beyond_the_limit_ends_the_sync_in_order(warehouse: Warehouse, serve: Serve) -> None:
    page = [{"id": number, "text": "x" * 1_000} for number in range(80_000)]
    spec = serve(lambda exchange: exchange.json(page), limits={"memory_mb": 256})
    with pytest.raises(ResourceError, match=r"limits\.memory_mb is 256"):
        sync(request(spec), warehouse.loader_dsn)
    assert ledger(warehouse)[0][1:3] == ("failed", "resource")


def test_a_limit_that_the_libraries_alone_would_fill_is_refused(serve: Serve) -> None:
    with pytest.raises(ConfigError, match=r"limits\.memory_mb.*a process of its own needs about 180 MB"):
        serve(lambda exchange: exchange.json([]), limits={"memory_mb": 200})


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's data against a limit")
def test_an_allocation_far_beyond_the_limit_fails_at_once() -> None:
    code = "from connectors.sync.isolated_child import limit_allocations as limit\nlimit(64)\nbytearray(2 << 30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "MemoryError"


@pytest.mark.parametrize(
    ("code", "peak", "kind"),
    [(-9, 90, ResourceError), (-6, 130, ResourceError), (-9, 70, TransientError), (1, 99, TransientError)],
)
def test_a_signal_near_the_limit_counts_as_out_of_memory(code: int, peak: int, kind: type[HeadwaterError]) -> None:
    assert type(isolated.death("unit.things", code, peak << 20, 100 << 20)) is kind


@pytest.mark.parametrize("failure_class", get_args(FailureClass))
def test_every_class_of_failure_crosses(failure_class: str) -> None:
    kinds = [kind for kind in vars(errors).values() if getattr(kind, "failure_class", None) == failure_class]
    (kind,) = [kind for kind in kinds if kind is not errors.RecordError]
    sent = kind("unit.things", "broke", "Mend it.")
    sent.sync_id = "c0ffee"

    arrived = isolated_messages.error_of(isolated_messages.failure_of(sent))

    assert (type(arrived), str(arrived), arrived.sync_id) == (kind, "unit.things: broke\nMend it.", "c0ffee")


def test_every_declared_source_crosses_unchanged() -> None:
    for source in load_sources(PROJECT_ROOT):
        for stream in source.streams:
            there = isolated.attributes_of(SyncRequest(source, stream))
            again = parse_source(there, "order")
            assert (again.source, again.connector, again.streams) == (source.source, source.connector, (stream,))
