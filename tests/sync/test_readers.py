"""Who reads a raw table fifty times a second sees no bad row, no error and no empty table while bad loads come."""

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from connectors.contract import Message
from connectors.errors import ContractError
from connectors.sync import Progress
from platform_assets.warehouse import Warehouse
from tests.support.scripted import Attestation, Checkpoint, records, sync

ROWS, PERIOD_SECONDS = 2_000, 0.02
DISPOSITIONS: dict[str, dict[str, Any]] = {
    "append": {"write": "append"},
    "merge": {"write": "merge", "primary_key": "id"},
    "delete-insert": {"write": "merge", "merge": "delete-insert", "primary_key": "id"},
    "replace": {"write": "replace"},
    "scd2": {"write": "scd2", "primary_key": "id"},
}
BAD: dict[str, dict[str, Any]] = {
    "row rule": {"checks": [{"type": "row_rule", "column": "n", "min": 0}]},
    "reconcile": {"checks": [{"type": "reconcile", "against": "count"}]},
    "schema": {"drift": {"new": "freeze"}},
    "quarantine": {"columns": {"v": {"type": "text", "accepted_values": ["good"]}}, "max_quarantined": {"rows": 3}},
}
SEEN = """
    select count(*), count(*) filter (where n < 0 or v <> 'good'), count(distinct generation) from raw_unit.things
"""


@dataclass(slots=True)
class Reader:
    """Polls with the transformer's login, as dbt would. seen: every (rows, bad rows, generations); errors: all."""

    dsn: str
    seen: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    errors: list[str] = field(default_factory=list[str])
    _more: threading.Condition = field(default_factory=threading.Condition)
    _done: threading.Event = field(default_factory=threading.Event)

    def poll(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            while not self._done.wait(PERIOD_SECONDS):
                try:
                    row = session.execute(SEEN).fetchone()
                    assert row is not None
                    found = (row[0], row[1], row[2])
                except psycopg.Error as error:
                    self.errors.append(str(error))
                    return
                with self._more:
                    self.seen.append(found)
                    self._more.notify_all()

    def wait_for_polls(self, number: int = 3) -> None:
        """Until so many more have begun and ended; a reader that a lock holds up never gets there."""
        with self._more:
            wanted = len(self.seen) + number + 1
            assert self._more.wait_for(lambda: len(self.seen) >= wanted, 30), f"the reader waits; {self.errors}"

    def stop(self) -> None:
        self._done.set()


@contextmanager
def reading(warehouse: Warehouse) -> Generator[Reader]:
    reader = Reader(warehouse.address.url(warehouse.logins["transformer"]))
    thread = threading.Thread(target=reader.poll)
    thread.start()
    try:
        reader.wait_for_polls()
        yield reader
        reader.wait_for_polls()
    finally:
        reader.stop()
        thread.join()


def page(generation: int, first: int, count: int, **other: Any) -> Message:
    rows = ({"id": first + k, "n": k, "v": "good", "generation": generation, **other} for k in range(count))
    return records(*rows, position=f"page {first}")


def bad_script(reader: Reader) -> Iterator[Any]:
    """Wrong in every way at once: negative numbers, values nobody accepts, a new column, fewer rows than there are."""
    yield page(2, 0, ROWS)
    yield reader.wait_for_polls
    yield page(2, ROWS, 10, n=-1, v="evil", surprise=1)
    yield Attestation(rows=5 * ROWS)


def loaded(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute("select status, failure_class from ops.syncs order by started_at").fetchall()


ALL = [(disposition, bad) for disposition in DISPOSITIONS for bad in BAD]
"""One of each is tried always, the others with `make test-all`."""
QUICK = {("append", "row rule"), ("merge", "quarantine"), ("delete-insert", "schema"), ("replace", "reconcile"),
         ("scd2", "row rule"), ("replace", "row rule"), ("merge", "reconcile")}  # fmt: skip


@pytest.mark.parametrize(
    ("disposition", "bad"), [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in ALL]
)
def test_a_bad_load_is_never_seen(warehouse: Warehouse, disposition: str, bad: str) -> None:
    policy = DISPOSITIONS[disposition] | BAD[bad]
    sync(warehouse.loader_dsn, [page(1, 0, ROWS), Attestation(rows=ROWS)], **policy)

    with reading(warehouse) as reader:

        def linger(step: str) -> None:
            # inside the transaction that has staged the rows: a reader neither sees them nor waits for it
            if step in ("audit", "publish"):
                reader.wait_for_polls()

        with pytest.raises(ContractError):
            sync(warehouse.loader_dsn, bad_script(reader), progress=Progress(on_step=linger), **policy)

    assert reader.errors == []
    assert set(reader.seen) == {(ROWS, 0, 1)}
    assert loaded(warehouse) == [("succeeded", None), ("failed", "contract")]


def test_a_replacement_in_several_windows_is_seen_whole_or_not_at_all(warehouse: Warehouse) -> None:
    policy = DISPOSITIONS["replace"] | {"window": {"rows": 100}}
    sync(warehouse.loader_dsn, [page(1, 0, ROWS)], **policy)

    with reading(warehouse) as reader:

        def script() -> Iterator[Any]:
            for number in range(5):
                yield page(2, number * ROWS, ROWS)
                yield Checkpoint()
                yield reader.wait_for_polls

        sync(warehouse.loader_dsn, script(), **policy)

    assert reader.errors == []
    assert set(reader.seen) == {(ROWS, 0, 1), (5 * ROWS, 0, 1)}
    assert sorted(reader.seen) == reader.seen, "the old rows came back"


def test_windows_that_were_good_stay_when_a_later_one_is_bad(warehouse: Warehouse) -> None:
    policy = DISPOSITIONS["append"] | BAD["row rule"] | {"window": {"rows": 1}}
    sync(warehouse.loader_dsn, [page(1, 0, ROWS)], **policy)

    script = [page(1, ROWS, ROWS), Checkpoint(), page(1, 2 * ROWS, 10, n=-1), Checkpoint()]
    with reading(warehouse) as reader, pytest.raises(ContractError):
        sync(warehouse.loader_dsn, script, **policy)

    assert reader.errors == []
    assert set(reader.seen) == {(ROWS, 0, 1), (2 * ROWS, 0, 1)}
