"""Answers that are JSON lines, CSV, XML or gzip files: read, judged, and refused before they fill memory."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import JsonRecords, Rejected, StreamState
from connectors.errors import HeadwaterError, ResourceError, SourceError, TransientError
from connectors.http.formats import Layout
from connectors.http.records import MalformedPageError
from connectors.http.spooled import SpooledAnswer
from connectors.registry import kind
from connectors.specs import parse_source
from connectors.sync import SyncRequest, sync
from platform_assets.warehouse import Warehouse
from tests.http.reading import context, ids, only, read, source
from tests.http.serving import Exchange, records, serving
from tests.support import sql

CSV = b'\xef\xbb\xbfid,name,at\r\n1,"Doe, ""J""",2024-01-01\r\n2,,2024-01-02\r\n3,"two\nlines",2024-01-03'
LINES = b'{"id": 1}\n\n{"id": 2}\r\n{"id": 3}'
FEED = b"""<?xml version="1.0" encoding="ISO-8859-1"?>
<feed total="3"><paging><next>p2</next></paging>
  <entry id="1"><name>M\xfcller</name><tag>a</tag><tag>b</tag></entry>
  <entry id="2"><name/></entry><entry id="3">text</entry>
</feed>"""
XML = {"format": "xml", "records": "feed.entry"}


def payloads(messages: Iterable[object]) -> list[Any]:
    return [json.loads(line) for m in messages if isinstance(m, JsonRecords) for line in m.body.split(b"\n")]


def test_csv_is_read_with_its_quotes_and_empty_values_are_null() -> None:
    with serving(lambda e: e.send(CSV, 200, content_type="text/csv")) as server:
        found = payloads(read(source(server.url, {"format": "csv"})))
        assert server.headers[0]["accept"].startswith("text/csv")
    assert found[0] == {"id": "1", "name": 'Doe, "J"', "at": "2024-01-01"}
    assert (found[1]["name"], found[2]["name"]) == (None, "two\nlines")


def test_a_row_that_does_not_fit_its_header_is_rejected_alone() -> None:
    body = b"id;name\n1;a\n2;b;c\n3;\xff\n4;d\n"
    with serving(lambda e: e.send(body)) as server:
        got = read(source(server.url, {"format": "csv", "delimiter": ";"}))
    assert ids(got) == ["1", "4"]
    assert [m.payload for m in only(Rejected, got)] == [b"[2;b;c]", b"[3;\xff]"]


def test_json_lines_are_read_and_paged() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(LINES if exchange.query["page"] == "1" else b"")

    with serving(answer) as server:
        assert ids(read(source(server.url, {"format": "jsonl", "pagination": {"type": "page_number"}}))) == [1, 2, 3]


def test_xml_is_read_with_attributes_paged_and_counted() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.send(FEED if "after" not in exchange.query else b'<feed total="3"><paging/></feed>')

    stream = {
        **XML,
        "total": "feed.@total",
        "pagination": {"type": "cursor", "param": "after", "path": "feed.paging.next"},
    }
    with serving(answer) as server:
        found = payloads(read(source(server.url, stream)))
        assert server.seen[1] == "GET /things?after=p2"
    assert found == [
        {"@id": "1", "name": "Müller", "tag": ["a", "b"]},
        {"@id": "2", "name": None},
        {"@id": "3", "#text": "text"},
    ]


