"""Every way in which a Sling read ends badly has its class, says why, hides secrets, and leaves nothing behind."""

import os
import signal
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from connectors.contract import CopyFile
from connectors.errors import MAX_LINES, AuthError, Cancelled, ConfigError, HeadwaterError, SourceError, TransientError
from connectors.registry import kind
from connectors.sling.failures import failure
from tests.sling.reading import URL, read, reading, slings, source


def failing(folder: Path, stream: dict[str, Any], **connector: Any) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as raised:
        read(folder, source(stream, connector))
    assert len(str(raised.value).splitlines()) <= MAX_LINES
    assert str(raised.value).startswith("shop")
    assert not slings()
    return raised.value


def test_a_wrong_password_is_auth_and_never_shown(
    shop: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = urlsplit(os.environ[URL])
    monkeypatch.setenv(URL, url._replace(netloc=f"{url.username}:wr0ngpassword@{url.hostname}:{url.port}").geturl())

    error = failing(tmp_path, {"name": "t", "object": "public.t"})

    assert isinstance(error, AuthError)
    assert "password authentication failed" in error.what
    assert "wr0ngpassword" not in str(error)


def test_a_server_that_is_down_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "postgresql://someone:s3cretpassword@127.0.0.1:1/shop?sslmode=disable")

    error = failing(tmp_path, {"name": "t", "object": "public.t"})

    assert isinstance(error, TransientError)
    assert "connection refused" in error.what
    assert "s3cretpassword" not in str(error)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ({"object": "public.nope"}, 'did not find any columns for "public"."nope"'),
        ({"sql": "select nope from t"}, 'column "nope" does not exist'),
        ({"object": "public.t", "where": "nope = 1"}, 'column "nope" does not exist'),
        ({"object": "public.t", "select": ["nope"]}, 'column "nope" does not exist'),
        ({"sql": "selec 1"}, "syntax error"),
        ({"object": "public.t", "transforms": {"id": ["nonsense"]}}, "transform"),
    ],
)
def test_what_the_author_wrote_wrong_is_config(
    shop: psycopg.Connection, tmp_path: Path, stream: dict[str, Any], says: str
) -> None:
    shop.execute("create table t as select 1 as id")

    error = failing(tmp_path, {"name": "t", **stream})

    assert isinstance(error, ConfigError)
    assert says in error.what


def test_a_missing_database_is_config(
    shop: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, urlsplit(os.environ[URL])._replace(path="/nope").geturl())

    assert isinstance(failing(tmp_path, {"name": "t", "object": "public.t"}), ConfigError)


