"""Streams below another one: every parent is asked, in order, some at a time, and one that vanishes costs nothing."""

import json
import threading
from typing import Any

import pytest

from connectors.contract import Attestation, JsonRecords, Message, ReadContext, StreamState
from connectors.errors import Cancelled, ConfigError, HeadwaterError, SourceError, TransientError
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.http.reading import QUICK, context, only, readers
from tests.http.serving import Exchange, serving
from tests.support import sql

PARENTS = 12
CHILD: dict[str, Any] = {
    "name": "items",
    "path": "/orders/{parent.key}/items",
    "records": "data",
    "pagination": {"type": "page_number"},
    "parent": {"stream": "orders", "include": {"order": "key", "buyer": "buyer"}, "concurrency": 3},
}


def source(url: str, child: dict[str, Any] | None = None, **connector: Any) -> SourceSpec:
    orders = {"name": "orders", "path": "/orders", "records": "data", "pagination": {"type": "page_number"}}
    return parse_source(
        {
            "source": "shop", "owner": "team:data",
            "connector": {"kind": "rest", "base_url": url, "rate_limit": {"pool": url}, **QUICK, **connector},
            "streams": [orders, {**CHILD, **(child or {})}],
        },
        "defs.yaml",
    )  # fmt: skip


def read(spec: SourceSpec, state: StreamState | None = None, within: ReadContext | None = None) -> list[Message]:
    with kind("rest").open(spec) as connector:
        return list(connector.read(spec.stream("items"), state or StreamState(), within or context()))


def rows(messages: list[Message]) -> list[dict[str, Any]]:
    return [json.loads(line) for m in messages if isinstance(m, JsonRecords) for line in m.body.split(b"\n")]


def shop(exchange: Exchange) -> None:
    """Twelve orders in pages of five; order `a/3` has no items, every other one two pages of them."""
    page = int(exchange.query.get("page", "1"))
    parts = exchange.handler.path.partition("?")[0].split("/")
    if len(parts) == 2:
        keys = range((page - 1) * 5, min(page * 5, PARENTS))
        exchange.json({"data": [{"key": f"a/{n}", "buyer": None if n % 2 else {"n": n}} for n in keys]})
        return
    number = int(parts[2].removeprefix("a%2F"))
    count = 0 if number == 3 else 2
    exchange.json({"total": 2 * count, "data": [{"id": number * 10 + page}, {}][:count] if page < 3 else []})


def test_every_parent_is_asked_in_order_and_its_fields_come_along() -> None:
    with serving(shop) as server:
        within = context()
        found = rows(read(source(server.url), within=within))
        assert within.usage.requests == len(server.seen) == 3 + 1 + 3 * (PARENTS - 1) + 1
        assert within.usage.received_bytes > 0
    expected = [n for n in range(PARENTS) if n != 3]
    assert [row["order"] for row in found] == [f"a/{n}" for n in expected for _ in range(4)]
    assert found[:2] == [{"order": "a/0", "buyer": {"n": 0}, "id": 1}, {"order": "a/0", "buyer": {"n": 0}}]


def test_the_counts_of_all_parents_together_are_attested() -> None:
    with serving(shop) as server:
        assert only(Attestation, read(source(server.url, {"total": "total"}))) == [Attestation(rows=4 * (PARENTS - 1))]


def test_no_more_parents_are_asked_at_a_time_than_declared() -> None:
    lock, inside, most, asked = threading.Lock(), [0], [0], [0]
    meeting = threading.Barrier(3)

    def answer(exchange: Exchange) -> None:
        if exchange.path.endswith("/items"):
            with lock:
                asked[0] += 1
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                is_first = asked[0] <= 3
            if is_first:
                # three are here together, or this fails
                meeting.wait(60)
            with lock:
                inside[0] -= 1
        shop(exchange)

    with serving(answer) as server:
        read(source(server.url))
    assert most[0] == 3


