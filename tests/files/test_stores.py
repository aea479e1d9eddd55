"""Stores over the network: S3, SFTP, Azure's and Google's, each spoken to a server on loopback.

S3 (moto) and SFTP (paramiko) run in every environment of development. Azure's and Google's servers are installed when
they are first needed (tests/files/emulators.py), so they run with the long tests.
"""

import base64
import gzip
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from fsspec.core import url_to_fs

from connectors.errors import AuthError, ConfigError, TransientError
from tests.database.dropping_proxy import dropping_after
from tests.files import emulators
from tests.files.reading import Reading, read

STREAM = {"path": "in/*.csv.gz", "primary_key": "id", "write": "merge", "null_values": ["NA"]}


NOBODY = "http://127.0.0.1:9"
# the public key of the emulator's one account
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextmanager
def running(words: Sequence[str], port: int) -> Generator[None]:
    """The program, once it listens; a port that is taken or a program that ends is told."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            while not _listens(port):
                try:
                    server.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
                assert server.stdout
                raise AssertionError(f"{words[0]} ended: {server.stdout.read().decode()[-500:]}")
            # what it says from now on is read by nobody, and must not fill its pipe
            assert server.stdout
            reader = threading.Thread(target=server.stdout.read, daemon=True)
            reader.start()
            yield
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


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
    drop_connections: Callable[[], None]

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
    options = {"key": "s3-key-id", "secret": "s3-secret-word", "endpoint_url": s3_address}
    url_to_fs("s3://", **options)[0].mkdir(bucket)
    return Remote(f"s3://{bucket}/base", options, {**options, "endpoint_url": NOBODY})


@pytest.fixture(scope="module")
def az_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("adlfs")
    port, folder = free_port(), tmp_path_factory.mktemp("azurite")
    program = str(emulators.azurite())
    with running([program, "--blobPort", str(port), "--location", str(folder), "--skipApiVersionCheck"], port):
        yield f"http://127.0.0.1:{port}/devstoreaccount1"


@pytest.fixture
def az(az_address: str) -> Remote:
    container = f"drop-{uuid4().hex[:8]}"

    def options(key: str) -> dict[str, str]:
        account = f"AccountName=devstoreaccount1;AccountKey={key}"
        return {"connection_string": f"DefaultEndpointsProtocol=http;{account};BlobEndpoint={az_address};"}

    url_to_fs("az://", **options(AZURITE_KEY))[0].mkdir(container)
    wrong = base64.b64encode(b"wrong" * 12).decode()
    return Remote(f"az://{container}/base", options(AZURITE_KEY), options(wrong))


@pytest.fixture(scope="module")
def gcs_address() -> Iterator[str]:
    port = free_port()
    words = [str(emulators.gcs()), "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with pytest.MonkeyPatch.context() as patched, running(words, port):
        # read when gcsfs is imported; else it asks for the bucket's kind by gRPC, which the emulator does not speak
        patched.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        pytest.importorskip("gcsfs")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def gcs(gcs_address: str) -> Remote:
    bucket = f"drop-{uuid4().hex[:8]}"
    options = {"endpoint_url": gcs_address, "token": "anon", "project": "p"}
    url_to_fs("gs://", **options)[0].mkdir(bucket)
    return Remote(f"gs://{bucket}/base", options, options)


@pytest.fixture
def sftp(tmp_path: Path) -> Iterator[Sftp]:
    pytest.importorskip("paramiko")
    from tests.files.sftp import PASSWORD, USER, serving

    with serving(tmp_path) as server:
        options = {"username": USER, "password": PASSWORD}
        url = f"sftp://127.0.0.1:{server.port}/base"
        yield Sftp(url, options, {**options, "password": "wr0ng-word"}, tmp_path, server.drop_connections)


LONG = (pytest.mark.slow, pytest.mark.timeout(emulators.SECONDS + 300))
AZ, GCS = (pytest.param(name, marks=LONG) for name in ("az", "gcs"))


@pytest.fixture(params=["s3", "sftp", AZ, GCS])
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


@pytest.mark.parametrize(
    ("store", "expected"),
    [pytest.param("s3", TransientError, marks=LONG), ("sftp", AuthError), pytest.param("az", AuthError, marks=LONG)],
)
def test_what_the_store_refuses_has_its_class_and_no_secret(
    store: str, expected: type[Exception], request: pytest.FixtureRequest
) -> None:
    drop: Drop = request.getfixturevalue(store)

    error = at(drop, options=drop.wrong).error

    assert isinstance(error, expected), error
    assert not any(secret in str(error) for secret in drop.wrong.values() if secret != NOBODY)


class Denying(BaseHTTPRequestHandler):
    """An S3 that grants nothing."""

    def do_GET(self) -> None:
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 the name that it has there


def test_a_bucket_that_may_not_be_read_is_auth() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Denying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"key": "a", "secret": "b", "endpoint_url": f"http://127.0.0.1:{server.server_port}"}
        try:
            found = read("s3://drop/base", STREAM, options=options)
        finally:
            server.shutdown()

    assert isinstance(found.error, AuthError), found.error


def test_a_web_servers_folder_is_read_once(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a.csv.gz").write_bytes(packed("1,x"))
    (tmp_path / "b.csv.gz").write_bytes(packed("2,y"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            first = read(url, {"path": "*.csv.gz"})
            again = read(url, {"path": "*.csv.gz"}, first.state)
        finally:
            server.shutdown()

    assert first.error is None, first.error
    assert [row["id"] for row in first.rows] == [1, 2]
    assert again.rows == []


@pytest.mark.slow
def test_a_connection_that_is_lost_midway_is_transient_and_the_next_read_goes_on(sftp: Sftp) -> None:
    large = packed(*(f"{number},{os.urandom(40).hex()}" for number in range(60_000)))
    sftp.put("in/a.csv.gz", packed("1,x"), 1)
    sftp.put("in/b.csv.gz", large, 2)
    port = int(sftp.url.split(":")[2].split("/")[0])

    with dropping_after(("127.0.0.1", port), len(large) // 2) as cut:
        first = read(f"sftp://127.0.0.1:{cut}/base", STREAM, options=sftp.options)
    second = at(sftp, before=first)

    assert isinstance(first.error, TransientError), first.error
    assert [row["id"] for row in first.sealed_rows] == [1]
    assert second.error is None, second.error
    assert len(second.rows) == 60_000


def test_a_read_leaves_no_connection_that_a_later_one_would_find_dead(sftp: Sftp) -> None:
    sftp.put("in/a.csv.gz", packed("1,x"), 1)
    assert at(sftp).rows

    sftp.drop_connections()

    assert at(sftp).rows
