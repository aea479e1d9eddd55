"""Stores over the network: S3, Azure's and SFTP, each spoken to a server on loopback.

Each runs where its library is installed (extras s3, azure, sftp) and its server: moto[server] from PyPI, azurite from
npm on PATH; SFTP needs paramiko alone.
"""

import gzip
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from fsspec.core import url_to_fs

from connectors.errors import AuthError, ConfigError, TransientError
from tests.files.reading import Reading, read

STREAM = {"path": "in/*.csv.gz", "primary_key": "id", "write": "merge", "null_values": ["NA"]}


NOBODY = "http://127.0.0.1:9"
# the public key of the emulator's one account
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def await_port(port: int) -> None:
    while socket.socket().connect_ex(("127.0.0.1", port)):
        threading.Event().wait(0.05)


class Drop(Protocol):
    """A store with one folder of files in it."""

    url: str
    options: Mapping[str, str]
    wrong: Mapping[str, str]

    def put(self, name: str, body: bytes, minute: int) -> None: ...


@dataclass
class Remote:
    """An object store, filled through a filesystem of its own: the connector's must notice by itself."""

    url: str
    options: Mapping[str, str]
    wrong: Mapping[str, str]

    def put(self, name: str, body: bytes, minute: int) -> None:
        fs, root = url_to_fs(self.url, skip_instance_cache=True, use_listings_cache=False, **self.options)
        fs.pipe_file(f"{root}/{name}", body)


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
def s3(s3_address: str) -> Remote:
    bucket = f"drop-{uuid4().hex[:8]}"
    options = {"key": "a", "secret": "b", "endpoint_url": s3_address}
    url_to_fs("s3://", **options)[0].mkdir(bucket)
    return Remote(f"s3://{bucket}/base", options, {**options, "endpoint_url": NOBODY})


@pytest.fixture(scope="module")
def az_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("adlfs")
    program = shutil.which("azurite-blob") or pytest.skip("azurite is not installed: npm install azurite")
    port, folder = free_port(), tmp_path_factory.mktemp("azurite")
    words = [program, "--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck", "--silent"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        await_port(port)
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
        server.terminate()


@pytest.fixture
def az(az_address: str) -> Remote:
    container = f"drop-{uuid4().hex[:8]}"
    account = f"AccountName=devstoreaccount1;AccountKey={AZURITE_KEY}"

    options = {"connection_string": f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={az_address};"}
    url_to_fs("az://", **options)[0].mkdir(container)
    return Remote(f"az://{container}/base", options, options)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    pytest.importorskip("paramiko")
    from tests.files.sftp import PASSWORD, USER, serving

    with serving(tmp_path) as port:
        options = {"username": USER, "password": PASSWORD}
        url = f"sftp://127.0.0.1:{port}/base"
        yield Sftp(url, options, {**options, "password": "wrong"}, tmp_path)


@pytest.fixture(params=["s3", "az", "sftp"])
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


@pytest.mark.parametrize("store", ["s3", "sftp"])
def test_what_the_store_refuses_has_its_class_and_no_secret(store: str, request: pytest.FixtureRequest) -> None:
    drop: Drop = request.getfixturevalue(store)

    error = at(drop, options=drop.wrong).error

    expected = AuthError if store == "sftp" else TransientError
    assert isinstance(error, expected), error
    assert "wrong" not in str(error)