def test_a_parent_that_vanishes_midway_has_no_more_children() -> None:
    def answer(exchange: Exchange) -> None:
        is_gone = "a%2F4" in exchange.handler.path or (
            "a%2F5" in exchange.handler.path and exchange.query["page"] == "2"
        )
        exchange.json({}, 404) if is_gone else shop(exchange)

    lines: list[str] = []
    within = ReadContext(window=None, folder=context().folder, log=lines.append)
    with serving(answer) as server:
        found = [row["order"] for row in rows(read(source(server.url), within=within))]
    assert (found.count("a/4"), found.count("a/5"), found.count("a/6")) == (0, 2, 4)
    assert "1 of 12 parents were gone when their children were asked for" in lines


def test_a_path_that_leads_nowhere_is_not_twelve_parents_that_vanished() -> None:
    with (
        serving(lambda e: e.json({}, 404) if "items" in e.path else shop(e)) as server,
        pytest.raises(ConfigError, match=r"every one of 12 records of orders is gone below /orders/\{parent.key\}"),
    ):
        read(source(server.url))


def test_a_parent_that_fails_fails_the_stream_and_says_which() -> None:
    with (
        serving(lambda e: e.json({}, 503) if "a%2F7" in e.handler.path else shop(e)) as server,
        pytest.raises(TransientError, match="HTTP 503 on record 8 of orders, page 1 after 3 attempts"),
    ):
        read(source(server.url))


@pytest.mark.parametrize("key", [None, "..", "", {"a": 1}, True])
def test_a_parent_whose_field_can_be_no_path_is_an_error(key: object) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.json({"data": [{"key": key}] if exchange.query["page"] == "1" else []})

    with (
        serving(answer) as server,
        pytest.raises(SourceError, match=r"shop.items: record 1 of orders: key can be no part of a path"),
    ):
        read(source(server.url))


def test_the_position_of_the_whole_stream_goes_to_every_parent() -> None:
    incremental = {"cursor": {"field": "at"}, "incremental": {"param": "since"}}
    with serving(shop) as server:
        read(source(server.url, incremental), StreamState(cursor="2024-01-01T00:00:00Z"))
        asked = [line for line in server.seen if "items" in line]
        assert all("since=2024-01-01" in line for line in asked)
        assert not any("since" in line for line in server.seen if "items" not in line)


def test_a_preview_asks_one_parent_for_one_page() -> None:
    with serving(shop) as server:
        assert len(rows(read(source(server.url), within=context(page_limit=1)))) == 2
        assert server.seen == ["GET /orders?page=1", "GET /orders/a%2F0/items?page=1"]


def test_check_and_discover_know_streams_below_others() -> None:
    with serving(shop) as server, kind("rest").open(source(server.url)) as connector:
        assert "orders: 5 records on the first page" in connector.check()
        assert [column.name for column in connector.discover()[1].columns] == ["id"]


def test_a_cancelled_read_ends_its_threads() -> None:
    within = context()

    def answer(exchange: Exchange) -> None:
        if "items" in exchange.path:
            assert any(name.startswith("http-children") for name in readers())
            within.cancelled.set()
            exchange.wait()
        shop(exchange)

    with serving(answer) as server:
        with pytest.raises(Cancelled):
            read(source(server.url), within=within)
        assert readers() == []


def parts(exchange: Exchange) -> None:
    """Two parts of every item, and of the parts of item 21 none: it has vanished."""
    pieces = exchange.handler.path.partition("?")[0].split("/")
    if pieces[-1] != "parts":
        shop(exchange)
    elif pieces[4] == "21":
        exchange.json({}, 404)
    else:
        exchange.json({"data": [{"part": n} for n in range(2)] if exchange.query["page"] == "1" else []})


