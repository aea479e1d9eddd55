"""The inbox becomes raw tables: routed by event type, once each, also while several receivers write."""

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg.types.json import Jsonb

from connectors.contract import ReadContext, StreamState, Window
from connectors.errors import ConfigError
from connectors.specs import SourceSpec, parse_source
from connectors.sync import SyncRequest, SyncResult, sync
from connectors.webhook.connector import WebhookConnector
from connectors.webhook.order import readable_until
from platform_assets.assets.resources import WarehouseResource
from platform_assets.components.source import source_definitions
from platform_assets.warehouse import Warehouse
from platform_assets.webhooks.backlog import read_backlog
from platform_assets.webhooks.inbox import INSERT
from platform_assets.webhooks.prune import plan_pruning, prune


def hooks(*streams: Mapping[str, Any], **connector: Any) -> SourceSpec:
    attributes = {
        "source": "hub",
        "owner": "team:test",
        "connector": {"kind": "webhook", "scheme": "github", "secret": "env:HUB_SECRET", **connector},
        "streams": list(streams) or [{"name": "events"}],
    }
    return parse_source(attributes, "tests/hub.yaml")


def deliver(dsn: str, *rows: tuple[str, str, bytes], source: str = "hub") -> None:
    with psycopg.connect(dsn) as session:
        insert(session, *rows, source=source)


def insert(session: psycopg.Connection[Any], *rows: tuple[str, str, bytes], source: str = "hub") -> None:
    """By the statement of the receiver."""
    columns = [[row[0] for row in rows], [source for _ in rows], [row[1] for row in rows], [row[2] for row in rows]]
    session.execute(INSERT.encode(), [*columns, ["{}" for _ in rows], [], ""])


def run(warehouse: Warehouse, spec: SourceSpec, stream: str = "events", window: Window | None = None) -> SyncResult:
    return sync(SyncRequest(spec, spec.stream(stream), trigger="cli", window=window), warehouse.loader_dsn)


def rows(warehouse: Warehouse, columns: str, table: str = "events") -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(f"select {columns} from raw_hub.{table} order by 1".encode()).fetchall()


def test_deliveries_become_rows_with_their_id_event_and_time(warehouse: Warehouse) -> None:
    body = b'{\r\n  "ref": "main",\n  "size": 3, "_event_type": "forged",\n  "commits": [{"id": "a\\nb"}]\n}\n'
    deliver(warehouse.loader_dsn, ("d1", "push", body), ("d2", "push", b"{}"))
    result = run(warehouse, hooks())
    assert (result.status, result.rows.loaded, result.rows.quarantined) == ("succeeded", 2, 0)
    assert rows(warehouse, "_delivery_id, _event_type, ref, size, commits") == [
        ("d1", "push", "main", 3, [{"id": "a\nb"}]),
        ("d2", "push", None, None, None),
    ]
    (received,) = rows(warehouse, "max(_received_at)")[0]
    assert abs(received - datetime.now(UTC)) < timedelta(minutes=5)


def test_an_envelope_keeps_the_body_whole(warehouse: Warehouse) -> None:
    deliver(warehouse.loader_dsn, ("d1", "push", b'{"a": {"b": [1, 2]},\n "_delivery_id": "x"}'))
    spec = hooks({"name": "events", "shape": "envelope"})
    assert run(warehouse, spec).rows.loaded == 1
    assert rows(warehouse, "_delivery_id, payload") == [("d1", {"a": {"b": [1, 2]}, "_delivery_id": "x"})]


def test_events_are_routed_by_their_type(warehouse: Warehouse) -> None:
    spec = hooks(
        {"name": "pushes", "events": "push"},
        {"name": "pulls", "events": ["pull_request*", "star"]},
        {"name": "all_of_them"},
    )
    kinds = ["push", "pull_request", "pull_request_review", "star", "pullXrequest", "issues"]
    deliver(warehouse.loader_dsn, *((f"d{number}", kind, b"{}") for number, kind in enumerate(kinds)))
    deliver(warehouse.loader_dsn, ("d9", "push", b"{}"), source="another")
    for stream in spec.streams:
        run(warehouse, spec, stream.name)
    assert [row[0] for row in rows(warehouse, "_delivery_id", "pushes")] == ["d0"]
    assert [row[0] for row in rows(warehouse, "_delivery_id", "pulls")] == ["d1", "d2", "d3"]
    assert len(rows(warehouse, "_delivery_id", "all_of_them")) == 6


