"""What a stream's declaration turns into: requests, records, checkpoints, attestations."""

import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest

from connectors.contract import Attestation, Checkpoint, JsonRecords, Rejected, StreamState, Window
from connectors.errors import ConfigError, SourceError
from connectors.registry import kind
from tests.http.reading import context, ids, only, read, source
from tests.http.serving import Exchange, records, serving

CURSOR = {"cursor": {"field": "at", "lag": "PT1H"}, "primary_key": "id", "write": "merge"}
SINCE = {**CURSOR, "incremental": {"param": "since", "end_param": "until"}, "records": "data"}


def nothing(exchange: Exchange) -> None:
    exchange.json({"data": []})


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        ("iso", "2024-02-03T04:05:06.5Z"),
        ("raw", "2024-02-03T04:05:06.5Z"),
        ("date", "2024-02-03"),
        ("epoch", "1706933106"),
        ("epoch_ms", "1706933106500"),
        ("%d/%m/%Y %H:%M", "03/02/2024 04:05"),
    ],
)
def test_the_position_goes_into_the_request_in_the_sources_format(form: str, sent: str) -> None:
    stream = {**SINCE, "incremental": {"param": "since", "format": form}}
    with serving(nothing) as server:
        read(source(server.url, stream), StreamState(cursor="2024-02-03T04:05:06.5Z"))
        assert parse_qs(server.seen[0].partition("?")[2]) == {"since": [sent]}


def test_without_a_position_the_cursors_start_is_sent_or_nothing() -> None:
    with serving(nothing) as server:
        read(source(server.url, SINCE))
        read(source(server.url, {**SINCE, "cursor": {"field": "at", "start": "2020-01-01T00:00:00Z"}}))
        assert server.seen == ["GET /things", "GET /things?since=2020-01-01T00%3A00%3A00Z"]


def test_a_window_bounds_the_read_whatever_the_position() -> None:
    cet = timezone(timedelta(hours=1))
    window = Window(datetime(2024, 1, 1, 1, tzinfo=cet), datetime(2024, 1, 2, tzinfo=UTC))
    with serving(nothing) as server:
        got = read(source(server.url, SINCE), StreamState(cursor="2030-01-01T00:00:00Z"), context(window=window))
        assert server.seen == ["GET /things?since=2024-01-01T00%3A00%3A00Z&until=2024-01-02T00%3A00%3A00Z"]
        # nothing in an old window says nothing about what is newer than the position
        assert only(Attestation, got) == []


