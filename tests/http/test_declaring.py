"""A wrong source file is answered with its place and the next step; a right one needs neither network nor secrets."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from connectors.errors import ConfigError
from connectors.kinds.rest import RestConnectorSpec, RestStreamSpec
from connectors.registry import kind
from connectors.specs import StreamSpec, parse_source
from tests.http.reading import source

URL = "https://api.example.com"
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "literal secret": ({}, {"auth": {"type": "bearer", "token": "abc123"}}, r"auth\.token: a secret must be"),
    "literal secret in a header": (
        {},
        {"headers": {"Authorization": "Bearer abc123"}},
        r"Authorization carries a cred",
    ),
    "unknown auth": ({}, {"auth": {"type": "magic"}}, r"connector\.auth\.type: unknown value 'magic'"),
    "unknown paging": (
        {"pagination": {"type": "pages"}},
        {},
        r"streams\[things\]\.pagination\.type: unknown value 'pages'",
    ),
    "size alone": ({"pagination": {"type": "offset", "size": 10}}, {}, r"size and size_param belong together"),
    "partitions without an end": (
        {
            "partitions": {"by": "day", "start": "2024-01-01"},
            "cursor": {"field": "at"},
            "incremental": {"param": "since"},
        },
        {},
        r"partitions need incremental\.param and incremental\.end_param",
    ),
    "partitions without parameters": (
        {"partitions": {"by": "day", "start": "2024-01-01"}},
        {},
        r"partitions need incremental\.param",
    ),
    "incremental without a cursor": ({"incremental": {"param": "since"}}, {}, r"has no value without a cursor"),
    "odd format": (
        {"cursor": {"field": "at"}, "incremental": {"param": "since", "format": "rfc"}},
        {},
        r"must be iso, date, epoch",
    ),
    "foreign path": ({"path": "https://other.example/things"}, {}, r"is relative to the connector's base_url"),
    "path with spaces": ({"path": "/my things"}, {}, r"path: has spaces"),
    "body with GET": ({"body": {"a": 1}}, {}, r"a body needs method: POST"),
    "address": ({}, {"base_url": "ftp://x"}, r"must start with https://"),
    "regular expression": ({}, {"errors": [{"status": 200, "body": "(", "becomes": "source"}]}, r"not a regular exp"),
    "single with paging": ({"single": True, "pagination": {"type": "offset"}}, {}, r"it has no pagination"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_names_its_place(case: str) -> None:
    stream, connector, message = WRONG[case]
    with pytest.raises(ConfigError, match=message) as caught:
        source(connector.get("base_url", URL), stream, **connector)
    assert len(str(caught.value).splitlines()) <= 6
    assert "abc123" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://user:pw@api.example.com", "https://api.example.com/?key=1", "https://"])
def test_an_address_with_more_than_an_address_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_URL", url)
    with pytest.raises(ConfigError, match=r"connector\.base_url"):
        kind("rest").open(source("env:THINGS_URL"))


def test_declaring_loads_no_network_library() -> None:
    code = (
        "import sys; import connectors.kinds.rest, connectors.specs as s;"
        "s.parse_source({'source': 'a', 'owner': 'team:o', 'connector': {'kind': 'rest', 'base_url': 'env:NOT_SET',"
        " 'auth': {'type': 'bearer', 'token': 'env:NOT_SET'}}, 'streams': [{'name': 't', 'path': '/t'}]}, 'x');"
        "print([m for m in ('httpx', 'httpcore', 'tenacity', 'msgspec', 'ssl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("connector", "stream", "hint"),
    [
        ({"auth": {"type": "bearer", "tokn": "env:X"}}, {}, "Did you mean 'token'"),
        ({"auth": {"type": "api_key", "key": "env:X", "name": "k", "inn": "query"}}, {}, "Did you mean 'in'"),
        ({"rate_limit": {"request": 3}}, {}, "Did you mean 'requests'"),
        ({}, {"pagination": {"type": "cursor", "pathh": "next"}}, "Did you mean 'path'"),
    ],
)
def test_an_unknown_key_is_answered_with_the_nearest_one(
    connector: dict[str, Any], stream: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        source(URL, stream, **connector)


def test_the_example_in_the_docs_is_a_valid_source() -> None:
    page = Path(__file__).parents[2].joinpath("docs/rest.md").read_text("utf-8")
    example = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    assert parse_source(example["attributes"], "docs/rest.md").streams[0].name == "orders"


@pytest.mark.parametrize("model", [RestConnectorSpec, RestStreamSpec])
def test_the_docs_name_every_key_of_the_kind(model: type[BaseModel]) -> None:
    page = Path(__file__).parents[2].joinpath("docs/rest.md").read_text("utf-8")
    own = [name for name in model.model_fields if name not in (*StreamSpec.model_fields, "kind")]
    assert [name for name in own if f"`{name}`" not in page] == []