LAUGHS = b'<!DOCTYPE f [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><feed><entry>&b;</entry></feed>'
OUTSIDE = b'<!DOCTYPE f [<!ENTITY x SYSTEM "file:///etc/passwd">]><feed><entry>&x;</entry></feed>'
WRONG: dict[str, tuple[dict[str, Any], bytes, type[HeadwaterError], str]] = {
    "entities in XML": (XML, LAUGHS, SourceError, "XML that declares entities"),
    "a file as an entity": (XML, OUTSIDE, SourceError, "XML that declares entities"),
    "XML nested for ever": (XML, b"<a>" * 500, SourceError, "nested deeper than 100"),
    "XML cut short": (XML, FEED[:-20], TransientError, "broken XML"),
    "an error document": (XML, b"<error><message>no</message></error>", SourceError, "it says error: .*no"),
    "a login page for XML": (XML, b"<html><br></html>", SourceError, "broken XML: mismatched tag"),
    "a login page for CSV": ({"format": "csv"}, b"<!doctype html><title>Sign in</title>", SourceError, "'Sign in'"),
    "a login page for JSON lines": ({"format": "jsonl"}, b"<html>", SourceError, "no JSON lines"),
    "an error object for CSV": ({"format": "csv"}, b'{"error": "no"}', SourceError, "no CSV"),
    "CSV cut in quotes": ({"format": "csv"}, b'id,name\n1,"a', TransientError, "broken CSV: unexpected end"),
    "CSV cut in a row": ({"format": "csv"}, b"id,name\n1,a\n2", TransientError, "the last line of its CSV ends early"),
    "a header named twice": ({"format": "csv"}, b"id,id\n1,2\n", SourceError, "header with 'id' for two"),
    "JSON lines cut short": ({"format": "jsonl"}, b'{"id": 1}\n{"id"', TransientError, "ends early"),
    "a cut gzip file": ({"format": "csv"}, gzip.compress(CSV * 50)[:-12], TransientError, "ends early"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_is_not_of_the_format_is_classed(fault: str) -> None:
    stream, body, error, message = WRONG[fault]
    with serving(lambda e: e.send(body, 200, content_type="text/html")) as server, pytest.raises(error, match=message):
        read(source(server.url, stream))


def test_a_gzip_file_is_unpacked_whatever_its_headers_say() -> None:
    with serving(lambda e: e.send(gzip.compress(CSV), 200, content_type="application/gzip")) as server:
        assert ids(read(source(server.url, {"format": "csv"}))) == ["1", "2", "3"]


def test_a_gzip_file_inside_an_encoding_that_grows_is_cut_off_at_the_limit() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b" " * 1_000_000) for _ in range(60)) + packer.flush()
    twice = gzip.compress(bomb)
    assert len(twice) < 10_000
    for stream in ({"format": "csv"}, {}):
        with (
            serving(lambda e: e.send(twice, 200, content_encoding="gzip")) as server,
            pytest.raises(ResourceError, match="over 2 MB"),
        ):
            read(source(server.url, stream, max_response_mb=2))


def test_values_of_csv_get_the_types_of_the_contract(warehouse: Warehouse) -> None:
    stream = {
        "format": "csv", "write": "merge", "primary_key": "id",
        "columns": {"id": {"type": "bigint"}, "at": {"type": "date"}},
    }  # fmt: skip
    with serving(lambda e: e.send(CSV)) as server:
        spec = source(server.url, stream)
        assert sync(SyncRequest(spec, spec.streams[0]), warehouse.loader_dsn).rows.loaded == 3
    query = f"select id + 1 as n, name, at::text from raw_{spec.source}.things order by id"
    assert sql.run(warehouse.loader_dsn, query) == [
        (2, 'Doe, "J"', "2024-01-01"), (3, None, "2024-01-02"), (4, "two\nlines", "2024-01-03"),
    ]  # fmt: skip


# ---- answers that are larger than memory should be


def big(count: int) -> list[dict[str, object]]:
    return [{"id": number, "text": "x" * 900, "inner": {"list": [{"a": 1}, {"b": "},"}]}} for number in range(count)]


SIZE = 10_000
"""Records of 1 kB: beyond what is read into memory."""


def spelt(form: str, rows: list[dict[str, object]]) -> tuple[dict[str, Any], bytes]:
    text = json.dumps(rows, indent=1 if form == "json with line ends" else None).encode()
    match form:
        case "json" | "json with line ends":
            return {}, text
        case "nested json":
            body = b'{"meta": {"data": [1]}, "a": ["data", {"data": []}], "data": %s, "total": %d}' % (text, len(rows))
            return {"records": "data", "total": "total"}, body
        case "json that msgspec refuses":
            return {}, text.replace(b'"a": 1', b'"a": NaN')
        case "jsonl":
            return {"format": "jsonl"}, b"\n".join(json.dumps(row).encode() for row in rows)
        case "csv":
            return {"format": "csv"}, b"id,text\n" + b"".join(b"%d,%s\n" % (row["id"], b"x" * 1000) for row in rows)
        case _:
            entries = b"".join(b"<entry><id>%d</id><t>%s</t></entry>" % (row["id"], b"x" * 1000) for row in rows)
            return XML, b"<feed>" + entries + b"</feed>"


