"""A page is cut into its records' own bytes, whatever the records hold."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.http.records import JsonPage, MalformedPageError, join

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=5)


def taken(body: bytes, path: str) -> tuple[bytes, list[tuple[int, bytes]]]:
    records = JsonPage(body).records_at(path)
    assert records is not None
    known = JsonPage(body, path).records_at(path)
    assert known is not None
    assert list(map(bytes, known)) == list(map(bytes, records))
    return join(records)


@given(st.lists(json_objects, max_size=6), st.sampled_from([None, 1]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_record_is_one_line_and_unchanged(
    items: list[dict[str, object]], indent: int | None, ascii_only: bool
) -> None:
    # floats include NaN and infinity, which JSON forbids and many servers send
    body = json.dumps({"meta": {"n": 1}, "data": items}, indent=indent, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    )
    lines, odd = taken(body, "data")
    read = [json.loads(line.decode("utf-8", "surrogatepass")) for line in lines.split(b"\n")] if lines else []
    assert [repr(record) for record in read] == [repr(json.loads(json.dumps(item))) for item in items]
    assert odd == []


@given(st.lists(json_objects | st.integers() | st.none() | st.lists(st.integers()) | st.text(), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_is_no_object_is_told_apart(items: list[object]) -> None:
    lines, odd = taken(json.dumps(items).encode(), ".")
    assert len([line for line in lines.split(b"\n") if line]) == sum(isinstance(item, dict) for item in items)
    assert [index for index, _ in odd] == [index for index, item in enumerate(items) if not isinstance(item, dict)]


@given(st.lists(json_objects, min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_a_page_cut_anywhere_is_never_taken_for_a_whole_one(
    items: list[dict[str, object]], data: st.DataObject
) -> None:
    body = json.dumps({"data": items}).encode()
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    for records in (None, "data"):
        with pytest.raises(MalformedPageError) as caught:
            JsonPage(cut, records)
        assert caught.value.is_truncated


@pytest.mark.parametrize(
    "record",
    [
        b'{"id": NaN}',
        b'{"id": 1, "text": "a\x00b"}',
        b'{"id": 1, "text": "\\ud800"}',
        b'{"id": 1, "text": "\xff\xfe"}',
        b'{"id": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"id": 123456789012345678901234567890.5}',
        b'{"id": tru}',
    ],
    ids=["NaN", "NUL", "lone surrogate", "no UTF-8", "deep", "long number", "no JSON"],
)
def test_one_bad_record_does_not_cost_the_page(record: bytes) -> None:
    lines, odd = taken(b'{"next": "c", "data": [{"id": 0}, ' + record + b', {"id": 2}]}', "data")
    assert lines.split(b"\n") == [b'{"id": 0}', record, b'{"id": 2}']
    assert odd == []


def test_values_are_found_along_paths_with_dots_in_their_keys() -> None:
    page = JsonPage(b'{"@odata.nextLink": "x", "meta": {"page": {"next": 3}, "a.b": {"c": 4}}, "data": []}')
    assert page.value_at("@odata.nextLink") == "x"
    assert page.value_at("meta.page.next") == 3
    assert page.value_at("meta.a.b") == {"c": 4}
    assert page.value_at("meta.page.next.more") is None
    assert page.value_at("nothing") is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"data": [{}], "next": "x", "count": 1}', 1),
        (b'{"data": [], "data": [{}], "next": "x"}', 1),
        (b'{"data": [], "next": "x"}', 0),
        (b'{"data": null, "next": "x"}', None),
        (b'{"data": {"data": []}, "next": "x"}', None),
        (b'{"next": "x"}', None),
    ],
)
def test_a_page_whose_records_place_is_known_answers_like_any_other(body: bytes, expected: int | None) -> None:
    page = JsonPage(body, "data")

    records = page.records_at("data")

    assert (None if records is None else len(records)) == expected
    assert page.value_at("next") == "x"
    assert set(page.keys) == set(json.loads(body))
    assert page.records_at("next") is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"[]", "."),
        (b'{"results": [], "data": []}', "data"),
        (b'{"errors": [], "items": []}', "items"),
        (b'{"count": 1, "flights": []}', "flights"),
        (b'{"a": [], "b": []}', None),
        (b'{"data": {"x": 1}}', None),
    ],
)
def test_records_are_looked_for_where_sources_put_them(body: bytes, path: str | None) -> None:
    assert JsonPage(body).guess() == path


@pytest.mark.parametrize("body", [b"<html>", b"null", b"3", b'"text"', b'{"data": []} trailing'])
def test_what_is_no_json_collection_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedPageError) as caught:
        JsonPage(body)
    assert not caught.value.is_truncated


def test_a_hostile_text_is_cut_in_linear_time() -> None:
    # quadratic work over 20 MB would outlast the test's own time limit
    with pytest.raises(MalformedPageError):
        JsonPage(b'{"data": [NaN, "' + b'\\"' * 10_000_000)


def test_records_are_not_decoded() -> None:
    records = JsonPage(b'{"data": [{"id": 1}, {"id": 2}]}').records_at("data")
    assert records is not None
    assert all(isinstance(record, msgspec.Raw) for record in records)
