"""The kind's own keys: what is refused before anything is opened, and that definitions stay light."""

import subprocess
import sys
from typing import Any

import pytest

from connectors.errors import ConfigError
from connectors.specs import parse_source

CONNECTOR = {"kind": "database", "url": "env:SHOP_DB_URL"}


def parse(stream: dict[str, Any] | None = None, **connector: Any) -> object:
    return parse_source(
        {
            "source": "shop",
            "owner": "team:data",
            "connector": CONNECTOR | connector,
            "streams": [{"name": "orders"} | (stream or {})],
        },
        "shop.yaml",
    )


def test_a_url_with_a_password_must_be_a_reference() -> None:
    for url in ("postgresql://user:s3cret@host/shop", "postgresql://host/shop?password=s3cret"):
        with pytest.raises(ConfigError, match="a URL with a password must be a reference") as caught:
            parse(url=url)
        assert "s3cret" not in str(caught.value)


def test_a_url_without_a_password_may_be_literal() -> None:
    parse(url="sqlite:////data/shop.db")
    with pytest.raises(ConfigError, match="not a URL"):
        parse(url="shop.db")


def test_an_unknown_key_names_the_nearest_one_as_it_is_written() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'schema'"):
        parse({"shema": "sales"})
    with pytest.raises(ConfigError, match="Did you mean 'schema'"):
        parse(shema="sales")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"select": ["a"], "exclude": ["b"]}, "select and exclude contradict each other"),
        ({"select": ["a", "b", "a"]}, "select names a column twice: a"),
        ({"select": ["a"], "primary_key": "id"}, "column 'id' is a key or the cursor"),
        ({"exclude": "at", "cursor": {"field": "at"}}, "column 'at' is a key or the cursor"),
        ({"columns": {"at": {"rule": "block"}}, "cursor": {"field": "at"}}, "rule: block contradicts cursor"),
        ({"where": " "}, "where is one SQL condition"),
        ({"where": "true); drop table x; --"}, "where is one SQL condition"),
        ({"partitions": {"by": "day", "start": "2024-01-01"}}, "partitions bound the read by the cursor"),
        ({"keyset": {"rows": 10}, "write": "append"}, "keyset reads the whole table"),
        ({"keyset": {"rows": 0}}, "greater than or equal to 1"),
        ({"keyset": {}, "order": True}, "two ways to resume one read"),
        ({"order": True, "write": "append", "cursor": {"field": "at"}}, "needs a primary_key"),
    ],
)
def test_a_contradiction_is_refused(stream: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(stream)


def test_definitions_load_no_database_library() -> None:
    code = (
        "import sys; from connectors.registry import kind; kind('database'); "
        "print(*sorted({'psycopg', 'sqlalchemy', 'pyarrow', 'pymysql'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == ""
