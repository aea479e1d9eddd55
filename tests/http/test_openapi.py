"""Descriptions of APIs become source files that load; what is guessed is marked, and no description is too odd."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.http.openapi import draft
from connectors.http.source import HttpConnectorSpec, HttpStreamSpec
from connectors.specs import SourceSpec, parse_source
from platform_assets.cli.new import _description
from tests.cli.conftest import Project, project
from tests.http.serving import Exchange, serving

__all__ = ["project"]


def array(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item}


def answers(schema: Any, kind: str = "application/json", **more: Any) -> dict[str, Any]:
    return {"200": {"description": "ok", "content": {kind: {"schema": schema}}, **more}}


def query(name: str, required: bool = False, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


ORDER = {"allOf": [{"$ref": "#/components/schemas/Base"}, {"properties": {"total": {"type": "number"}}}]}
SHOP: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Shop API: orders & more"},
    "servers": [{"url": "https://{region}.shop.example/v2", "variables": {"region": {"default": "eu"}}}],
    "security": [{"token": []}],
    "paths": {
        "/orders": {
            "parameters": [{"$ref": "#/components/parameters/Limit"}],
            "get": {
                "summary": "All orders\nof the shop",
                "parameters": [query("after"), query("updated_since"), query("updated_before")],
                "responses": answers(
                    {
                        "properties": {
                            "data": array({"$ref": "#/components/schemas/Order"}),
                            "meta": {"properties": {"next_cursor": {"type": "string"}}},
                            "has_more": {"type": "boolean"},
                            "total": {"type": "integer"},
                        }
                    }
                ),
            },
            "post": {"responses": answers({})},
        },
        "/orders/{orderId}": {"get": {"responses": answers({"$ref": "#/components/schemas/Order"})}},
        "/orders/{orderId}/items": {
            "get": {
                "parameters": [
                    query("page"), query("currency", required=True, enum=["EUR"]), query("shop", required=True),
                ],
                "responses": answers(array({"properties": {"id": {}, "sku": {}}})),
            }
        },
        "/orders/{orderId}/items/{itemId}/notes": {"get": {"responses": answers(array({}))}},
        "/v2/customers": {
            "get": {
                "responses": answers(
                    {"properties": {"results": array({"properties": {"customer_id": {}}}), "next": {"format": "uri"}}}
                )
            }
        },
        "/export.csv": {"get": {"responses": answers({"type": "string"}, "text/csv")}},
        "/events": {
            "get": {"responses": answers(array({"properties": {"uuid": {}, "updated": {}}}), headers={"Link": {}})}
        },
    },
    "components": {
        "parameters": {"Limit": query("limit", maximum=250)},
        "schemas": {
            "Base": {"properties": {"id": {"type": "integer"}, "updated_at": {"format": "date-time"}}},
            "Order": ORDER,
        },
        "securitySchemes": {
            "old": {"type": "mutualTLS"},
            "token": {"type": "http", "scheme": "bearer"},
        },
    },
}  # fmt: skip


def loaded(document: object, name: str = "shop", origin: str = "shop.json") -> SourceSpec:
    return parse_source(yaml.safe_load(draft(document, name, origin).text)["attributes"], "defs.yaml")


def stream(spec: SourceSpec, name: str) -> HttpStreamSpec:
    found = spec.stream(name)
    assert isinstance(found, HttpStreamSpec)
    return found


def test_a_description_becomes_a_source_that_loads() -> None:
    spec = loaded(SHOP)
    connector = spec.connector
    assert isinstance(connector, HttpConnectorSpec)
    assert (connector.base_url, connector.auth.type) == ("https://eu.shop.example/v2", "bearer")
    assert [one.name for one in spec.streams] == ["orders", "orders_items", "customers", "export_csv", "events"]
    orders = stream(spec, "orders")
    assert (orders.records, orders.primary_key, orders.total, orders.write) == ("data", ("id",), "total", "merge")
    assert orders.pagination.model_dump() == {
        "type": "cursor", "param": "after", "path": "meta.next_cursor", "has_more": "has_more",
        "size_param": "limit", "size": 250,
    }  # fmt: skip
    assert orders.cursor is not None
    assert orders.incremental is not None
    assert (orders.cursor.field, orders.incremental.param) == ("updated_at", "updated_since")
    assert orders.incremental.end_param == "updated_before"
    items = stream(spec, "orders_items")
    assert items.parent is not None
    assert (items.path, items.parent.stream) == ("/orders/{parent.id}/items", "orders")
    assert (items.parent.include, items.pagination.type) == ({"order_id": "id"}, "page_number")
    assert items.params == {"currency": "EUR", "shop": "TODO"}
    assert stream(spec, "customers").pagination.model_dump()["path"] == "next"
    assert stream(spec, "customers").primary_key == ("customer_id",)
    assert stream(spec, "export_csv").format == "csv"
    assert (stream(spec, "events").pagination.type, stream(spec, "events").primary_key) == ("next_link", ("uuid",))


def test_what_is_guessed_is_marked_and_what_is_left_out_is_told() -> None:
    made = draft(SHOP, "shop", "shop.json")
    lines = made.text.splitlines()
    for key in ("auth:", "pagination:", "primary_key:", "incremental:", "parent:", "write:"):
        assert all("# guess" in line for line in lines if line.strip().removeprefix("- ").startswith(key)), key
    assert not [line for line in lines if line.strip().startswith(("path:", "records:")) and "guess" in line]
    assert made.left_out == (
        "/orders/{orderId}: its answer is no list of records",
        "/orders/{orderId}/items/{itemId}/notes: nobody lists what orderId, itemId can be",
    )
    assert "# params.shop is required, and the description names no value" in made.text
    assert "# updated looks like a cursor, but no parameter asks for what is newer" in made.text


AUTH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "basic": ({"type": "http", "scheme": "Basic"}, {"type": "basic"}),
    "a key in the query": ({"type": "apiKey", "in": "query", "name": "k"}, {"type": "api_key", "name": "k"}),
    "client credentials": (
        {"type": "oauth2", "flows": {"clientCredentials": {"tokenUrl": "https://x/t"}}},
        {"type": "oauth2_client_credentials", "token_url": "https://x/t"},
    ),
    "a sign-in": (
        {"type": "oauth2", "flows": {"authorizationCode": {"tokenUrl": "https://x/t", "authorizationUrl": "https://x/a"}}},
        {"type": "oauth2_authorization_code", "authorize_url": "https://x/a"},
    ),
    "none that is known": ({"type": "openIdConnect"}, {"type": "none"}),
}  # fmt: skip


@pytest.mark.parametrize("case", AUTH)
def test_the_scheme_of_security_becomes_auth(case: str) -> None:
    scheme, expected = AUTH[case]
    spec = loaded({**SHOP, "security": [], "components": {**SHOP["components"], "securitySchemes": {"s": scheme}}})
    assert isinstance(spec.connector, HttpConnectorSpec)
    assert expected.items() <= spec.connector.auth.model_dump().items()


def list_of(schema: Any, **more: Any) -> dict[str, Any]:
    return {"openapi": "3.1.0", "paths": {"/things": {"get": {"responses": answers(schema)}}}, **more}


NODE = {"$ref": "#/components/schemas/Node"}
LOOP = {"properties": {"id": {}, "child": NODE, "children": array(NODE)}}
ITSELF = {"$ref": "#/components/schemas/S"}
WIDE: Any = {"properties": {"id": {}}}
for _ in range(9):
    WIDE = {"allOf": [WIDE] * 9}
ODD: dict[str, dict[str, Any]] = {
    "a schema that has itself in it": list_of(
        array(NODE), components={"schemas": {"Node": LOOP}}
    ),
    "references in a circle": {
        **list_of(array({})),
        "components": {"schemas": {"A": {"$ref": "#/components/schemas/B"}, "B": {"$ref": "#/components/schemas/A"}}},
        "security": {"$ref": "#/security"}, "servers": {"url": 3},
    },
    "parts of parts without end": list_of(array(WIDE)),
    "a part of itself": list_of(
        array(ITSELF), components={"schemas": {"S": {"allOf": [ITSELF]}}}
    ),
    "numbers as keys": yaml.safe_load(
        "openapi: 3.0.1\npaths:\n  /things:\n    get:\n      responses:\n        200:\n          content:\n"
        "            application/json: {schema: {type: array, items: {$ref: 'other.yaml#/Thing'}}}\n"
    ),
    "names that YAML would take for something else": list_of(
        array({"properties": {"id": {}}}), info={"title": "yes: # [no]\u2028\x07 {x}"}, servers=[{"url": "https://[x/%7B?a=b#c"}]
    ),
    "lists where mappings should be": {
        "openapi": 3.0, "info": [], "components": [], "servers": "x",
        "paths": {"/a": [], "/b": {"get": 1}, "//evil.example/c": {"get": {"responses": answers(array({}))}},
                  "/things": {"get": {"parameters": [None, 1, {"name": 2}], "responses": answers(array([]))}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_an_odd_description_still_becomes_a_source_that_loads(case: str) -> None:
    spec = loaded(ODD[case])
    assert "things" in [one.name for one in spec.streams]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_in_a_description_the_draft_loads(data: st.DataObject) -> None:
    """One node of a good description is replaced by anything at all."""
    document = json.loads(json.dumps(SHOP))
    at = document
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.integers(0, 4)) == 0:
            at[key] = data.draw(json_values)
            break
        at = at[key]
    # one that is refused is refused by the draft, never by what reads it
    with suppress(ConfigError):
        draft(document, "shop", "shop.json")
        loaded(document)
        return
    with pytest.raises(ConfigError, match=r"^shop\.json: "):
        draft(document, "shop", "shop.json")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"swagger": "2.0"}, r"says swagger: 2.0"),
        ({"paths": {}}, "has no `openapi: 3"),
        ({"openapi": "3.0.0", "paths": {"/x": {"get": {"responses": {}}}}}, "no GET operation answers with a list"),
        ([], "has no `openapi: 3"),
    ],
)
def test_what_is_no_description_is_refused(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draft(document, "shop", "shop.json")


def test_the_command_drafts_from_a_file_and_from_an_address(project: Project, tmp_path: Path) -> None:
    tabbed = json.dumps({**SHOP, "servers": [{"url": "/v3"}]}, indent="\t").encode()
    with serving(lambda e: e.send(tabbed)) as server:
        done = project.run("new", "source", "--from-openapi", f"{server.url}/openapi.json")
        assert "wrote platform_assets/defs/ingest/shop_api_orders_more/defs.yaml: 5 streams" in done.stdout, done.stderr
        written = project.root / "platform_assets/defs/ingest/shop_api_orders_more/defs.yaml"
        assert f"base_url: {server.url}/v3\n" in written.read_text("utf-8")
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(SHOP), encoding="utf-8")
    words = ("new", "source", "shop", "--from-openapi", str(tmp_path / "shop.yaml"))
    assert project.run(*words).returncode == 0
    again = project.run(*words)
    assert (again.returncode, "exists already" in again.stderr) == (3, True)


def test_of_a_file_without_end_no_more_is_read_than_a_description_may_have(tmp_path: Path) -> None:
    endless = tmp_path / "endless.json"
    with endless.open("wb") as file:
        # 4 TB, none of them on the disk
        file.truncate(1 << 42)
    with pytest.raises(ConfigError, match="has more than 50 MB"):
        _description(str(endless))
    with serving(lambda e: endlessly(e)) as server, pytest.raises(ConfigError, match="has more than 50 MB"):
        _description(f"{server.url}/openapi.json")


def endlessly(exchange: Exchange) -> None:
    exchange.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not exchange.gone.is_set():
        exchange.raw(b" " * 1_000_000)


LAUGHS = """
openapi: 3.1.0
x: [&a {properties: {id: {type: [string, "null"]}}}, &b {allOf: [*a, *a, *a, *a, *a, *a, *a, *a, *a]},
    &c {allOf: [*b, *b, *b, *b, *b, *b, *b, *b, *b]}, &d {allOf: [*c, *c, *c, *c, *c, *c, *c, *c, *c]},
    &e {allOf: [*d, *d, *d, *d, *d, *d, *d, *d, *d]}, &f {allOf: [*e, *e, *e, *e, *e, *e, *e, *e, *e]},
    &g {allOf: [*f, *f, *f, *f, *f, *f, *f, *f, *f]}, &h {allOf: [*g, *g, *g, *g, *g, *g, *g, *g, *g]}]
paths:
  /things:
    get:
      responses:
        "200": {content: {application/json: {schema: {type: [array, "null"], items: *h}}}}
"""


def test_a_yaml_file_that_grows_by_its_aliases_is_drafted_in_bounded_steps(tmp_path: Path) -> None:
    path = tmp_path / "laughs.yaml"
    path.write_text(LAUGHS, encoding="utf-8")
    spec = loaded(_description(str(path)))
    assert [(one.name, one.primary_key) for one in spec.streams] == [("things", ("id",))]
