"""A source of ours as an Airbyte source."""

import json
from typing import Any

import pytest

from connectors.errors import ConfigError, HeadwaterError, TransientError
from connectors.export import airbyte
from connectors.export.reading import Reading
from connectors.export.schemas import shapes
from connectors.export.settings import Setting, apply
from tests.export.serving import ORDERS, TOKEN, messages, opened, shop, spec
from tests.support.scripted import Scripted, records

SETTINGS = (Setting("SHOP_URL", "connector.base_url", False), Setting("SHOP_TOKEN", "connector.auth.token", True))


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", TOKEN)
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")


def configured(*names: str, mode: str = "incremental") -> dict[str, Any]:
    return {"streams": [{"stream": {"name": name}, "sync_mode": mode} for name in names]}


def saved(position: Any) -> list[dict[str, Any]]:
    return [{"type": "STREAM", "stream": {"stream_descriptor": {"name": "orders"}, "stream_state": position}}]


def run(catalog: Any, state: Any = None, streams: int = 1) -> tuple[list[dict[str, Any]], HeadwaterError | None]:
    """What was said, and the error that the read ended with."""
    source = spec(streams)
    written: list[bytes] = []
    error = None
    with opened(source) as connector:
        try:
            airbyte.read(Reading(connector, source.source), source, catalog, state, written.append)
        except HeadwaterError as caught:
            error = caught
    return messages(written), error


def ids(said: list[dict[str, Any]]) -> list[int]:
    return [one["record"]["data"]["id"] for one in said if one["type"] == "RECORD"]


def statuses(said: list[dict[str, Any]]) -> list[tuple[str, str]]:
    told = [one["trace"]["stream_status"] for one in said if one.get("trace", {}).get("type") == "STREAM_STATUS"]
    return [(one["stream_descriptor"]["name"], one["status"]) for one in told]


def errors(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one["trace"]["error"] for one in said if one.get("trace", {}).get("type") == "ERROR"]


def test_a_read_says_records_states_and_statuses_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        said, error = run(configured("orders"))
        assert error is None
        assert ids(said) == [order["id"] for order in ORDERS]
        assert statuses(said) == [("orders", "STARTED"), ("orders", "RUNNING"), ("orders", "COMPLETE")]
        states = [one["state"] for one in said if one["type"] == "STATE"]
        assert sum(state["sourceStats"]["recordCount"] for state in states) == len(ORDERS)
        again, error = run(configured("orders"), [states[-1]])
        assert error is None
        assert ids(again) == [5]


def test_a_full_refresh_reads_everything_whatever_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    position = {"cursor": {"field": "updated_at", "value": "2024-01-05T00:00:00Z", "kind": "timestamp"}}
    state = saved(position)
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        said, _ = run(configured("orders", mode="full_refresh"), state)
        assert len(ids(said)) == len(ORDERS)
        assert len(ids(run(configured("orders"), state)[0])) == 1
    (final,) = [one["state"]["stream"]["stream_state"] for one in said if one["type"] == "STATE"]
    assert final == {"__ab_no_cursor_state_message": True}


def test_a_failing_stream_is_traced_and_its_siblings_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        said, error = run(configured("lost", "orders"), streams=2)
    assert error is not None
    assert len(ids(said)) == len(ORDERS)
    assert ("lost", "INCOMPLETE") in statuses(said)
    assert ("orders", "COMPLETE") in statuses(said)
    (trace,) = errors(said)
    assert trace["stream_descriptor"] == {"name": "lost"}


@pytest.mark.parametrize(
    ("catalog", "state", "said"),
    [
        ({"streams": []}, None, "no streams"),
        ({"streams": [{"name": "orders"}]}, None, "no configured catalog"),
        (configured("order"), None, "no stream 'order'"),
        (configured("orders", mode="sideways"), None, "sync_mode 'sideways'"),
        (configured("orders"), {"orders": {"at": 1}}, "list of state messages"),
        (configured("orders"), [{"type": "GLOBAL", "global": {}}], "list of state messages"),
        ({"streams": 7}, None, "no configured catalog"),
        ({"streams": {"orders": {}}}, None, "no configured catalog"),
        (configured("orders"), "x", "list of state messages"),
        (configured("orders"), saved("x"), "list of state messages"),
        (configured("orders"), saved(["x"]), "list of state messages"),
    ],
)
def test_a_wrong_catalog_or_state_is_refused(catalog: Any, state: Any, said: str) -> None:
    lines, error = run(catalog, state)
    assert isinstance(error, ConfigError)
    assert said in str(error)
    assert lines == []