def test_the_next_sync_reads_only_what_is_new(warehouse: Warehouse) -> None:
    spec = hooks({"name": "events", "events": "push"})
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d2", "star", b"{}"))
    first = run(warehouse, spec)
    assert first.state_after["connector"] == {"sequence": 2}, "also past what belongs to other streams"
    assert run(warehouse, spec).status == "succeeded_empty"
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d3", "push", b"{}"))
    assert run(warehouse, spec).rows.loaded == 1
    assert [row[0] for row in rows(warehouse, "_delivery_id")] == ["d1", "d3"]


def test_a_state_with_a_nonsense_sequence_is_refused_with_the_next_step(warehouse: Warehouse, tmp_path: Path) -> None:
    (stream,) = hooks().streams
    reader: Any = WebhookConnector(hooks())
    for sequence in ("12", "newest", 1.5, 2.0, -1, True, None, [3]):
        with pytest.raises(ConfigError, match="sequence is ") as refused:
            next(reader.read(stream, StreamState(connector={"sequence": sequence}), ReadContext(None, tmp_path)))
        assert "headwater state reset hub.events" in str(refused.value)

    run(warehouse, hooks())
    with psycopg.connect(warehouse.admin_dsn) as session:
        session.execute("update ops.stream_state set state = %s", [Jsonb({"connector": {"sequence": "newest"}})])
    with pytest.raises(ConfigError, match="sequence is 'newest'"):
        run(warehouse, hooks())


def test_a_partition_is_of_the_time_of_arrival(warehouse: Warehouse) -> None:
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d2", "push", b"{}"))
    with psycopg.connect(warehouse.admin_dsn) as session:
        session.execute("update ops.webhook_inbox set received_at = '2024-03-01 12:00Z' where delivery_id = 'd1'")
    spec = hooks({"name": "events", "write": "merge", "partitions": {"by": "day", "start": "2024-01-01"}})
    day = datetime(2024, 3, 1, tzinfo=UTC)
    run(warehouse, spec, window=Window(day, day + timedelta(days=1)))
    assert [row[0] for row in rows(warehouse, "_delivery_id")] == ["d1"]


def test_a_body_that_breaks_the_contract_goes_to_quarantine(warehouse: Warehouse) -> None:
    spec = hooks({"name": "events", "columns": {"size": {"type": "bigint"}}, "max_quarantined": {"share": 1.0}})
    deliver(
        warehouse.loader_dsn,
        ("d1", "push", b'{"size": 1}'), ("d2", "push", b'{"size": "many"}'), ("d3", "push", b'{"size": '),
        ("d4", "push", b"[1]"),
    )  # fmt: skip
    result = run(warehouse, spec)
    assert (result.rows.loaded, result.rows.quarantined) == (1, 3)


@contextmanager
def writing(dsn: str, *deliveries: str) -> Generator[psycopg.Connection[Any]]:
    """A receiver's transaction that has its sequence numbers and is not committed yet."""
    with psycopg.connect(dsn) as session:
        insert(session, *((delivery, "push", b"{}") for delivery in deliveries))
        yield session


def test_a_delivery_committed_after_a_later_one_is_never_passed_over(warehouse: Warehouse) -> None:
    spec, dsn = hooks(), warehouse.loader_dsn
    deliver(dsn, ("d1", "push", b"{}"))
    with writing(dsn, "d2") as slow:
        deliver(dsn, ("d3", "push", b"{}"))
        assert run(warehouse, spec).state_after["connector"] == {"sequence": 1}, "d2 may still come"
        slow.commit()
        assert run(warehouse, spec).state_after["connector"] == {"sequence": 3}
    assert [row[0] for row in rows(warehouse, "_delivery_id")] == ["d1", "d2", "d3"]


def test_a_writer_that_died_holds_nobody_back(warehouse: Warehouse) -> None:
    spec, dsn = hooks(), warehouse.loader_dsn
    with writing(dsn, "d1") as dying:
        deliver(dsn, ("d2", "push", b"{}"))
        dying.rollback()
    assert run(warehouse, spec).rows.loaded == 1