def test_a_window_of_a_stream_that_cannot_be_bounded_is_refused() -> None:
    window = Window(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
    with serving(nothing) as server:
        with pytest.raises(ConfigError, match="cannot be bounded"):
            read(source(server.url, {"records": "data"}), within=context(window=window))
        assert server.seen == []


def test_an_empty_answer_after_a_position_attests_that_nothing_is_new() -> None:
    with serving(nothing) as server:
        assert read(source(server.url, SINCE), StreamState(cursor="2024-01-01T00:00:00Z")) == [
            Attestation(nothing_new=True)
        ]
        # a first read that finds nothing attests nothing
        assert read(source(server.url, SINCE)) == []


def paged(exchange: Exchange, **envelope: Any) -> None:
    page = int(exchange.query["page"])
    exchange.json({"data": records(page * 10, 10) if page <= 3 else [], **envelope}, x_total="31")


PAGED = {"records": "data", "pagination": {"type": "page_number"}}


@pytest.mark.parametrize("total", ["meta.total", "header:X-Total"])
def test_the_sources_own_count_is_attested(total: str) -> None:
    with serving(lambda e: paged(e, meta={"total": "31"})) as server:
        spec = source(server.url, {**PAGED, "total": total})
        assert only(Attestation, read(spec)) == [Attestation(rows=31)]
        # a part of the read is not what the source counted
        assert only(Attestation, read(spec, within=context(page_limit=2))) == []


def test_a_count_that_is_not_there_is_an_error_and_not_silence() -> None:
    with serving(paged) as server, pytest.raises(SourceError, match=r"total: no number at 'meta.total' on page 1"):
        read(source(server.url, {**PAGED, "total": "meta.total"}))


def test_an_ordered_stream_has_a_checkpoint_on_every_page_before_its_last_value() -> None:
    ordered = {**PAGED, **CURSOR, "incremental": {"param": "since", "ordered": True}}
    with serving(paged) as server:
        got = read(source(server.url, ordered))
    assert [type(message) for message in got] == [JsonRecords, Checkpoint, JsonRecords] * 3
    assert all(checkpoint.is_ordered for checkpoint in only(Checkpoint, got))
    assert [message.position for message in only(JsonRecords, got)][:3] == [
        "page 1",
        "page 1, from record 10",
        "page 2",
    ]
    assert ids(got) == list(range(10, 40))


def test_an_unordered_stream_has_no_checkpoint() -> None:
    with serving(paged) as server:
        assert only(Checkpoint, read(source(server.url, {**PAGED, **CURSOR, "incremental": {"param": "since"}}))) == []


def test_records_say_which_page_they_came_from() -> None:
    with serving(paged) as server:
        got = read(source(server.url, PAGED))
        assert [message.position for message in only(JsonRecords, got)] == ["page 1", "page 2", "page 3"]


def test_what_is_no_object_is_rejected_and_the_rest_is_read() -> None:
    with serving(lambda e: e.json([{"id": 1}, 7, {"id": 2}, None])) as server:
        got = read(source(server.url))
    assert ids(got) == [1, 2]
    assert only(Rejected, got) == [
        Rejected(b"7", "the record is no JSON object", "page 1, record 2"),
        Rejected(b"null", "the record is no JSON object", "page 1, record 4"),
    ]


@pytest.mark.parametrize("path", [".", "account"])
def test_a_single_object_is_one_record(path: str) -> None:
    with serving(lambda e: e.json({"id": 9} if path == "." else {"account": {"id": 9}})) as server:
        assert ids(read(source(server.url, {"records": path, "single": True}))) == [9]


def test_a_later_page_must_have_its_records_where_the_first_had_them() -> None:
    def answer(exchange: Exchange) -> None:
        key = "things" if exchange.number == 1 else "stuff"
        exchange.json({key: records(exchange.number * 10, 2)})

    with (
        serving(answer) as server,
        pytest.raises(SourceError, match=r"no array at 'things' on page 2; its keys are stuff"),
    ):
        read(source(server.url, {"pagination": {"type": "page_number"}}))


def test_the_next_page_is_fetched_while_this_one_is_worked_on() -> None:
    asked = threading.Event()

    def answer(exchange: Exchange) -> None:
        if exchange.query["page"] == "2":
            asked.set()
        paged(exchange)

    with serving(answer) as server, kind("rest").open(spec := source(server.url, PAGED)) as connector:
        messages = iter(connector.read(spec.streams[0], StreamState(), context()))
        next(messages)
        assert asked.wait(60)


def test_text_in_another_charset_becomes_utf8() -> None:
    body = '[{"id": "caf\u00e9"}]'.encode("latin-1")
    with serving(lambda e: e.send(body, content_type="application/json; charset=ISO-8859-1")) as server:
        assert ids(read(source(server.url))) == ["caf\u00e9"]


def test_a_byte_order_mark_is_no_part_of_the_json() -> None:
    with serving(lambda e: e.send(b'\xef\xbb\xbf[{"id": 1}]')) as server:
        assert ids(read(source(server.url))) == [1]


def test_check_asks_for_one_page_and_says_what_answered() -> None:
    with serving(paged) as server, kind("rest").open(source(server.url, PAGED)) as connector:
        assert "things: 10 records on the first page" in connector.check()
        assert len(server.seen) == 1


def test_discover_guesses_the_columns_of_the_first_page() -> None:
    page = [
        {"id": 1, "name": "a", "at": "2024-01-01T00:00:00Z", "day": "2024-01-01", "ok": True, "n": 1, "x": {"y": 1}},
        {"id": 2, "name": None, "at": "2024-01-02T00:00:00Z", "day": "2024-01-02", "ok": False, "n": 1.5, "big": 2**70},
    ]
    with serving(lambda e: e.json({"data": page, "count": 2})) as server:
        spec = source(server.url, {"primary_key": "id", "total": "count"})
        with kind("rest").open(spec) as connector:
            (found,) = connector.discover()
    types = {column.name: (column.type, column.is_nullable) for column in found.columns}
    assert types == {
        "id": ("bigint", False),
        "name": ("text", True),
        "at": ("timestamp", False),
        "day": ("date", False),
        "ok": ("bool", False),
        "n": ("double", False),
        "x": ("json", True),
        "big": ("decimal", True),
    }
    assert (found.primary_key, found.estimated_rows) == (("id",), 2)


def test_parameters_are_sent_as_the_file_says_them() -> None:
    with serving(nothing) as server:
        read(source(f"{server.url}/v1/", {"records": "data", "params": {"a": True, "b": 1.5, "c": "x y"}}))
        assert server.seen == ["GET /v1/things?a=true&b=1.5&c=x+y"]


def test_a_body_is_sent_as_the_file_says_it() -> None:
    with serving(nothing) as server:
        read(source(server.url, {"records": "data", "method": "POST", "body": {"q": {"a": [1, 2]}}}))
        assert json.loads(server.bodies[0]) == {"q": {"a": [1, 2]}}
        assert server.headers[0]["content-type"] == "application/json"