def test_a_position_of_another_shape_is_traced_with_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "http://127.0.0.1:9")
    said, error = run(configured("orders"), saved({"cursor": {"field": "updated_at"}}))
    assert isinstance(error, ConfigError)
    assert statuses(said) == [("orders", "STARTED"), ("orders", "INCOMPLETE")]
    (trace,) = errors(said)
    assert (trace["failure_type"], trace["stream_descriptor"]) == ("config_error", {"name": "orders"})


def test_an_error_that_nobody_planned_for_is_traced_masked_and_the_siblings_are_read() -> None:
    source = spec(2)
    written: list[bytes] = []

    class Halting(Scripted):
        def read(self, stream: Any, state: Any, context: Any) -> Any:
            yield from [records({"id": 1})] if stream.name == "lost" else super().read(stream, state, context)

    reading = Reading(Halting([records({"id": 1}), KeyError(f"no {TOKEN}")]), source.source)
    with pytest.raises(KeyError):
        airbyte.read(
            reading, source, configured("orders", "lost"), None, written.append, lambda text: text.replace(TOKEN, "*")
        )
    said = messages(written)
    assert statuses(said) == [
        ("orders", "STARTED"), ("orders", "RUNNING"), ("orders", "INCOMPLETE"),
        ("lost", "STARTED"), ("lost", "RUNNING"), ("lost", "COMPLETE"),
    ]  # fmt: skip
    (trace,) = errors(said)
    assert (trace["failure_type"], trace["stream_descriptor"]) == ("system_error", {"name": "orders"})
    assert "KeyError" in trace["stack_trace"]
    assert TOKEN not in json.dumps(said)


@pytest.mark.parametrize(
    ("address", "status", "word"), [("", "SUCCEEDED", ""), ("http://127.0.0.1:9", "FAILED", "transient")]
)
def test_a_check_answers_with_a_status_also_when_it_fails(
    monkeypatch: pytest.MonkeyPatch, address: str, status: str, word: str
) -> None:
    source = spec()
    stanza = source.connector.model_dump(by_alias=True, exclude_unset=True) | {"retries": {"attempts": 1}}
    source = source.model_copy(update={"connector": type(source.connector).model_validate(stanza)})
    written: list[bytes] = []
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", address or api.url)
        airbyte.check(lambda: opened(source), written.append)
    (said,) = messages(written)
    assert said["connectionStatus"]["status"] == status
    assert said["connectionStatus"].get("message", "").startswith(word)


def test_the_catalog_says_what_each_stream_can(monkeypatch: pytest.MonkeyPatch) -> None:
    source = spec()
    written: list[bytes] = []
    with shop() as api:
        monkeypatch.setenv("SHOP_URL", api.url)
        with opened(source) as connector:
            airbyte.discover(shapes(source, connector), written.append)
    (stream,) = messages(written)[0]["catalog"]["streams"]
    assert stream["supported_sync_modes"] == ["full_refresh", "incremental"]
    assert (stream["source_defined_primary_key"], stream["default_cursor_field"]) == ([["id"]], ["updated_at"])
    assert stream["json_schema"]["properties"]["updated_at"]["airbyte_type"] == "timestamp_with_timezone"


def test_the_specification_is_what_the_source_file_refers_to(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    airbyte.spec(SETTINGS, written.append)
    said = messages(written)[0]["spec"]["connectionSpecification"]
    assert said["required"] == ["SHOP_URL", "SHOP_TOKEN"]
    assert {name: one["airbyte_secret"] for name, one in said["properties"].items()} == {
        "SHOP_URL": False,
        "SHOP_TOKEN": True,
    }
    monkeypatch.delenv("SHOP_TOKEN")
    with pytest.raises(ConfigError, match="SHOP_TOKEN is missing"):
        apply(SETTINGS, {"SHOP_URL": "http://x"}, "shop")
    with pytest.raises(ConfigError, match="is a dict") as caught:
        apply(SETTINGS, {"SHOP_URL": "http://x", "SHOP_TOKEN": {"value": TOKEN}}, "shop")
    assert TOKEN not in str(caught.value)


def test_an_error_that_may_pass_says_so_in_its_trace() -> None:
    written: list[bytes] = []
    airbyte.trace(TransientError("shop", "no answer", "Wait."), written.append)
    airbyte.trace(ConfigError("shop", "wrong", "Mend it."), written.append)
    assert [one["trace"]["error"]["failure_type"] for one in messages(written)] == ["transient_error", "config_error"]