def test_other_databases_and_other_locks_hold_nobody_back(warehouse: Warehouse) -> None:
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"))
    with (
        psycopg.connect(warehouse.admin_dsn) as other,
        psycopg.connect(warehouse.loader_dsn, autocommit=True) as reader,
    ):
        other.execute("select pg_advisory_xact_lock(18519, 0), pg_advisory_xact_lock(0)")
        assert readable_until(reader) == 1


def test_many_writers_and_one_reader_lose_and_double_nothing(warehouse: Warehouse) -> None:
    """Each round reads (position, readable_until]; together the rounds must have seen every committed row once."""
    dsn, seen, position = warehouse.loader_dsn, list[str](), 0
    committed: set[str] = set()
    finished = threading.Event()

    def write(writer: int) -> None:
        with psycopg.connect(dsn) as session:
            for number in range(40):
                names = [f"w{writer}-{number}-{item}" for item in range(3)]
                insert(session, *((name, "push", b"{}") for name in names))
                if number % 7 == 6:
                    session.rollback()
                else:
                    session.commit()
                    committed.update(names)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    with psycopg.connect(dsn, autocommit=True) as reader:

        def read() -> None:
            nonlocal position
            until = readable_until(reader)
            found = reader.execute(
                "select delivery_id from ops.webhook_inbox where sequence > %s and sequence <= %s", [position, until]
            ).fetchall()
            seen.extend(row[0] for row in found)
            position = max(position, until)

        for thread in writers:
            thread.start()
        while any(thread.is_alive() for thread in writers):
            read()
        finished.set()
        read()
    assert len(seen) == len(set(seen))
    assert set(seen) == committed


def test_the_backlog_is_what_a_stream_has_not_read(warehouse: Warehouse) -> None:
    spec = hooks({"name": "events"}, {"name": "stars", "events": "star"})
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d2", "star", b"{}"))
    run(warehouse, spec)
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        found = {item.stream: (item.deliveries, item.newest) for item in read_backlog(session, [spec])}
    assert found == {"events": (0, None), "stars": (1, 2)}


@pytest.mark.parametrize("sequence", ["newest", 1.5, -1, 10**30, None, [3]])
def test_a_nonsense_sequence_is_nothing_read_to_the_backlog(warehouse: Warehouse, sequence: Any) -> None:
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d2", "star", b"{}"))
    run(warehouse, hooks())
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        session.execute("update ops.stream_state set state = %s", [Jsonb({"connector": {"sequence": sequence}})])

        (found,) = read_backlog(session, [hooks()])

    assert (found.deliveries, found.newest) == (2, 2)


def test_pruning_takes_what_every_stream_has_read_and_nothing_else(warehouse: Warehouse) -> None:
    spec = hooks({"name": "events"}, {"name": "stars", "events": "star"})
    old, new = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC)
    before = datetime(2024, 3, 2, tzinfo=UTC)

    def left() -> list[str]:
        with psycopg.connect(warehouse.admin_dsn) as session:
            found = session.execute("select delivery_id from ops.webhook_inbox order by sequence").fetchall()
        return [row[0] for row in found]

    def pruned(*, dry: bool = False) -> tuple[int, int]:
        with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
            plan = plan_pruning(session, spec, before)
            return (plan.deliveries if dry else prune(session, plan)), plan.unread

    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), ("d2", "star", b"{}"))
    run(warehouse, spec)
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"), source="another")
    with psycopg.connect(warehouse.admin_dsn) as session:
        session.execute("update ops.webhook_inbox set received_at = %s", [old])
    assert pruned() == (0, 2), "stars has read nothing yet"
    run(warehouse, spec, "stars")
    deliver(warehouse.loader_dsn, ("d3", "push", b"{}"), ("d4", "push", b"{}"))
    with psycopg.connect(warehouse.admin_dsn) as session:
        session.execute("update ops.webhook_inbox set received_at = %s where delivery_id = 'd3'", [old])
        session.execute("update ops.webhook_inbox set received_at = %s where delivery_id = 'd4'", [new])
    assert pruned(dry=True) == (2, 1)
    assert left() == ["d1", "d2", "d1", "d3", "d4"]
    assert pruned() == (2, 1)
    assert left() == ["d1", "d3", "d4"], "another source's, one that is not read, and one that is not old"
    run(warehouse, spec)
    run(warehouse, spec, "stars")
    assert pruned() == (1, 0)
    assert [row[0] for row in rows(warehouse, "_delivery_id")] == ["d1", "d2", "d3", "d4"]


