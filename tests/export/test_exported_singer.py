"""A source of ours as a Singer tap."""

from typing import Any

import pytest

from connectors.contract import Checkpoint, Rejected
from connectors.errors import ConfigError, ContractError, SourceError
from connectors.export import singer
from connectors.export.reading import Reading
from connectors.export.schemas import shapes
from tests.export.serving import ORDERS, TOKEN, messages, opened, shop, spec
from tests.http import serving as http
from tests.http.reading import source as api_source
from tests.support.scripted import Scripted, records


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)


def run(catalog: Any = None, state: Any = None, streams: int = 1) -> list[dict[str, Any]]:
    source = spec(streams)
    written: list[bytes] = []
    with opened(source) as connector:
        chosen = singer.selection(source, catalog, lambda: shapes(source, connector))
        try:
            singer.sync(Reading(connector, source.source), chosen, state or {}, written.append)
        finally:
            run.written = messages(written)  # type: ignore[attr-defined]  what came before a failure
    return messages(written)


def discovered() -> dict[str, Any]:
    source = spec()
    with opened(source) as connector:
        return singer.catalog(shapes(source, connector))


def test_a_stream_is_read_and_a_second_read_goes_on_from_its_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        first = run()
        records = [message["record"] for message in first if message["type"] == "RECORD"]
        assert records == ORDERS
        assert [message["type"] for message in first][:2] == ["SCHEMA", "RECORD"]
        assert first[-1]["type"] == "STATE"
        bookmark = first[-1]["value"]["bookmarks"]["orders"]
        assert bookmark["replication_key_value"] == "2024-01-05T00:00:00Z"
        again = run(state=first[-1]["value"])
        assert [message["record"]["id"] for message in again if message["type"] == "RECORD"] == [5]
        assert "since=2024-01-05" in api.requests[-1]


def test_the_catalog_has_types_keys_and_the_replication_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        (entry,) = discovered()["streams"]
    assert entry["key_properties"] == ["id"]
    assert (entry["replication_method"], entry["replication_key"]) == ("INCREMENTAL", "updated_at")
    properties = entry["schema"]["properties"]
    assert properties["id"] == {"type": ["integer"]}
    assert properties["note"] == {"type": ["null", "string"]}
    assert properties["updated_at"] == {
        "type": ["null", "string"], "format": "date-time", "description": "When it last changed",
    }  # fmt: skip
    inclusion = {tuple(item["breadcrumb"]): item["metadata"]["inclusion"] for item in entry["metadata"]}
    assert inclusion[("properties", "id")] == inclusion[("properties", "updated_at")] == "automatic"


def test_only_selected_streams_and_columns_come_and_keys_always(monkeypatch: pytest.MonkeyPatch) -> None:
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        catalog = discovered()
        for item in catalog["streams"][0]["metadata"]:
            if item["breadcrumb"] in (["properties", "note"], ["properties", "id"]):
                item["metadata"]["selected"] = False
        asked = len(api.requests)
        said = run(catalog)
        assert {frozenset(one["record"]) for one in said if one["type"] == "RECORD"} == {
            frozenset({"id", "cents", "updated_at"})
        }
        assert set(said[0]["schema"]["properties"]) == {"id", "cents", "updated_at"}
        # a catalog is not discovered again: three pages, no more
        assert len(api.requests) - asked == 3
        catalog["streams"][0]["metadata"][0]["metadata"]["selected"] = False
        assert run(catalog) == []


@pytest.mark.parametrize("catalog", [{}, {"streams": ["orders"]}])
def test_what_is_no_catalog_is_refused(monkeypatch: pytest.MonkeyPatch, catalog: Any) -> None:
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="no list of streams"):
        run(catalog)


def test_a_stream_that_the_source_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="Did you mean 'orders'"):
        run({"streams": [{"tap_stream_id": "order", "selected": True}]})


