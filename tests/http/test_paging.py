"""Every flavour of paging against a server that speaks it, and every way it can go round or end early."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import ReadContext
from connectors.errors import ConfigError, SourceError
from connectors.registry import kind
from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.http.reading import context, ids, read, source
from tests.http.serving import Exchange, records, serving

ALL = records(0, 25)
SIZED = {"size_param": "size", "size": 10}


def page_number(exchange: Exchange) -> None:
    page, size = int(exchange.query["page"]), int(exchange.query["size"])
    exchange.json({"data": ALL[(page - 1) * size : page * size], "pages": 3, "more": page < 3})


def offset(exchange: Exchange) -> None:
    # asked for 10, this server never gives more than 7
    start = int(exchange.query["offset"])
    exchange.json({"data": ALL[start : start + 7]})


def cursor(exchange: Exchange) -> None:
    start = int(exchange.query.get("after", "0"))
    following = start + 10 if start + 10 < len(ALL) else None
    exchange.json({"data": ALL[start : start + 10], "meta": {"next": following}})


def link_in_body(exchange: Exchange) -> None:
    start = int(exchange.query.get("start", "0"))
    following = f"/things?start={start + 10}&size=10" if start + 10 < len(ALL) else None
    exchange.json({"data": ALL[start : start + 10], "@odata.nextLink": following})


def link_in_header(exchange: Exchange) -> None:
    start = int(exchange.query.get("start", "0"))
    host = exchange.headers["host"]
    more = start + 10 < len(ALL)
    link = f'<http://{host}/things?start={start + 10}>; rel="next", <http://{host}/things>; rel="first"'
    exchange.json(ALL[start : start + 10], 200, **({"link": link} if more else {}))


def keyset(exchange: Exchange) -> None:
    after = int(exchange.query.get("since_id", "-1"))
    found = [record for record in ALL if int(str(record["id"])) > after][:10]
    exchange.json({"data": found, "has_more": bool(found) and found[-1]["id"] != 24})


FLAVOURS: dict[str, tuple[Callable[[Exchange], None], dict[str, Any], int]] = {
    "page number until an empty page": (page_number, {"type": "page_number", **SIZED}, 4),
    "page number with the number of pages": (page_number, {"type": "page_number", "total_pages": "pages", **SIZED}, 3),
    "page number with has_more": (page_number, {"type": "page_number", "has_more": "more", **SIZED}, 3),
    "offset of a server that caps the size": (offset, {"type": "offset", "size_param": "limit", "size": 10}, 5),
    "cursor in the body": (cursor, {"type": "cursor", "param": "after", "path": "meta.next"}, 3),
    "next link in the body": (link_in_body, {"type": "next_link", "path": "@odata.nextLink"}, 3),
    "next link in the header": (link_in_header, {"type": "next_link"}, 3),
    "keyset until an empty page": (keyset, {"type": "keyset", "param": "since_id", "field": "id"}, 4),
    "keyset with has_more": (
        keyset,
        {"type": "keyset", "param": "since_id", "field": "id", "has_more": "has_more"},
        3,
    ),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_record_comes_once_and_in_order(flavour: str) -> None:
    answer, pagination, requests = FLAVOURS[flavour]
    with serving(answer) as server:
        assert ids(read(source(server.url, {"pagination": pagination}))) == list(range(25))
        assert len(server.seen) == requests


def test_a_keyset_whose_field_two_records_share_at_the_end_of_a_page_is_refused() -> None:
    """Those of the next page that have the value too would never come."""
    shared = [{"id": number, "group": number // 4} for number in range(20)]

    def answer(exchange: Exchange) -> None:
        after = int(exchange.query.get("after", "-1"))
        exchange.json({"data": [record for record in shared if record["group"] > after][:6]})

    with serving(answer) as server:
        paging = {"type": "keyset", "param": "after", "field": "group"}
        with pytest.raises(SourceError, match="two records at the end of a page share group, so others that do"):
            read(source(server.url, {"records": "data", "pagination": paging}))


def test_paging_parameters_go_into_the_body_of_a_post() -> None:
    def answer(exchange: Exchange) -> None:
        asked = json.loads(exchange.body)
        start = int(asked["page"].get("offset", 0))
        exchange.json({"data": ALL[start : start + 10], "echo": asked["filter"]})

    stream = {
        "method": "POST",
        "body": {"filter": {"kind": "a"}, "page": {"limit": 10}},
        "send_in": "body",
        "records": "data",
        "pagination": {"type": "offset", "param": "page.offset"},
    }
    with serving(answer) as server:
        assert ids(read(source(server.url, stream))) == list(range(25))
        assert server.bodies[1] == b'{"filter":{"kind":"a"},"page":{"limit":10,"offset":"10"}}'


def test_the_same_records_twice_in_a_row_are_refused() -> None:
    # the server ignores ?page=
    with (
        serving(lambda exchange: exchange.json({"data": ALL[:10]})) as server,
        pytest.raises(SourceError, match=r"ignores the paging parameter on page 2"),
    ):
        read(source(server.url, {"pagination": {"type": "page_number"}}))


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_a_cursor_that_leads_back_is_refused(length: int) -> None:
    def answer(exchange: Exchange) -> None:
        # fresh records every time, so only the cursor shows the circle
        exchange.json({"data": records(exchange.number * 10, 10), "next": f"c{exchange.number % length}"})

    with serving(answer) as server:
        with pytest.raises(SourceError, match="leads back to a page"):
            read(source(server.url, {"pagination": {"type": "cursor", "path": "next"}}))
        assert len(server.seen) <= 4 * length + 2


@pytest.mark.parametrize("characters", [1, 500_000])
def test_a_source_that_starts_over_is_refused(characters: int) -> None:
    def answer(exchange: Exchange) -> None:
        page = int(exchange.query["page"])
        rows = records((page - 1) % 3 * 10, 10)
        exchange.json({"data": [{**row, "text": "x" * characters} for row in rows]})

    with serving(answer) as server, pytest.raises(SourceError, match="already read"):
        read(source(server.url, {"pagination": {"type": "page_number"}}))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": ALL[:3]}, "more is missing or null, not true or false"),
        ({"data": ALL[:3], "more": "yes"}, "more is text, not true or false"),
        ({"data": [], "more": True}, "more is true on a page without records"),
    ],
)
def test_has_more_must_be_on_every_page(body: dict[str, Any], message: str) -> None:
    with serving(lambda exchange: exchange.json(body)) as server, pytest.raises(SourceError, match=message):
        read(source(server.url, {"records": "data", "pagination": {"type": "page_number", "has_more": "more"}}))


def test_a_cursor_that_is_no_text_is_refused() -> None:
    with (
        serving(lambda exchange: exchange.json({"data": ALL[:3], "next": {"page": 2}})) as server,
        pytest.raises(SourceError, match="next is an object, not a cursor"),
    ):
        read(source(server.url, {"records": "data", "pagination": {"type": "cursor", "path": "next"}}))


def test_an_early_empty_page_is_refused_when_the_source_counts_more() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.json({"data": ALL[:10] if exchange.query["page"] == "1" else [], "pages": 5})

    with serving(answer) as server, pytest.raises(SourceError, match="pages says 5 pages, but this one has no records"):
        read(source(server.url, {"pagination": {"type": "page_number", "total_pages": "pages"}}))


MORE: dict[str, dict[str, Any]] = {
    "a total above the records": {"total": 250},
    "true has_more": {"has_more": True},
    "an address of the next page": {"next": "https://shop.example/things?page=2"},
    "a token of the next page": {"nextPageToken": "a1"},
}


@pytest.mark.parametrize("said", MORE)
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "kept in a file"])
def test_a_first_page_that_says_there_is_more_is_refused_without_pagination(
    said: str, is_large: bool, tmp_path: Path
) -> None:
    rows = records(0, 50)
    # an answer above eight megabytes goes to a file
    rows[0] |= {"note": "x" * 9_000_000} if is_large else {}

    def answer(exchange: Exchange) -> None:
        exchange.json({**MORE[said], "data": rows})

    with serving(answer) as server:
        with pytest.raises(ConfigError, match="pagination") as refused:
            read(source(server.url, {"records": "data"}), within=ReadContext(window=None, folder=tmp_path))
        assert "no pagination is declared" in refused.value.what
        assert len(ids(read(source(server.url, {"records": "data"} | {"pagination": {"type": "none"}})))) == len(rows)
        with (
            kind("rest").open(source(server.url, {"records": "data"})) as connector,
            pytest.raises(ConfigError, match="no pagination"),
        ):
            connector.check()


def test_a_link_header_says_that_there_is_more_too() -> None:
    with serving(link_in_header) as server, pytest.raises(ConfigError, match="rel=next"):
        read(source(server.url))


def test_an_answer_that_counts_its_own_records_is_whole() -> None:
    body = {"data": ALL, "total": len(ALL), "count": len(ALL), "next": None, "has_more": False, "next_cursor": ""}
    with serving(lambda exchange: exchange.json(body)) as server:
        assert len(ids(read(source(server.url)))) == len(ALL)


def test_a_page_limit_ends_the_read_without_asking_for_more() -> None:
    with serving(cursor) as server:
        spec = source(server.url, {"pagination": {"type": "cursor", "param": "after", "path": "meta.next"}})
        assert ids(read(spec, within=context(page_limit=2))) == list(range(20))
        assert len(server.seen) == 2


def shifting(change: Callable[[list[dict[str, object]]], None]) -> Callable[[Exchange], None]:
    """Ten records by offset, four a page; `change` happens to them after the first page."""
    rows = records(0, 10)

    def answer(exchange: Exchange) -> None:
        first = int(exchange.query["offset"])
        exchange.json({"data": rows[first : first + 4], "total": 10})
        if exchange.number == 1:
            change(rows)

    return answer


MOVES: dict[str, tuple[Callable[[list[dict[str, object]]], None], list[int]]] = {
    "nothing": (lambda rows: None, list(range(10))),
    "a row before the page goes": (lambda rows: rows.__delitem__(0), list(range(10))),
    "the last row of the page goes": (lambda rows: rows.__delitem__(3), list(range(10))),
    "a row comes before the page": (lambda rows: rows.insert(0, {"id": 99}), list(range(10))),
    "a row of the page changes": (lambda rows: rows[3].update(at="2025-01-01T00:00:00Z"), list(range(10))),
}


@pytest.mark.parametrize("move", MOVES)
def test_pages_that_overlap_lose_and_double_nothing_while_rows_move(move: str) -> None:
    change, expected = MOVES[move]
    paging = {"type": "offset", "overlap": 2}
    with serving(shifting(change)) as server:
        stream = {"records": "data", "pagination": paging, "primary_key": "id"}
        assert ids(read(source(server.url, stream))) == expected


def test_rows_that_move_by_more_than_the_overlap_end_the_sync() -> None:
    paging = {"type": "offset", "overlap": 2}
    with (
        serving(shifting(lambda rows: rows.__delitem__(slice(0, 4)))) as server,
        pytest.raises(SourceError, match=r"none of the last 2 records came again .*; rows moved while they were paged"),
    ):
        read(source(server.url, {"records": "data", "pagination": paging, "primary_key": "id"}))


def test_without_overlap_a_row_that_was_missed_shows_in_the_sources_own_count(warehouse: Warehouse) -> None:
    stream = {"records": "data", "total": "total", "pagination": {"type": "offset"}, "primary_key": "id"}
    with serving(shifting(lambda rows: rows.__delitem__(0))) as server:
        spec = source(server.url, {**stream, "write": "merge"})
        done = sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn)
    assert (done.status, done.rows.loaded) == ("succeeded_with_warnings", 9)
    assert "the source says 10 rows, 9 were read" in done.message