def test_a_row_that_the_source_cannot_produce_is_source(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table t as select i as id from generate_series(1, 200000) i")

    error = failing(tmp_path, {"name": "t", "sql": "select id, 1 / (150000 - id) as x from t"})

    assert isinstance(error, SourceError)
    assert "division by zero" in error.what


def test_a_missing_file_is_config(tmp_path: Path) -> None:
    error = failing(tmp_path, {"name": "t", "object": "nope.csv"}, connection=f"file://{tmp_path}")

    assert isinstance(error, ConfigError)


def test_a_format_behind_a_download_is_config() -> None:
    # as Sling says it where there is no network; with one it downloads the program for every sync
    url = "https://github.com/duckdb/duckdb/releases/x.zip"
    lines = ["fatal:", f"Unable to Reach URL: {url}", f'Get "{url}": dial tcp: lookup github.com: no such host']

    error = failure("shop.t", "sampling a.parquet", lines, 1)

    assert isinstance(error, ConfigError)
    assert "use kind files" in error.hint


def test_a_killed_sling_is_transient(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id, md5(i::text) as note from generate_series(1, 500000) i")

    with reading(tmp_path, source({"name": "big", "object": "public.big"})) as (messages, _):
        assert isinstance(next(messages), CopyFile)
        (sling,) = slings()
        sling.send_signal(signal.SIGKILL)
        with pytest.raises(TransientError, match="ended by SIGKILL while reading"):
            list(messages)

    assert not slings()


def test_a_cancelled_read_ends_the_process_at_once(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id, md5(i::text) as note from generate_series(1, 500000) i")

    with reading(tmp_path, source({"name": "big", "object": "public.big"})) as (messages, context):
        next(messages)
        context.cancelled.set()
        with pytest.raises(Cancelled):
            list(messages)

    assert not slings()


def test_a_query_that_waits_is_cancelled_too(shop: psycopg.Connection, tmp_path: Path) -> None:
    stream = {"name": "slow", "sql": "select 1 as id from (select pg_sleep(600)) q"}

    with reading(tmp_path, source(stream)) as (messages, context):
        context.cancelled.set()
        with pytest.raises(Cancelled):
            list(messages)

    assert not slings()


def test_a_source_that_hangs_is_given_up(shop: psycopg.Connection, tmp_path: Path) -> None:
    error = failing(tmp_path, {"name": "slow", "sql": "select pg_sleep(600)"}, stall_timeout="PT1S")

    assert isinstance(error, TransientError)
    assert "nothing came for 1 s" in error.what


def test_a_reader_that_goes_away_leaves_no_process(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table big as select i as id, md5(i::text) as note from generate_series(1, 500000) i")

    with reading(tmp_path, source({"name": "big", "object": "public.big"})) as (messages, _):
        next(messages)
        assert slings()
        messages.close()  # pyright: ignore[reportAttributeAccessIssue] a generator

    assert not slings()


def test_sling_gets_none_of_our_environment(
    shop: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_SECRET", "not for sling")
    monkeypatch.setenv("FOR_SLING", "4")
    shop.execute("create table big as select i as id from generate_series(1, 500000) i")
    spec = source({"name": "big", "object": "public.big"}, {"env": {"SLING_THREADS": "env:FOR_SLING"}})

    with reading(tmp_path, spec) as (messages, _):
        next(messages)
        (sling,) = slings()
        environment, command = sling.environ(), " ".join(sling.cmdline())

    password = urlsplit(os.environ[URL]).password
    assert "OTHER_SECRET" not in environment
    assert environment["SLING_THREADS"] == "4"
    assert environment["SLING_DISABLE_TELEMETRY"] == "true"
    assert password
    assert not any(password in text for text in (*environment.values(), command))


def test_the_files_with_credentials_are_private(shop: psycopg.Connection, tmp_path: Path) -> None:
    shop.execute("create table t as select 1 as id")

    read(tmp_path, source({"name": "t", "object": "public.t"}))

    for name in ("env.yaml", "replication.json"):
        assert stat.S_IMODE((tmp_path / "sling" / name).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        ({"mode": "incremental"}, "write: append | merge | replace"),
        ({"target_options": {"column_casing": "snake"}}, "belongs to loading"),
        ({"update_key": "updated_at"}, "cursor: {field: updated_at"),
        ({"hooks": {}}, "use checks"),
        ({"source_options": {"columns": {"a": "int"}}}, "types go under the stream's columns"),
        ({"source_options": {"chunk_size": 1000}}, "paid Sling"),
        ({"source_options": {"quote": "~"}}, "ignores it"),
        ({"source_options": {"offset": 1}}, "ignores it"),
        ({"source_options": {"max_decimals": 2}}, "all digits are kept"),
        ({"source_options": {"delimeter": ";"}}, "Did you mean 'delimiter'?"),
        ({"files": ["a.csv"]}, "every file of the folder"),
        ({"object": "public.*"}, "a stream of its own"),
        ({"sql": "select 1", "object": "public.t"}, "sql takes the place of object"),
        ({"sql": "select 1; drop table t"}, "one query"),
        ({"order": True}, "order: true needs cursor"),
        ({"transforms": [{"a": "value + 1"}]}, "transforms"),
    ],
)
def test_what_concerns_the_target_is_refused_with_its_place_here(stream: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        source({"name": "t", **stream})

    assert says in str(raised.value)


@pytest.mark.parametrize(
    "stream",
    [
        {"where": "id > 1"},
        {"select": ["id"]},
        {"cursor": {"field": "id"}, "write": "append"},
        {"cursor": {"field": "id"}, "partitions": {"by": "day", "start": "2024-01-01"}},
    ],
    ids=lambda stream: next(iter(stream)),
)
def test_what_slings_file_readers_would_ignore_is_refused(tmp_path: Path, stream: dict[str, Any]) -> None:
    error = failing(tmp_path, {"name": "t", "object": "t.csv", **stream}, connection=f"file://{tmp_path}")

    assert isinstance(error, ConfigError)
    assert "file readers, which read the whole file" in error.what


@pytest.mark.parametrize("connection", ["postgresql://u:pw12345@h/db", "not a url"])
def test_a_literal_password_is_refused_unseen(connection: str) -> None:
    with pytest.raises(ConfigError) as raised:
        source({"name": "t"}, {"connection": connection})

    assert connection not in str(raised.value)
    assert "pw12345" not in str(raised.value)


def test_a_missing_binary_is_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLING_BINARY", str(tmp_path / "none"))

    with pytest.raises(ConfigError, match="names no executable"):
        kind("sling").open(source({"name": "t"}, {"connection": "sqlite:///x.db"}))
