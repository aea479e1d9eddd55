"""Stores that are not this machine's disk, over the network: S3 and SFTP, each a real server on loopback.

They run where their libraries are installed: `uv sync --extra s3 --extra sftp` and moto, whose server speaks S3.
"""

import gzip
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from connectors.errors import AuthError, ConfigError, TransientError
from tests.files.reading import Reading, read

STREAM = {"path": "in/*.csv.gz", "primary_key": "id", "write": "merge", "null_values": ["NA"]}


class Drop(Protocol):
    """A store with one folder of files in it."""

    url: str
    options: Mapping[str, str]
    wrong: Mapping[str, str]

    def put(self, name: str, body: bytes, minute: int) -> None: ...


@dataclass
class S3:
    url: str
    options: Mapping[str, str]
    wrong: Mapping[str, str]
    client: Any

    def put(self, name: str, body: bytes, minute: int) -> None:
        self.client.put_object(Bucket="drop", Key=f"base/{name}", Body=body)


@dataclass
class Sftp:
    url: str
    options: Mapping[str, str]
    wrong: Mapping[str, str]
    folder: Path

    def put(self, name: str, body: bytes, minute: int) -> None:
        path = self.folder / "base" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        modified = 1_704_067_200 + 60 * minute
        os.utime(path, (modified, modified))


@pytest.fixture(scope="module")
def s3_address() -> Iterator[str]:
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_address: str) -> S3:
    boto3 = pytest.importorskip("boto3")
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_address, **keys)
    client.create_bucket(Bucket="drop")
    for found in client.list_objects_v2(Bucket="drop").get("Contents", ()):
        client.delete_object(Bucket="drop", Key=found["Key"])
    options = {"key": "a", "secret": "b", "endpoint_url": s3_address}
    return S3("s3://drop/base", options, {**options, "endpoint_url": "http://127.0.0.1:9"}, client)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    pytest.importorskip("paramiko")
    from tests.files.sftp import PASSWORD, USER, serving

    with serving(tmp_path) as port:
        options = {"username": USER, "password": PASSWORD}
        url = f"sftp://127.0.0.1:{port}/base"
        yield Sftp(url, options, {**options, "password": "wrong"}, tmp_path)


@pytest.fixture(params=["s3", "sftp"])
def drop(request: pytest.FixtureRequest) -> Drop:
    return request.getfixturevalue(request.param)


def at(drop: Drop, stream: Mapping[str, Any] = STREAM, before: Reading | None = None, **more: Any) -> Reading:
    state = before.state if before is not None else None
    return read(drop.url, stream, state, options=more.pop("options", drop.options), **more)


def packed(*rows: str) -> bytes:
    return gzip.compress("\n".join(["id,note", *rows, ""]).encode(), mtime=0)


def test_new_and_changed_files_are_read_and_no_others(drop: Drop) -> None:
    drop.put("in/a.csv.gz", packed("1,x", "2,NA"), 1)
    drop.put("in/b.csv.gz", packed("3,"), 2)
    drop.put("other/c.csv.gz", packed("9,z"), 3)

    first = at(drop)
    again = at(drop, before=first)
    drop.put("in/a.csv.gz", packed("1,changed"), 4)
    drop.put("in/d.csv.gz", packed("4,new"), 5)
    second = at(drop, before=first)

    assert first.error is None, first.error
    assert first.rows == [{"id": 1, "note": "x"}, {"id": 2, "note": None}, {"id": 3, "note": None}]
    assert again.rows == []
    assert second.rows == [{"id": 1, "note": "changed"}, {"id": 4, "note": "new"}]


def test_a_parquet_file_is_read_in_place(drop: Drop, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"id": [1, 2], "note": ["x", None]}), path)
    drop.put("in/x.parquet", path.read_bytes(), 1)

    found = at(drop, {"path": "in/*.parquet"})

    assert found.error is None, found.error
    assert found.rows == [{"id": 1, "note": "x"}, {"id": 2, "note": None}]


def test_a_folder_that_is_not_there_is_config(drop: Drop) -> None:
    drop.put("in/a.csv.gz", packed("1,x"), 1)

    assert isinstance(at(drop, {"path": "nowhere/a.csv"}).error, ConfigError)
    assert isinstance(at(drop, {"path": "nowhere/*.csv"}).error, ConfigError)


def test_what_the_store_refuses_has_its_class_and_no_secret(drop: Drop) -> None:
    error = at(drop, options=drop.wrong).error

    expected = AuthError if isinstance(drop, Sftp) else TransientError
    assert isinstance(error, expected), error
    assert "wrong" not in str(error)