FORMS = (
    "nested json", "json that msgspec refuses", "csv",
    *(pytest.param(form, marks=pytest.mark.slow) for form in ("json", "json with line ends", "jsonl", "xml")),
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_large_answer_is_read_piece_by_piece(form: str, tmp_path: Path) -> None:
    stream, body = spelt(form, big(SIZE))
    within = replace(context(), folder=tmp_path)
    with serving(lambda e: e.send(gzip.compress(body, 1), 200, content_encoding="gzip")) as server:
        got = read(source(server.url, stream), within=within)
    assert [int(found) for found in ids(got)] == list(range(SIZE))
    assert max(len(message.body) for message in only(JsonRecords, got)) < 5 << 20
    assert len(only(JsonRecords, got)) > 1
    assert list(tmp_path.iterdir()) == []


def test_a_large_answer_with_a_protected_field_is_not_set_aside_on_disk(tmp_path: Path) -> None:
    seen: list[bool] = []
    stream, body = spelt("nested json", big(SIZE))
    with serving(lambda e: e.send(body)) as server:
        for columns in ({}, {"text": {"rule": "block"}}):
            spec = source(server.url, stream | {"columns": columns})
            with kind("rest").open(spec) as connector:
                messages = connector.read(spec.streams[0], StreamState(), replace(context(), folder=tmp_path))
                next(message for message in messages if isinstance(message, JsonRecords))
                seen.append(any(tmp_path.iterdir()))
                assert list(messages)
    assert seen == [True, False]


@pytest.mark.parametrize(
    "form", ["nested json", "xml", *(pytest.param(form, marks=pytest.mark.slow) for form in ("json", "jsonl"))]
)
def test_a_large_answer_that_ends_early_is_never_taken_for_a_whole_one(form: str, tmp_path: Path) -> None:
    stream, body = spelt(form, big(SIZE))
    layout = Layout(stream.get("format", "json"), stream.get("records"), ",", 1 << 24)
    for cut in (1, 700):
        path = tmp_path / "answer"
        path.write_bytes(body[:-cut])
        with pytest.raises(MalformedPageError) as caught:
            for _ in SpooledAnswer(path, layout).pieces():
                pass
        assert caught.value.is_truncated
        assert not path.exists()


def test_a_large_error_page_is_an_error(tmp_path: Path) -> None:
    within = replace(context(), folder=tmp_path)
    body = json.dumps({"error": "x" * (9 << 20)}).encode()
    with (
        serving(lambda e: e.send(body)) as server,
        pytest.raises(SourceError, match="no array of records at 'data' on page 1"),
    ):
        read(source(server.url, {"records": "data"}), within=within)


@pytest.mark.slow
def test_an_answer_of_a_gigabyte_takes_little_memory(tmp_path: Path) -> None:
    row = json.dumps(big(1)[0]).encode()
    per_send, sends = 1_000, 1_000

    def answer(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[" + row)
        for _ in range(sends):
            exchange.raw((b"," + row) * per_send)
        exchange.raw(b"]")
        exchange.hang_up()

    within = replace(context(), folder=tmp_path)
    with serving(answer) as server:
        spec = source(server.url, max_response_mb=2_000)
        tracemalloc.start()
        count = 0
        with kind("rest").open(spec) as connector:
            for message in connector.read(spec.streams[0], StreamState(), within):
                count += message.body.count(b"\n") + 1 if isinstance(message, JsonRecords) else 0
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == per_send * sends + 1
    assert within.usage.received_bytes > 950_000_000
    assert peak < 120 << 20, f"{peak >> 20} MiB"


def test_large_pages_of_a_paged_stream_stay_within_the_limit() -> None:
    stream = {"records": "data", "pagination": {"type": "page_number"}}
    with (
        serving(lambda e: e.json({"data": records(0, 60_000)})) as server,
        pytest.raises(ResourceError, match="over 1 MB"),
    ):
        read(source(server.url, stream, max_response_mb=1))


def test_a_file_that_contradicts_its_format_is_refused() -> None:
    for stream in (
        {"format": "xml"}, {"format": "csv", "records": "data"}, {"format": "jsonl", "total": "meta.n"},
        {"format": "csv", "single": True}, {"format": "csv", "pagination": {"type": "next_link", "path": "x"}},
    ):  # fmt: skip
        with pytest.raises(HeadwaterError):
            parse_source(
                {
                    "source": "x", "owner": "team:data", "connector": {"kind": "rest", "base_url": "http://x"},
                    "streams": [{"name": "things", "path": "/things", **stream}],
                },
                "defs.yaml",
            )  # fmt: skip
