"""A bespoke connector over HTTP: what its class says, what its file says, what goes wrong in its methods."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from connectors.contract import JsonRecords, StreamState, Window
from connectors.errors import ConfigError, HeadwaterError, SourceError
from connectors.registry import kind
from connectors.specs import SourceSpec, parse_source
from connectors.testing.conformance import assert_conforms
from tests.http.reading import context, ids
from tests.http.serving import Exchange, records, serving
from tests.python_kind.modules import DOCS, Modules, examples

EXAMPLE = examples()[0]
ORDERS = [{"id": n, "updated_at": f"2024-01-{n:02d}T00:00:00Z", "total": 0.1 + n} for n in range(1, 20)]


def shop(exchange: Exchange) -> None:
    """Orders from `offset` on, five a page, in two groups."""
    since, until = exchange.query.get("changed_since", ""), exchange.query.get("changed_before", "3")
    found = [order for order in ORDERS if since <= str(order["updated_at"]) < until]
    offset = int(exchange.query.get("offset", "0"))
    page = found[offset : offset + 5]
    groups = [{"code": "north", "orders": page[:2]}, {"code": "south", "orders": page[2:]}]
    more = offset + 5 < len(found)
    exchange.json({"warehouses": groups, "offset": offset, "count": len(page), "has_more": more})


def documented(module: str, url: str, monkeypatch: pytest.MonkeyPatch) -> SourceSpec:
    """The source file of the page, with its module at `module`."""
    text = DOCS.read_text("utf-8").partition("```yaml\n")[2].partition("```")[0]
    attributes: dict[str, Any] = yaml.safe_load(text)["attributes"]
    attributes["connector"]["module"] = module
    monkeypatch.setenv("SHOP_URL", url)
    monkeypatch.setenv("SHOP_TOKEN", "t0ken")
    return parse_source(attributes, "docs/python.md")


def read(spec: SourceSpec, state: StreamState | None = None, window: Window | None = None) -> list[Any]:
    with kind("python").open(spec) as connector:
        return list(connector.read(spec.streams[0], state or StreamState(), context(window=window)))


def test_the_documented_connector_has_under_thirty_lines_and_conforms(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(EXAMPLE.splitlines()) < 30
    with serving(shop) as server:
        spec = documented(modules.write(EXAMPLE), server.url, monkeypatch)
        report = assert_conforms(spec, requests=server.seen)
        assert server.headers[0]["authorization"] == "Bearer t0ken"
    rules = ("check", "discover", "read", "checkpoints", "new", "window", "cancel")
    shown = [*(f"orders: {rule}" for rule in rules), "errors: variable SHOP_TOKEN unset"]
    assert report.shown == [*shown, "errors: variable SHOP_URL unset", "errors: dead address"]
    assert report.skipped == {}


def test_rows_and_following_replace_records_and_pagination(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(shop) as server:
        got = read(documented(modules.write(EXAMPLE), server.url, monkeypatch))
    assert ids(got) == list(range(1, 20))
    first = next(message for message in got if isinstance(message, JsonRecords)).body.splitlines()[0]
    # the number's own digits, not those of a float
    assert first == b'{"id":1,"updated_at":"2024-01-01T00:00:00Z","total":1.1,"warehouse":"north"}'


PLAIN = """
from connectors.custom import HttpConnector, OffsetPaging


class Shop(HttpConnector):
    path = "/v2/{stream}"
    records = "data"
    pagination = OffsetPaging()
"""


def test_what_the_source_file_says_wins_over_the_class(modules: Modules) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.json({"data": records(0, 2), "items": records(10, 2)})

    with serving(answer) as server:
        said = {"path": "/other", "records": "items", "pagination": {"type": "none"}}
        assert ids(read(modules.source(PLAIN, said, base_url=server.url))) == [10, 11]
        assert server.seen == ["GET /other"]


def test_a_rest_source_moves_to_a_class_of_its_own_without_a_change_to_its_streams(modules: Modules) -> None:
    class_alone = "from connectors.custom import HttpConnector\n\n\nclass Shop(HttpConnector):\n    pass\n"

    def answer(exchange: Exchange) -> None:
        page = int(exchange.query["page"])
        exchange.json({"data": records(page * 2, 2) if page < 4 else []})

    stream = {"name": "orders", "path": "/things", "records": "data", "pagination": {"type": "page_number"}}
    with serving(answer) as server:
        got = read(modules.source(class_alone, stream, base_url=server.url))
        plain = parse_source(
            {
                "source": "a",
                "owner": "team:data",
                "connector": {"kind": "rest", "base_url": server.url},
                "streams": [stream],
            },
            "x",
        )
        with kind("rest").open(plain) as connector:
            assert list(connector.read(plain.streams[0], StreamState(), context())) == got


PARAMETERS = """
from connectors.custom import HttpConnector