def three_levels(url: str, parent: dict[str, Any] | None = None) -> SourceSpec:
    above = {"stream": "items", "include": {"order": "order", "item": "id"}, **(parent or {})}
    below = {**CHILD, "name": "parts", "path": "/orders/{parent.order}/items/{parent.id}/parts", "parent": above}
    spec = source(url, {"records": "data", "parent": {**CHILD["parent"], "include": {"order": "key"}}})
    return parse_source(
        {
            "source": "shop", "owner": "team:data", "connector": spec.connector.model_dump(by_alias=True),
            "streams": [*(one.model_dump(by_alias=True, exclude_unset=True) for one in spec.streams), below],
        },
        "defs.yaml",
    )  # fmt: skip


def whole(exchange: Exchange) -> None:
    """As `parts`, of items that all have an id."""
    if exchange.handler.path.partition("?")[0].endswith("/items"):
        number = int(exchange.handler.path.split("/")[2].partition("?")[0].removeprefix("a%2F"))
        page = int(exchange.query["page"])
        exchange.json({"data": [{"id": number * 10 + page}] if page < 3 and number != 3 else []})
    else:
        parts(exchange)


def test_a_stream_may_be_below_one_that_is_below_another(warehouse: Warehouse) -> None:
    """Fields that its parent has from its own parent may stand in its path, and come along."""
    with serving(whole) as server:
        spec = three_levels(server.url)
        with kind("rest").open(spec) as connector:
            found = rows(list(connector.read(spec.stream("parts"), StreamState(), context())))
            assert len(rows(list(connector.read(spec.stream("parts"), StreamState(), context(page_limit=1))))) == 2
            assert [column.name for column in connector.discover()[2].columns] == ["part"]
        assert readers() == []
        done = sync(SyncRequest(spec, spec.stream("parts")), warehouse.loader_dsn)
    items = [(n, n * 10 + page) for n in range(PARENTS) if n != 3 for page in (1, 2) if n * 10 + page != 21]
    assert [(row["order"], row["item"]) for row in found] == [(f"a/{n}", item) for n, item in items for _ in range(2)]
    assert (done.status, done.rows.loaded) == ("succeeded", len(found))


def test_a_failure_two_levels_up_fails_the_stream_and_leaves_no_thread() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.json({}, 503) if "a%2F7/items?" in exchange.handler.path else whole(exchange)

    with serving(answer) as server:
        spec = three_levels(server.url)
        with (
            kind("rest").open(spec) as connector,
            pytest.raises(TransientError, match=r"shop.items: HTTP 503 on record 8"),
        ):
            list(connector.read(spec.stream("parts"), StreamState(), context()))
    assert readers() == []


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a path without its parent": ({"parent": None}, "belong together"),
    "a parent without a place": ({"path": "/items"}, "belong together"),
    "an order that cannot be": (
        {"cursor": {"field": "at"}, "incremental": {"param": "since", "ordered": True}},
        "several parents never come in order",
    ),
    "no such parent": ({"parent": {"stream": "order"}}, "no stream 'order'\nDid you mean 'orders'"),
    "a circle": ({"parent": {"stream": "items"}}, "items: parent.stream: goes in a circle: items below items"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_parent_is_refused(case: str) -> None:
    child, message = WRONG[case]
    with pytest.raises(HeadwaterError, match=message):
        read(source("http://127.0.0.1:1", child))


def test_a_stream_below_another_is_synced_as_any_other(warehouse: Warehouse) -> None:
    child = {"primary_key": ["order", "id"], "write": "merge"}

    def answer(exchange: Exchange) -> None:
        if exchange.path == "/orders":
            shop(exchange)
        else:
            page = int(exchange.query["page"])
            exchange.json({"data": [{"id": page}] if page < 3 else []})

    with serving(answer) as server:
        spec = source(server.url, child)
        for _ in range(2):
            done = sync(SyncRequest(spec, spec.stream("items")), warehouse.loader_dsn)
            assert (done.status, done.rows.extracted) == ("succeeded", 2 * PARENTS)
    assert sql.run(warehouse.loader_dsn, 'select count(*), count(distinct "order") from raw_shop.items') == [(24, 12)]