DESELECTED = [{"breadcrumb": ["properties", "note"], "metadata": {"selected": False}}]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "no schema"),
        ({"schema": None}, "no schema"),
        ({"schema": "x"}, r"streams\.0\.schema"),
        ({"schema": {"properties": ["id"]}}, "no properties"),
        ({"schema": {}, "metadata": [7]}, r"streams\.0\.metadata\.0: Input should be a valid dictionary\n"),
        ({"schema": {}, "metadata": 7}, r"streams\.0\.metadata"),
        ({"schema": {}, "metadata": [{"breadcrumb": 5}]}, r"metadata\.0\.breadcrumb"),
        ({"schema": {}, "metadata": [{"breadcrumb": ["properties", ["note"]]}]}, r"breadcrumb\.1"),
        ({"schema": {}, "metadata": [{"breadcrumb": [], "metadata": "x"}]}, r"metadata\.0\.metadata"),
        ({"schema": {}, "metadata": DESELECTED}, "deselects note.*no properties"),
        ({"schema": {}, "selected": "perhaps"}, r"streams\.0\.selected"),
    ],
)
def test_a_catalog_of_another_shape_is_refused_with_its_place(
    monkeypatch: pytest.MonkeyPatch, entry: Any, said: str
) -> None:
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=rf"shop.*{said}") as caught:
        run({"streams": [{"tap_stream_id": "orders", "stream": "orders", "selected": True, **entry}]})
    assert "--discover" in caught.value.hint


CURSOR = {"field": "updated_at", "value": "2024-01-05T00:00:00Z", "kind": "timestamp"}


@pytest.mark.parametrize(
    "bookmarks",
    [
        "x",
        ["x"],
        {"orders": "x"},
        {"orders": {"cursor": "x"}},
        {"orders": {"connector": ["x"]}},
        {"orders": {"cursor": {"field": "updated_at"}}},
        {"orders": {"cursor": {"field": "updated_at", "kind": "timestamp"}}},
        *(
            {"orders": {"cursor": CURSOR | wrong}}
            for wrong in (
                {"value": "zzz"}, {"value": 5}, {"value": None}, {"value": "2024-01-05T00:00:00"}, {"kind": "moment"},
                {"kind": ["text"]}, {"kind": "number"}, {"kind": "number", "value": "NaN"},
                {"value": "0001-01-01T00:00:00+05:00"},
            )
        ),
    ],
)  # fmt: skip
def test_a_state_of_another_shape_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, bookmarks: Any
) -> None:
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")
    catalog = {"streams": [{"stream": "orders", "selected": True, "schema": {}}]}
    with pytest.raises(ConfigError, match=r"shop.*state") as caught:
        run(catalog, {"bookmarks": bookmarks})
    assert "state" in caught.value.hint


def test_a_full_table_is_whole_in_every_run_also_when_its_source_says_that_nothing_has_changed() -> None:
    def versioned(exchange: http.Exchange) -> None:
        if exchange.headers.get("if-none-match") == '"v1"':
            exchange.send(b"", 304)
        else:
            exchange.json(http.records(0, 3), etag='"v1"')

    state: dict[str, Any] = {}
    with http.serving(versioned) as server:
        source = api_source(server.url, {"conditional": True})
        for _ in range(2):
            written: list[bytes] = []
            with opened(source) as connector:
                chosen = singer.selection(source, None, lambda: shapes(source, connector))
                singer.sync(Reading(connector, source.source), chosen, state, written.append)
            said = messages(written)
            assert [one["record"]["id"] for one in said if one["type"] == "RECORD"] == [0, 1, 2]
            state = said[-1]["value"]
    assert state == {"bookmarks": {"things": {}}}


def test_a_failing_stream_ends_the_tap_and_the_last_state_covers_what_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = {"streams": [{"stream": name, "selected": True, "schema": {}} for name in ("orders", "lost")]}
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        with pytest.raises((SourceError, ConfigError)):
            run(catalog, streams=2)
    said = run.written  # type: ignore[attr-defined]  set by run
    assert [message["type"] for message in said].count("RECORD") == len(ORDERS)
    states = [message for message in said if message["type"] == "STATE"]
    assert set(states[-1]["value"]["bookmarks"]) == {"orders"}


def test_no_state_stands_behind_a_record_that_could_not_be_passed_on() -> None:
    source = spec()
    script = [
        records({"id": 1}), Checkpoint(connector={"page": 1}),
        Rejected(b"x" * 10, "a record of 17 MB", "page 2"), records({"id": 2}), Checkpoint(connector={"page": 2}),
    ]  # fmt: skip
    reading = Reading(Scripted(script), source.source)
    passed: list[Any] = []
    with pytest.raises(ContractError, match="1 records could not be passed on: page 2: a record of 17 MB"):
        passed.extend(reading.lines(source.streams[0], {}))
    assert passed == [b'{"id": 1}', {"connector": {"page": 1}}, b'{"id": 2}']