class Shop(HttpConnector):
    def parameters(self, stream, since, until):
        return {"filter": f"{stream.options['field']}:{since}..{until}"}
"""


def test_parameters_get_position_start_and_window(modules: Modules) -> None:
    stream = {
        "options": {"field": "changed"},
        "primary_key": "id",
        "cursor": {"field": "at", "start": "2020-01-01T00:00:00Z"},
        "partitions": {"by": "day", "start": "2024-01-01"},
        "write": "merge",
    }
    day = datetime(2024, 1, 1, tzinfo=UTC)
    with serving(lambda e: e.json([])) as server:
        spec = modules.source(PARAMETERS, stream, base_url=server.url)
        read(spec)
        read(spec, StreamState(cursor="2024-02-03T00:00:00Z"))
        read(spec, window=Window(day, day + timedelta(days=1)))
        asked = [seen.partition("filter=")[2].replace("%3A", ":") for seen in server.seen]
    assert asked == [
        "changed:2020-01-01T00:00:00Z..None",
        "changed:2024-02-03T00:00:00Z..None",
        "changed:2024-01-01T00:00:00Z..2024-01-02T00:00:00Z",
    ]


METHOD = """
from connectors.custom import HttpConnector


class Shop(HttpConnector):
    {method}
"""
FAILURES: Mapping[str, tuple[str, type[HeadwaterError], str]] = {
    "rows": (
        "def rows(self, stream, page): return [row['nope'] for row in page]",
        SourceError,
        "Shop.rows raised KeyError on page 1: 'nope'",
    ),
    "no record": ("def rows(self, stream, page): return [{'a': {1}.pop}]", SourceError, "Shop.rows raised TypeError"),
    "following": (
        "def following(self, stream, page): return page['next']",
        SourceError,
        "Shop.following raised TypeError on page 1",
    ),
    "parameters": (
        "def parameters(self, stream, since, until): return {'a': 1 / 0}",
        ConfigError,
        "Shop.parameters raised ZeroDivisionError",
    ),
    "unknown": ("pagnation = 3", ConfigError, r"Shop\.pagnation: no key of kind rest\nDid you mean 'pagination'"),
    "reference": ("base_url = 'env:SHOP_URL'", ConfigError, r"Shop\.base_url: holds a reference"),
    "wrong value": ("pagination = {'type': 'offset', 'parm': 'a'}", ConfigError, r"Shop\.pagination.*unknown key"),
    "contradiction": ("send_in = 'body'", ConfigError, "a body needs method: POST"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_wrong_class_is_told_in_six_lines(case: str, modules: Modules) -> None:
    line, error, message = FAILURES[case]
    with (
        serving(lambda e: e.json(records(0, 2))) as server,
        pytest.raises(error, match=message) as caught,
    ):
        read(modules.source(METHOD.format(method=line), base_url=server.url))
    assert len(str(caught.value).splitlines()) <= 6


def test_an_address_is_needed_somewhere(modules: Modules) -> None:
    with pytest.raises(ConfigError, match="has no base_url"):
        read(modules.source(PLAIN))


def test_secrets_and_options_reach_the_class_and_secrets_no_message(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = METHOD.format(
        method="def parameters(self, stream, since, until): return {'k': self.secrets['key'], 't': self.options['t']}"
    )
    monkeypatch.setenv("SHOP_KEY", "s3cret-value")
    with serving(lambda e: e.json({"error": e.query["k"]}, 400)) as server:
        spec = modules.source(text, base_url=server.url, secrets={"key": "env:SHOP_KEY"}, options={"t": "7"})
        with pytest.raises(ConfigError) as caught:
            read(spec)
        assert server.seen == ["GET /orders?k=s3cret-value&t=7"]
    assert "s3cret" not in str(caught.value)
