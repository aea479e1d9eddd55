"""A field that every stream of its event blocks never reaches the inbox, nor anything behind it."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from connectors.errors import ResourceError
from connectors.specs import SourceSpec, parse_source
from connectors.sync import SyncRequest, SyncResult, sync
from connectors.sync.schemabook import block, lift
from platform_assets.warehouse import Warehouse
from platform_assets.webhooks.blocked import Blocks
from platform_assets.webhooks.inbox import INSERT
from platform_assets.webhooks.scrub import scrub
from tests.support.servers import TestServer
from tests.sync.test_column_rules import files_with
from tests.webhooks.receiving import ReceiverProcess, copied_project, github, until
from tests.webhooks.test_kind import deliver, insert

Stream = Mapping[str, Any]
AGE = {"type": "decimal", "precision": 5, "scale": 2}
BLOCKED = {"columns": {"ssn": {"rule": "block"}, "age": AGE}, "max_quarantined": {"share": 1.0}}
SHUT = {"columns": {"payload": {"rule": "block", "nullable": True}}, "shape": "envelope"}
STREAMS: Mapping[str, Sequence[Stream]] = {
    "alone": [{"name": "people", "events": "person.*", **BLOCKED}],
    "two": [{"name": "people", "events": "person.*", **BLOCKED}, {"name": "births", "events": "*.born"}],
    "both": [
        {"name": "people", "events": "person.*", "columns": {name: {"rule": "block"} for name in ("ssn", "age")}},
        {"name": "births", "events": "person.born", **BLOCKED},
    ],
    "whole": [{"name": "people", "events": "person.*", **BLOCKED}, {"name": "all", "shape": "envelope"}],
    "shut": [{"name": "all", **SHUT}],
    "partly": [{"name": "people", "events": "person.*", **BLOCKED}, {"name": "all", **SHUT}],
    "operated": [{"name": "people", "events": "person.*"}],
}


def people(source: str) -> SourceSpec:
    connector = {"kind": "webhook", "scheme": "github", "secret": "env:HOOK_SECRET"}
    attributes = {"source": source, "owner": "team:test", "connector": connector, "streams": STREAMS[source]}
    return parse_source(attributes, f"tests/{source}.yaml")


@pytest.fixture(scope="module")
def hook_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copied_project(tmp_path_factory)
    for name, streams in STREAMS.items():
        folder = root / "platform_assets" / "defs" / "ingest" / name
        folder.mkdir(parents=True)
        connector = {"kind": "webhook", "scheme": "github", "secret": "env:HOOK_SECRET"}
        attributes = {"source": name, "owner": "team:test", "connector": connector, "streams": streams}
        document = {"type": "platform_assets.components.Source", "attributes": attributes}
        (folder / "defs.yaml").write_text(json.dumps(document), encoding="utf-8")
    return root


@pytest.fixture
def secret() -> str:
    return f"{uuid4().int % 10**20:020}"


Send = Callable[..., int]


@pytest.fixture
def send(client: httpx.Client) -> Send:
    """send(source, body, event): the status of the answer."""

    def sent(source: str, body: bytes, event: str = "person.born", delivery: str | None = None) -> int:
        headers = github(body, event=event, delivery=delivery)
        return client.post(f"/hooks/{source}", content=body, headers=headers).status_code

    return sent


def person(ssn: str, **more: Any) -> bytes:
    return json.dumps({"name": "Ann", "ssn": ssn, "age": 7, **more}).encode()


def last_body(warehouse: Warehouse, source: str) -> bytes:
    with psycopg.connect(warehouse.admin_dsn) as session:
        query = "select body from ops.webhook_inbox where source = %s order by sequence desc limit 1"
        row = session.execute(query, [source]).fetchone()
    assert row is not None
    return row[0]


def inbox_bytes(warehouse: Warehouse) -> bytes:
    """Every row of the inbox, every column of it."""
    with psycopg.connect(warehouse.admin_dsn) as session:
        rows = session.execute("select inbox::text, inbox.body from ops.webhook_inbox as inbox").fetchall()
    return b"\n".join(text.encode() + body for text, body in rows)


def synced(warehouse: Warehouse, source: str, stream: str = "people") -> SyncResult:
    spec = people(source)
    return sync(SyncRequest(spec, spec.stream(stream), trigger="cli"), warehouse.loader_dsn)


def table(warehouse: Warehouse, columns: str, name: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(warehouse.admin_dsn) as session:
        return session.execute(f"select {columns} from {name} order by 1".encode()).fetchall()


def test_a_blocked_field_is_nowhere_on_the_disk_of_the_server(
    hook_warehouse: Warehouse, server: TestServer, hook_project: Path, send: Send, secret: str
) -> None:
    body = person(secret, **{"s\0sn": secret}) + b"\n"
    assert [send("alone", body, delivery="twice") for _ in range(2)] == [200, 200]
    assert send("alone", b'{"\\u0073sn": {"deep": ["%s"]},\r\n "age": 1.10}' % secret.encode()) == 200
    assert send("alone", b'{"ssn": "%s", "ssn": 1, "age": "old"}' % secret.encode(), "person.died") == 200

    result = synced(hook_warehouse, "alone")

    assert (result.rows.loaded, result.rows.quarantined) == (2, 1)
    assert table(hook_warehouse, "age::text, name", "raw_alone.people") == [("1.10", None), ("7.00", "Ann")]
    assert secret.encode() not in inbox_bytes(hook_warehouse)
    assert files_with(server.settings.home, secret.encode()) == []
    assert secret not in (hook_project / "receiver.log").read_text(encoding="utf-8")


def test_a_body_without_the_field_is_stored_as_it_came(hook_warehouse: Warehouse, send: Send) -> None:
    body = b'{ "name" :\n "Ann", "SSN": 1, "deep": {"ssn": 2} }\n'
    assert send("alone", body) == 200
    assert last_body(hook_warehouse, "alone") == body


def test_a_field_that_one_stream_of_the_event_reads_is_kept_for_it(
    hook_warehouse: Warehouse, send: Send, secret: str
) -> None:
    assert send("two", person(secret)) == 200
    assert last_body(hook_warehouse, "two") == person(secret)
    assert send("two", person(secret), "person.died") == 200
    assert json.loads(last_body(hook_warehouse, "two")) == {"name": "Ann", "age": 7}


def test_what_both_streams_of_an_event_block_is_dropped_and_no_more(
    hook_warehouse: Warehouse, send: Send, secret: str
) -> None:
    assert send("both", person(secret)) == 200
    assert json.loads(last_body(hook_warehouse, "both")) == {"name": "Ann", "age": 7}
    assert send("both", person(secret), "person.died") == 200
    assert json.loads(last_body(hook_warehouse, "both")) == {"name": "Ann"}


def test_an_event_that_no_stream_reads_is_kept_as_it_came(hook_warehouse: Warehouse, send: Send, secret: str) -> None:
    for event in ("personal", "a.person.born", "Person.born"):
        assert send("alone", person(secret), event) == 200
        assert last_body(hook_warehouse, "alone") == person(secret)


def test_an_envelope_reads_the_whole_body_so_nothing_is_dropped(
    hook_warehouse: Warehouse, send: Send, secret: str
) -> None:
    assert send("whole", person(secret)) == 200
    assert last_body(hook_warehouse, "whole") == person(secret)


def test_an_envelope_that_blocks_its_body_stores_none_of_it(hook_warehouse: Warehouse, send: Send, secret: str) -> None:
    assert send("shut", person(secret), "whatever") == 200
    assert last_body(hook_warehouse, "shut") == b"{}"
    assert synced(hook_warehouse, "shut", "all").rows.loaded == 1
    assert table(hook_warehouse, "_event_type", "raw_shut.all") == [("whatever",)]
    assert send("partly", person(secret)) == 200
    assert json.loads(last_body(hook_warehouse, "partly")) == {"name": "Ann", "age": 7}


def test_a_body_that_cannot_be_read_is_withheld_and_goes_to_quarantine(
    hook_warehouse: Warehouse, send: Send, secret: str
) -> None:
    synced(hook_warehouse, "alone")
    assert send("alone", person("1", name="before")) == 200
    assert send("alone", b'{"na\xffme": 1, "ssn": "%s"}' % secret.encode()) == 200
    assert secret.encode() not in inbox_bytes(hook_warehouse)
    assert send("alone", person("2", name="behind")) == 200

    result = synced(hook_warehouse, "alone")

    assert (result.rows.extracted, result.rows.loaded, result.rows.quarantined) == (3, 2, 1)
    held = table(hook_warehouse, "payload, reason", "ops.quarantine where source = 'alone' and reason like '%object%'")
    assert {("withheld" in payload, reason) for payload, reason in held} == {(True, "a JSON str, not an object")}


def test_a_column_that_an_operator_blocks_is_dropped_by_a_running_receiver_and_from_what_waits(
    hook_warehouse: Warehouse, hook_project: Path, hook_env: dict[str, str], send: Send, secret: str
) -> None:
    def headwater(*words: str) -> str:
        command = [sys.executable, "-m", "platform_assets.cli", *words]
        done = subprocess.run(command, cwd=hook_project, env=hook_env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert send("operated", person(secret), delivery="first") == 200
    assert send("operated", person(secret, age=8), "other") == 200
    said = headwater("schema", "block", "operated.people", "ssn", "--reason", "no purpose")
    assert "operated: deliveries in the inbox that lost blocked fields: 1" in said
    assert send("operated", person(secret), delivery="first") == 200
    assert send("operated", person(secret), delivery="second") == 200
    assert json.loads(last_body(hook_warehouse, "operated")) == {"name": "Ann", "age": 7}
    bodies = "convert_from(body, 'UTF8')"
    kept = table(
        hook_warehouse,
        f"delivery_id, {bodies}",
        "ops.webhook_inbox where event_type <> 'other' and source = 'operated'",
    )
    assert [(delivery, secret in body) for delivery, body in kept] == [("first", False), ("second", False)]

    headwater("schema", "block", "operated.people", "ssn", "--lift", "--reason", "it has one")
    assert send("operated", person(secret), delivery="third") == 200
    assert last_body(hook_warehouse, "operated") == person(secret)
    assert synced(hook_warehouse, "operated").rows.loaded == 3
    assert table(hook_warehouse, "ssn", "raw_operated.people") == [(secret,), (None,), (None,)]


def test_nothing_is_stored_while_the_rules_cannot_be_read(
    hook_warehouse: Warehouse, hook_project: Path, receiver: ReceiverProcess, send: Send
) -> None:
    def failures() -> int:
        return (hook_project / "receiver.log").read_text(encoding="utf-8").count("inbox not written")

    before = failures()
    with psycopg.connect(hook_warehouse.admin_dsn, autocommit=True) as admin:
        admin.execute("revoke select on ops.column_rules from headwater_loader")
        try:
            assert send("operated", person("1"), delivery="refused") == 503
            until(lambda: failures() >= before + 2)  # the commit's, and one that connected again
            assert httpx.get(f"{receiver.url}/health", timeout=60).status_code == 503
        finally:
            admin.execute("grant select on ops.column_rules to headwater_loader")
        receiver.until_healthy()
        assert admin.execute("select 1 from ops.webhook_inbox where delivery_id = 'refused'").fetchone() is None
    assert send("operated", person("1"), delivery="refused") == 200


@contextmanager
def blocked(warehouse: Warehouse, source: str, stream: str, *columns: str) -> Generator[None]:
    with psycopg.connect(warehouse.loader_dsn, autocommit=True) as session:
        for column in columns:
            block(session, source, people(source).stream(stream), column, "no purpose", "test")
        yield
        for column in columns:
            lift(session, source, stream, column, "test")


def scrubbed(warehouse: Warehouse, source: str, **bounds: int) -> int:
    with psycopg.connect(warehouse.admin_dsn, autocommit=True) as session:
        return scrub(session, people(source), **bounds)


def test_scrubbing_takes_out_what_is_blocked_and_leaves_the_rest_as_it_is(warehouse: Warehouse, secret: str) -> None:
    plain = b'{ "ssn": 1 }'
    deliver(warehouse.loader_dsn, ("d0", "person.born", plain), source="another")
    deliver(
        warehouse.loader_dsn,
        ("d1", "person.born", person(secret)), ("d2", "personal", plain), ("d3", "person.born", b'{ "age": 1.10 }'),
        ("d4", "person.died", b'{"ssn": "%s", "age": 1.10}' % secret.encode()), ("d5", "person.born", b"[1]"),
        *((f"e{number}", "person.born", person(secret)) for number in range(9)),
        source="alone",
    )  # fmt: skip
    before = table(warehouse, "sequence, delivery_id, received_at", "ops.webhook_inbox")

    assert scrubbed(warehouse, "alone", page_bytes=100) == 12
    assert scrubbed(warehouse, "alone") == 0, "what was withheld is not withheld again"

    found = dict(table(warehouse, "delivery_id, body", "ops.webhook_inbox"))
    assert [found[name] for name in ("d0", "d2", "d3", "d4")] == [plain, plain, b'{ "age": 1.10 }', b'{"age":1.10}']
    assert secret.encode() not in inbox_bytes(warehouse)
    assert table(warehouse, "sequence, delivery_id, received_at", "ops.webhook_inbox") == before
    assert synced(warehouse, "alone").rows.quarantined == 1


def test_scrubbing_waits_for_a_delivery_that_is_being_stored_by_the_rules_of_before(
    warehouse: Warehouse, secret: str
) -> None:
    with (
        blocked(warehouse, "operated", "people", "ssn"),
        psycopg.connect(warehouse.loader_dsn) as storing,
        psycopg.connect(warehouse.admin_dsn, autocommit=True) as admin,
    ):
        insert(storing, ("d1", "person.born", person(secret)), source="operated")
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(scrubbed(warehouse, "operated")))
        thread.start()
        waits = "select 1 from pg_locks where not granted and relation = 'ops.webhook_inbox'::regclass"
        until(lambda: admin.execute(waits).fetchone())
        storing.commit()
        thread.join(120)
    assert done == [1]
    assert secret.encode() not in inbox_bytes(warehouse)


def test_scrubbing_gives_up_when_the_inbox_stays_locked(warehouse: Warehouse) -> None:
    with psycopg.connect(warehouse.admin_dsn) as holder:
        holder.execute("lock table ops.webhook_inbox")
        with pytest.raises(ResourceError, match="headwater webhooks scrub alone"):
            scrubbed(warehouse, "alone", wait_seconds=1)


def test_a_delivery_is_not_stored_by_rules_that_are_not_in_force_any_more(warehouse: Warehouse) -> None:
    """The statement itself looks: between reading the rules and storing by them lies no moment."""
    with blocked(warehouse, "operated", "people", "ssn"), psycopg.connect(warehouse.loader_dsn) as session:
        blocks = Blocks([people("operated")])
        columns = [["d1"], ["operated"], ["person.born"], [person("1")], ["{}"]]
        assert session.execute(INSERT.encode(), [*columns, blocks.names, blocks.version]).rowcount == 0