def test_a_stream_goes_on_after_its_whole_inbox_was_pruned(warehouse: Warehouse) -> None:
    spec = hooks()
    deliver(warehouse.loader_dsn, ("d1", "push", b"{}"))
    run(warehouse, spec)
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        assert prune(session, plan_pruning(session, spec, datetime.now(UTC) + timedelta(days=1))) == 1
    assert run(warehouse, spec).state_after["connector"] == {"sequence": 1}
    deliver(warehouse.loader_dsn, ("d2", "push", b"{}"))
    assert run(warehouse, spec).rows.loaded == 1
    assert [row[0] for row in rows(warehouse, "_delivery_id")] == ["d1", "d2"]


@pytest.mark.parametrize(
    "stream", [{"write": "replace"}, {"write": "merge", "partitions": {"by": "day", "start": "2024-01-01"}}]
)
def test_an_inbox_that_is_read_whole_is_never_pruned(warehouse: Warehouse, stream: dict[str, Any]) -> None:
    spec = hooks({"name": "events", **stream})
    with psycopg.connect(warehouse.admin_dsn) as session, pytest.raises(ConfigError, match="reads the whole inbox"):
        plan_pruning(session, spec, datetime.now(UTC))


class ThisWarehouse(WarehouseResource):
    """The test's own database."""

    dsn: str

    def loader_dsn(self) -> str:
        return self.dsn


def test_the_sensor_asks_for_the_streams_that_have_something_new(warehouse: Warehouse) -> None:
    spec = hooks({"name": "events"}, {"name": "stars", "events": "star"})
    resources = {"warehouse": ThisWarehouse(dsn=warehouse.loader_dsn)}
    defs = dg.Definitions.merge(
        source_definitions(spec, "tests/hub.yaml"),
        dg.Definitions(resources={**resources, "dlt": dg.ResourceDefinition.none_resource()}),
    )
    repository = defs.get_repository_def()
    (sensor,) = [item for item in repository.sensor_defs if item.name == "hub__webhooks"]
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> list[tuple[list[str], str | None]]:
            context = dg.build_sensor_context(instance=instance, repository_def=repository, resources=resources)
            found = sensor.evaluate_tick(context).run_requests or ()
            return [
                (
                    [key.to_user_string() for key in request.asset_selection or ()],
                    request.tags.get("headwater/webhook_stream"),
                )
                for request in found
            ]

        assert tick() == []
        deliver(warehouse.loader_dsn, ("d1", "push", b"{}"))
        assert tick() == [(["hub/events"], "hub.events")]
        run(warehouse, spec)
        assert tick() == []
        deliver(warehouse.loader_dsn, ("d2", "star", b"{}"))
        instance.create_run_for_job(
            dg.job(name="busy")(lambda: None),
            status=dg.DagsterRunStatus.STARTED,
            tags={"headwater/webhook_stream": "hub.events"},
        )
        assert tick() == [(["hub/stars"], "hub.stars")], "the other stream's run is on its way"


@pytest.mark.parametrize(
    ("connector", "stream", "word"),
    [
        ({"secret": "literal"}, {}, "reference"),
        ({"scheme": "hmac"}, {}, "hmac"),
        ({"hmac": {"header": "X-Sig"}}, {}, "hmac"),
        ({"scheme": "hmac", "hmac": {"header": "X-Sig", "signed": ["timestamp"]}}, {}, "body"),
        ({"scheme": "hmac", "hmac": {"header": "X-Sig", "signed": ["timestamp", "body"]}}, {}, "timestamp_header"),
        ({"scheme": "hmac", "hmac": {"header": "X-Sig", "timestamp_header": "X-Time"}}, {}, "signed"),
        ({"tolerance": "PT0S"}, {}, "greater"),
        ({"max_body_bytes": 1}, {}, "greater"),
        ({}, {"events": []}, "every event"),
        ({}, {"shape": "rows"}, "columns"),
        ({}, {"event": "push"}, "events"),
    ],
)
def test_a_wrong_source_file_is_refused_with_a_hint(
    connector: dict[str, Any], stream: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        hooks({"name": "events", **stream}, **connector)
    assert word in str(refused.value)
    assert "literal" not in str(refused.value).replace("a literal value", "")
